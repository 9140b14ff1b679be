"""Pixels stored in odd ways, described wrongly or not at all, and lossless JPEG whose differences run over."""

from __future__ import annotations

import struct
import subprocess
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG2MPML,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    RLELossless,
)

from app.errors import ImageError
from app.imaging import dicom_pixels
from app.imaging.dicom import parse
from app.imaging.dicom_pixels import decode_lossless
from app.imaging.pixels import headers
from app.imaging.radiograph import decode
from tests.app.imaging.found import CENTRED, FILM, FILM_8, GREY, NEGATIVE, dicom_bytes, near, packed, plain


@pytest.mark.parametrize(
    ("word", "negative"),
    [
        ("monochrome1", True),
        (" MONOCHROME1", True),
        ("MONOCHROME 1", True),
        ("Monochrome_1", True),
        ("MONOCHROM1", True),
        ("MONOCHROME1\0", True),
        ("monochrome2", False),
        ("MONOCROME2", False),
        ("MONOCHROME", False),
        ("GRAYSCALE", False),
        ("", False),
        (None, False),
        ("RGB", False),
        ("PALETTE COLOR", False),
    ],
)
def test_polarity_is_told_by_whatever_word(word: str | None, negative: bool) -> None:
    near(dicom_bytes(plain(NEGATIVE if negative else FILM, PhotometricInterpretation=word)), GREY)


def test_a_missing_polarity_is_noted() -> None:
    notes = near(dicom_bytes(plain(PhotometricInterpretation=None)), GREY)
    assert any("whether high values are bright" in note for note in notes)


@pytest.mark.parametrize(
    "gone",
    [
        ("SamplesPerPixel",),
        ("PixelRepresentation",),
        ("BitsStored",),
        ("HighBit",),
        ("BitsAllocated",),
        ("BitsStored", "HighBit"),
        ("BitsAllocated", "BitsStored", "HighBit"),
        ("SamplesPerPixel", "PhotometricInterpretation", "PixelRepresentation"),
        ("SamplesPerPixel", "PixelRepresentation", "BitsAllocated", "BitsStored", "HighBit"),
    ],
)
def test_what_is_missing_takes_the_usual_value(gone: tuple[str, ...]) -> None:
    notes = near(dicom_bytes(plain(**dict.fromkeys(gone))), GREY)
    assert bool(notes) == (gone != ("HighBit",))


@pytest.mark.parametrize(
    "changes",
    [
        {"BitsStored": 0},
        {"BitsStored": 99},
        {"HighBit": 3},
        {"HighBit": 200},
        {"BitsAllocated": 12},
        {"BitsAllocated": 0},
        {"NumberOfFrames": ""},
        {"NumberOfFrames": "  "},
        {"NumberOfFrames": "one"},
        {"NumberOfFrames": "0"},
        {"NumberOfFrames": "1\\"},
        {"PixelRepresentation": 7},
        {"SamplesPerPixel": 0},
        {"Rows": ("IS", "128"), "Columns": ("DS", "96")},
    ],
    ids=str,
)
def test_what_cannot_be_takes_the_usual_value(changes: dict) -> None:
    near(dicom_bytes(plain(**changes)), GREY)


def test_missing_bits_of_one_byte_a_pixel() -> None:
    gone = dict.fromkeys(("BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel"))
    near(dicom_bytes(plain(FILM_8, WindowCenter="128", WindowWidth="256", **gone)), FILM_8 / 255)


def test_missing_samples_of_a_picture_in_colour() -> None:
    colours = np.dstack([FILM_8] * 3)
    for photometric in ("RGB", None):
        elements = plain(FILM_8, SamplesPerPixel=None, PhotometricInterpretation=photometric)
        elements["PixelData"] = colours
        near(dicom_bytes(elements), FILM_8 / 255)


NOISE = np.random.default_rng(0).integers(0, 16, FILM.shape).astype(np.uint16)
SIGNED_WINDOW = {"WindowCenter": "0", "WindowWidth": "4096"}


@pytest.mark.parametrize(
    ("pixels", "changes"),
    [
        (FILM << 4, {"HighBit": 15}),
        ((FILM << 2) | (NOISE & 3), {"HighBit": 13}),
        (FILM | (NOISE << 12), {}),
        ((FILM << 4) | NOISE, {"HighBit": 15}),
        ((FILM << 2) | (NOISE & 3) | ((NOISE >> 2) << 14), {"HighBit": 13}),
        ((CENTRED.view(np.uint16) & 0xFFF) << 4, {"HighBit": 15, "PixelRepresentation": 1, **SIGNED_WINDOW}),
        ((CENTRED.view(np.uint16) & 0xFFF) | (NOISE << 12), {"PixelRepresentation": 1, **SIGNED_WINDOW}),
        (CENTRED.view(np.uint16), {"PixelRepresentation": 1, **SIGNED_WINDOW}),
        (CENTRED.view(np.uint16), {"PixelRepresentation": None, **SIGNED_WINDOW}),
        (CENTRED.view(np.uint16) & 0xFFF, {"PixelRepresentation": 1, **SIGNED_WINDOW}),
        (FILM << 4, {"HighBit": 15, "BitsStored": 12, "PhotometricInterpretation": "MONOCHROME2"}),
    ],
)
@pytest.mark.parametrize("runs", [False, True])
def test_values_lie_where_the_high_bit_says(pixels: np.ndarray, changes: dict, runs: bool) -> None:
    elements = plain(pixels, **changes)
    if runs:
        elements["PixelData"] = [encapsulate([packed("RLE", pixels)])]
    near(dicom_bytes(elements, RLELossless if runs else ExplicitVRLittleEndian), GREY)


MORE_BITS = "Its pixels hold more bits than the file says; all of them are shown."


@pytest.mark.parametrize("stored", [4, 6, 8, 10, 11])
@pytest.mark.parametrize("runs", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_values_that_take_more_bits_than_stated_do_not_wrap(stored: int, runs: bool, signed: bool) -> None:
    pixels = CENTRED.view(np.uint16) if signed else FILM
    elements = plain(pixels, BitsStored=stored, HighBit=stored - 1, PixelRepresentation=int(signed))
    elements["WindowCenter"] = "0" if signed else "2048"
    if runs:
        elements["PixelData"] = [encapsulate([packed("RLE", pixels)])]
    assert MORE_BITS in near(dicom_bytes(elements, RLELossless if runs else ExplicitVRLittleEndian), GREY)


@pytest.mark.parametrize("area", [slice(40, 41), slice(40, 100)])
def test_overlays_above_the_values_are_left_out(area: slice) -> None:
    drawn = FILM.copy()
    drawn[area, 20:60] |= 1 << 14
    assert MORE_BITS not in near(dicom_bytes(plain(drawn)), GREY)


EIGHT = {"WindowCenter": "128", "WindowWidth": "256"}
TURNED = FILM_8[::-1, ::-1]


@pytest.mark.parametrize("count", ["", "two", None])
def test_frames_may_be_counted_by_their_pixels(count: str | None) -> None:
    file = parse(dicom_bytes(plain(np.stack([FILM, FILM, FILM]), NumberOfFrames=count)))
    assert file.frames == 3
    assert "The file does not say how many pictures it holds; it holds 3." in file.notes


@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000", "RLE", "PNG"])
@pytest.mark.parametrize("count", [None, "", "1", "7"])
@pytest.mark.parametrize("offsets", [b"", bytes(8), b"\x07\0\0\0\xff\0\0\0", None])
@pytest.mark.parametrize("parts", [1, 2])
def test_packed_frames_are_counted_by_their_starts(
    kind: str, count: str | None, offsets: bytes | None, parts: int
) -> None:
    elements = plain(FILM_8, NumberOfFrames=count, **EIGHT)
    held = [] if offsets is None else [offsets]
    for pixels in (FILM_8, np.ascontiguousarray(TURNED)):
        stream = packed(kind, pixels)
        stream += bytes(len(stream) % 2)
        cut = len(stream) // 4 * 2 if parts == 2 else len(stream)
        held += [stream[:cut], stream[cut:]] if parts == 2 else [stream]
    elements["PixelData"] = [b"\xfe\xff\x00\xe0" + len(each).to_bytes(4, "little") + each for each in held]
    file = parse(dicom_bytes(elements, JPEG2000Lossless if kind == "JPEG2000" else JPEGBaseline8Bit))
    assert file.frames == 2
    for index, pixels in enumerate((FILM_8, TURNED)):
        assert np.abs(file.frame(index)[0] / 65535 - pixels / 255).max() < 9 / 255
    said = {"1": "says that it holds 1 picture", "7": "says that it holds 7 pictures"}
    start = said.get(count or "", "does not say how many pictures it holds")
    assert f"The file {start}; it holds 2." in file.notes
    with pytest.raises(ImageError, match="holds 2 pictures; there is no number 3"):
        file.frame(2)


def test_one_picture_is_no_pictures() -> None:
    with pytest.raises(ImageError, match=r"holds 1 picture; there is no number 4\."):
        parse(dicom_bytes(plain())).frame(3)


@pytest.mark.parametrize(
    ("allocated", "samples", "colours"), [(16, 1, False), (8, 3, False), (8, 1, True), (16, 1, True), (8, 1, False)]
)
def test_runs_tell_bytes_and_colours_of_a_pixel(allocated: int, samples: int, colours: bool) -> None:
    elements = plain(FILM_8, BitsAllocated=allocated, BitsStored=8, HighBit=7, SamplesPerPixel=samples, **EIGHT)
    elements["PixelData"] = [encapsulate([packed("RLE", np.dstack([FILM_8] * 3) if colours else FILM_8)])]
    notes = near(dicom_bytes(elements, RLELossless), FILM_8 / 255)
    assert any("value" in note for note in notes) == (samples != (3 if colours else 1))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [True, False])
def test_pixels_that_lack_a_few_are_black_there(photometric: str, window: bool) -> None:
    stored = (4095 - FILM if photometric == "MONOCHROME1" else FILM) + 400
    elements = plain(stored, PhotometricInterpretation=photometric, BitsStored=16, HighBit=15)
    low, high = (0, 4095) if window else (int(stored[:-2].min()), int(stored[:-2].max()))
    if not window:
        del elements["WindowCenter"], elements["WindowWidth"]
    whole = np.clip((stored.ravel() - low) / (high - low), 0, 1)
    whole = 1 - whole if photometric == "MONOCHROME1" else whole
    elements["PixelData"] = stored.tobytes()[:-300]
    film = decode(dicom_bytes(elements))
    shown = film.brightness().ravel()
    assert not shown[-150:].any()
    assert np.abs(shown[:-150] - whole[:-150]).max() < 1e-3
    assert "The file lacks the end of its picture; it is shown black there." in film.notes


def test_pictures_that_a_file_lacks_are_not_counted() -> None:
    held = np.stack([FILM, FILM]).tobytes()
    file = parse(dicom_bytes(plain(NumberOfFrames="5", PixelData=held[:-100])))
    assert file.frames == 2
    assert np.abs(file.frame(0)[0] / 65535 - GREY).max() < 1e-3
    assert not file.frame(1)[0].ravel()[-50:].any()
    with pytest.raises(ImageError, match="damaged"):
        decode(dicom_bytes(plain(PixelData=FILM.tobytes()[:-2000])))


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("coloured", [False, True])
@pytest.mark.parametrize("bare", [False, True])
def test_a_png_in_place_of_a_packed_frame_is_shown(deep: bool, coloured: bool, bare: bool) -> None:
    pixels = FILM if deep else FILM_8
    stream = cv2.imencode(".png", np.dstack([pixels] * 3) if coloured else pixels)[1].tobytes()
    elements = plain(pixels, BitsStored=16 if deep else 8, HighBit=15 if deep else 7)
    elements |= {} if deep else EIGHT
    elements["PixelData"] = stream if bare else [encapsulate([stream])]
    notes = near(dicom_bytes(elements, JPEGBaseline8Bit), GREY if deep else FILM_8 / 255)
    assert any("PNG" in note for note in notes)


@pytest.mark.parametrize("pixels", [FILM, FILM_8])
def test_a_value_a_pixel_where_three_are_said(pixels: np.ndarray) -> None:
    elements = plain(pixels, SamplesPerPixel=3, PhotometricInterpretation="RGB")
    elements |= {} if pixels is FILM else EIGHT
    notes = near(dicom_bytes(elements), GREY if pixels is FILM else FILM_8 / 255)
    assert "The file says that a pixel has 3 values, but it has 1 value." in notes


def test_a_scan_that_ends_at_its_first_coefficient_is_read_to_its_end() -> None:
    stream = packed("JPEG", FILM_8)
    at = stream.find(b"\xff\xda\0\x08\x01") + 8
    assert stream[at] == 63
    elements = plain(FILM_8, **EIGHT, PixelData=[encapsulate([stream[:at] + b"\0" + stream[at + 1 :]])])
    near(dicom_bytes(elements, JPEGBaseline8Bit), FILM_8 / 255, 5 / 255)


@pytest.mark.parametrize(("stored", "allocated"), [(8, 16), (16, 16), (12, 16), (8, 8)])
def test_a_jpeg_of_eight_bits_is_one_whatever_the_header_says(stored: int, allocated: int) -> None:
    elements = plain(FILM_8, BitsAllocated=allocated, BitsStored=stored, HighBit=stored - 1)
    elements.update(WindowCenter="128", WindowWidth="256", PixelData=[encapsulate([packed("JPEG", FILM_8)])])
    near(dicom_bytes(elements, JPEGBaseline8Bit), FILM_8 / 255, 5 / 255)


@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000"])
@pytest.mark.parametrize("samples", [1, None, 3])
def test_colours_under_a_grey_header_and_the_other_way_round(kind: str, samples: int | None) -> None:
    colours = np.dstack([FILM_8] * 3) if samples != 3 else FILM_8
    elements = plain(FILM_8, SamplesPerPixel=samples, WindowCenter="128", WindowWidth="256")
    if samples == 3:
        elements["PhotometricInterpretation"] = "RGB"
    elements["PixelData"] = [encapsulate([packed(kind, colours)])]
    near(dicom_bytes(elements, JPEG2000Lossless if kind == "JPEG2000" else JPEGBaseline8Bit), FILM_8 / 255, 6 / 255)


def test_what_lacks_too_much_is_refused_with_a_sentence() -> None:
    for gone in (("Rows",), ("PixelData",), ("Rows", "Columns")):
        with pytest.raises(ImageError, match=r"^[A-Z].*\.$"):
            decode(dicom_bytes(plain(**dict.fromkeys(gone))))
    with pytest.raises(ImageError, match=r"^[A-Z].*\.$"):
        decode(dicom_bytes(plain())[:-4000])


def test_a_stream_may_tell_all_that_the_file_leaves_out() -> None:
    gone = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel", "PixelRepresentation")
    elements = plain(**dict.fromkeys(gone)) | {"PixelData": [encapsulate([packed("JPEG2000", FILM)])]}
    near(dicom_bytes(elements, ""), GREY)


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
@pytest.mark.parametrize(
    "bits",
    [8, *(pytest.param(bits, marks=[GDCM, pytest.mark.slow]) for bits in (10, 12)), pytest.param(16, marks=GDCM)],
)
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
    monkeypatch.setattr(dicom_pixels, "PATIENCE", 1e-3)
    with pytest.raises(ImageError, match="damaged"):
        decode_lossless(stream, headers(stream).pop())


def test_without_gdcm_many_bits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_pixels, "find_spec", lambda _: None)
    stream = lossless(of_bits(12), 12)
    with pytest.raises(ImageError, match="not installed"):
        decode_lossless(stream, headers(stream).pop())


WIDE_WINDOW = {"WindowCenter": "0", "WindowWidth": "4096"}


@pytest.mark.parametrize("stated", [None, 0])
def test_a_packed_picture_s_own_sign_is_believed(stated: int | None) -> None:
    elements = plain(CENTRED, BitsStored=16, HighBit=15, PixelRepresentation=stated, **WIDE_WINDOW)
    elements["PixelData"] = [encapsulate([packed("J2K", CENTRED)])]
    notes = near(dicom_bytes(elements, JPEG2000Lossless), GREY)
    assert "The file does not say that pixels may be negative; the picture inside does." in notes


def test_words_that_are_all_used_show_whether_they_have_a_sign() -> None:
    full = {"BitsStored": 16, "HighBit": 15, "PixelRepresentation": None}
    near(dicom_bytes(plain(CENTRED, **full, **WIDE_WINDOW)), GREY)
    bright = FILM * 14 + 5000
    near(dicom_bytes(plain(bright, **full, WindowCenter="33670", WindowWidth="57344")), (FILM * 14.0) / 57344)


def test_what_is_packed_in_no_known_way_is_said_to_be_so() -> None:
    elements = plain(FILM)
    elements["PixelData"] = [encapsulate([FILM.tobytes()])]
    with pytest.raises(ImageError, match="packed in a way that cannot be read here"):
        decode(dicom_bytes(elements, MPEG2MPML))
    with pytest.raises(ImageError, match="values of 64 bits"):
        decode(dicom_bytes(plain(FILM.astype(np.uint64), BitsStored=64, HighBit=63)))
