"""From bytes to the elements of a DICOM file that say how to show it, whether or not it starts as the standard wants.

PS3.10 7.1 wants a preamble, then a group that states how the rest is written. Some files lack either or both, or state
it wrongly, so the first elements themselves show how they are written. Nothing is kept of whom the picture shows:
names, dates and identifiers stay in the file's bytes.

pydicom turns a whole element into an exception where one of its numbers is none. Files say ``0,143``, ``AUTO`` or
nothing at all, mostly in elements that no picture needs, so ``number`` and its like read values from an element's
bytes: what cannot be read is absent, and never an error.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_fragments
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSTransferSyntaxes,
    RLELossless,
)
from pydicom.valuerep import VR

from app.errors import ImageError
from app.imaging.pixels import PNG, PNG_START, headers

__all__ = [
    "READ",
    "counted",
    "elements",
    "held",
    "is_dicom",
    "items",
    "lengths",
    "levels_of",
    "number",
    "numbers",
    "word",
]

INFLATED = 128 * 1024 * 1024
"""Most bytes that a deflated file may unfold to."""

FUNCTIONAL = {
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    "PixelValueTransformationSequence": ("RescaleIntercept", "RescaleSlope"),
    "PixelMeasuresSequence": ("PixelSpacing",),
}
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
TABLE = ("LUTDescriptor", "LUTData", "ModalityLUTType")
"""What is kept of a look-up table, whose explanation is free text."""
TABLES = ("VOILUTSequence", "ModalityLUTSequence")
FORM = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration")
BITS = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit")
SIZES = (
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "EstimatedRadiographicMagnificationFactor",
    "PixelAspectRatio",
)
SLICE = ("ImagePositionPatient", "ImageOrientationPatient", "InstanceNumber")
SHOWN = ("Modality", "ModalityLUTSequence", "RescaleType", "PresentationLUTShape", "BurnedInAnnotation")
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
READ = (
    *(*FORM, *BITS, *SIZES, *SLICE, *SHOWN, *PIXELS, *GROUPS),
    *(name for names in FUNCTIONAL.values() for name in names),
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in ("Red", "Green", "Blue")),
    *(f"{cut}{colour}PaletteColorLookupTableData" for cut in ("", "Segmented") for colour in ("Red", "Green", "Blue")),
)
"""All that is read of a file: how to show it, nothing of whom."""

META, LAST_FIRST = 0x0002, 0x0028
"""Groups: of the file itself, and the last one that a data set may start with."""
ENOUGH = 3
"""So many elements in a row are no accident."""
LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
"""Representations whose length takes four bytes, behind two that are reserved (PS3.5 7.1.2)."""
KNOWN = frozenset(each.value for each in VR if len(each.value) == 2)
UNDEFINED = 0xFFFFFFFF
ITEM = b"\xfe\xff\x00\xe0"
STREAMS = b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ", PNG_START
"""Starts of JPEG, of JPEG 2000, of the latter in a file of its own (ISO 15444-1, I.5.1), and of PNG."""
LOSSLESS, JPEG_LS, SIZE = 0xC3, 0xF7, 0x51
"""Markers of streams (ISO 10918-1, B.1.1.3; ISO 14495-1, C.1.1; ISO 15444-1, A.5.1)."""
SYNTAXES = {
    LOSSLESS: JPEGLossless,
    PNG: JPEGLossless,
    JPEG_LS: JPEGLSLossless,
    SIZE: JPEG2000Lossless,
    0xC1: JPEGExtended12Bit,
}
LEAST_STREAM = 64
"""Bytes of the shortest packed frame; the offset of an only one takes four."""
MOST_PARTS = 100_000
"""Of packed pixels, several for each picture that can be looked through; to read millions takes minutes."""
FAMILIES = (
    {JPEGBaseline8Bit, JPEGExtended12Bit},
    {JPEGLossless, JPEGLosslessSV1},
    set(JPEGLSTransferSyntaxes),
    set(JPEG2000TransferSyntaxes),
)
"""Syntaxes whose streams one decoder reads alike."""
GE_BIG = "1.2.840.113619.5.2"
"""A maker's own: elements are little endian, pixels big endian."""


def is_dicom(data: bytes) -> bool:
    """Whether bytes start as a DICOM file (PS3.10 7.1), or as a data set that lacks the start of one."""
    return b"DICM" in (data[128:132], data[:4]) or _written(data, 0, ENOUGH) is not None


def elements(data: bytes) -> tuple[Dataset, str, list[str]]:
    """The elements of a whole file that say how to show it, unconverted, and its series.

    Returns:
        A data set whose ``file_meta`` states how its pixels are packed and nothing else; the series' identifier, which
        identifies the patient, empty where there is none; sentences about what had to be guessed.

    Raises:
        ImageError: it unfolds to more than may be held.
    """
    notes: list[str] = []
    start = 132 if data[128:132] == b"DICM" else 4 if data[:4] == b"DICM" else 0
    declared, start = _meta(data, start)
    if declared == DeflatedExplicitVRLittleEndian or (not declared and _written(data, start) is None):
        data, start = _unfolded(data, start)
    implicit, little = _written(data, start) or (declared == "1.2.840.10008.1.2", declared != ExplicitVRBigEndian)
    wanted = [tag for name in (*READ, "SeriesInstanceUID") if (tag := tag_for_keyword(name)) is not None]
    file = io.BytesIO(data)
    file.seek(start)
    found = _read_on(file, data, implicit, little, wanted)
    series = word(found, "SeriesInstanceUID")
    dataset = _anonymous(found)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = _packing(dataset, declared, little and declared != GE_BIG, notes)
    dataset.file_meta = meta
    if not declared:
        notes.append("The file does not say how its pixels are packed; the pixels themselves show it.")
    return dataset, series, notes


def _read_on(file: io.BytesIO, data: bytes, implicit: bool, little: bool, wanted: Sequence[int]) -> Dataset:
    """The wanted elements up to the end, also past such as have a representation that the standard does not know."""
    found = Dataset()
    while True:
        part = read_dataset(
            file,
            implicit,
            little,
            specific_tags=list(wanted),
            stop_when=lambda _tag, kind, _length: not implicit and kind not in KNOWN,
        )
        for tag in part.keys():  # noqa: SIM118 - to iterate over the data set itself converts its values
            found[tag] = part.get_item(tag)
        at = file.tell()
        odd = _odd_element(data, at, little) if at + 8 <= len(data) else None
        if odd is None:
            return found
        if odd.tag in wanted:
            found[odd.tag] = odd
        file.seek(odd.value_tell + odd.length)


def _odd_element(data: bytes, at: int, little: bool) -> RawDataElement | None:
    """An element whose representation is no known one; its length is where another element follows."""
    order: Literal["little", "big"] = "little" if little else "big"

    def tag(start: int) -> int:
        return int.from_bytes(data[start : start + 2], order) << 16 | int.from_bytes(data[start + 2 : start + 4], order)

    for start, size in ((6, 2), (8, 4), (4, 4)):
        length, value = int.from_bytes(data[at + start : at + start + size], order), at + start + size
        end = value + length
        known = dictionary_has_tag(tag(end)) or data[end + 4 : end + 6].decode("latin-1") in KNOWN
        follows = tag(end) > tag(at) and known
        if end == len(data) or (end < len(data) and follows):
            kind = dictionary_VR(tag(at))[:2] if dictionary_has_tag(tag(at)) else "UN"
            return RawDataElement(BaseTag(tag(at)), kind, length, data[value:end], value, False, little)
    return None


def _written(data: bytes, start: int, enough: int = 1) -> tuple[bool, bool] | None:
    """Whether elements from a position on lack representations, and are little endian; None where none lies there."""
    for little in (True, False):
        for implicit in (False, True):
            if _runs(data, start, implicit, little, enough):
                return implicit, little
    return None


def _runs(data: bytes, at: int, implicit: bool, little: bool, enough: int) -> bool:
    """Whether so many elements follow one another from a position on, written in one way, in ascending order."""
    order = "little" if little else "big"
    last = 0
    for count in range(enough):
        group, tag = (int.from_bytes(data[at : at + 2], order), int.from_bytes(data[at + 2 : at + 4], order))
        whole, kind = group << 16 | tag, data[at + 4 : at + 6].decode("latin-1")
        # The group of the file itself is found in any order.
        if len(data) < at + 8 or (whole <= last and group != META) or (count == 0 and not 0 < group <= LAST_FIRST):
            return False
        if not (tag == 0 or group % 2 or dictionary_has_tag(whole)):
            return False
        last = whole
        if implicit:
            length, body = int.from_bytes(data[at + 4 : at + 8], order), at + 8
        elif kind not in KNOWN:
            return False
        elif kind in LONG:
            length, body = int.from_bytes(data[at + 8 : at + 12], order), at + 12
        else:
            length, body = int.from_bytes(data[at + 6 : at + 8], order), at + 8
        if length == UNDEFINED:
            return True
        at = body + length
        if at > len(data):
            return False
    return True


def _meta(data: bytes, start: int) -> tuple[str, int]:
    """The declared transfer syntax, empty where there is none, and where the data set starts."""
    written = _written(data, start)
    if written is None or int.from_bytes(data[start : start + 2], "little" if written[1] else "big") != META:
        return "", start
    file = io.BytesIO(data)
    file.seek(start)
    meta = read_dataset(file, *written, stop_when=lambda tag, _vr, _length: tag.group != META)
    return word(meta, "TransferSyntaxUID"), file.tell()


def _unfolded(data: bytes, start: int) -> tuple[bytes, int]:
    """A deflated data set, which pydicom would unfold whatever its size; the same bytes where it is not deflated."""
    for kind in (-zlib.MAX_WBITS, zlib.MAX_WBITS):  # as the standard has it, and wrapped as zlib does
        unfold = zlib.decompressobj(kind)
        with suppress(zlib.error):
            flat = unfold.decompress(data[start:], INFLATED)
            break
    else:
        return data, start
    if unfold.unconsumed_tail:
        raise ImageError(f"The file unfolds to more than {INFLATED // 2**20} MB.")
    return flat, 0


def _some(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """A copy of elements, unconverted; of a look-up table only what shows."""
    kept = Dataset()
    for name in names:
        element = held(dataset, name)
        if element is not None:
            kept[element.tag] = element
            if name in TABLES:
                setattr(kept, name, [_some(item, TABLE) for item in items(dataset, name)])
    return kept


def _anonymous(dataset: Dataset) -> Dataset:
    """The same data set without what sequences say beyond how to show the pixels."""
    kept = _some(dataset, READ)
    for name in GROUPS:
        groups = []
        for item in items(dataset, name):
            group = Dataset()
            for sequence, names in FUNCTIONAL.items():
                if first := items(item, sequence)[:1]:
                    setattr(group, sequence, [_some(first[0], names)])
            groups.append(group)
        if name in kept:
            setattr(kept, name, groups)
    return kept


def _packing(dataset: Dataset, declared: str, little: bool, notes: list[str]) -> UID:
    """The true transfer syntax of the pixels, whatever the file declares; puts each packed picture into an item."""
    native = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    pixels = held(dataset, "PixelData")
    if pixels is None or not isinstance(pixels.value, bytes):
        return native
    stated = UID(declared)
    packed = stated.is_transfer_syntax and not stated.is_private and stated.is_encapsulated
    undefined = getattr(pixels, "length", 0) == UNDEFINED
    if not undefined and not pixels.value.startswith(ITEM):
        if not pixels.value.startswith(STREAMS) or not headers(pixels.value):
            return native
        # A stream alone, without the items that hold its parts (PS3.5 A.4).
        frames = [pixels.value]
    elif not undefined and not packed:
        return native
    elif pixels.value.count(ITEM) > MOST_PARTS:
        raise ImageError("The DICOM file holds its picture in more parts than can be read.")
    else:
        frames = _frames(pixels.value, int(number(dataset, "NumberOfFrames") or 0))
    counted(dataset, len(frames), notes)
    dataset.PixelData = encapsulate(frames, has_bot=False) if frames else b""
    first = frames[0] if frames else b""
    if first.startswith(PNG_START):
        notes.append("The file packs its picture as PNG, which DICOM does not know; it is shown all the same.")
    return _of_stream(first, stated if packed else None)


def counted(dataset: Dataset, frames: int, notes: list[str]) -> None:
    """Corrects the number of pictures that a data set states; a note says so, unless there is the one it leaves out."""
    stated = int(number(dataset, "NumberOfFrames") or 0)
    if stated != frames and max(stated, frames) > 1:
        claim = f"says that it holds {stated} picture" if stated else "does not say how many pictures it holds"
        notes.append(f"The file {claim}{'s' * (stated > 1)}; it holds {frames}.")
    dataset.add_new("NumberOfFrames", "IS", frames)


def _frames(pixels: bytes, stated: int) -> list[bytes]:
    """Packed pictures, each whole: a start tells where one begins, as some files state offsets and numbers wrongly."""
    parts: list[bytes] = []
    # What pydicom raises on damaged items is not documented; the parts before them are kept.
    with suppress(Exception):
        for part in generate_fragments(pixels):
            parts.append(part)
    starts = [at for at, part in enumerate(parts) if part.startswith(STREAMS) or _is_runs(part)]
    if not starts:
        # The first part holds offsets, if it is no picture.
        parts = parts[1:] if len(parts) > 1 and len(parts[0]) < LEAST_STREAM else parts
        return parts if len(parts) == stated else [b"".join(parts)]
    return [b"".join(parts[start:end]) for start, end in itertools.pairwise([*starts, len(parts)])]


def _is_runs(part: bytes) -> bool:
    """Whether a packed picture starts as runs do: a header of 64 bytes, and they behind it (PS3.5 G.5)."""
    segments, first = (int.from_bytes(part[at : at + 4], "little") for at in (0, 4))
    return 0 < segments <= 15 and first == 64


def _of_stream(stream: bytes, stated: UID | None) -> UID:
    """The transfer syntax of a stream; the declared one where the stream does not contradict it."""
    # What looks like a header may lie by accident within runs.
    markers = {header.marker for header in headers(stream)} if stream.startswith(STREAMS) else set()
    if len(markers) == 1:
        found = SYNTAXES.get(markers.pop(), JPEGBaseline8Bit)
        return stated if stated is not None and any({stated, found} <= family for family in FAMILIES) else found
    return RLELossless if _is_runs(stream) else stated or JPEGBaseline8Bit


BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
OPAQUE = ("UN", "OB", "OW")
"""Representations that writers choose for want of a better one."""
NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?", re.ASCII)


def held(dataset: Dataset, name: str) -> RawDataElement | DataElement | None:
    """An element, unconverted; None where it is absent."""
    tag = tag_for_keyword(name)
    return dataset.get_item(tag) if tag is not None and tag in dataset else None


def numbers(dataset: Dataset, name: str) -> list[float]:
    """Every number of an element, NaN for each that cannot be read; empty for an absent element.

    A decimal comma counts as a point.
    """
    element = held(dataset, name)
    if element is None or element.value is None:
        return []
    value = element.value
    if not isinstance(value, bytes):
        several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        return [_read(str(each)) for each in several]
    kind = element.VR
    if kind is None or kind in OPAQUE:
        kind = dictionary_VR(element.tag)[:2]
    form = BINARY.get(kind)
    if form is not None and value and len(value) % struct.calcsize(form) == 0:
        order = "<" if getattr(element, "is_little_endian", True) else ">"
        return [float(each) for each in struct.unpack(f"{order}{len(value) // struct.calcsize(form)}{form}", value)]
    return [_read(each) for each in value.decode("latin-1").split("\\")]


def _read(text: str) -> float:
    text = text.strip(" \0\t\r\n")
    value = float(text.replace(",", ".")) if NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else math.nan


def number(dataset: Dataset, name: str) -> float | None:
    """The first number of an element; None where it is absent or unreadable."""
    found = numbers(dataset, name)
    return found[0] if found and math.isfinite(found[0]) else None


def lengths(dataset: Dataset, name: str) -> tuple[float, float] | None:
    """Two positive numbers, such as the height and width of a pixel; None where the file has none."""
    found = numbers(dataset, name)
    return (found[0], found[1]) if len(found) >= 2 and all(each > 0 for each in found[:2]) else None


def word(dataset: Dataset, name: str) -> str:
    """The first word of an element without padding; empty where it is absent."""
    element = held(dataset, name)
    value = None if element is None else element.value
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        value = next(iter(value), None)
    return "" if value is None else str(value).split("\\")[0].strip(" \0\t\r\n")


def items(dataset: Dataset, name: str) -> list[Dataset]:
    """The items of a sequence; none where it is absent or no sequence."""
    if held(dataset, name) is None:
        return []
    try:
        return list(dataset[name].value or ())
    except Exception:  # noqa: BLE001 - what pydicom raises on damaged sequences is not documented
        return []


def levels_of(dataset: Dataset, index: int) -> list[Dataset]:
    """Where a frame's elements stand, in the order in which they count: its own group, the shared one, the file."""
    levels = []
    for name, which in ((GROUPS[1], index), (GROUPS[0], 0)):
        groups = items(dataset, name)
        if which < len(groups):
            level = Dataset()
            for sequence in FUNCTIONAL:
                for item in items(groups[which], sequence)[:1]:
                    for tag in item:
                        level[tag.tag] = item.get_item(tag.tag)
            levels.append(level)
    return [*levels, dataset]
