"""The DICOM picture against the standard's list of what it has to hold, and what must not leave the original."""

from __future__ import annotations

import io

import numpy as np
import pytest
from pydicom import Dataset, config, dcmread
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from app.errors import ImageError
from app.imaging.examples import draw
from app.imaging.radiograph import decode
from app.imaging.secondary_capture import secondary_capture
from tests.app.imaging.test_dicom import made, written

PERSONAL = {
    "PatientName": "Doe^Jane",
    "PatientID": "4711",
    "PatientBirthDate": "19700101",
    "PatientSex": "F",
    "PatientAge": "056Y",
    "StudyDate": "20260101",
    "AccessionNumber": "A4711",
    "ReferringPhysicianName": "Doe^John",
    "InstitutionName": "Doe Clinic",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.4711",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.4712",
    "Laterality": "L",
}
FULL = (
    *("StudyInstanceUID", "SeriesInstanceUID", "Modality", "ConversionType", "SOPClassUID", "SOPInstanceUID"),
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "PixelData", "ImageType"),
)
"""Type 1 of the modules of PS3.3 table A.8-1, and type 1C that holds here."""
THERE = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("AccessionNumber", "ReferringPhysicianName", "SeriesNumber", "InstanceNumber", "PatientOrientation"),
)
"""Type 2, which may be empty."""

PICTURE = np.random.default_rng(1).integers(0, 256, (41, 33, 3), np.uint8)


@pytest.fixture(scope="module")
def original() -> bytes:
    return written(made(draw("oblique", height=120, width=90), **PERSONAL))


def read(data: bytes) -> Dataset:
    """Strictly: a value that breaks the standard is an error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config.settings, "reading_validation_mode", config.RAISE)
        found = dcmread(io.BytesIO(data))
        for element in found.iterall():
            assert element.VR
    return found


@pytest.mark.parametrize("keep", [False, True])
def test_it_holds_what_the_standard_asks_for(original: bytes, keep: bool) -> None:
    found = read(secondary_capture(PICTURE, original, "Heatmap", keep_patient_tags=keep))
    assert all(found[name].value not in ("", None) for name in FULL)
    assert all(name in found for name in THERE)
    assert found.SOPClassUID == found.file_meta.MediaStorageSOPClassUID == SecondaryCaptureImageStorage
    assert found.SOPInstanceUID == found.file_meta.MediaStorageSOPInstanceUID
    assert found.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert all(uid.is_valid for uid in (found.StudyInstanceUID, found.SeriesInstanceUID, found.SOPInstanceUID))
    assert np.array_equal(found.pixel_array, PICTURE)
    assert found.Laterality == "L"
    assert decode(secondary_capture(PICTURE, original, "Heatmap")).pixels.shape == (41, 33)


def test_nobody_is_named_unless_it_is_asked_for(original: bytes) -> None:
    told = secondary_capture(PICTURE, original, "Heatmap")
    personal = [value for name, value in PERSONAL.items() if name != "Laterality"]
    assert not any(value.encode() in told for value in [*personal, "Doe", "4711"] if len(value) > 1)
    assert read(told).PatientSex == ""
    kept = read(secondary_capture(PICTURE, original, "Heatmap", keep_patient_tags=True))
    assert (kept.PatientName, kept.PatientID, kept.StudyDate) == ("Doe^Jane", "4711", "20260101")
    assert kept.StudyInstanceUID == PERSONAL["StudyInstanceUID"]
    assert kept.SourceImageSequence[0].ReferencedSOPInstanceUID == dcmread(io.BytesIO(original)).SOPInstanceUID
    assert kept.SeriesInstanceUID != PERSONAL["SeriesInstanceUID"]


def test_identifiers_belong_to_one_picture_of_one_file(original: bytes) -> None:
    other = written(made(draw("spiral", height=120, width=90), **PERSONAL))
    first, again = (secondary_capture(PICTURE, original, "Heatmap") for _ in range(2))
    assert first == again
    calls = [(PICTURE, original, "a"), (PICTURE, original, "b"), (255 - PICTURE, original, "a"), (PICTURE, other, "a")]
    found = [read(secondary_capture(*call)) for call in calls]
    assert len({each.SOPInstanceUID for each in found}) == 4
    assert len({each.StudyInstanceUID for each in found}) == 2


def test_a_damaged_original_names_nobody_and_breaks_nothing(original: bytes) -> None:
    for data in (b"", b"\0" * 400, original[:200], original[:-9], b"DICM" + bytes(99)):
        assert read(secondary_capture(PICTURE, data, "Heatmap")).PatientName == ""


def test_tags_that_cannot_be_written_are_a_sentence(original: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dcmread(io.BytesIO(original))
    broken.StudyInstanceUID = "1.2.3"
    broken.add_new("PatientBirthDate", "DA", "19700101")
    broken["PatientBirthDate"]._value = object()
    monkeypatch.setattr("app.imaging.secondary_capture.dcmread", lambda *_args, **_kwargs: broken)
    with pytest.raises(ImageError, match="break the standard"):
        secondary_capture(PICTURE, original, "Heatmap", keep_patient_tags=True)
