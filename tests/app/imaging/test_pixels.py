from __future__ import annotations

import struct
import zlib

import cv2
import pytest

from app.errors import ImageError
from app.imaging.pixels import tiff_sizes
from app.imaging.radiograph import decode


def two_sizes(first: int, second: int) -> bytes:
    """A 16-bit TIFF in colour that tells its width and height twice: decoders differ in which they believe."""
    packed = zlib.compress(bytes(first * first * 6), 9)
    bits = struct.pack("<HHHH", 16, 16, 16, 0)
    sizes = [(tag, 4, 1, side) for tag in (256, 257) for side in (first, second)]
    others = [(258, 3, 3, 8), (259, 3, 1, 8), (262, 3, 1, 2), (273, 4, 1, 16), (277, 3, 1, 3), (278, 4, 1, first)]
    entries = sorted([*sizes, *others, (279, 4, 1, len(packed))], key=lambda entry: entry[0])
    body = bits + packed + b"\0" * (len(packed) % 2)
    directory = b"".join(
        struct.pack("<HHI", tag, kind, count)
        + (struct.pack("<HH", value, 0) if kind == 3 and count == 1 else struct.pack("<I", value))
        for tag, kind, count, value in entries
    )
    head = b"II*\0" + struct.pack("<I", 8 + len(body))
    return head + body + struct.pack("<H", len(entries)) + directory + struct.pack("<I", 0)


@pytest.mark.parametrize(("first", "second"), [(3000, 64), (64, 3000)])
def test_a_tiff_that_tells_two_sizes_is_refused_before_it_is_decoded(
    first: int, second: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", never)
    assert len(tiff_sizes(two_sizes(first, second))) == 4
    with pytest.raises(ImageError, match="damaged"):
        decode(two_sizes(first, second))
    monkeypatch.undo()
    assert tiff_sizes(two_sizes(64, 64)) == {(64, 64)}
