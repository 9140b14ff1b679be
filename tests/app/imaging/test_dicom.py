"""DICOM files against pydicom's own pipeline, and what must never leave them."""

from __future__ import annotations

import io
import os
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import Dataset, FileMetaDataset, dcmread, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    generate_uid,
)

from app.errors import ImageError
from app.imaging import dicom, dicom_pixels, dicom_read
from app.imaging.dicom import CT_WINDOWS, parse
from app.imaging.pixels import headers
from app.imaging.radiograph import decode, dicom_image
from tests.app.imaging.found import GREY, dicom_bytes, plain

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file() and path.read_bytes()[128:132] == b"DICM")


def stored_by_pydicom(dataset: Dataset, index: int) -> np.ndarray:
    """A frame as pydicom decodes it, with one library whatever else is installed."""
    packed = dataset.file_meta.TransferSyntaxUID.is_encapsulated
    return pydicom.pixels.pixel_array(dataset, index=index, decoding_plugin="pylibjpeg" if packed else "")


def pipeline(dataset: Dataset, index: int) -> np.ndarray:
    """A frame as pydicom shows it, float in 0..1: colours by luma, windows over the whole range they map to."""
    stored = stored_by_pydicom(dataset, index)
    photometric = dataset.PhotometricInterpretation
    if photometric == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
        bits = stored.dtype.itemsize * 8
    else:
        bits = dataset.BitsStored
    if stored.ndim == 3:
        return stored.astype(float) @ np.array([0.299, 0.587, 0.114]) / (2.0**bits - 1)
    values = apply_modality_lut(stored, dataset)
    if dataset.get("WindowCenter") is None and "VOILUTSequence" not in dataset:
        low, high = float(values.min()), float(values.max())
    else:
        slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
        low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0, 2.0**bits - 1)
        low, high = low * slope + intercept, high * slope + intercept
        values = apply_voi_lut(values, dataset)
    shown = (values.astype(float) - low) / (high - low)
    return 1.0 - shown if photometric == "MONOCHROME1" else shown


@cache
def decodable(path: Path) -> bool:
    try:
        stored_by_pydicom(dcmread(path), 0)
    except Exception:  # noqa: BLE001 - whatever pydicom makes of it
        return False
    return True


UNDECODABLE = {
    "JPEG-lossy.dcm": "its scan header breaks the JPEG standard",
    "JPEG2000-embedded-sequence-delimiter.dcm": "a header of JPEG 2000 and no picture behind it",
    "MR_truncated.dcm": "fewer bytes than pixels",
    "badVR.dcm": "a number of rows that is no number",
    "meta_missing_tsyntax.dcm": "no word on how the pixels are packed",
    "nested_priv_SQ.dcm": "no word on how many bits a pixel has",
}
"""What has pixels and cannot be shown; anything more in this list would be a decoder gone missing."""
READ_NEVERTHELESS = {"badVR.dcm": (10, 10), "JPEG-lossy.dcm": (1024, 256), "MR_truncated.dcm": (64, 64)}
"""Those among them that are shown all the same, and the picture's rows and columns."""
SYNTAXES = {
    "Implicit VR Little Endian",
    "Explicit VR Little Endian",
    "Explicit VR Big Endian",
    "Deflated Explicit VR Little Endian",
    "RLE Lossless",
    "JPEG Baseline (Process 1)",
    "JPEG Extended (Process 2 and 4)",
    "JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14 [Selection Value 1])",
    "JPEG-LS Lossless Image Compression",
    "JPEG-LS Lossy (Near-Lossless) Image Compression",
    "JPEG 2000 Image Compression (Lossless Only)",
    "JPEG 2000 Image Compression",
}


@pytest.mark.filterwarnings("ignore")
def test_every_way_to_pack_pixels_is_read() -> None:
    holding = [path for path in FILES if "PixelData" in dcmread(path)]
    assert {path.name for path in holding if not decodable(path)} == set(UNDECODABLE)
    assert {dcmread(path).file_meta.TransferSyntaxUID.name for path in holding if decodable(path)} == SYNTAXES


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_is_shown_as_pydicom_shows_it_or_refused_with_a_sentence(path: Path) -> None:
    if path.name in READ_NEVERTHELESS:
        shown, _ = parse(path.read_bytes()).frame()
        assert shown.shape == READ_NEVERTHELESS[path.name]
        assert np.ptp(shown) > 60000
        return
    if not decodable(path):
        with pytest.raises(ImageError, match=r"^[A-Z].*\.$"):
            decode(path.read_bytes())
        return
    dataset = dcmread(path)
    found = parse(path.read_bytes())
    assert found.frames == int(dataset.get("NumberOfFrames") or 1)
    for index in {0, found.frames - 1}:
        shown, notes = found.frame(index)
        expected = pipeline(dataset, index)
        if "WindowCenter" in dataset and np.ptp(np.percentile(np.clip(expected, 0, 1), (2.5, 97.5))) < 1 / 255:
            # Cut out of larger ones, these lie outside of the window.
            assert np.ptp(shown) > 65000
            assert notes == ("The file's window shows nothing; the full range is shown.",)
        else:
            assert np.abs(shown / 65535.0 - expected).max() <= 1 / 255


def made(pixels: np.ndarray, **elements: object) -> Dataset:
    """A small CT-like data set around some pixels, (rows, columns) or (frames, rows, columns)."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Doe^Jane", "secret-4711", "19700101"
    dataset.Modality, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = "DX", 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


def written(dataset: Dataset) -> bytes:
    file = io.BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


RAMP = np.linspace(-1000, 1000, 64 * 64).reshape(64, 64).astype(np.int16)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_follow_the_standard(function: str) -> None:
    dataset = made(RAMP, WindowCenter=100, WindowWidth=400, VOILUTFunction=function)
    shown, notes = parse(written(dataset)).frame()
    assert np.abs(shown / 65535.0 - pipeline(dataset, 0)).max() <= 1 / 255
    assert notes == ()


def test_a_table_of_values_of_interest_is_followed() -> None:
    table = Dataset()
    table.LUTDescriptor = [256, 0, 16]
    table.LUTData = [int(65535 * (i / 255) ** 2) for i in range(256)]
    pixels = np.arange(64 * 64).reshape(64, 64).astype(np.uint16) % 256
    dataset = made(pixels, VOILUTSequence=[table])
    dataset["VOILUTSequence"][0]["LUTDescriptor"].VR = "US"
    dataset["VOILUTSequence"][0]["LUTData"].VR = "US"
    shown, _ = parse(written(dataset)).frame()
    assert np.abs(shown / 65535.0 - (pixels / 255) ** 2).max() <= 1 / 255


@pytest.mark.parametrize(
    ("photometric", "shape"), [("MONOCHROME1", None), ("MONOCHROME1", "INVERSE"), ("MONOCHROME2", "INVERSE")]
)
def test_negatives_are_turned_over_once(photometric: str, shape: str | None) -> None:
    plain, _ = parse(written(made(RAMP))).frame()
    elements = {"PhotometricInterpretation": photometric} | ({"PresentationLUTShape": shape} if shape else {})
    negative, _ = parse(written(made(RAMP, **elements))).frame()
    assert np.abs(plain.astype(int) + negative - 65535).max() <= 1


def test_ct_has_windows_in_hounsfield_units() -> None:
    file = parse(written(made((RAMP + 1024).astype(np.uint16), Modality="CT", RescaleSlope=1, RescaleIntercept=-1024)))
    assert file.windows == tuple(CT_WINDOWS)
    assert parse(written(made(RAMP))).windows == ()
    for name, (centre, width) in CT_WINDOWS.items():
        shown, _ = file.frame(window=name)
        wanted = np.clip((RAMP - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
        assert np.abs(shown / 65535.0 - wanted).max() <= 1 / 255
    assert "CT slice" in " ".join(file.notes)
    with pytest.raises(KeyError):
        file.frame(window="Vessels")


def test_frames_of_enhanced_files_have_windows_of_their_own() -> None:
    def group(centre: float) -> Dataset:
        found, window = Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth = centre, 200
        found.FrameVOILUTSequence = [window]
        return found

    shared, measures = Dataset(), Dataset()
    measures.PixelSpacing = [0.5, 0.25]
    shared.PixelMeasuresSequence = [measures]
    dataset = made(
        np.stack([RAMP, RAMP]),
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=[group(-500), group(500)],
    )
    file = parse(written(dataset))
    assert (file.frames, file.spacing) == (2, (0.5, 0.25))
    for index, centre in enumerate((-500, 500)):
        shown, _ = file.frame(index)
        assert np.abs(shown / 65535.0 - np.clip((RAMP - (centre - 0.5)) / 199 + 0.5, 0, 1)).max() <= 1 / 255
    film = dicom_image(file, 1)
    assert any("number 2" in note for note in film.notes)
    with pytest.raises(ImageError, match="no number 3"):
        file.frame(2)


def test_the_spacing_of_pixels_follows_the_film_s_size() -> None:
    film = decode(written(made(RAMP, ImagerPixelSpacing=[0.2, 0.1])))
    assert (film.spacing, film.modality) == ((0.1, 0.1), "DX")
    assert film.pixels.shape == (128, 64)
    assert film.scaled(32).spacing == pytest.approx((0.4, 0.4))
    assert decode(written(made(RAMP, PixelSpacing=[0, 1]))).spacing is None


@pytest.mark.parametrize(
    ("elements", "spacing", "noted"),
    [
        ({"PixelSpacing": [0.2, 0.2]}, 0.2, False),
        ({"PixelSpacing": [0.15, 0.15], "ImagerPixelSpacing": [0.2, 0.2]}, 0.15, False),
        ({"ImagerPixelSpacing": [0.2, 0.2]}, 0.2, True),
        ({"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [0.2, 0.2]}, 0.2, True),
        ({"ImagerPixelSpacing": [0.2, 0.2], "EstimatedRadiographicMagnificationFactor": 1.25}, 0.16, False),
        ({"ImagerPixelSpacing": [0.2, 0.2], "EstimatedRadiographicMagnificationFactor": 0}, 0.2, True),
    ],
)
def test_lengths_are_those_in_the_patient_or_said_to_be_the_detector_s(
    elements: dict, spacing: float, noted: bool
) -> None:
    film = decode(written(made(RAMP, **elements)))
    assert film.spacing == pytest.approx((spacing, spacing))
    assert any("scale is that of the detector" in note for note in film.notes) == noted


def test_a_deflated_file_is_read_and_a_bomb_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = made(RAMP)
    plain, _ = parse(written(dataset)).frame()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data = written(dataset)
    shown, _ = parse(data).frame()
    assert np.array_equal(shown, plain)
    monkeypatch.setattr(dicom_read, "INFLATED", 2000)
    with pytest.raises(ImageError, match="unfolds"):
        parse(data)


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"BurnedInAnnotation": "YES"}, "burned into"),
        ({"Modality": "MR"}, "MR slice"),
        ({"Modality": "XX"}, "no radiograph"),
        ({"PixelSpacing": [0.5, 0.25]}, "not square"),
        ({"PixelAspectRatio": [2, 1]}, "not square"),
    ],
)
def test_what_the_user_should_know_is_said(elements: dict, words: str) -> None:
    assert any(words in note for note in decode(written(made(RAMP, **elements))).notes)


def test_nobody_can_be_known_from_what_is_read(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    dataset = made(RAMP, StudyDate="not a date", InstitutionName="St. Elsewhere")
    data = written(dataset)
    recwarn.clear()
    file = parse(data)
    film = dicom_image(file)
    told = repr(file) + repr(film) + str(file._dataset) + caplog.text + "".join(str(w.message) for w in recwarn)
    assert not any(name in told for name in ("Doe", "4711", "1970", "Elsewhere", "not a date"))
    for element in file._dataset:
        assert element.keyword in dicom_read.READ


def test_nobody_can_be_known_from_what_lies_within_sequences() -> None:
    item, measures, table = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.PatientName = [0.5, 0.5], "Doe^Jane"
    item.PixelMeasuresSequence, item.PatientID, item.FrameAcquisitionDateTime = [measures], "4711", "19700101"
    table.LUTDescriptor, table.LUTExplanation = [2, 0, 16], "seen by Dr. Doe"
    table.add_new("LUTData", "US", [0, 65535])
    dataset = made(
        np.stack([RAMP, RAMP]), PerFrameFunctionalGroupsSequence=[item, item], SharedFunctionalGroupsSequence=[item]
    )
    dataset.VOILUTSequence = [table]
    dataset.file_meta.SourceApplicationEntityTitle = "DOESCANNER"
    file = parse(written(dataset))
    told = str(file._dataset) + str(file._dataset.file_meta)
    assert not any(name in told for name in ("Doe", "DOE", "4711", "1970"))
    assert file.spacing == (0.5, 0.5)
    assert file.frame(1)[0].shape == RAMP.shape


@pytest.mark.parametrize("deflated", [False, True])
def test_nothing_but_how_to_show_it_is_kept_of_any_file(deflated: bool) -> None:
    dataset = made(RAMP)
    if deflated:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.SeriesInstanceUID = generate_uid()
    file = parse(written(dataset))
    assert [element.keyword for element in file._dataset.file_meta] == ["TransferSyntaxUID"]
    assert {element.keyword for element in file._dataset} <= set(dicom_read.READ)
    assert file.series == parse(written(dataset)).series
    assert str(dataset.SeriesInstanceUID) not in repr(file) + str(file._dataset)
    dataset.SeriesInstanceUID = generate_uid()
    assert file.series != parse(written(dataset)).series


def test_one_odd_pixel_does_not_make_a_film_black() -> None:
    plain = np.linspace(0, 1000, 64 * 64).reshape(64, 64).astype(np.uint16)
    odd = plain.copy()
    odd[0, 0] = 65535
    shown = parse(written(made(odd))).frame()[0]
    assert np.percentile(shown, 99) > 0.9 * 65535
    padded = plain.copy()
    padded[:16] = 65535
    shown = parse(written(made(padded, PixelPaddingValue=65535))).frame()[0]
    expected = parse(written(made(plain[16:].copy()))).frame()[0]
    np.testing.assert_allclose(shown[16:].astype(int), expected.astype(int), atol=1)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGBaseline8Bit])
def test_a_stream_larger_than_the_file_says_is_not_unpacked(syntax: UID, monkeypatch: pytest.MonkeyPatch) -> None:
    film = np.tile(np.linspace(0, 255, 400).astype(np.uint8), (300, 1))
    dataset = made(film)
    if syntax == JPEG2000Lossless:
        dataset.compress(syntax)
    else:
        dataset.PixelData = encapsulate([cv2.imencode(".jpg", film)[1].tobytes()])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax
    assert decode(written(dataset)).pixels.shape == (300, 400)
    dataset.Rows = dataset.Columns = 64
    monkeypatch.setattr(dicom_pixels, "get_decoder", None)
    with pytest.raises(ImageError, match="one size"):
        decode(written(dataset))


@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000"])
def test_a_stream_of_more_colours_than_the_file_says_is_shown_if_it_is_small(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = np.tile(np.linspace(0, 255, 400).astype(np.uint8), (300, 1))
    dataset = made(film)
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if kind == "JPEG" else JPEG2000Lossless
    for pixels, colours in ((film, 1), (np.dstack([film] * 3), 3)):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        assert {header[:3] for header in headers(file.getvalue())} == {(300, 400, colours)}
        dataset.PixelData = encapsulate([file.getvalue()])
        dataset["PixelData"].is_undefined_length = True
        found = decode(written(dataset))
        assert np.abs(found.display().astype(int) - film).max() <= 3
        assert any("has 1 value, but it has 3" in note for note in found.notes) == (colours == 3)
    monkeypatch.setattr(dicom_pixels, "get_decoder", None)
    monkeypatch.setattr(dicom, "COLOURED", 300 * 400 - 1)
    with pytest.raises(ImageError, match="in colour; at most"):
        decode(written(dataset))


def test_blank_and_tiny_pictures_are_refused() -> None:
    with pytest.raises(ImageError, match="same brightness"):
        decode(written(made(np.full((64, 64), 7, np.uint8))))
    with pytest.raises(ImageError, match="shorter side"):
        decode(written(made(RAMP[:8, :8].copy())))


@pytest.mark.skipif("FRACTURE_DATA" not in os.environ, reason="FRACTURE_DATA names no folder with films")
def test_one_radiograph_in_three_encodings_is_one_film() -> None:
    folder = Path(os.environ["FRACTURE_DATA"]) / "dicom"
    if not folder.is_dir():
        pytest.skip("no DICOM files among the films")
    first, second, lossy = (decode((folder / f"RG3_{kind}.dcm").read_bytes()) for kind in ("J2KR", "JLSN", "JPLY"))
    assert first.brightness().shape == (1760, 1760)
    assert np.abs(first.brightness() - second.brightness()).max() < 0.02
    # Its scan's header breaks the standard, and a few values take a bit more than it says.
    assert np.abs(first.brightness() - lossy.brightness()).mean() < 0.01
    assert any("more bits" in note for note in lossy.notes)


@pytest.mark.parametrize(
    ("told", "shape"),
    [
        ({"PixelSpacing": "0.2\\0.1"}, (256, 96)),
        ({"PixelSpacing": "0.1\\0.2"}, (128, 192)),
        ({"ImagerPixelSpacing": "0.3\\0.1"}, (384, 96)),
        ({"NominalScannedPixelSpacing": "0.2\\0.1"}, (256, 96)),
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
