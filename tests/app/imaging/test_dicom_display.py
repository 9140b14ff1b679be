"""Windows, tables, backgrounds and polarity as files have them: each case is shown as it should be."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
)

from app.imaging.dicom import parse
from app.imaging.pixels import IN_COLOUR
from app.imaging.radiograph import decode
from tests.app.imaging.found import (
    CENTRED,
    FILM,
    FILM_8,
    FULL,
    GREY,
    START,
    as_shown,
    dicom_bytes,
    elements_of,
    item_of,
    meta_of,
    near,
    packed,
    plain,
)


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
        ("2600", "300", FULL),
        ("2048", "50", FULL),
        ("100", "150", FULL),
        ("2600\\2048", "300\\4096", GREY),
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


MOSTLY = "The file's window shows most of the picture plain black or white."


@pytest.mark.parametrize(
    ("centre", "width", "modality", "doubtful"),
    [
        (1500, 300, "DX", True),
        (2048, 500, "DX", True),
        (1900, 1, "DX", True),
        (2600, 300, "CT", True),
        (2048, 50, "CT", True),
        (1800, 1200, "DX", False),
        (2400, 500, "DX", False),
        (2048, 2048, "DX", False),
    ],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_doubtful_window_is_followed_and_said_to_be(
    centre: int, width: int, modality: str, doubtful: bool, photometric: str
) -> None:
    # Air may lie far above the darkest value, as in pictures that no maker's software has prepared.
    for pixels in (FILM, np.maximum(FILM, 300 + np.arange(FILM.shape[1], dtype=np.uint16) % 20)):
        inverse = photometric == "MONOCHROME1"
        stored = 4095 - pixels if inverse else pixels
        middle = 4096 - centre if inverse else centre
        elements = plain(
            stored, WindowCenter=str(middle), WindowWidth=str(width), PhotometricInterpretation=photometric
        )
        shown = np.clip((pixels - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5, 0, 1)
        notes = near(dicom_bytes(elements | {"Modality": modality}), shown)
        assert (MOSTLY in notes) == doubtful


def test_a_window_of_a_picture_in_black_and_white_is_no_doubtful_one() -> None:
    pixels = np.where(np.median(FILM) < FILM, 4095, 0).astype(np.uint16)
    assert near(dicom_bytes(plain(pixels)), pixels / 4095) == ()


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
        ("0", "1000", as_shown(-1000, 3095)),
        ("1e308", "0", as_shown(0, 4095)),
        ("1e-300", "0", as_shown(0, 4095)),
        ("1", "1e300", as_shown(0, 4095)),
    ],
)
def test_rescaling_with_what_there_is(slope: str | None, intercept: str | None, expected: np.ndarray) -> None:
    notes = near(dicom_bytes(plain(RescaleSlope=slope, RescaleIntercept=intercept)), expected)
    absurd = slope in ("0", "1e308", "-1e308", "1e-300")
    assert ("The file's rescale slope cannot be used; 1 takes its place." in notes) == absurd
    assert ("The file's rescale intercept cannot be used; 0 takes its place." in notes) == (intercept == "1e300")


HOLE = np.zeros(FILM.shape, bool)
HOLE[:20], HOLE[:, :10] = True, True


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [True, False])
@pytest.mark.parametrize(
    ("stored", "padding", "limit", "signed", "bits"),
    [
        (65535, ("US", 65535), None, False, 16),
        (65535, ("SS", -1), None, False, 16),
        (65535, ("IS", "65535"), None, False, 16),
        (65535, ("US", 65535), None, False, 12),
        (0, ("US", 0), None, False, 12),
        (4095, ("US", 4095), None, False, 12),
        (63500, ("US", 63000), ("US", 64000), False, 16),
        (63500, ("US", 64000), ("US", 63000), False, 16),
        (-2000, ("SS", -2000), None, True, 16),
        (-2000, ("US", 63536), None, True, 16),
        (-2000, ("US", 2096), None, True, 12),
        (-1950, ("SS", -2000), ("SS", -1900), True, 16),
        (-1950, ("SS", -1900), ("SS", -2000), True, 16),
        (-1950, ("US", 63536), ("US", 63636), True, 16),
        (-32768, ("US", 32768), None, True, 16),
        (63536, ("SS", -2000), None, False, 16),
    ],
)
def test_background_is_black_and_does_not_count(
    photometric: str,
    window: bool,
    stored: int,
    padding: tuple,
    limit: tuple | None,
    signed: bool,
    bits: int,
) -> None:
    half = FILM // 2
    pixels = (half.astype(np.int16) if signed else half).copy()
    pixels[HOLE] = stored
    elements = plain(
        pixels,
        PhotometricInterpretation=photometric,
        PixelPaddingValue=padding,
        PixelPaddingRangeLimit=limit,
        BitsStored=bits,
        HighBit=bits - 1,
    )
    if not window:
        del elements["WindowCenter"], elements["WindowWidth"]
    empty = HOLE | (half == stored)
    real = half[~empty].astype(float)
    low, high = (0, 4095) if window else (real.min(), real.max())
    expected = np.clip((half - low) / (high - low), 0, 1)
    expected = np.where(empty, 0, 1 - expected if photometric == "MONOCHROME1" else expected)
    near(dicom_bytes(elements), expected)


def test_background_everywhere_is_no_background() -> None:
    notes = near(dicom_bytes(plain(PixelPaddingValue=0, PixelPaddingRangeLimit=65535)), GREY)
    assert any("calls every pixel background" in note for note in notes)


CURVE = np.round(4095 * (np.arange(4096) / 4095) ** 2).astype(np.uint16)
CURVE_8 = np.round(255 * (np.arange(4096) / 4095) ** 2).astype(np.uint8)
SQUARED = (FILM / 4095.0) ** 2


def voi(descriptor: object, data: object, kind: str = "OW", **how: bool | str) -> list[bytes]:
    order = str(how.get("order", "<"))
    return [
        item_of({"LUTDescriptor": descriptor, "LUTData": (kind, data)}, order, bool(how.get("implicit", False))),
    ]


def swapped(entries: np.ndarray) -> bytes:
    return entries.reshape(-1, 2)[:, ::-1].tobytes()


@pytest.mark.parametrize("window", [True, False])
@pytest.mark.parametrize(
    "table",
    [
        pytest.param(voi([4096, 0, 12], CURVE), id="as it should be"),
        pytest.param(voi([4096, 0, 12], CURVE, "US"), id="US"),
        pytest.param(voi([4096, 0, 12], CURVE, "UN"), id="UN"),
        pytest.param(voi([4096, 0, 16], CURVE), id="claims 16 bits, holds 12"),
        pytest.param(voi([4096, 0, 16], CURVE_8.astype(np.uint16)), id="claims 16 bits, holds 8"),
        pytest.param(voi([4096, 0, 8], CURVE_8.astype(np.uint16)), id="8 bits, one a word"),
        pytest.param(voi([4096, 0, 8], CURVE_8.tobytes()), id="8 bits, two a word"),
        pytest.param(voi([4096, 0, 8], swapped(CURVE_8)), id="8 bits, two a word, the other way round"),
        pytest.param(voi([4096, 0, 8], CURVE_8.tobytes(), "OB"), id="8 bits, bytes"),
        pytest.param(voi([4096, 0, 16], CURVE_8.tobytes()), id="claims 16 bits, two a word"),
        pytest.param(voi([4096, 0, 12], np.append(CURVE, CURVE[-1:].repeat(4))), id="more than claimed"),
        pytest.param(voi([4096, 0, 12], CURVE[: int(FILM.max()) + 1]), id="short, but all that is needed"),
        pytest.param(voi([4096, 0], CURVE), id="no bits told"),
        pytest.param(voi(("SS", [4096, 0, 12]), CURVE), id="descriptor with a sign"),
        pytest.param([*voi([4096, 0, 12], b""), *voi([4096, 0, 12], CURVE)], id="the first is empty"),
    ],
)
def test_tables_are_read_by_what_they_hold(table: list[bytes], window: bool) -> None:
    elements = plain(VOILUTSequence=table)
    if not window:
        del elements["WindowCenter"], elements["WindowWidth"]
    near(dicom_bytes(elements), SQUARED)


@pytest.mark.parametrize("implicit", [False, True])
def test_tables_in_other_ways_of_writing(implicit: bool) -> None:
    syntax = ImplicitVRLittleEndian if implicit else ExplicitVRBigEndian
    order = "<" if implicit else ">"
    for descriptor, entries in (([4096, 0, 12], CURVE), ([4096, 0, 8], CURVE_8.view("<u2").astype(np.uint16))):
        table = voi(descriptor, entries, order=order, implicit=implicit)
        data = START + meta_of(syntax) + elements_of(plain(VOILUTSequence=table), order, implicit)
        near(data, SQUARED)


@pytest.mark.parametrize("kind", ["US", "SS"])
def test_a_table_of_all_values_is_told_by_nought(kind: str) -> None:
    entries = np.round(65535 * (np.minimum(np.arange(65536), 4095) / 4095) ** 2).astype(np.uint16)
    descriptor = (kind, [0, 0, 16])
    near(dicom_bytes(plain(VOILUTSequence=voi(descriptor, entries))), SQUARED)


@pytest.mark.parametrize("descriptor", [("US", [4096, 63488, 12]), ("SS", [4096, -2048, 12])])
def test_a_table_may_start_below_nought(descriptor: tuple) -> None:
    near(dicom_bytes(plain(CENTRED, VOILUTSequence=voi(descriptor, CURVE))), SQUARED)


def test_a_table_s_first_value_may_be_told_with_the_wrong_sign() -> None:
    high = FILM + 40000
    elements = plain(high, BitsStored=16, HighBit=15, VOILUTSequence=voi(("SS", [4096, 40000 - 65536, 12]), CURVE))
    near(dicom_bytes(elements), SQUARED)


@pytest.mark.parametrize(
    "table",
    [
        pytest.param([item_of({})], id="empty item"),
        pytest.param([], id="no item"),
        pytest.param(voi([4096, 0, 12], b""), id="no entries"),
        pytest.param([item_of({"LUTDescriptor": [4096, 0, 12]})], id="no data"),
        pytest.param([item_of({"LUTData": ("OW", CURVE)})], id="no descriptor"),
        pytest.param(voi([4096, 0, 12], CURVE[:500]), id="too few entries"),
        pytest.param(voi([4096, 0, 12], CURVE * 0 + 7), id="all the same"),
        pytest.param(voi([4096, 30000, 12], CURVE), id="for other values"),
        pytest.param(voi(("LO", "a\\b\\c"), CURVE), id="words"),
    ],
)
def test_a_table_that_cannot_be_used_gives_way_to_the_window_or_the_full_range(table: list[bytes]) -> None:
    notes = near(dicom_bytes(plain(VOILUTSequence=table)), GREY)
    assert any("table" in note and "its window is shown" in note for note in notes) == bool(table)
    gone = dict.fromkeys(("WindowCenter", "WindowWidth"))
    notes = near(dicom_bytes(plain(VOILUTSequence=table, **gone)), FULL)
    assert any("full range" in note or "darkest and brightest" in note for note in notes)


def test_a_modality_table_is_followed_or_left_out() -> None:
    table = voi([4096, 0, 12], CURVE)
    near(dicom_bytes(plain(ModalityLUTSequence=table)), CURVE[FILM] / 4095)
    notes = near(dicom_bytes(plain(ModalityLUTSequence=voi([4096, 0, 12], b""))), GREY)
    assert any("stored values are shown" in note for note in notes)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", [None, "IDENTITY", "INVERSE", "inverse "])
@pytest.mark.parametrize("table", [True, False])
def test_polarity_with_tables_and_shapes(photometric: str, shape: str | None, table: bool) -> None:
    elements = plain(PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    if table:
        elements["VOILUTSequence"] = voi([4096, 0, 12], CURVE)
    shown = SQUARED if table else GREY
    inverse = photometric == "MONOCHROME1" or (shape or "").strip().upper() == "INVERSE"
    near(dicom_bytes(elements), 1 - shown if inverse else shown)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2", "MONOCHROM1", "RGB"])
@pytest.mark.parametrize("shape", [None, "INVERSE"])
@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000", ""])
@pytest.mark.parametrize("tint", [0, 120])
def test_three_values_a_pixel_are_as_negative_as_the_header_says(
    photometric: str, shape: str | None, kind: str, tint: int
) -> None:
    colours = np.dstack([FILM_8, np.maximum(FILM_8, tint), FILM_8])
    elements = plain(FILM_8, WindowCenter="100", WindowWidth="150", PhotometricInterpretation=photometric)
    elements |= {"PixelData": [encapsulate([packed(kind, colours)])] if kind else colours, "SamplesPerPixel": 3}
    if shape:
        elements["PresentationLUTShape"] = shape
    luma = colours @ np.array([0.299, 0.587, 0.114])
    grey = photometric != "RGB" and not tint
    shown = np.clip((luma - 99.5) / 149 + 0.5, 0, 1) if grey else luma / 255
    inverse = photometric != "RGB" and (photometric.endswith("1") or shape == "INVERSE")
    syntax = {"JPEG": JPEGBaseline8Bit, "JPEG2000": JPEG2000Lossless}.get(kind, ExplicitVRLittleEndian)
    notes = near(
        dicom_bytes(elements, syntax), 1 - shown if inverse else shown, 12 / 255 if kind == "JPEG" else 2 / 255
    )
    assert (IN_COLOUR in notes) == bool(tint)


DARK = np.round(200 * (np.arange(256) / 255) ** 2).astype(np.uint8)
"""A palette's table of 8 bits, of dark colours only."""
LINE = np.array([0, 1, 0, 1, 255, 65535], "<u2").tobytes()
"""A segmented table: a first entry, then a line up to the last one."""


@pytest.mark.parametrize(
    ("bits", "data", "white"),
    [
        (8, DARK.tobytes(), 255),
        (8, DARK.astype("<u2"), 255),
        (16, DARK.astype("<u2"), 255),
        (16, DARK.tobytes(), 255),
        (16, DARK.astype("<u2") * 257, 65535),
        (16, DARK.astype("<u2") * 20, 4095),
    ],
)
@pytest.mark.parametrize("colours", [("Red", "Green", "Blue"), ("Red",), ("Green",)])
def test_palettes_are_read_by_what_they_hold(bits: int, data: object, white: int, colours: tuple[str, ...]) -> None:
    elements = plain(FILM_8, PhotometricInterpretation="PALETTE COLOR", WindowCenter=None, WindowWidth=None)
    for colour in colours:
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        elements[f"{colour}PaletteColorLookupTableData"] = ("OW", data)
    factor = {65535: 257, 4095: 20}.get(white, 1)
    notes = near(dicom_bytes(elements), DARK[FILM_8].astype(float) * factor / white)
    assert any("tables of its palette" in note for note in notes) == (len(colours) < 3)


@pytest.mark.parametrize("colours", [("Red", "Green", "Blue"), ("Red",)])
def test_palettes_in_segments(colours: tuple[str, ...]) -> None:
    elements = plain(FILM_8, PhotometricInterpretation="PALETTE COLOR")
    for colour in colours:
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        elements[f"Segmented{colour}PaletteColorLookupTableData"] = ("OW", LINE)
    near(dicom_bytes(elements), FILM_8 / 255)


def test_a_palette_in_no_order_is_read_as_it_lies() -> None:
    order = np.random.default_rng(0).permutation(256)
    pixels = np.argsort(order).astype(np.uint8)[FILM_8]
    elements = plain(pixels, PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        elements[f"{colour}PaletteColorLookupTableData"] = ("OW", order.astype(np.uint8).tobytes())
    near(dicom_bytes(elements), FILM_8 / 255)


@pytest.mark.parametrize("stated", [0, -2000])
def test_background_of_packed_pixels_with_a_sign_is_black(stated: int) -> None:
    pixels = CENTRED.copy()
    pixels[HOLE] = stated
    elements = plain(pixels, BitsStored=16, HighBit=15, PixelPaddingValue=("SS", stated), WindowCenter="0")
    elements["PixelData"] = [encapsulate([packed("J2K", pixels)])]
    expected = np.where(HOLE | (pixels == stated), 0, GREY)
    near(dicom_bytes(elements, JPEG2000Lossless), expected)


def group(**told: object) -> bytes:
    return item_of({"FrameVOILUTSequence": [item_of(told)]})


def frames(shared: list[bytes], own: list[bytes], **changes: object) -> bytes:
    elements = plain(np.stack([FILM, FILM]), NumberOfFrames="2", **changes)
    elements["SharedFunctionalGroupsSequence"], elements["PerFrameFunctionalGroupsSequence"] = shared, own
    return dicom_bytes(elements)


@pytest.mark.parametrize(
    ("shared", "own", "expected"),
    [
        ([], [group(VOILUTSequence=voi([4096, 0, 12], CURVE)), group(WindowCenter="2048", WindowWidth="4096")], 1),
        ([group(VOILUTSequence=voi([4096, 0, 12], CURVE))], [], 2),
        (
            [group(VOILUTSequence=voi([4096, 0, 12], CURVE))],
            [item_of({}), group(WindowCenter="2048", WindowWidth="4096")],
            1,
        ),
        ([group(VOILUTSequence=voi([4096, 0, 12], CURVE))], [group(WindowCenter="x", WindowWidth="y")] * 2, 2),
    ],
)
def test_frames_have_tables_and_windows_of_their_own(shared: list, own: list, expected: int) -> None:
    file = parse(frames(shared, own, WindowCenter="900", WindowWidth="300"))
    assert file.frames == 2
    for index in range(2):
        shown = file.frame(index)[0] / 65535.0
        assert np.abs(shown - (SQUARED if index < expected else GREY)).max() < 1.5 / 255


def test_a_window_narrower_than_one_is_one_of_fractions() -> None:
    near(dicom_bytes(plain(RescaleSlope="0.0001", WindowCenter="0.2048", WindowWidth="0.4096")), GREY)
