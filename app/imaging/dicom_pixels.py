"""The pixels of a DICOM file: how they are stored, stated or derived, and their decoding (PS3.3 C.7.6.3, PS3.5 8).

pydicom decodes with pylibjpeg, named for each call, as pydicom would take whichever decoder is installed. Lossless JPEG
is the exception: differences count round the end of their range (ISO 10918-1, H.1.2.1), and pylibjpeg-libjpeg 2.5.0
shows noise where a maker's encoder lets them run over, as some of ultrasound do, and says nothing. libjpeg-turbo, which
Pillow brings, decodes grey pictures of 8 bits; GDCM 3.2.6 decodes all, but a damaged picture may crash its process, so
it works in one of its own.
"""

from __future__ import annotations

import difflib
import io
import json
import math
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import convert_color_space, get_decoder
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
    RLELossless,
)

from app.errors import ImageError
from app.imaging.dicom_read import counted, held, number, numbers, word
from app.imaging.pixels import PNG, Stored, StreamHeader, headers, shows_sign

__all__ = ["MONOCHROME", "PALETTES", "PixelFormat", "decode_lossless", "decode_pixels", "pixel_format"]

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
GREY = (*MONOCHROME, "PALETTE COLOR")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")
PHOTOMETRIC = {re.sub(r"[^A-Z0-9]", "", name): name for name in (*GREY, *COLOUR)}
FLOATS = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}
PALETTES = tuple(
    f"{cut}{colour}PaletteColorLookupTableData" for cut in ("", "Segmented") for colour in ("Red", "Green", "Blue")
)
"""Elements that hold colours, those written out first."""
ALLOCATED = (1, 8, 16, 32)
SCAN = re.compile(rb"(\xff\xda\0(?:\x08\x01.{2}|\x0c\x03.{6}))\0\0", re.DOTALL)
"""Header of a scan that ends at its first coefficient, where a sequential one has 63 (ISO 10918-1, B.2.3)."""
SEQUENTIAL = (0xC0, 0xC1)
MOST_LACKING = 0.02
"""Share of a plain picture that may lack at its end."""

DAMAGED = "The DICOM file is damaged or incomplete, so its picture cannot be decoded."
BITS = range(2, 17)
"""Of a value of lossless JPEG, by the standard."""
PATIENCE = 60.0
"""Seconds for GDCM, many times what the largest picture takes."""


@dataclass(frozen=True)
class PixelFormat:
    """How a file's pixels are stored; every value is usable, stated by the file or not.

    Attributes:
        keyword: of the element that holds them.
        syntax: how they are packed.
        rows, columns, frames, samples: number of each; samples are values a pixel.
        allocated, stored, high: bits of a value, the number of used ones, and the highest used one, from 0.
        signed: whether values are in two's complement; None where the values themselves must show it.
        photometric: interpretation that the file means, as the standard spells it.
        encoded: interpretation of what decoders meet, another one where a file calls three values a pixel grey.
        planar: 1 where a frame holds one colour after another.
        short: pixels at the end of the last frame that the file lacks.
    """

    keyword: str
    syntax: UID
    rows: int
    columns: int
    frames: int
    samples: int
    allocated: int
    stored: int
    high: int
    signed: bool | None
    photometric: str
    encoded: str
    planar: int
    short: int = 0

    @property
    def words(self) -> bool:
        """Whether decoders give whole words, unused bits included."""
        return self.keyword == "PixelData" and not _closed(self.syntax)


def _closed(syntax: UID) -> bool:
    """Whether a packed picture tells itself how many bits a value has."""
    return syntax in JPEG2000TransferSyntaxes or syntax in JPEGLSTransferSyntaxes


def pixel_format(dataset: Dataset, notes: list[str]) -> PixelFormat:
    """How pixels are stored: by the file's elements, else by the pixels, else as is usual.

    Args:
        dataset: from ``app.imaging.dicom_read.elements``.
        notes: gains sentences about what was guessed.

    Raises:
        ImageError: there is no picture, or its size is unknown.
    """
    keyword = next((name for name in ("PixelData", *FLOATS) if held(dataset, name) is not None), None)
    if keyword is None:
        raise ImageError("This DICOM file holds no picture that can be found.")
    syntax = dataset.file_meta.TransferSyntaxUID
    header = _header(dataset, syntax)
    rows, columns = (int(number(dataset, name) or 0) for name in ("Rows", "Columns"))
    if not rows * columns and header is not None:
        rows, columns = header.rows, header.columns
        notes.append("The file does not say how large its picture is; the picture itself does.")
    if rows < 1 or columns < 1:
        raise ImageError("This DICOM file holds no picture that can be found, or does not say how large it is.")
    frames = max(1, int(number(dataset, "NumberOfFrames") or 1))
    samples = _samples(dataset, header, rows * columns * frames, notes)
    photometric = _photometric(dataset, samples, notes)
    area = rows * columns * samples
    allocated = FLOATS.get(keyword) or _allocated(dataset, header, area * frames, photometric, samples, notes)
    short = 0
    if not syntax.is_encapsulated and photometric != "YBR_FULL_422":
        frames, short = _completed(dataset, keyword, area * allocated, notes)
    stored, high = _bits(dataset, header, allocated, notes) if keyword == "PixelData" else (allocated, allocated - 1)
    planar = 0 if header is not None else int(number(dataset, "PlanarConfiguration") == 1)
    signed = _signed(dataset, header, syntax, notes)
    encoded = photometric
    if samples == 3 and photometric in GREY:
        lossy = syntax in (JPEGBaseline8Bit, JPEGExtended12Bit)
        encoded = "YBR_FULL_422" if lossy and not _adobe_rgb(_bytes(dataset, "PixelData")) else "RGB"
    return PixelFormat(
        keyword,
        syntax,
        rows,
        columns,
        frames,
        samples,
        allocated,
        stored,
        high,
        signed,
        photometric,
        encoded,
        planar,
        short * 8 // (allocated * samples),
    )


def _completed(dataset: Dataset, keyword: str, bits: int, notes: list[str]) -> tuple[int, int]:
    """The number of plain pictures of so many bits each, and bytes added to the last one, where it lacked a few."""
    stated, length = int(number(dataset, "NumberOfFrames") or 0), len(_bytes(dataset, keyword))
    whole, rest = divmod(8 * length, bits)
    lacking = bits - rest if rest >= bits * (1.0 - MOST_LACKING) and whole < max(1, stated) else 0
    there = whole + (lacking > 0)
    if not there:
        # Damaged, which decoding tells.
        return max(1, stated), 0
    if there < stated or not stated:
        counted(dataset, there, notes)
        stated = there
    if not lacking or stated > there:
        return stated, 0
    notes.append("The file lacks the end of its picture; it is shown black there.")
    added = math.ceil(lacking / 8)
    dataset[keyword].value += bytes(added)
    return stated, added


def _bytes(dataset: Dataset, keyword: str) -> bytes:
    element = held(dataset, keyword)
    return element.value if element is not None and isinstance(element.value, bytes) else b""


def _segments(dataset: Dataset) -> int:
    """The number of runs that make up the first packed frame, one for each byte of a pixel (PS3.5 G.2); 0 for none."""
    if dataset.file_meta.TransferSyntaxUID != RLELossless:
        return 0
    return int.from_bytes(get_frame(_bytes(dataset, "PixelData"), 0, number_of_frames=1)[:4], "little")


def _header(dataset: Dataset, syntax: UID) -> StreamHeader | None:
    """What the first packed frame states of itself; None for plain pixels and runs, which state nothing."""
    if not syntax.is_encapsulated or syntax == RLELossless:
        return None
    found = headers(get_frame(_bytes(dataset, "PixelData"), 0, number_of_frames=1))
    return found.pop() if len(found) == 1 else None


def _letters(dataset: Dataset) -> str:
    """Letters and digits of the photometric interpretation, in capitals."""
    return re.sub(r"[^A-Z0-9]", "", word(dataset, "PhotometricInterpretation").upper())


def _samples(dataset: Dataset, header: StreamHeader | None, pixels: int, notes: list[str]) -> int:
    """Values a pixel: by what the pixels hold, the element, or the photometric interpretation."""
    stated = number(dataset, "SamplesPerPixel")
    length, each = len(_bytes(dataset, "PixelData")), pixels * int(number(dataset, "BitsAllocated") or 8) // 8
    segments = _segments(dataset)
    if header is not None:
        found = header.colours
    elif segments:
        found = 3 if segments % 3 == 0 else 1
    else:
        found = next((count for count in (1, 3) if length in (count * each, count * each + count * each % 2)), 0)
    # Plain pixels longer than stated may be further pictures.
    if found in (1, 3) and (header is not None or (stated is not None and (segments or stated > found))):
        if stated not in (None, found):
            notes.append(f"The file says that a pixel has {_values(stated or 0)}, but it has {_values(found)}.")
        return found
    if stated is not None and stated >= 1:
        return int(stated)
    photometric = PHOTOMETRIC.get(_letters(dataset))
    samples = (3 if found == 3 else 1) if photometric is None else 1 if photometric in GREY else 3
    shade = "grey" if samples == 1 else "in colour"
    notes.append(f"The file does not say how many values a pixel has; its picture is taken to be {shade}.")
    return samples


def _values(count: float) -> str:
    return "1 value" if count == 1 else f"{int(count)} values"


def _photometric(dataset: Dataset, samples: int, notes: list[str]) -> str:
    """Photometric interpretation that the file means, as the standard spells it; no colours for one value a pixel."""
    stated = _letters(dataset)
    photometric = PHOTOMETRIC.get(stated)
    if photometric is None:
        photometric = _meant(stated, samples)
        if samples == 1 and photometric != "PALETTE COLOR":
            inverse = word(dataset, "PresentationLUTShape").upper() == "INVERSE"
            bright = "dark" if photometric == "MONOCHROME1" or inverse else "bright"
            notes.append(f"The file does not say clearly whether high values are bright; they are shown {bright}.")
    if samples == 1 and photometric not in GREY:
        return "MONOCHROME2"
    if samples == 1 and photometric == "PALETTE COLOR" and not any(held(dataset, name) for name in PALETTES):
        notes.append("The file lacks the colours of its palette; it is shown as a grey picture.")
        return "MONOCHROME2"
    return photometric


def _meant(stated: str, samples: int) -> str:
    """What a misspelt or missing photometric interpretation most likely stands for."""
    near = difflib.get_close_matches(stated.rstrip("12"), ["PALETTECOLOR", "MONOCHROME"], cutoff=0.7)
    if near == ["PALETTECOLOR"]:
        return PHOTOMETRIC[near[0]]
    if samples > 1 and not near:
        return "YBR_FULL" if stated.startswith("YBR") else "RGB"
    return "MONOCHROME1" if stated.endswith("1") else "MONOCHROME2"


def _adobe_rgb(pixels: bytes) -> bool:
    """Whether a JPEG says that its colours are red, green and blue (Adobe's marker, with transform 0)."""
    at = pixels.find(b"\xff\xee\x00\x0eAdobe", 0, 4096)
    return at >= 0 and pixels[at + 15 : at + 16] == b"\0"


def _allocated(
    dataset: Dataset, header: StreamHeader | None, values: int, photometric: str, samples: int, notes: list[str]
) -> int:
    """Bits that a value takes: by the stream, the element, or the length of the pixels."""
    if header is not None:
        return 8 if header.bits <= 8 else 16 if header.bits <= 16 else 32
    if (runs := 8 * _segments(dataset) // samples) in ALLOCATED[1:]:
        return runs
    stated = int(number(dataset, "BitsAllocated") or 0)
    length = len(_bytes(dataset, "PixelData"))
    if stated > ALLOCATED[-1] and length == values * stated // 8:
        raise ImageError(f"The DICOM file holds values of {stated} bits, which cannot be read here.")
    needed = {bits: math.ceil(values * bits / 8) for bits in ALLOCATED}
    fitting = [bits for bits, need in needed.items() if length in (need, need + need % 2)]
    plain = not dataset.file_meta.TransferSyntaxUID.is_encapsulated and photometric != "YBR_FULL_422"
    used = number(dataset, "BitsStored") or 1 + (number(dataset, "HighBit") or 15)
    # Longer pixels than stated may be further pictures, so they are no reason to read wider words.
    believed = not plain or not fitting or stated in fitting or used > fitting[0]
    if stated in ALLOCATED and (believed or (length >= needed[stated] and used <= stated)):
        return stated
    allocated = fitting[0] if plain and fitting else 8 if used <= 8 else 16
    notes.append(f"The file does not say truly how many bits a value takes; it is read with {allocated}.")
    return allocated


def _bits(dataset: Dataset, header: StreamHeader | None, allocated: int, notes: list[str]) -> tuple[int, int]:
    """Number of used bits of a value, and the highest of them."""
    room = allocated if header is None else min(allocated, header.bits)
    stored, high = number(dataset, "BitsStored"), number(dataset, "HighBit")
    if stored is None or not 1 <= stored <= max(allocated, number(dataset, "BitsAllocated") or 0):
        stored = high + 1 if high is not None and 0 <= high < allocated else room
        notes.append(f"The file does not say truly how many bits of a value are used; it is read with {int(stored)}.")
    stored = min(int(stored), room)
    return stored, int(high) if high is not None and stored - 1 <= high < room else stored - 1


def _signed(dataset: Dataset, header: StreamHeader | None, syntax: UID, notes: list[str]) -> bool | None:
    """Whether values have a sign; None where the file does not say and the values may show it."""
    stated = number(dataset, "PixelRepresentation")
    if header is not None and header.signed:
        if stated != 1:
            notes.append("The file does not say that pixels may be negative; the picture inside does.")
        return True
    if stated in (0, 1):
        return stated == 1
    if any(held(dataset, name) is not None for name in FLOATS):
        return False
    padding = held(dataset, "PixelPaddingValue")
    if padding is not None and padding.VR == "SS" and any(each < 0 for each in numbers(dataset, "PixelPaddingValue")):
        notes.append("The file does not say whether pixels may be negative; the value of its background is.")
        return True
    notes.append("The file does not say whether pixels may be negative; the pixels themselves show it.")
    return False if _closed(syntax) else None


def decode_pixels(dataset: Dataset, form: PixelFormat, index: int, notes: list[str]) -> Stored:
    """Decodes one frame.

    Args:
        dataset: the file's.
        form: how its pixels are stored.
        index: of the frame, from 0.
        notes: gains sentences about values that are not stored as the file says.

    Raises:
        ImageError: it has another size, or more colours, than the file says; nothing is decoded then.
        Exception: whatever decoders raise on damaged pixels.
    """
    element = dataset[form.keyword]
    options = _options(form, str(element.VR))
    if form.syntax.is_encapsulated:
        words = _unpacked(get_frame(element.value, index, number_of_frames=form.frames), form, options)
    else:
        words, _ = get_decoder(form.syntax).as_array(element.value, index=index, **options)
    shift = form.high + 1 - form.stored
    short = form.short if index == form.frames - 1 else 0
    if not form.words:
        return Stored(words >> shift if shift else words, 0, 0, bool(form.signed), short)
    signed = shows_sign(words, form.stored, form.high) if form.signed is None else form.signed
    found = Stored(words, shift, form.stored, signed, short)
    if form.photometric == "PALETTE COLOR" or not found.runs_over():
        return found
    notes.append("Its pixels hold more bits than the file says; all of them are shown.")
    return replace(found, bits=8 * words.dtype.itemsize - shift)


def _unpacked(frame: bytes, form: PixelFormat, options: dict[str, Any]) -> np.ndarray:
    found = headers(frame)
    if form.syntax != RLELossless and not found:
        raise ImageError("The picture inside the DICOM file is damaged, or packed in a way that cannot be read here.")
    if form.syntax != RLELossless and {header[:3] for header in found} != {(form.rows, form.columns, form.samples)}:
        raise ImageError("The DICOM file states one size of its picture and holds another.")
    if form.syntax in (JPEGLossless, JPEGLosslessSV1):
        header = next(iter(found))
        words = decode_lossless(frame, header)
        mixed = form.encoded.startswith("YBR") and header.marker != PNG
        return convert_color_space(words, "YBR_FULL", "RGB") if mixed else words
    if any(header.marker in SEQUENTIAL for header in found):
        frame = SCAN.sub(rb"\g<1>" + b"\0\x3f", frame)
    options["number_of_frames"] = 1
    packed = encapsulate([frame], has_bot=False)
    return get_decoder(form.syntax).as_array(packed, index=0, decoding_plugin="pylibjpeg", **options)[0]


def _options(form: PixelFormat, representation: str) -> dict[str, Any]:
    """What pydicom's decoders want to know."""
    return {
        "rows": form.rows,
        "columns": form.columns,
        "number_of_frames": form.frames,
        "samples_per_pixel": form.samples,
        "photometric_interpretation": form.encoded,
        "planar_configuration": form.planar,
        "bits_allocated": form.allocated,
        "bits_stored": form.allocated if form.words else form.stored,
        "pixel_representation": 0 if form.words else int(form.signed or 0),
        "pixel_keyword": form.keyword,
        "pixel_vr": representation,
    }


def decode_lossless(stream: bytes, header: StreamHeader) -> np.ndarray:
    """Decodes one lossless JPEG, or PNG.

    Args:
        stream: one packed frame.
        header: what the stream states of itself, already checked.

    Returns:
        uint8 or uint16, (rows, columns) or (rows, columns, colours).

    Raises:
        ImageError, OSError: it is damaged, or GDCM is needed and absent.
    """
    if header.bits not in BITS:
        raise ImageError(DAMAGED)
    if header.marker == PNG:
        shades = cv2.IMREAD_GRAYSCALE if header.colours == 1 else cv2.IMREAD_COLOR
        picture = cv2.imdecode(np.frombuffer(stream, np.uint8), shades | cv2.IMREAD_ANYDEPTH)
        if picture is None:
            raise ImageError(DAMAGED)
        return picture if picture.ndim == 2 else np.ascontiguousarray(picture[:, :, ::-1])
    if (header.bits, header.colours) == (8, 1):
        with Image.open(io.BytesIO(stream), formats=("JPEG",)) as picture:
            return np.array(picture.convert("L"))
    if find_spec("gdcm") is None:
        raise ImageError(
            "The picture is packed as lossless JPEG of many bits; GDCM, which decodes it, is not installed."
        )
    kind = np.dtype(np.uint8 if header.bits <= 8 else np.uint16)
    colours = () if header.colours == 1 else (header.colours,)
    shape = (header.rows, header.columns, *colours)
    # The other process must find the same packages, but only once Python itself has found its own.
    code = "import json, sys; sys.path[:] = json.loads(sys.argv[2]); from app.imaging import dicom_pixels as it"
    command = [sys.executable, "-c", f"{code}; it._decode_by_gdcm()", json.dumps([*header]), json.dumps(sys.path)]
    try:
        answer = subprocess.run(command, input=stream, capture_output=True, timeout=PATIENCE).stdout
    except subprocess.TimeoutExpired:
        answer = b""
    if len(answer) != kind.itemsize * int(np.prod(shape)):
        raise ImageError(DAMAGED)
    return np.frombuffer(answer, kind).reshape(shape)


def _decode_by_gdcm() -> None:
    """From standard input to standard output, in a process of its own."""
    rows, columns, colours, bits, *_ = json.loads(sys.argv[1])
    photometric, room = "MONOCHROME2" if colours == 1 else "RGB", 8 if bits <= 8 else 16
    size = "PixelData", JPEGLossless, rows, columns, 1, colours
    form = PixelFormat(*size, room, room, room - 1, False, photometric, photometric, 0)
    packed, options = encapsulate([sys.stdin.buffer.read()]), _options(form, "OB")
    words, _ = get_decoder(JPEGLossless).as_array(packed, index=0, raw=True, decoding_plugin="gdcm", **options)
    sys.stdout.buffer.write(words.tobytes())
