from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from app.errors import ImageError
from app.imaging import radiograph
from app.imaging.examples import draw
from app.imaging.pixels import IN_COLOUR
from app.imaging.radiograph import decode, read

DRAWING = draw("spiral", seed=5, height=120, width=80)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def grey(kind: str, **options: object) -> bytes:
    return encoded(Image.fromarray(DRAWING), kind, **options)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "tolerance"),
    [
        pytest.param(grey("PNG"), 0, id="png"),
        pytest.param(grey("TIFF"), 0, id="tiff"),
        pytest.param(grey("TIFF", compression="tiff_lzw"), 0, id="tiff-lzw"),
        pytest.param(grey("WEBP", lossless=True), 1, id="webp"),
        pytest.param(grey("JPEG", quality=98), 6, id="jpeg"),
        pytest.param(encoded(Image.fromarray(DRAWING).convert("RGB"), "PNG"), 1, id="rgb"),
        pytest.param(encoded(Image.fromarray(DRAWING).convert("P"), "PNG"), 1, id="palette"),
        pytest.param(encoded(Image.fromarray(DRAWING).convert("CMYK"), "TIFF"), 2, id="cmyk-tiff"),
        pytest.param(encoded(Image.fromarray(DRAWING).convert("CMYK"), "JPEG", quality=98), 8, id="cmyk-jpeg"),
    ],
)
def test_reads_eight_bits(data: bytes, tolerance: int) -> None:
    film = decode(data)
    assert film.pixels.dtype == np.uint8
    assert film.pixels.shape == DRAWING.shape
    assert np.abs(film.display().astype(int) - DRAWING).max() <= tolerance
    assert film.notes == ()


def sixteen(kind: str) -> bytes:
    deep = DRAWING.astype(np.uint16) * 16
    done, buffer = cv2.imencode(kind, deep)
    assert done
    return buffer.tobytes()


@pytest.mark.parametrize("kind", [".png", ".tiff"])
def test_keeps_twelve_bits_in_sixteen_and_shows_them_bright(kind: str) -> None:
    film = decode(sixteen(kind))
    assert film.pixels.dtype == np.uint16
    assert np.array_equal(film.pixels, DRAWING.astype(np.uint16) * 16)
    assert film.display().max() == 255
    assert "more than 8 bits" in film.notes[0]


def test_keeps_sixteen_bits_of_colour_and_alpha() -> None:
    deep = np.dstack([DRAWING.astype(np.uint16) * 200] * 3 + [np.full(DRAWING.shape, 65535, np.uint16)])
    deep[:20, :, 3] = 0
    film = decode(cv2.imencode(".png", deep)[1].tobytes())
    assert film.pixels.dtype == np.uint16
    assert film.pixels[:20].max() == 0
    assert np.abs(film.pixels[20:].astype(int) - deep[20:, :, 0]).max() <= 1


def tiff(pixels: np.ndarray, photometric: int, order: str = "<", kind: int = 1, **more: tuple[int, int]) -> bytes:
    """An unpacked TIFF (TIFF 6.0, section 2) of one strip; ``kind`` is its sample format, ``more`` are other shorts."""
    samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    bits = 8 * pixels.dtype.itemsize
    shorts = [(256, pixels.shape[1]), (257, pixels.shape[0]), (259, 1), (262, photometric), (277, samples)]
    shorts += [(278, pixels.shape[0]), (339, kind), *more.values()]
    entries = [(tag, struct.pack(f"{order}HIHH", 3, 1, value, 0)) for tag, value in shorts]
    entries += [(273, struct.pack(f"{order}HII", 4, 1, 8)), (279, struct.pack(f"{order}HII", 4, 1, len(data)))]
    after = 8 + len(data)
    several = struct.pack(f"{order}{samples}H", *[bits] * samples)
    many = len(several) > 4
    where = struct.pack(f"{order}I", after) if many else several.ljust(4, b"\0")
    entries.append((258, struct.pack(f"{order}HI", 3, samples) + where))
    start = after + (len(several) if many else 0)
    told = b"".join(struct.pack(f"{order}H", tag) + rest for tag, rest in sorted(entries))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    body = head + data + (several if many else b"")
    return body + struct.pack(f"{order}H", len(entries)) + told + bytes(4)


DEEP = DRAWING.astype(np.uint16) * 200


@pytest.mark.parametrize(
    "data",
    [
        encoded(Image.fromarray(DEEP), "TIFF", tiffinfo={262: 0}),
        tiff(DRAWING, 0),
        tiff(DEEP, 0),
        tiff(DEEP, 0, ">"),
        tiff((DEEP // 2).astype(np.int16), 0, kind=2),
        tiff(DEEP.astype(np.int32) - 9000, 0, kind=2),
        tiff(DEEP.astype(np.uint32) * 80_000, 0),
        tiff(DRAWING.astype(np.float32), 0, kind=3),
    ],
)
def test_white_is_zero_means_negative(data: bytes) -> None:
    assert np.corrcoef(decode(data).display().ravel(), DRAWING.ravel())[0, 1] < -0.99


@pytest.mark.parametrize(
    "data",
    [
        tiff(DEEP, 1, ">"),
        tiff(DEEP.astype(np.uint32) * 80_000, 1),
        tiff((DRAWING.astype(np.int16) - 128).astype(np.int8), 1, kind=2),
        tiff(DEEP.astype(np.int32) - 9000, 1, kind=2),
        tiff(np.dstack([DEEP] * 3 + [0 * DEEP]), 2, extra=(338, 0)),
    ],
)
def test_values_of_a_tiff_have_the_sign_and_the_meaning_it_says(data: bytes) -> None:
    assert np.corrcoef(decode(data).display().ravel(), DRAWING.ravel())[0, 1] > 0.99


def test_planes_of_a_tiff_that_no_decoder_reads_are_refused() -> None:
    """OpenCV reads one of them, and gives memory for the others."""
    with pytest.raises(ImageError, match="plane a colour"):
        decode(tiff(np.dstack([DEEP] * 3), 2, planes=(284, 2)))
    with pytest.raises(ImageError, match=r"This kind of TIFF cannot be read here\."):
        decode(tiff(DRAWING.astype(np.float64), 1, kind=3))


def test_floating_point_is_spread_over_the_range() -> None:
    film = decode(encoded(Image.fromarray(DRAWING.astype(np.float32) / 1000 - 0.1), "TIFF"))
    assert np.corrcoef(film.display().ravel(), DRAWING.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("orientation", range(1, 9))
def test_undoes_the_cameras_rotation(orientation: int) -> None:
    turned: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.T,
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].T,
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[radiograph.EXIF_ORIENTATION] = orientation
    stored = Image.fromarray(np.ascontiguousarray(turned[orientation](DRAWING)))
    assert np.array_equal(decode(encoded(stored, "PNG", exif=exif)).pixels, DRAWING)


TURNED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.swapaxes(a[::-1, ::-1], 0, 1),
    8: lambda a: np.rot90(a, -1),
}


def with_tag(data: bytes, tag: int, kind: str, value: int) -> bytes:
    """A little-endian TIFF of one directory with one more short in it."""
    at = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[at : at + 2], "little")
    entries = [data[at + 2 + 12 * i : at + 14 + 12 * i] for i in range(count)]
    entries = [entry for entry in entries if int.from_bytes(entry[:2], "little") != tag]
    entries.append(struct.pack(f"<HHI{kind}H", tag, 3, 1, value, 0))
    entries.sort(key=lambda entry: int.from_bytes(entry[:2], "little"))
    body = data + bytes(len(data) % 2)
    directory = len(entries).to_bytes(2, "little") + b"".join(entries) + bytes(4)
    return body[:4] + len(body).to_bytes(4, "little") + body[8:] + directory


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("packing", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("mode", ["L", "I;16", "F", "P", "RGB", "RGBA", "CMYK", "16-bit colour"])
def test_turns_tiff_upright_once(mode: str, packing: str, orientation: int) -> None:
    stored = np.ascontiguousarray(TURNED[orientation](DRAWING))
    if mode == "16-bit colour":
        packed = [cv2.IMWRITE_TIFF_COMPRESSION, 5 if packing == "tiff_lzw" else 1]
        deep = np.dstack([stored.astype(np.uint16) * 257] * 3)
        data = with_tag(cv2.imencode(".tiff", deep, packed)[1].tobytes(), radiograph.EXIF_ORIENTATION, "H", orientation)
    else:
        kinds = {"I;16": stored.astype(np.uint16) * 16, "F": stored.astype(np.float32)}
        picture = Image.fromarray(kinds[mode]) if mode in kinds else Image.fromarray(stored).convert(mode)
        data = encoded(picture, "TIFF", compression=packing, tiffinfo={radiograph.EXIF_ORIENTATION: orientation})
    film = decode(data)
    assert film.pixels.shape == DRAWING.shape
    spread = (DRAWING - float(DRAWING.min())) / float(np.ptp(DRAWING))
    shown = film.display() / 255.0
    assert np.abs((shown - shown.min()) / np.ptp(shown) - spread).max() < 0.03


def dense(kind: str, across: int, down: int, orientation: int = 1) -> bytes:
    """The drawing with a resolution that differs by direction."""
    exif = Image.Exif()
    exif[radiograph.EXIF_ORIENTATION] = orientation
    picture = Image.fromarray(np.ascontiguousarray(TURNED[orientation](DRAWING)))
    if kind == "EXIF":
        exif[radiograph.X_RESOLUTION], exif[radiograph.Y_RESOLUTION] = across, down
        return encoded(picture, "PNG", exif=exif)
    if kind == "TIFF":
        return encoded(picture, kind, dpi=(across, down), tiffinfo={radiograph.EXIF_ORIENTATION: orientation})
    return encoded(picture, kind, dpi=(across, down), exif=exif, **({"quality": 98} if kind == "JPEG" else {}))


@pytest.mark.parametrize("kind", ["TIFF", "JPEG", "PNG", "EXIF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize(
    ("across", "down", "shape"),
    [(300, 150, (240, 80)), (150, 300, (120, 160)), (300, 300, (120, 80)), (300, 302, (120, 80)), (300, 3, (120, 80))],
)
def test_pixels_are_made_square(kind: str, orientation: int, across: int, down: int, shape: tuple[int, int]) -> None:
    # Directions are those of the picture as it is stored.
    if orientation in radiograph.ORIENTATION_ASIDE:
        across, down = down, across
    film = decode(dense(kind, across, down, orientation))
    assert film.pixels.shape == shape
    expected = cv2.resize(DRAWING, shape[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.abs(film.display().astype(int) - expected).max() <= 8
    assert any("square" in note for note in film.notes) == (max(across, down) > 1.1 * min(across, down))


@pytest.mark.parametrize(("across", "down"), [(0, 0), (0, 300), (300, 0)])
def test_a_resolution_of_nought_is_none(across: int, down: int) -> None:
    film = decode(dense("TIFF", across, down))
    assert (film.pixels.shape, film.notes) == (DRAWING.shape, ())


def test_a_density_without_a_unit_is_a_ratio() -> None:
    data = bytearray(grey("JPEG", quality=98))
    at = data.find(b"JFIF\0")
    data[at + 7 : at + 12] = struct.pack(">BHH", 0, 2, 1)
    assert decode(bytes(data)).pixels.shape == (240, 80)


def test_a_picture_made_square_keeps_to_the_most_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(radiograph, "MAX_PIXELS", 120 * 80)
    film = decode(dense("PNG", 300, 150))
    assert film.height * film.width <= 120 * 80 * 1.02
    assert film.height / film.width == pytest.approx(3.0, rel=0.02)


def test_transparency_is_background() -> None:
    layer = Image.fromarray(DRAWING).convert("RGBA")
    layer.paste((255, 255, 255, 0), (0, 0, 80, 30))
    film = decode(encoded(layer, "PNG"))
    assert film.pixels[:30].max() == 0
    assert film.pixels[40:].max() > 100


def test_colour_is_said_to_be_ignored() -> None:
    tinted = np.dstack([DRAWING, DRAWING // 3, DRAWING // 4])
    assert "colour" in decode(encoded(Image.fromarray(tinted), "PNG")).notes[0]


def test_only_the_first_page_is_read_and_said_so() -> None:
    pages = [Image.fromarray(DRAWING), Image.fromarray(255 - DRAWING)]
    film = decode(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert np.array_equal(film.pixels, DRAWING)
    assert "first one" in film.notes[0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"<html>hello</html>" * 20, "not a picture", id="html"),
        pytest.param(b"\0" * 128 + b"DICM" + b"\0" * 64, "DICOM", id="dicom"),
        pytest.param(encoded(Image.fromarray(DRAWING), "GIF"), "not a picture", id="gif"),
        pytest.param(grey("JPEG")[:900], "damaged", id="truncated-jpeg"),
        pytest.param(grey("PNG")[:2000], "damaged", id="truncated-png"),
        pytest.param(png_header(9000, 8000), "megapixels", id="many-pixels"),
        pytest.param(png_header(60000, 60000), "megapixels", id="bomb"),
        pytest.param(png_header(31, 400), "shorter side", id="thin"),
        pytest.param(encoded(Image.new("L", (64, 64), 0), "PNG"), "nothing to see", id="blank"),
        pytest.param(png_header(0, 0), "damaged|not a picture|shorter side", id="nothing"),
        pytest.param(
            encoded(Image.fromarray(np.full((40, 40), np.nan, np.float32)), "TIFF"), "without a value", id="nan"
        ),
    ],
)
def test_refuses_with_a_sentence(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words) as refusal:
        decode(data)
    assert str(refusal.value).endswith(".")


def test_size_is_checked_before_a_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(radiograph.MAX_BYTES + 1)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("read"))
    with pytest.raises(ImageError, match="50 MB"):
        read(large)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="folder"):
        read(tmp_path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        read(tmp_path / "none.png")


@pytest.mark.parametrize("side", [32, 33])
def test_the_smallest_film_is_read(side: int) -> None:
    assert decode(encoded(Image.linear_gradient("L").resize((side, 400)), "PNG")).width == side


def test_a_nearly_blank_film_is_read() -> None:
    pixels = np.full((50, 50), 300, np.uint16)
    pixels[3, 3] = 301
    assert decode(cv2.imencode(".png", pixels)[1].tobytes()).brightness().max() <= 1.0


@pytest.mark.parametrize("orientation", [1, 6])
def test_colours_stay_beside_the_grey(tmp_path: Path, orientation: int) -> None:
    colours = np.zeros((48, 64, 3), np.uint8)
    colours[:, :20] = (250, 30, 30)
    colours[30:, 30:] = (200, 190, 215)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(colours).save(tmp_path / "photo.png", exif=exif)
    film = read(tmp_path / "photo.png")
    want = colours if orientation == 1 else np.rot90(colours, -1)
    assert film.colours is not None
    assert np.array_equal(film.colours, want)
    assert film.pixels.shape == want.shape[:2]
    assert film.scaled(32).shown().shape == (*film.scaled(32).pixels.shape, 3)
    assert IN_COLOUR in film.notes
    assert IN_COLOUR not in film.seen_in(True).notes
    assert film.seen_in(False).shown().ndim == 2
    Image.fromarray(np.dstack([film.pixels] * 3)).save(tmp_path / "grey.png")
    assert read(tmp_path / "grey.png").colours is None
