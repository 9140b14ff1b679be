"""DICOM files as pictures, one frame at a time: X-rays, and whatever else a hospital stores.

``dicom_read`` reads a file, ``dicom_pixels`` decodes it and ``dicom_display`` shows it; this module holds what a file
says of itself, and what the user should know of it.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import numpy as np
from pydicom import Dataset

from app.errors import ImageError
from app.imaging.dicom_display import show
from app.imaging.dicom_pixels import PixelFormat, decode_pixels, pixel_format
from app.imaging.dicom_read import elements, is_dicom, lengths, levels_of, number, numbers, word

__all__ = ["CT_WINDOWS", "OTHERS", "RADIOGRAPHS", "TRAINED_ON", "DicomFile", "is_dicom", "parse", "trained_on"]

RADIOGRAPHS = frozenset({"CR", "DX", "RF", "XA", "MG", "PX", "IO", "RG"})
"""Modalities of projection radiography (PS3.3 C.7.3.1.1.1)."""
TRAINED_ON = RADIOGRAPHS | {"", "OT", "SC"}
"""Modalities of which pictures are or may be radiographs; empty where unknown."""

OTHERS = {
    "CT": "a CT slice",
    "MR": "an MR slice",
    "US": "an ultrasound picture",
    "NM": "a nuclear medicine picture",
    "PT": "a PET slice",
    "RTDOSE": "a map of radiation dose",
    "SEG": "a segmentation",
}

# Both quote odd values of a file, which may be a name or a date.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", module="pydicom")

CT_WINDOWS: dict[str, tuple[float, float]] = {
    "Bone": (500.0, 2000.0),
    "Soft tissue": (40.0, 400.0),
    "Lung": (-600.0, 1500.0),
    "Brain": (40.0, 80.0),
}
"""Usual centres and widths in Hounsfield units."""

SALT = os.urandom(32)
COLOURED = 12_000_000
"""Most pixels of a picture in colour, which takes several times as much memory to decode and is no radiograph."""


@dataclass(frozen=True, eq=False)
class DicomFile:
    """A parsed file whose frames can be shown.

    Attributes:
        modality: as in the file, empty where it names none.
        frames: their number, at least 1.
        rows, columns: of a frame, in pixels.
        spacing: height and width of a pixel in mm; None where unknown.
        aspect: height of a pixel, in widths of it.
        notes: sentences about the file for the user.
        position: along the slices' normal in mm, else the instance's number; to put a series in order.
        series: a keyed hash, the same for files of one series as long as this process lives.
    """

    modality: str
    frames: int
    rows: int
    columns: int
    spacing: tuple[float, float] | None
    aspect: float
    notes: tuple[str, ...]
    position: float
    series: str
    _dataset: Dataset = field(repr=False)
    _format: PixelFormat = field(repr=False)

    @property
    def windows(self) -> tuple[str, ...]:
        """Names of the windows to choose from beside the file's own."""
        return tuple(CT_WINDOWS) if self.modality == "CT" else ()

    def without_pixels(self) -> DicomFile:
        """The same file, with no frame left to show."""
        return replace(self, _dataset=Dataset())

    def frame(self, index: int = 0, window: str | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
        """One frame as a screen shows it.

        Args:
            index: of the frame, from 0.
            window: one of ``windows``; the file's own where absent.

        Returns:
            uint16 (rows, columns), 0 black and 65535 white, and sentences for the user about how it is shown.

        Raises:
            ImageError: no such frame, or it cannot be decoded.
            KeyError: unknown window.
        """
        if not 0 <= index < self.frames:
            several = "s" * (self.frames > 1)
            raise ImageError(f"The file holds {self.frames} picture{several}; there is no number {index + 1}.")
        chosen = None if window is None else CT_WINDOWS[window]
        notes: list[str] = []
        with _damaged():
            stored = decode_pixels(self._dataset, self._format, index, notes)
            shown = show(stored, self._dataset, index, self._format.photometric, chosen, notes)
            shown.reshape(-1)[shown.size - stored.short :] = 0
        return shown, tuple(notes)


@contextmanager
def _damaged() -> Generator[None]:
    """Turns every exception into one sentence: what decoders raise on damaged files is not documented."""
    try:
        yield
    except (ImageError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException:  # noqa: BLE001 - the decoder of RLE is Rust, whose panics are no Exception
        raise ImageError("The DICOM file is damaged, incomplete or of a kind that cannot be decoded here.") from None


def parse(data: bytes) -> DicomFile:
    """Reads how a file's frames are to be shown; decodes no pixel yet.

    Args:
        data: a whole file, preamble included.

    Raises:
        ImageError: no DICOM, no picture in it, damaged, or larger than may be unfolded.
    """
    with _damaged():
        dataset, uid, notes = elements(data)
        series = blake2b(uid.encode(), key=SALT, digest_size=16).hexdigest() if uid else ""
        form = pixel_format(dataset, notes)
        if form.samples > 1 and form.rows * form.columns > COLOURED:
            raise ImageError(f"The picture is in colour; at most {COLOURED // 1_000_000} megapixels can be read so.")
        modality = word(dataset, "Modality").upper()
        spacing, at_detector = _spacing(dataset)
        high, wide = spacing or lengths(dataset, "PixelAspectRatio") or (1.0, 1.0)
        return DicomFile(
            modality=modality,
            frames=form.frames,
            rows=form.rows,
            columns=form.columns,
            spacing=spacing,
            aspect=high / wide,
            notes=(*_notes(dataset, modality, at_detector), *notes),
            position=_position(dataset),
            series=series,
            _dataset=dataset,
            _format=form,
        )


def trained_on(modality: str) -> bool:
    """Whether pictures of a modality, empty where unknown, are or may be radiographs."""
    return modality in TRAINED_ON


def _notes(dataset: Dataset, modality: str, at_detector: bool) -> list[str]:
    notes = []
    if not trained_on(modality):
        notes.append(f"This is {OTHERS.get(modality, 'no radiograph')}; the model was trained on radiographs only.")
    if word(dataset, "BurnedInAnnotation").upper() == "YES":
        notes.append("The file says that text is burned into the picture; it may name a person.")
    if at_detector:
        notes.append(
            "Its scale is that of the detector or film; the bone lay nearer the tube and is smaller than it measures."
        )
    return notes


def _position(dataset: Dataset) -> float:
    position, orientation = numbers(dataset, "ImagePositionPatient"), numbers(dataset, "ImageOrientationPatient")
    if len(position) >= 3 and len(orientation) >= 6 and np.isfinite([*position[:3], *orientation[:6]]).all():
        return float(np.dot(np.cross(orientation[:3], orientation[3:6]), position[:3]))
    return number(dataset, "InstanceNumber") or 0.0


def _magnified(dataset: Dataset) -> float | None:
    """How many times larger than the patient the picture is on the detector; None where unknown."""
    found = number(dataset, "EstimatedRadiographicMagnificationFactor")
    return found if found is not None and found >= 1.0 else None


def _spacing(dataset: Dataset) -> tuple[tuple[float, float] | None, bool]:
    """Height and width of a pixel in mm, and whether they are those at the detector or film, where bones look larger.

    Lengths in the patient come first (PS3.3 10.7.1.3 and C.8.7.10); those that equal the detector's are the detector's,
    copied without a calibration.
    """
    in_patient = next((found for level in levels_of(dataset, 0) if (found := lengths(level, "PixelSpacing"))), None)
    at_detector = lengths(dataset, "ImagerPixelSpacing") or lengths(dataset, "NominalScannedPixelSpacing")
    if at_detector is None or in_patient not in (None, at_detector):
        return in_patient, False
    factor = _magnified(dataset)
    return (at_detector[0] / (factor or 1.0), at_detector[1] / (factor or 1.0)), factor is None
