"""Kinds of DICOM files that public reports of viewers tell of: each is shown as it should be, with a note where due."""

from __future__ import annotations

import io
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels import get_encoder
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from app.errors import ImageError
from app.imaging.dicom import is_dicom, parse
from app.imaging.radiograph import decode
from tests.app.imaging.found import FILM, FULL, GREY, START, as_shown, dicom_bytes, elements_of, meta_of, near, plain

NEGATIVE = 4095 - FILM
ITEM_END = b"\xfe\xff\xdd\xe0\0\0\0\0"


BE = elements_of(plain(), ">")
LE, IMPLICIT = elements_of(plain()), elements_of(plain(), implicit=True)
VERSION = elements_of({"FileMetaInformationVersion": ("OB", b"\0\1")})


def syntax_element(uid: str) -> bytes:
    return elements_of({"TransferSyntaxUID": ("UI", uid)})


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(LE, id="nothing before explicit"),
        pytest.param(IMPLICIT, id="nothing before implicit"),
        pytest.param(BE, id="nothing before big endian"),
        pytest.param(START + LE, id="preamble and explicit"),
        pytest.param(START + IMPLICIT, id="preamble and implicit"),
        pytest.param(START + BE, id="preamble and big endian"),
        pytest.param(b"DICM" + meta_of(ExplicitVRLittleEndian) + LE, id="no preamble, letters"),
        pytest.param(meta_of(ExplicitVRLittleEndian) + LE, id="group 2 first, explicit"),
        pytest.param(meta_of(ImplicitVRLittleEndian) + IMPLICIT, id="group 2 first, implicit"),
        pytest.param(START + meta_of(ExplicitVRLittleEndian, length=False) + LE, id="group 2 without length"),
        pytest.param(START + syntax_element(ExplicitVRBigEndian) + VERSION + BE, id="group 2 in odd order"),
        pytest.param(START + VERSION + LE, id="no syntax, explicit"),
        pytest.param(START + VERSION + IMPLICIT, id="no syntax, implicit"),
        pytest.param(START + VERSION + BE, id="no syntax, big endian"),
        pytest.param(START + syntax_element("") + IMPLICIT, id="syntax empty"),
        pytest.param(START + syntax_element("1.2.3.4") + LE, id="syntax unknown"),
        pytest.param(START + meta_of(ImplicitVRLittleEndian) + LE, id="said implicit, is explicit"),
        pytest.param(START + meta_of(ExplicitVRLittleEndian) + IMPLICIT, id="said explicit, is implicit"),
        pytest.param(START + meta_of(ExplicitVRLittleEndian) + BE, id="said little, is big"),
        pytest.param(START + meta_of(ExplicitVRBigEndian) + LE, id="said big, is little"),
        pytest.param(START + meta_of(JPEGBaseline8Bit) + LE, id="said packed, is not"),
        pytest.param(START + VERSION + zlib.compress(LE, wbits=-15), id="no syntax, deflated"),
    ],
)
def test_a_data_set_is_found_however_it_starts(data: bytes) -> None:
    assert is_dicom(data)
    near(data, GREY)


@pytest.mark.parametrize("data", [b"", b"\x08\0", b"\x08\0\x05\0", bytes(400), b"\x08\0\x05\0CS\xff\xff" + bytes(90)])
def test_what_is_no_data_set_is_not_taken_for_one(data: bytes) -> None:
    assert not is_dicom(data)


FILM_8 = (FILM // 16).astype(np.uint8)


def packed(kind: str, pixels: np.ndarray) -> bytes:
    if kind == "RLE":
        encoder = get_encoder(RLELossless)
        return encoder.encode(
            pixels.tobytes(),
            rows=pixels.shape[0],
            columns=pixels.shape[1],
            samples_per_pixel=1,
            number_of_frames=1,
            bits_allocated=8 * pixels.dtype.itemsize,
            bits_stored=8 * pixels.dtype.itemsize,
            pixel_representation=0,
            photometric_interpretation="MONOCHROME2",
        )
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **({"quality": 98} if kind == "JPEG" else {}))
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000", "RLE"])
@pytest.mark.parametrize("told", ["", ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit])
def test_how_pixels_are_packed_is_seen_from_them(kind: str, told: str) -> None:
    elements = plain(FILM_8, WindowCenter="128", WindowWidth="256")
    elements["PixelData"] = [encapsulate([packed(kind, FILM_8)])]
    notes = near(dicom_bytes(elements, told), FILM_8 / 255, 5 / 255)
    assert any("how its pixels are packed" in note for note in notes) == (told == "")


def test_a_stream_without_items_is_read() -> None:
    elements = plain(FILM_8, WindowCenter="128", WindowWidth="256", PixelData=packed("JPEG", FILM_8))
    near(dicom_bytes(elements, JPEGBaseline8Bit), FILM_8 / 255, 5 / 255)


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


@pytest.mark.parametrize("name", ["NumberOfFrames", "InstanceNumber", "PixelSpacing", "ImagerPixelSpacing"])
@pytest.mark.parametrize(
    "value", ["0,2\\0,2", "AUTO", " ", "", "1A", "1\\", "\\", "n/a\\n/a", "1:1", "nan\\nan", "inf"]
)
def test_numbers_that_nobody_needs_are_skipped(name: str, value: str) -> None:
    near(dicom_bytes(plain(**{name: value})), GREY)


@pytest.mark.parametrize(
    "name",
    [
        "PixelAspectRatio",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "EstimatedRadiographicMagnificationFactor",
        "RescaleSlope",
        "RescaleIntercept",
        "PixelPaddingRangeLimit",
    ],
)
@pytest.mark.parametrize("value", ["x", " ", "1A", "\\"])
def test_words_in_place_of_numbers_are_skipped(name: str, value: str) -> None:
    near(dicom_bytes(plain(**{name: ("LO", value)})), GREY)


def test_a_decimal_comma_is_a_point() -> None:
    assert decode(dicom_bytes(plain(PixelSpacing="0,25\\0,25"))).spacing == (0.25, 0.25)
    near(dicom_bytes(plain(WindowCenter="1024,0", WindowWidth="2048,0")), as_shown(0, 2047))


@pytest.mark.parametrize(
    ("centre", "width", "expected"),
    [
        ("2048\\ ", "4096\\ ", GREY),
        ("2048\\", "4096\\", GREY),
        (" \\2048", " \\4096", GREY),
        ("AUTO\\2048", "AUTO\\4096", GREY),
        ("AUTO", "AUTO", FULL),
        ("", "", FULL),
        ("1A", "4096", FULL),
        ("2048", "", FULL),
        ("2048", "0", FULL),
        ("2048", "-4096", FULL),
        ("32768", "65536", FULL),
        ("40000", "400", FULL),
        ("-40000", "400", FULL),
        ("4090", "4", FULL),
        ("1e9", "1e3", FULL),
        ("40000\\2048", "400\\4096", GREY),
        ("40000\\-9000\\2048", "400\\10\\4096", GREY),
        ("2048\\40000", "4096\\400", GREY),
        ("+2.048e3", " 4096 ", GREY),
    ],
)
def test_a_window_that_shows_nothing_gives_way(centre: str, width: str, expected: np.ndarray) -> None:
    notes = near(dicom_bytes(plain(WindowCenter=centre, WindowWidth=width)), expected)
    whole = centre.split("\\")[0] in ("2048", "+2.048e3") and width.split("\\")[0].strip() == "4096"
    assert bool(notes) != whole
    if notes and expected is FULL and centre:
        assert any("full range is shown" in note or "names no window" in note for note in notes)


def test_the_note_of_a_window_tells_what_was_wrong() -> None:
    def notes(centre: str, width: str) -> str:
        return " ".join(decode(dicom_bytes(plain(WindowCenter=centre, WindowWidth=width))).notes)

    assert notes("40000", "400") == "The file's window shows nothing; the full range is shown."
    assert notes("AUTO", "AUTO") == "The file's window cannot be used; the full range is shown."
    assert notes("32768", "65536") == "The file's window shows hardly anything; the full range is shown."
    assert notes("40000\\2048", "400\\4096") == "The file's window shows nothing; its next one is shown."


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", "sigmoid ", "WHATEVER"])
def test_functions_of_windows(function: str, photometric: str) -> None:
    elements = plain(VOILUTFunction=function, PhotometricInterpretation=photometric)
    shown = {
        "LINEAR_EXACT": np.clip((FILM - 2048.0) / 4096 + 0.5, 0, 1),
        "SIGMOID": 1 / (1 + np.exp(-4 * (FILM - 2048.0) / 4096)),
    }.get(function.strip().upper(), GREY)
    near(dicom_bytes(elements), 1 - shown if photometric == "MONOCHROME1" else shown)


def test_a_window_of_width_one_parts_the_pixels_in_two() -> None:
    middle = int(np.median(FILM))
    near(dicom_bytes(plain(WindowCenter=str(middle), WindowWidth="1")), (middle - 0.5 < FILM).astype(float))


@pytest.mark.parametrize(
    ("slope", "intercept", "expected"),
    [
        (None, None, as_shown(0, 4095)),
        ("", "0", as_shown(0, 4095)),
        ("0", "0", as_shown(0, 4095)),
        ("x", "0", as_shown(0, 4095)),
        ("1", None, as_shown(0, 4095)),
        ("2", None, as_shown(0, 2047.5)),
        ("2", "", as_shown(0, 2047.5)),
        (None, "1000", as_shown(-1000, 3095)),
        ("1,0", "0,0", as_shown(0, 4095)),
        ("-1", "4095", 1 - as_shown(0, 4095)),
    ],
)
def test_rescaling_with_what_there_is(slope: str | None, intercept: str | None, expected: np.ndarray) -> None:
    near(dicom_bytes(plain(RescaleSlope=slope, RescaleIntercept=intercept)), expected)


NOISE = np.random.default_rng(0).integers(0, 16, FILM.shape).astype(np.uint16)
CENTRED = FILM.astype(np.int16) - 2048
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


def test_frames_may_be_counted_by_their_pixels() -> None:
    for count in ("", "two"):
        assert parse(dicom_bytes(plain(np.stack([FILM, FILM, FILM]), NumberOfFrames=count))).frames == 3


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


@pytest.mark.parametrize(
    ("told", "shape"),
    [
        ({"PixelSpacing": "0.2\\0.1"}, (256, 96)),
        ({"PixelSpacing": "0.1\\0.2"}, (128, 192)),
        ({"ImagerPixelSpacing": "0.3\\0.1"}, (384, 96)),
        ({"PixelAspectRatio": "2\\1"}, (256, 96)),
        ({"PixelAspectRatio": "1\\2"}, (128, 192)),
        ({"PixelAspectRatio": "100\\101"}, (128, 96)),
        ({"PixelAspectRatio": "2\\1", "PixelSpacing": "0.1\\0.1"}, (128, 96)),
        ({"PixelAspectRatio": "1000\\1"}, (128, 96)),
        ({"PixelSpacing": "0.14\\14"}, (128, 96)),
        ({"PixelAspectRatio": "0\\1"}, (128, 96)),
        ({"PixelAspectRatio": "-2\\-1"}, (128, 96)),
    ],
    ids=str,
)
def test_pixels_are_made_square(told: dict, shape: tuple[int, int]) -> None:
    film = decode(dicom_bytes(plain(**told)))
    assert film.pixels.shape == shape
    expected = cv2.resize(GREY.astype(np.float32), shape[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.abs(film.brightness() - expected).max() < 2 / 255
    odd = shape != (128, 96) or "1000" in str(told) or "14" in str(told)
    assert any("square" in note for note in film.notes) == odd
    if film.spacing is not None and shape != (128, 96):
        assert film.spacing[0] == pytest.approx(film.spacing[1])


def test_what_lacks_too_much_is_refused_with_a_sentence() -> None:
    for gone in (("Rows",), ("PixelData",), ("Rows", "Columns")):
        with pytest.raises(ImageError, match=r"^[A-Z].*\.$"):
            decode(dicom_bytes(plain(**dict.fromkeys(gone))))
    with pytest.raises(ImageError, match=r"^[A-Z].*\.$"):
        decode(dicom_bytes(plain())[:-4000])


def test_runs_that_hold_what_looks_like_another_stream_s_header_are_runs() -> None:
    pixels = FILM_8.copy()
    header = b"\xff\x4f\xff\x51" + bytes(4) + bytes([0, 0, 0, 9] * 2) + bytes(24) + b"\0\1\7"
    pixels[5, : len(header)] = np.frombuffer(header, np.uint8)
    stream = packed("RLE", pixels)
    assert b"\xff\x4f\xff\x51" in stream
    elements = plain(pixels, WindowCenter="128", WindowWidth="256", PixelData=[encapsulate([stream])])
    near(dicom_bytes(elements, RLELossless), pixels / 255)


def of_parts(*parts: bytes) -> list[bytes]:
    return [b"\xfe\xff\x00\xe0" + len(part).to_bytes(4, "little") + part for part in parts]


@pytest.mark.parametrize("offsets", [None, b"", bytes(4), (500).to_bytes(4, "little"), b"\xff" * 4])
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000", "RLE"])
def test_offsets_of_an_only_frame_may_be_wrong(offsets: bytes | None, parts: int, kind: str) -> None:
    stream = packed(kind, FILM_8)
    stream += bytes(len(stream) % 2)
    step = len(stream) // parts // 2 * 2
    cut = [stream[i * step : (i + 1) * step if i < parts - 1 else None] for i in range(parts)]
    items = of_parts(*([] if offsets is None else [offsets]), *cut)
    elements = plain(FILM_8, WindowCenter="128", WindowWidth="256", PixelData=items)
    near(dicom_bytes(elements, ""), FILM_8 / 255, 5 / 255)


@pytest.mark.parametrize("syntax", ["", ImplicitVRLittleEndian])
def test_elements_without_representations_may_hold_a_stream(syntax: str) -> None:
    elements = plain(FILM_8, WindowCenter="128", WindowWidth="256", PixelData=[encapsulate([packed("JPEG", FILM_8)])])
    near(START + meta_of(syntax) + elements_of(elements, implicit=True), FILM_8 / 255, 5 / 255)


def test_a_stream_may_tell_all_that_the_file_leaves_out() -> None:
    gone = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel", "PixelRepresentation")
    elements = plain(**dict.fromkeys(gone)) | {"PixelData": [encapsulate([packed("JPEG2000", FILM)])]}
    near(dicom_bytes(elements, ""), GREY)


def test_a_window_narrower_than_one_is_one_of_fractions() -> None:
    near(dicom_bytes(plain(RescaleSlope="0.0001", WindowCenter="0.2048", WindowWidth="0.4096")), GREY)
