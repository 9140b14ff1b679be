"""Whatever is dropped in, a person gets a sentence."""

from __future__ import annotations

import io
import resource
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from pydicom.uid import JPEGBaseline8Bit

from app.errors import ImageError
from app.imaging import dicom_read
from app.imaging.examples import draw
from app.imaging.radiograph import MAX_BYTES, decode, read
from benchmarks.fuzz import BOUND, corpus, fuzz, largest, read_alone
from tests.app.imaging.found import dicom_bytes, plain
from tests.serving import PATIENCE

SENTENCE = r"^[A-Z].*\.$"


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be huge and all black."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")
    )


def animated() -> bytes:
    file = io.BytesIO()
    frames = [Image.fromarray(draw("jagged", seed=i, height=80, width=80)) for i in range(3)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("../../film.png", b"x" * 1000)
    return file.getvalue()


def floats(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values.astype(np.float32)).save(file, "TIFF")
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(bomb(60_000, 60_000), id="decompression bomb"),
        pytest.param(bomb(1, 100_000), id="1 x 100000"),
        pytest.param(bomb(2**31 - 1, 2**31 - 1), id="largest PNG"),
        pytest.param(b"", id="empty"),
        pytest.param(b"<html><script>alert(1)</script></html>", id="HTML"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", id="SVG"),
        pytest.param(archive(), id="zip"),
        pytest.param(animated(), id="animated GIF"),
        pytest.param(b"%PDF-1.7\n%", id="PDF"),
        pytest.param(floats(np.full((64, 64), np.nan)), id="NaN"),
        pytest.param(floats(np.where(np.eye(64) > 0, np.inf, 1.0)), id="infinite"),
        pytest.param(floats(np.full((64, 64), 7.0)), id="all equal"),
        pytest.param(b"\0" * 128 + b"DICM" + b"\xff" * 4000, id="DICOM of nothing"),
        pytest.param(b"\0" * (MAX_BYTES + 1), id="too large"),
    ],
)
def test_hostile_files_get_a_sentence(data: bytes) -> None:
    with pytest.raises(ImageError, match=SENTENCE):
        decode(data)


@pytest.mark.parametrize("exif", [b"II*\0", b"II*\0\x08", b"II+\0\x08\0\0\0"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_odd_notes_of_a_camera_get_a_sentence(exif: bytes, kind: str) -> None:
    file = io.BytesIO()
    Image.fromarray(draw("jagged")).save(file, kind, exif=exif)
    with pytest.raises(ImageError, match=SENTENCE):
        decode(file.getvalue())


@pytest.mark.parametrize("shape", [(32, 4000), (4000, 32)])
def test_what_is_long_and_thin_is_no_film(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    with pytest.raises(ImageError, match="long and thin"):
        decode(cv2.imencode(".png", pixels)[1].tobytes())


def test_a_picture_in_millions_of_parts_is_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_read, "generate_fragments", None)
    parts = [b"\xfe\xff\x00\xe0\0\0\0\0" * 1_000_000]
    with pytest.raises(ImageError, match="more parts"):
        decode(dicom_bytes(plain(PixelData=parts), JPEGBaseline8Bit))


def test_pages_of_a_tiff_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """To count them takes the square of their number, and 50 MB hold half a million."""

    def counted(_: object) -> int:
        raise AssertionError("counted")

    pages = [Image.fromarray(draw("jagged", seed=seed)) for seed in range(3)]
    file = io.BytesIO()
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    monkeypatch.setattr(TiffImageFile, "n_frames", property(counted))
    film = decode(file.getvalue())
    assert np.array_equal(film.pixels, np.asarray(pages[0]))
    assert any("several pictures" in note for note in film.notes)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a\0b", "x" * 5000, "CON", "~", "file:///etc/passwd", "-rf"])
def test_names_like_paths_get_a_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=SENTENCE):
        read(tmp_path / "none" / name)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.binary(max_size=4096), start=st.sampled_from([b"", *(seed[:200] for seed in corpus()[:12])]))
def test_any_bytes_are_a_film_or_a_sentence(data: bytes, start: bytes) -> None:
    try:
        film = decode(start + data)
    except ImageError as error:
        outcome = str(error)
    else:
        outcome = f"{film.pixels.ndim} axes."
    assert outcome.endswith(".")
    assert outcome[0].isupper() or outcome == "2 axes."


@settings(max_examples=60, deadline=None, derandomize=True)
@given(height=st.integers(32, 200), width=st.integers(32, 200), deep=st.booleans(), seed=st.integers(0, 2**16))
def test_any_picture_comes_through_as_it_is(height: int, width: int, deep: bool, seed: int) -> None:
    kind = np.uint16 if deep else np.uint8
    pixels = np.random.default_rng(seed).integers(0, np.iinfo(kind).max, (height, width), kind)
    film = decode(cv2.imencode(".png", pixels)[1].tobytes())
    assert np.array_equal(film.pixels, pixels)


@pytest.mark.slow
def test_damaged_files_are_films_or_sentences_and_memory_stays_bounded() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcomes, peak, bad = fuzz(500, slow=PATIENCE)
    assert bad == []
    assert sum(outcomes.values()) == 500
    assert min(outcomes["an image"], outcomes["a sentence"]) > 30
    assert peak < BOUND


@pytest.mark.slow
def test_the_largest_film_stays_within_the_memory_bound() -> None:
    name, costliest = next(largest())
    outcome, peak = read_alone(costliest)
    assert outcome == "an image", name
    assert peak < BOUND


def test_a_bomb_is_refused_before_it_unfolds() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match="too many pixels"):
        decode(bomb(30_000, 30_000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
