"""What a packed picture says of its own size, so that a small lie in a header cannot make a decoder ask for gigabytes.

DICOM tells a picture's rows, columns and colours, the packed stream inside tells them again, and decoders believe the
stream. TIFF may tell width and height twice, and decoders differ in which they believe.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

__all__ = ["StreamHeader", "headers", "shapes", "tiff_sizes"]

JPEG_2000 = re.compile(rb"\xff\x4f\xff\x51.{4}(.{4})(.{4})(.{4})(.{4}).{16}(.{2})(.)", re.DOTALL)
"""Start of a codestream and its SIZ marker: width, height, what is left out of both, colours, depth of the first
(ISO 15444-1, A.5.1)."""

FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
"""Markers of JPEG and JPEG-LS that hold a size (ISO 10918-1, B.1.1.3; ISO 14495-1, C.1.1)."""

ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
START_OF_SCAN = 0xDA
SIZE = 0x51

TIFF_WIDTH, TIFF_HEIGHT = 256, 257
TIFF_SHORT, TIFF_LONG = 3, 4


class StreamHeader(NamedTuple):
    """What a packed picture says of itself.

    Attributes:
        rows, columns: in pixels.
        colours: values a pixel.
        bits: of one value.
        marker: second byte of the marker it stands behind, which tells the kind of JPEG; 0x51 for JPEG 2000.
    """

    rows: int
    columns: int
    colours: int
    bits: int
    marker: int


def headers(stream: bytes) -> set[StreamHeader]:
    """Everything that a JPEG, JPEG-LS or JPEG 2000 stream claims to be; empty for none.

    Args:
        stream: one frame, as it is packed.
    """
    if stream.startswith(b"\xff\xd8"):
        return _of_jpeg(stream)
    found = set()
    for match in JPEG_2000.finditer(stream):
        width, height, left, top, colours, depth = (int.from_bytes(part, "big") for part in match.groups())
        found.add(StreamHeader(height - top, width - left, colours, (depth & 0x7F) + 1, SIZE))
    return found


def shapes(stream: bytes) -> set[tuple[int, int, int]]:
    """Every height, width and number of colours that a JPEG, JPEG-LS or JPEG 2000 stream claims; empty for none.

    Args:
        stream: one frame, as it is packed.
    """
    return {header[:3] for header in headers(stream)}


def tiff_sizes(data: bytes) -> set[tuple[int, int]]:
    """Every width paired with every height that the first directory of a TIFF claims (TIFF 6.0, sections 2 and 8).

    Args:
        data: a whole file; of a BigTIFF or a damaged one nothing is found.
    """
    order: Literal["little", "big"] = "big" if data[:2] == b"MM" else "little"

    def number(at: int, length: int) -> int:
        return int.from_bytes(data[at : at + length], order)

    if number(2, 2) != 42:
        return set()
    start = number(4, 4)
    found: dict[int, set[int]] = {TIFF_WIDTH: set(), TIFF_HEIGHT: set()}
    for entry in range(start + 2, start + 2 + 12 * number(start, 2), 12):
        tag, kind = number(entry, 2), number(entry + 2, 2)
        if tag in found:
            found[tag].add(number(entry + 8, {TIFF_SHORT: 2, TIFF_LONG: 4}.get(kind, 1)))
    return {(width, height) for width in found[TIFF_WIDTH] for height in found[TIFF_HEIGHT]}


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
