"""What a packed picture says of its own size, so that a small lie in a header cannot make a decoder ask for gigabytes.

DICOM tells a picture's rows and columns, the packed stream inside tells them again, and decoders believe the stream.
"""

from __future__ import annotations

import re

__all__ = ["sizes"]

JPEG_2000 = re.compile(rb"\xff\x4f\xff\x51.{4}(.{4})(.{4})(.{4})(.{4})", re.DOTALL)
"""Start of a codestream and its SIZ marker: width, height, and what is left out of both (ISO 15444-1, A.5.1)."""

FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
"""Markers of JPEG and JPEG-LS that hold a size (ISO 10918-1, B.1.1.3; ISO 14495-1, C.1.1)."""

ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
START_OF_SCAN = 0xDA


def sizes(stream: bytes) -> set[tuple[int, int]]:
    """Every height and width that a JPEG, JPEG-LS or JPEG 2000 stream claims; empty where it claims none.

    Args:
        stream: one frame, as it is packed.
    """
    if stream.startswith(b"\xff\xd8"):
        return _of_jpeg(stream)
    found = set()
    for match in JPEG_2000.finditer(stream):
        width, height, left, top = (int.from_bytes(part, "big") for part in match.groups())
        found.add((height - top, width - left))
    return found


def _of_jpeg(stream: bytes) -> set[tuple[int, int]]:
    found = set()
    at = 2
    while at + 9 <= len(stream):
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
                found.add(
                    (int.from_bytes(stream[at + 5 : at + 7], "big"), int.from_bytes(stream[at + 7 : at + 9], "big"))
                )
            at += 2 + max(2, int.from_bytes(stream[at + 2 : at + 4], "big"))
    return found
