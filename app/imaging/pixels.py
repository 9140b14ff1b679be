"""What kinds of pictures share: work strip by strip, colour, stored words, and the size a packed picture states.

A small lie in a header must not make a decoder ask for gigabytes. DICOM states rows, columns and colours, and the
packed stream inside states them again; decoders believe the stream. TIFF may state its width and height twice, and
decoders differ in which they believe.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

__all__ = [
    "IN_COLOUR",
    "PNG",
    "PNG_START",
    "Stored",
    "StreamHeader",
    "count_coloured",
    "headers",
    "is_coloured",
    "strips",
    "tiff_sizes",
]

STRIP = 1_000_000
"""Pixels of a strip: only a result has the picture's size, never a wide intermediate."""

IN_COLOUR = "The picture is in colour; it is read in shades of grey."
SAMPLE = 1_000_000
"""About how many pixels show what all of them are like."""
NOISE, SMOOTH = 0.8, 0.4
"""Mean steps between neighbours, in deviations of a picture: of one that has hardly any shape, and of one that has."""
CHROMA, SHARE = 40 / 255, 0.02
"""Least difference between a pixel's channels, since less is compression noise, and least share of such pixels."""

JPEG_2000 = re.compile(rb"\xff\x4f\xff\x51.{4}(.{4})(.{4})(.{4})(.{4}).{16}(.{2})(.)", re.DOTALL)
"""Start of a codestream and its SIZ marker: width, height, offsets of both, colours, depth (ISO 15444-1, A.5.1)."""
FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
"""Markers of JPEG and JPEG-LS that hold a size (ISO 10918-1, B.1.1.3; ISO 14495-1, C.1.1)."""
ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
START_OF_SCAN = 0xDA
SIZE = 0x51
PNG = 0x89
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_COLOURS = {0: 1, 4: 1}
"""Values a pixel by the type of colour, without opacity; 3 for all others (PNG 1.2, 4.1.1)."""

TIFF_WIDTH, TIFF_HEIGHT, TIFF_PHOTOMETRIC = 256, 257, 262
TIFF_SHORT, TIFF_LONG = 3, 4


def strips(rows: int, columns: int) -> Iterator[slice]:
    """Slices of rows that cover a picture from top to bottom, each of about ``STRIP`` pixels, at least one row."""
    step = max(1, STRIP // columns)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def count_coloured(colours: np.ndarray, white: float, chroma: float = CHROMA) -> int:
    """The number of coloured pixels of (H, W, 3), any type, whose brightest value is ``white``.

    ``chroma`` is the least difference between channels that counts, as share of white: by default a visible one.
    """
    red, green, blue = colours[..., 0], colours[..., 1], colours[..., 2]
    # Channel by channel: numpy takes fifty times as long over an axis of three values.
    highest, lowest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    spread = highest.astype(np.float32) - lowest
    return int((spread > chroma * white).sum())


def is_coloured(count: int, pixels: int) -> bool:
    """Whether so many coloured pixels make a picture one in colour."""
    return count > SHARE * pixels


def _with_sign(words: np.ndarray) -> np.ndarray:
    """The same bits of unsigned words in two's complement."""
    return words.view(words.dtype.str.replace("u", "i"))


def _mean_step(picture: np.ndarray) -> float:
    """Mean difference between neighbours in a row, by which a picture read rightly is known."""
    return float(np.abs(np.diff(picture.astype(np.int64), axis=1)).mean())


@dataclass(frozen=True)
class Stored:
    """One decoded frame.

    Attributes:
        words: (rows, columns) or (rows, columns, 3), as decoders give them.
        shift, bits: lowest bit of a value in its word, and number of its bits; 0 bits where words are values.
        signed: whether values are in two's complement.
        short: pixels at its end that the file lacks.
    """

    words: np.ndarray
    shift: int
    bits: int
    signed: bool
    short: int = 0

    def values(self, rows: slice = slice(None)) -> np.ndarray:
        """Stored values of some rows (PS3.5 8.1.1), integers or floats."""
        words = self.words[rows]
        if not self.bits:
            return words
        if self.shift == 0 and self.bits == 8 * words.dtype.itemsize:
            return _with_sign(words) if self.signed else words
        values = (words.astype(np.int64) >> self.shift) & ((1 << self.bits) - 1)
        sign = 1 << (self.bits - 1)
        return (values ^ sign) - sign if self.signed else values

    def whole(self, rows: slice) -> np.ndarray:
        """Words of some rows as numbers with the values' sign, unused bits included."""
        words = self.words[rows]
        return _with_sign(words) if self.signed and words.dtype.kind == "u" else words

    def runs_over(self) -> bool:
        """Whether values take more bits than said: with the bits above them, neighbours differ less.

        Bits that are none of a value's, such as overlays, make neighbours differ more.
        """
        if not self.bits or not (self.words >> self.shift + self.bits).any():
            return False
        some = slice(None, None, 1 + self.words.size // SAMPLE)
        steps, shapes = [], []
        for picture in (self.whole(some).astype(np.int64) >> self.shift, self.values(some).astype(np.int64)):
            steps.append(_mean_step(picture))
            deviation = float(picture.std())
            shapes.append(steps[-1] / deviation if deviation else np.inf)
        return steps[0] < steps[1] or (shapes[0] < SMOOTH and shapes[1] > NOISE)


def shows_sign(words: np.ndarray, stored: int, high: int) -> bool:
    """Whether values are negative: unused high bits repeat the highest used one, or else neighbours then differ less.

    Args:
        words: uint (rows, columns) or more, unused bits included.
        stored, high: bits of a value, and the highest of them, from 0.
    """
    if high + 1 > stored or words.dtype.kind != "u":
        return False
    if stored == 8 * words.dtype.itemsize:
        some = words[:: 1 + words.size // SAMPLE]
        return _mean_step(_with_sign(some)) < _mean_step(some)
    upper = words >> high
    ones = (1 << (8 * words.dtype.itemsize - high)) - 1
    return bool(upper.any()) and bool(((upper == 0) | (upper == ones)).all())


class StreamHeader(NamedTuple):
    """What a packed picture states of itself.

    Attributes:
        rows, columns: in pixels.
        colours: values a pixel.
        bits: of one value.
        marker: second byte of the marker that states it, which is the kind of JPEG; 0x51 for JPEG 2000, 0x89 for PNG.
        signed: whether values may be negative, which JPEG 2000 alone tells.
    """

    rows: int
    columns: int
    colours: int
    bits: int
    marker: int
    signed: bool = False


def headers(stream: bytes) -> set[StreamHeader]:
    """Everything that one packed JPEG, JPEG-LS, JPEG 2000 or PNG frame claims to be; empty for none."""
    if stream.startswith(b"\xff\xd8"):
        return _of_jpeg(stream)
    if stream.startswith(PNG_START) and len(stream) > 25:
        width, height = (int.from_bytes(stream[at : at + 4], "big") for at in (16, 20))
        return {StreamHeader(height, width, PNG_COLOURS.get(stream[25], 3), 8 * (1 + (stream[24] > 8)), PNG)}
    found = set()
    for match in JPEG_2000.finditer(stream):
        width, height, left, top, colours, depth = (int.from_bytes(part, "big") for part in match.groups())
        found.add(StreamHeader(height - top, width - left, colours, (depth & 0x7F) + 1, SIZE, depth > 0x7F))
    return found


def tiff_sizes(data: bytes) -> set[tuple[int, int]]:
    """Every width paired with every height that the first directory of a TIFF claims (TIFF 6.0, sections 2 and 8).

    Nothing is found in a BigTIFF or a damaged file.
    """
    found: dict[int, set[int]] = {TIFF_WIDTH: set(), TIFF_HEIGHT: set()}
    for _, tag, value in _tiff_entries(data):
        if tag in found:
            found[tag].add(value)
    return {(width, height) for width in found[TIFF_WIDTH] for height in found[TIFF_HEIGHT]}


def black_is_zero(data: bytes) -> bytes | None:
    """The same TIFF, but for its claim that zero is white (tag 262); None where it claims no such thing."""
    for entry, tag, value in _tiff_entries(data):
        if tag == TIFF_PHOTOMETRIC and value == 0:
            one = (1).to_bytes(2, "big" if data[:2] == b"MM" else "little")
            return data[: entry + 8] + one + data[entry + 10 :]
    return None


def _tiff_entries(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Where each entry of a TIFF's first directory stands, its tag, and its value where that is one number."""
    order: Literal["little", "big"] = "big" if data[:2] == b"MM" else "little"

    def number(at: int, length: int) -> int:
        return int.from_bytes(data[at : at + length], order)

    if data[:2] not in (b"II", b"MM") or number(2, 2) != 42:
        return
    start = number(4, 4)
    for entry in range(start + 2, start + 2 + 12 * number(start, 2), 12):
        kind = number(entry + 2, 2)
        yield entry, number(entry, 2), number(entry + 8, {TIFF_SHORT: 2, TIFF_LONG: 4}.get(kind, 1))


def _of_jpeg(stream: bytes) -> set[StreamHeader]:
    found = set()
    at = 2
    while at + 10 <= len(stream):
        if stream[at] != 0xFF:
            at += 1
            continue
        marker = stream[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker == START_OF_SCAN:
            # What follows is picture; a size behind it would be a second frame, which decoders refuse.
            break
        elif marker in ALONE:
            at += 2
        else:
            if marker in FRAMES:
                height, width = (int.from_bytes(stream[at + i : at + i + 2], "big") for i in (5, 7))
                found.add(StreamHeader(height, width, stream[at + 9], stream[at + 4], marker))
            at += 2 + max(2, int.from_bytes(stream[at + 2 : at + 4], "big"))
    return found
