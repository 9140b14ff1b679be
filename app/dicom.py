"""DICOM files as films: X-ray, and whatever else a hospital stores, one frame at a time.

Only elements that say how pixels are to be shown are kept of a file, inside sequences too; names, dates and identifiers
stay in its bytes. Decoding is pydicom's with pylibjpeg; windows are computed here, so that other ones can be asked for.
"""

from __future__ import annotations

import io
import logging
import os
import warnings
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import cv2
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array
from pydicom.pixels.processing import apply_voi
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless

from app.colour import IN_COLOUR, count_coloured, is_coloured
from app.errors import FilmError
from app.streams import shapes
from app.strips import strips

__all__ = ["CT_WINDOWS", "RADIOGRAPHS", "DicomFile", "is_dicom", "parse", "trained_on"]

RADIOGRAPHS = {
    "CR": "computed radiograph",
    "DX": "digital radiograph",
    "RF": "fluoroscopy",
    "XA": "angiography",
    "MG": "mammogram",
    "PX": "panoramic radiograph",
    "IO": "dental radiograph",
    "RG": "radiograph",
}
"""Modalities that X-rays make as projections (PS3.3 C.7.3.1.1.1)."""

OTHERS = {
    "CT": "a CT slice",
    "MR": "an MR slice",
    "US": "an ultrasound picture",
    "NM": "a nuclear medicine picture",
    "PT": "a PET slice",
    "RTDOSE": "a map of radiation dose",
    "SEG": "a segmentation",
}

# Both quote values of the file where they are odd, which may be a name or a date.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", module="pydicom")

CT_WINDOWS: dict[str, tuple[float, float]] = {
    "Bone": (500.0, 2000.0),
    "Soft tissue": (40.0, 400.0),
    "Lung": (-600.0, 1500.0),
    "Brain": (40.0, 80.0),
}
"""Usual centres and widths in Hounsfield units."""

DEEP = 65535.0
SALT = os.urandom(32)
SAMPLE = 1_000_000
"""About how many pixels tell the percentiles of a film."""
ODD = (0.1, 99.9)
"""Percentiles outside of which pixels are left to saturate, where they alone would make the rest of a film dark."""
COLOURED = 12_000_000
"""Most pixels of a picture in colour, which takes decoders several times as much memory and is no radiograph."""
INFLATED = 128 * 1024 * 1024
"""Most bytes a deflated file may unfold to."""

READ = (
    "Modality",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "EstimatedRadiographicMagnificationFactor",
    "PixelAspectRatio",
    "PixelPaddingValue",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
    "ModalityLUTSequence",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "PresentationLUTShape",
    "BurnedInAnnotation",
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "InstanceNumber",
    "FloatPixelData",
    "DoubleFloatPixelData",
    "PixelData",
)
"""All that is read of a file: how to show it, nothing of whom."""

FUNCTIONAL = {
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction"),
    "PixelValueTransformationSequence": ("RescaleIntercept", "RescaleSlope"),
    "PixelMeasuresSequence": ("PixelSpacing",),
}
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
TABLE = ("LUTDescriptor", "LUTData", "ModalityLUTType")
"""What is kept of a look-up table, whose explanation is free text."""


def is_dicom(data: bytes) -> bool:
    """Whether bytes start as a DICOM file does (PS3.10 7.1)."""
    return data[128:132] == b"DICM"


@dataclass(frozen=True, eq=False)
class DicomFile:
    """A parsed file whose frames can be shown.

    Attributes:
        modality: as in the file, empty where it tells none.
        frames: their number, at least 1.
        rows, columns: of a frame, in pixels.
        spacing: height and width of a pixel in mm; None where the file does not tell.
        notes: sentences about the file for the user to see.
        place: position along the slices' normal in mm, else the instance's number; to put a series in order.
        series: the same for files of one series, as long as this process lives; tells nothing else.
    """

    modality: str
    frames: int
    rows: int
    columns: int
    spacing: tuple[float, float] | None
    notes: tuple[str, ...]
    place: float
    series: str
    _dataset: Dataset = field(repr=False)

    @property
    def windows(self) -> tuple[str, ...]:
        """Names of the windows that can be asked for beside the file's own."""
        return tuple(CT_WINDOWS) if self.modality == "CT" else ()

    def without_pixels(self) -> DicomFile:
        """What the file says of itself, with no frame left to show."""
        return replace(self, _dataset=Dataset())

    def frame(self, index: int = 0, window: str | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
        """One frame as a screen shows it.

        Args:
            index: of the frame, from 0.
            window: one of ``windows``; the file's own where absent.

        Returns:
            uint16 (rows, columns), 0 black and 65535 white, and sentences about what had to be done to it.

        Raises:
            FilmError: no such frame, or it cannot be decoded.
            KeyError: unknown window.
        """
        if not 0 <= index < self.frames:
            raise FilmError(f"The file holds {self.frames} pictures; there is no number {index + 1}.")
        chosen = None if window is None else CT_WINDOWS[window]
        notes: list[str] = []
        with _damaged():
            if not _sizes_agree(self, index):
                raise FilmError("The DICOM file tells one size of its picture and holds another.")
            stored = pixel_array(self._dataset, index=index)
            shown = _shown(stored, _of_frame(self._dataset, index), chosen, notes)
        return shown, tuple(notes)


@contextmanager
def _damaged() -> Generator[None]:
    """What is raised inside becomes one sentence: what decoders raise on damaged files is not documented."""
    try:
        yield
    except (FilmError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException:  # noqa: BLE001 - the decoder of RLE is Rust, whose panics are no Exception
        raise FilmError("The DICOM file is damaged, incomplete or of a kind that cannot be decoded here.") from None


def parse(data: bytes) -> DicomFile:
    """Reads how a file's pictures are to be shown; no pixel is decoded yet.

    Args:
        data: a whole file, preamble included.

    Raises:
        FilmError: no DICOM, no picture in it, damaged, or larger than may be unfolded.
    """
    with _damaged():
        dataset = _read(data)
        uid = str(dataset.get("SeriesInstanceUID") or "")
        series = blake2b(uid.encode(), key=SALT, digest_size=16).hexdigest() if uid else ""
        dataset = _anonymous(dataset)
        if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
            raise FilmError("This DICOM file holds no picture.")
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        frames = int(dataset.get("NumberOfFrames") or 1)
        if frames < 1 or rows < 1 or columns < 1:
            raise FilmError("This DICOM file holds no picture.")
        if int(dataset.get("SamplesPerPixel") or 1) > 1 and rows * columns > COLOURED:
            raise FilmError(f"The picture is in colour; at most {COLOURED // 1_000_000} megapixels can be read so.")
        modality = str(dataset.get("Modality") or "")
        return DicomFile(
            modality=modality,
            frames=frames,
            rows=rows,
            columns=columns,
            spacing=_spacing(_of_frame(dataset, 0)),
            notes=tuple(_notes(dataset, modality)),
            place=_place(dataset),
            series=series,
            _dataset=dataset,
        )


def _sizes_agree(file: DicomFile, index: int) -> bool:
    """Whether a packed frame has the rows, columns and colours that the file tells; plain pixels and runs tell none."""
    dataset = file._dataset
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed or syntax == RLELossless:
        return True
    frame = get_frame(
        dataset.PixelData,
        index,
        number_of_frames=file.frames,
        extended_offsets=(dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
        if "ExtendedOffsetTable" in dataset
        else None,
    )
    return shapes(frame) == {(file.rows, file.columns, int(dataset.SamplesPerPixel))}


def _some(dataset: Dataset, names: Sequence[str]) -> Dataset:
    kept = Dataset()
    for name in names:
        if name in dataset:
            kept[name] = dataset[name]
    return kept


def _anonymous(dataset: Dataset) -> Dataset:
    """The same without what sequences and the file's own group say beyond how to show the pixels."""
    for name in ("VOILUTSequence", "ModalityLUTSequence"):
        if dataset.get(name):
            setattr(dataset, name, [_some(item, TABLE) for item in dataset[name]])
    for name in GROUPS:
        if dataset.get(name):
            groups = []
            for item in dataset[name]:
                group = Dataset()
                for sequence, names in FUNCTIONAL.items():
                    if item.get(sequence):
                        setattr(group, sequence, [_some(item[sequence][0], names)])
                groups.append(group)
            setattr(dataset, name, groups)
    dataset.pop("SeriesInstanceUID", None)
    meta = FileMetaDataset()
    if "TransferSyntaxUID" in dataset.file_meta:
        meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    dataset.file_meta = meta
    return dataset


def _read(data: bytes) -> Dataset:
    file = io.BytesIO(data)
    file.seek(132)
    meta = read_dataset(
        file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, _vr, _length: tag.group != 2
    )
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return dcmread(io.BytesIO(data), specific_tags=[*READ, "SeriesInstanceUID"])
    # pydicom would unfold whatever it is given.
    unfold = zlib.decompressobj(-zlib.MAX_WBITS)
    flat = unfold.decompress(data[file.tell() :], INFLATED)
    if unfold.unconsumed_tail:
        raise FilmError(f"The file unfolds to more than {INFLATED // 2**20} MB.")
    wanted = [tag for name in (*READ, "SeriesInstanceUID") if (tag := tag_for_keyword(name)) is not None]
    dataset = read_dataset(io.BytesIO(flat), is_implicit_VR=False, is_little_endian=True, specific_tags=wanted)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta  # ty: ignore[invalid-assignment]
    return dataset


def trained_on(modality: str) -> bool:
    """Whether pictures of a modality are, or may be, radiographs; empty where it is not told."""
    return modality in RADIOGRAPHS or modality in ("", "OT", "SC")


def _notes(dataset: Dataset, modality: str) -> list[str]:
    notes = []
    if not trained_on(modality):
        notes.append(f"This is {OTHERS.get(modality, 'no radiograph')}; the model was trained on radiographs only.")
    if str(dataset.get("BurnedInAnnotation") or "").upper() == "YES":
        notes.append("The file says that text is burned into the picture; it may name a person.")
    first = _of_frame(dataset, 0)
    high, wide = _spacing(first) or _aspect(dataset)
    if _at_detector(first) and _magnified(first) is None:
        notes.append("Its scale is that of the detector; the bone lay nearer the tube and is smaller than it measures.")
    if not 0.98 < high / wide < 1.02:
        notes.append("Its pixels are not square; it is shown pixel by pixel, so what is on it looks stretched.")
    return notes


def _aspect(dataset: Dataset) -> tuple[float, float]:
    """Height and width of a pixel to one another (PS3.3 C.7.6.3.1.7)."""
    found = _numbers(dataset.get("PixelAspectRatio"))
    return (found[0], found[1]) if len(found) == 2 and min(found) > 0 else (1.0, 1.0)


def _place(dataset: Dataset) -> float:
    position, orientation = dataset.get("ImagePositionPatient"), dataset.get("ImageOrientationPatient")
    if position and orientation and len(position) == 3 and len(orientation) == 6:
        across, down = np.array(orientation[:3], float), np.array(orientation[3:], float)
        return float(np.dot(np.cross(across, down), np.array(position, float)))
    return float(dataset.get("InstanceNumber") or 0)


def _of_frame(dataset: Dataset, index: int) -> Dataset:
    """The elements that say how to show one frame, those of enhanced multi-frame files lifted out of their groups."""
    groups = []
    for name, which in zip(GROUPS, (0, index), strict=True):
        sequence = dataset.get(name)
        if sequence and which < len(sequence):
            groups.append(sequence[which])
    if not groups:
        return dataset
    shown = Dataset()
    for element in dataset:
        if element.VR != "SQ" or element.keyword.endswith("LUTSequence"):
            shown[element.tag] = element
    for group in groups:
        for sequence, names in FUNCTIONAL.items():
            for name in names:
                if group.get(sequence) and name in group[sequence][0]:
                    shown[name] = group[sequence][0][name]
    return shown


def _lengths(dataset: Dataset, name: str) -> tuple[float, float] | None:
    found = _numbers(dataset.get(name))
    return (found[0], found[1]) if len(found) == 2 and np.isfinite(found).all() and min(found) > 0 else None


def _magnified(dataset: Dataset) -> float | None:
    """How many times larger than the patient the picture is on the detector; None where nobody tells."""
    found = _numbers(dataset.get("EstimatedRadiographicMagnificationFactor"))
    return found[0] if found and np.isfinite(found[0]) and found[0] >= 1.0 else None


def _at_detector(dataset: Dataset) -> tuple[float, float] | None:
    """Height and width of a pixel on the detector, in mm, where bones look larger; None where the patient's are known.

    Lengths in the patient that equal the detector's are the detector's, copied without a calibration.
    """
    found = _lengths(dataset, "ImagerPixelSpacing")
    return found if _lengths(dataset, "PixelSpacing") in (None, found) else None


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    """Height and width of a pixel in mm: in the patient, else at the detector (PS3.3 10.7.1.3 and C.8.7.10)."""
    at_detector = _at_detector(dataset)
    if at_detector is None:
        return _lengths(dataset, "PixelSpacing")
    factor = _magnified(dataset) or 1.0
    return at_detector[0] / factor, at_detector[1] / factor


def _shown(stored: np.ndarray, dataset: Dataset, window: tuple[float, float] | None, notes: list[str]) -> np.ndarray:
    """Stored values, (rows, columns) or (rows, columns, 3), to what a screen shows: uint16 (rows, columns)."""
    shown = np.empty(stored.shape[:2], np.uint16)
    if stored.ndim == 3 or _photometric(dataset) == "PALETTE COLOR":
        coloured = 0
        for rows in strips(*shown.shape):
            colours = _colours(stored[rows], dataset)
            coloured += count_coloured(colours, 1.0)
            shown[rows] = _deep(cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY))
        if is_coloured(coloured, shown.size):
            notes.append(IN_COLOUR)
        return shown
    tone = _tone(stored, dataset, window, notes)
    inverse = _photometric(dataset) == "MONOCHROME1" or str(dataset.get("PresentationLUTShape") or "").upper() == (
        "INVERSE"
    )
    for rows in strips(*shown.shape):
        bright = tone(_values(stored[rows], dataset))
        shown[rows] = _deep(1.0 - bright if inverse else bright)
    return shown


def _photometric(dataset: Dataset) -> str:
    return str(dataset.get("PhotometricInterpretation") or "")


def _deep(bright: np.ndarray) -> np.ndarray:
    return np.round(np.clip(bright, 0.0, 1.0) * DEEP).astype(np.uint16)


def _colours(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """float32 (rows, columns, 3) in 0..1."""
    if _photometric(dataset) == "PALETTE COLOR":
        looked_up = apply_color_lut(stored, dataset)
        return looked_up.astype(np.float32) / float(np.iinfo(looked_up.dtype).max)
    return stored.astype(np.float32) / (2.0 ** int(dataset.BitsStored) - 1)


def _values(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """What stored values stand for, such as Hounsfield units: float64 of the same shape."""
    values = apply_modality_lut(stored, dataset).astype(np.float64)
    if not np.isfinite(values).all():
        raise FilmError("The picture holds pixels without a value, so it cannot be shown truthfully.")
    return values


def _limits(stored: np.ndarray, dataset: Dataset) -> tuple[float, float]:
    """The values to show as black and as white where the file names no window."""
    padding = dataset.get("PixelPaddingValue")
    if padding is not None and (stored == padding).all():
        padding = None
    low, high, sample = np.inf, -np.inf, []
    for rows in strips(*stored.shape):
        values = _values(stored[rows], dataset)
        real = values.ravel() if padding is None else values[stored[rows] != padding]
        if real.size:
            low, high = min(low, float(real.min())), max(high, float(real.max()))
            sample.append(real[:: 1 + stored.size // SAMPLE])
    most = np.percentile(np.concatenate(sample), ODD)
    if most[1] - most[0] < (high - low) / 4:
        return float(most[0]), float(most[1])
    return low, high


def _tone(
    stored: np.ndarray, dataset: Dataset, window: tuple[float, float] | None, notes: list[str]
) -> Callable[[np.ndarray], np.ndarray]:
    """What makes brightness, mostly 0 to 1, of values (PS3.3 C.11.2)."""
    if window is None and dataset.get("VOILUTSequence"):
        white = 2.0 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1
        return lambda values: apply_voi(values.astype(np.int64), dataset).astype(np.float64) / white
    function = "LINEAR"
    if window is None:
        centres, widths = (_numbers(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
        if centres and widths:
            window = centres[0], widths[0]
            function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if window is None or window[1] < (1 if function == "LINEAR" else 1e-9):
        notes.append("The file names no window; the darkest and brightest values are shown as black and white.")
        low, high = _limits(stored, dataset)
        return lambda values: (values - low) / max(high - low, 1e-12)
    centre, width = window
    if function == "SIGMOID":
        return lambda values: 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -60.0, 60.0)))
    if function == "LINEAR_EXACT":
        return lambda values: np.clip((values - centre) / width + 0.5, 0.0, 1.0)
    if width == 1:
        return lambda values: (values > centre - 0.5).astype(np.float64)
    return lambda values: np.clip((values - (centre - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0)


def _numbers(value: object) -> list[float]:
    if value is None or value == "":
        return []
    several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return [float(each) for each in several]  # ty: ignore[invalid-argument-type]
