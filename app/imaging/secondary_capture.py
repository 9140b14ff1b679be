"""A picture drawn from a DICOM file, as a DICOM file: a Secondary Capture, which any viewer opens beside the original.

What names a person stays behind unless it is asked for. Identifiers are new, and the same for the same picture of the
same file, so that sending it twice does not double it in an archive.
"""

from __future__ import annotations

import hashlib
import io

import numpy as np
from pydicom import Dataset, FileMetaDataset, dcmread, dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from app.errors import ImageError

__all__ = ["PATIENT", "secondary_capture"]

EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""What has to be there and may be empty (PS3.3 C.7.1.1 and C.7.2.1, type 2)."""

PATIENT = (*EMPTY, "IssuerOfPatientID", "PatientAge", "StudyDescription", "SpecificCharacterSet")
"""What is taken over with the patient's tags, beside the identifiers of study and image."""

LATERAL = ("Laterality", "ImageLaterality")
SIDES = ("R", "L", "U", "B")
"""Values of both (PS3.3 C.7.3.1.1.2 and C.8.11.1): they name a side, and nobody."""


def secondary_capture(
    picture: np.ndarray, original: bytes, description: str, *, keep_patient_tags: bool = False
) -> bytes:
    """A picture as a DICOM file of the Secondary Capture Image IOD (PS3.3 A.8.1).

    Args:
        picture: RGB uint8 (H, W, 3), at most 65,535 pixels each way.
        original: the DICOM file it was drawn from.
        description: what it shows; at most 64 letters, and no name.
        keep_patient_tags: take over who the patient is, and put the picture into the original's study.

    Raises:
        ImageError: the patient's tags are to be kept, and cannot be read or written.
    """
    try:
        known = dcmread(io.BytesIO(original), stop_before_pixels=True, force=True)
    except Exception:  # noqa: BLE001 - what pydicom raises on damaged files is not documented
        known = Dataset()
    entropy = [hashlib.sha256(original).hexdigest(), hashlib.sha256(picture.tobytes()).hexdigest(), description]
    made = _about(picture, description, entropy)
    for name in LATERAL:
        if (side := _word(known, name)) in SIDES:
            setattr(made, name, side)
    if _word(known, "LossyImageCompression") == "01":
        made.LossyImageCompression = "01"
    try:
        if keep_patient_tags:
            _keep(made, known)
        return _written(made)
    except Exception:  # noqa: BLE001 - values that break the standard raise whatever they meet first
        raise ImageError("The patient's tags of this file break the standard and cannot be written.") from None


def _about(picture: np.ndarray, description: str, entropy: list[str]) -> Dataset:
    made = Dataset()
    for name in EMPTY:
        setattr(made, name, "")
    made.StudyInstanceUID = generate_uid(entropy_srcs=["study", entropy[0]])
    made.SeriesInstanceUID = generate_uid(entropy_srcs=["series", entropy[0]])
    made.SeriesNumber = made.InstanceNumber = 1
    made.SOPClassUID = SecondaryCaptureImageStorage
    made.SOPInstanceUID = generate_uid(entropy_srcs=["image", *entropy])
    made.Modality = "OT"
    made.ConversionType = "WSD"
    made.Manufacturer = "fracture-explained"
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.PatientOrientation = ""
    made.SeriesDescription = "For study, not for diagnosis"
    made.DerivationDescription = description
    made.SamplesPerPixel = 3
    made.PhotometricInterpretation = "RGB"
    made.PlanarConfiguration = 0
    made.Rows, made.Columns = picture.shape[:2]
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit = 7
    made.PixelRepresentation = 0
    data = np.ascontiguousarray(picture).tobytes()
    made.PixelData = data + b"\0" * (len(data) % 2)
    return made


def _word(known: Dataset, name: str) -> str:
    try:
        return str(known.get(name) or "")
    except Exception:  # noqa: BLE001 - pydicom converts values late, and raises what it likes
        return ""


def _keep(made: Dataset, known: Dataset) -> None:
    for name in PATIENT:
        if name in known:
            made[name] = known[name]
    if study := _word(known, "StudyInstanceUID"):
        made.StudyInstanceUID = UID(study)
    source, kind = _word(known, "SOPInstanceUID"), _word(known, "SOPClassUID")
    if source and kind:
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = kind, source
        made.SourceImageSequence = [reference]


def _written(made: Dataset) -> bytes:
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = io.BytesIO()
    dcmwrite(file, made, enforce_file_format=True)
    return file.getvalue()
