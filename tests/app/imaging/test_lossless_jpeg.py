"""Lossless JPEG from an encoder written after the standard, whose differences may run the long way round."""

from __future__ import annotations

import struct
import subprocess
from importlib.util import find_spec

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLossless, JPEGLosslessSV1

from app.errors import ImageError
from app.imaging import lossless_jpeg
from app.imaging.lossless_jpeg import decode_lossless
from app.imaging.radiograph import decode
from app.imaging.streams import headers
from tests.app.imaging.found import FILM, dicom_bytes, plain

GDCM = pytest.mark.skipif(find_spec("gdcm") is None, reason="python-gdcm is not installed")


def lossless(pixels: np.ndarray, bits: int, predictor: int = 1, round_by: int = 0) -> bytes:
    """Packs (H, W) by ISO 10918-1, annex H; differences take the other way round a range of ``round_by`` values."""
    x = pixels.astype(np.int64)
    left, above, corner = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    left[:, 1:], above[1:], corner[1:, 1:] = x[:, :-1], x[:-1], x[:-1, :-1]
    guess = {1: left, 2: above, 3: corner, 4: left + above - corner, 5: left + ((above - corner) >> 1)}[
        predictor
    ].copy()
    guess[0], guess[1:, 0], guess[0, 0] = left[0], above[1:, 0], 1 << (bits - 1)
    steps = x - guess
    if round_by:
        steps = np.where(steps > 0, steps - round_by, steps + round_by)
    steps = (steps.ravel() + 32767) % 65536 - 32767
    written = []
    for step in steps.tolist():
        category = abs(step).bit_length()
        code = format(category, "05b")
        if 0 < category < 16:
            code += format(step if step > 0 else step + (1 << category) - 1, f"0{category}b")
        written.append(code)
    code = "".join(written)
    code += "1" * (-len(code) % 8)
    body = int(code, 2).to_bytes(len(code) // 8, "big").replace(b"\xff", b"\xff\0")
    height, width = pixels.shape
    start = struct.pack(">HHBHHBBBB", 0xFFC3, 11, bits, height, width, 1, 1, 0x11, 0)
    table = struct.pack(">HHB", 0xFFC4, 36, 0) + bytes([0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    scan = struct.pack(">HHBBBBBB", 0xFFDA, 8, 1, 1, 0, predictor, 0, 0)
    return b"\xff\xd8" + start + table + scan + body + b"\xff\xd9"


def of_bits(bits: int) -> np.ndarray:
    """The drawing with turned strips, so that differences are large."""
    pixels = (FILM // 16).astype(np.int64) * ((1 << bits) - 1) // 255
    pixels[20:40] = (1 << bits) - 1 - pixels[20:40]
    return pixels.astype(np.uint8 if bits <= 8 else np.uint16)


@pytest.mark.parametrize(
    ("predictor", "way"),
    # Where a guess is halved, and where values fill all sixteen bits, there is one way only.
    [(1, "short"), (2, "short"), (4, "short"), (5, "short"), (1, "long"), (2, "long"), (3, "long"), (4, "long")],
)
@pytest.mark.parametrize("bits", [8, *(pytest.param(bits, marks=GDCM) for bits in (10, 12, 16))])
def test_differences_may_run_over(bits: int, predictor: int, way: str) -> None:
    pixels = of_bits(bits)
    stream = lossless(pixels, bits, predictor, 1 << bits if way == "long" and bits < 16 else 0)
    elements = plain(pixels, BitsStored=bits, HighBit=bits - 1, WindowCenter=None, WindowWidth=None)
    elements["PixelData"] = [encapsulate([stream])]
    film = decode(dicom_bytes(elements, JPEGLosslessSV1 if predictor == 1 else JPEGLossless))
    expected = (pixels - float(pixels.min())) / (int(pixels.max()) - int(pixels.min()))
    assert np.abs(film.brightness() - expected).max() < 1e-4


@pytest.mark.parametrize("bits", [0, 1, 17, 200])
def test_a_stream_of_impossible_bits_is_refused_before_it_is_decoded(
    bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = bytearray(lossless(of_bits(8), 8))
    stream[stream.find(b"\xff\xc3") + 4] = bits
    monkeypatch.setattr(subprocess, "run", None)
    with pytest.raises(ImageError, match="damaged"):
        decode_lossless(bytes(stream), headers(bytes(stream)).pop())


@GDCM
def test_a_decoder_that_falls_gives_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = lossless(of_bits(12), 12)
    cut = stream[:-2000]
    with pytest.raises(ImageError, match=r"damaged"):
        decode_lossless(cut[: cut.find(b"\xff\xda")], headers(cut).pop())
    monkeypatch.setattr(lossless_jpeg, "PATIENCE", 1e-3)
    with pytest.raises(ImageError, match="damaged"):
        decode_lossless(stream, headers(stream).pop())


def test_without_gdcm_many_bits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lossless_jpeg, "find_spec", lambda _: None)
    stream = lossless(of_bits(12), 12)
    with pytest.raises(ImageError, match="not installed"):
        decode_lossless(stream, headers(stream).pop())
