"""Data sets as they are found: with or without a start, whole or in parts, with words in place of numbers."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from app.imaging.dicom import is_dicom
from app.imaging.radiograph import decode
from tests.app.imaging.found import (
    FILM_8,
    GREY,
    START,
    as_shown,
    dicom_bytes,
    elements_of,
    meta_of,
    near,
    packed,
    plain,
)

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
        pytest.param(START + VERSION + zlib.compress(LE), id="no syntax, deflated and wrapped"),
    ],
)
def test_a_data_set_is_found_however_it_starts(data: bytes) -> None:
    assert is_dicom(data)
    near(data, GREY)


@pytest.mark.parametrize("data", [b"", b"\x08\0", b"\x08\0\x05\0", bytes(400), b"\x08\0\x05\0CS\xff\xff" + bytes(90)])
def test_what_is_no_data_set_is_not_taken_for_one(data: bytes) -> None:
    assert not is_dicom(data)


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


@pytest.mark.parametrize("kind", [b"??", b"  ", b"\0\0", b"XX", b"\xff\xff"])
@pytest.mark.parametrize("name", ["Modality", "BodyPartExamined", "Rows", "WindowCenter", "PixelData"])
def test_representations_that_nobody_knows_hide_nothing(kind: bytes, name: str) -> None:
    elements = plain(BodyPartExamined="WRIST", StudyDescription="x")
    data = dicom_bytes(elements)
    tag = tag_for_keyword(name) or 0
    at = data.find((tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little"))
    data = data[: at + 4] + kind + data[at + 6 :]
    near(data, GREY)
    near(data.replace(b"\x08\0\x30\x10LO", b"\x08\0\x30\x10!!"), GREY)
