"""From the bytes of a picture file to a radiograph: one grey channel at its own depth, or a reason why not.

``app.imaging.dicom`` reads DICOM; this module reads PNG (8 and 16 bit), JPEG, WebP and TIFF and resolves EXIF rotation,
CMYK, alpha and palettes, so that no other module meets them. Radiographs are grey: tints tell where a picture is from,
not what is broken. The colours of a picture with 8 bits stay beside its grey, for models whose images have some.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from app.errors import ImageError
from app.imaging.dicom import DicomFile, is_dicom, parse
from app.imaging.pixels import (
    IN_COLOUR,
    TIFF_PHOTOMETRIC,
    black_is_zero,
    count_coloured,
    is_coloured,
    strips,
    tiff_sizes,
)

__all__ = ["MAX_BYTES", "MAX_PIXELS", "MIN_SIDE", "Radiograph", "decode", "dicom_image", "load", "read"]

# OpenCV writes about damaged files to the error stream, past every log.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

log = logging.getLogger(__name__)

MAX_BYTES = 50 * 1024 * 1024
MAX_PIXELS = 30_000_000
"""More than a mammogram or a stitched spine has."""
MIN_SIDE = 32
MAX_RATIO = 30
"""Of the longer side to the shorter; a stitched spine or leg has about 5."""

PALE = 10 / 255
"""Difference between a pixel's channels from which on it is more than the noise of compression."""

DAMAGED = "The file is damaged or incomplete, so the picture cannot be decoded."
BLANK = "Every pixel of the picture has the same brightness, so there is nothing to see."
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
EXIF_ORIENTATION = 0x0112
ORIENTATION_ASIDE = (5, 6, 7, 8)
"""Values of that tag that swap rows and columns."""
X_RESOLUTION, Y_RESOLUTION = 282, 283
SQUARE = 0.98, 1.02
"""Heights of a pixel, in widths of it, that count as square."""
MOST_OBLONG = 5.0
"""A longer pixel is a slip of the file; interlaced pictures and digitised films have about 2."""
TIFF_BITS = 258
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
TIFF_PLANAR = 284
TIFF_EXTRA = 338
TIFF_SIGN = 339
PLANES, OPACITY, SIGNED, UNSIGNED = 2, (1, 2), 2, 1
"""Values of the last three tags: a plane a colour; kinds of opacity; two's complement, or no sign."""


@dataclass(frozen=True, eq=False)
class Radiograph:
    """A decoded X-ray.

    Attributes:
        pixels: uint8 or uint16, (H, W), high is bright; as stored, without windowing.
        window: the two pixel values shown as black and as white; low < high, or equal on a blank picture.
        notes: sentences for the user about how it was read.
        spacing: height and width of a pixel in mm; None where unknown.
        modality: as DICOM names it, such as "DX" or "CT"; empty where the file names none.
        colours: uint8 (H, W, 3), RGB, of a picture that has some, however pale; else None.
    """

    pixels: np.ndarray
    window: tuple[float, float]
    notes: tuple[str, ...] = ()
    spacing: tuple[float, float] | None = None
    modality: str = ""
    colours: np.ndarray | None = None

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    def brightness(self, pixels: np.ndarray | None = None) -> np.ndarray:
        """Windowed brightness, float32 in 0..1, of the radiograph or of pixels resampled from it; same shape."""
        low, high = self.window
        values = (self.pixels if pixels is None else pixels).astype(np.float32)
        return np.clip((values - low) / max(high - low, 1e-6), 0.0, 1.0)

    def display(self) -> np.ndarray:
        """The radiograph as a screen shows it: uint8, (H, W)."""
        if self.pixels.dtype == np.uint8 and self.window == (0, 255):
            return self.pixels
        shown = np.empty(self.pixels.shape, np.uint8)
        for rows in strips(*shown.shape):
            shown[rows] = self.brightness(self.pixels[rows]) * 255.0 + 0.5
        return shown

    def shown(self) -> np.ndarray:
        """The picture for people: its colours, uint8 (H, W, 3), where it has some, else ``display``."""
        return self.display() if self.colours is None else self.colours

    def seen_in(self, colour: bool) -> Radiograph:
        """The radiograph as a model sees it, with its colours or without, and no note that tells otherwise."""
        if not colour or self.colours is None:
            return self if self.colours is None else replace(self, colours=None)
        return replace(self, notes=tuple(note for note in self.notes if note != IN_COLOUR))

    def scaled(self, longest: int) -> Radiograph:
        """A copy whose longest side has ``longest`` pixels, at least 1 each way."""
        scale = longest / max(self.height, self.width)
        size = (max(1, round(self.width * scale)), max(1, round(self.height * scale)))
        spacing = None
        if self.spacing is not None:
            spacing = self.spacing[0] * self.height / size[1], self.spacing[1] * self.width / size[0]
        pixels = cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA)
        colours = None if self.colours is None else cv2.resize(self.colours, size, interpolation=cv2.INTER_AREA)
        return replace(self, pixels=pixels, spacing=spacing, colours=colours)


def read(path: str | Path) -> Radiograph:
    """Reads a radiograph from disk.

    Raises:
        ImageError: no such file, or anything that ``decode`` refuses.
    """
    return decode(load(path))


def load(path: str | Path) -> bytes:
    """The bytes of a file of at most ``MAX_BYTES``.

    Raises:
        ImageError: no such file, too large, or it cannot be opened.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise ImageError("This is a folder, not a file.")
        if not path.is_file():
            raise ImageError("There is no such file.")
        if path.stat().st_size > MAX_BYTES:
            raise ImageError(_too_large(path.stat().st_size))
        return path.read_bytes()
    except ImageError:
        raise
    except (OSError, ValueError):
        raise ImageError("The file cannot be opened; perhaps it may not be read.") from None


def decode(data: bytes) -> Radiograph:
    """Decodes a picture file held in memory; checks the picture's size before it decodes any pixel.

    Args:
        data: a whole PNG, JPEG, WebP, TIFF or DICOM file, at most ``MAX_BYTES``.

    Raises:
        ImageError: too large, too small, damaged, blank, or not one of these formats.
    """
    if len(data) > MAX_BYTES:
        raise ImageError(_too_large(len(data)))
    if not data:
        raise ImageError("The file is empty.")
    if is_dicom(data):
        return dicom_image(parse(data))
    notes: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Pillow knows few kinds of TIFF whose zero is white, and inverts fewer.
            inverted = black_is_zero(data)
            data = inverted or data
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                _check_size(*picture.size)
                tall = _density(picture)
                pixels, tinted = _grey(picture, data, notes)
                colours = _colours(picture) if tinted and not inverted else None
                if inverted:
                    pixels = (pixels.max() if pixels.dtype == np.uint16 else 255) - pixels
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        kind = "This kind of TIFF cannot" if data.startswith(TIFF_STARTS) else "This file is not a picture that can"
        raise ImageError(f"{kind} be read here. Please use PNG, JPEG, WebP, TIFF or DICOM.") from None
    except Image.DecompressionBombError:
        raise ImageError(_too_many_pixels()) from None
    except Exception as error:  # noqa: BLE001 - what decoders raise on damaged files is not documented
        log.info("a picture could not be decoded: %s", type(error).__name__)
        raise ImageError(DAMAGED) from None
    if pixels.min() == pixels.max():
        raise ImageError(BLANK)
    window = _window(pixels, notes)
    pixels = _squared(np.ascontiguousarray(pixels), tall, notes)
    if colours is not None and colours.shape[:2] != pixels.shape:
        colours = cv2.resize(colours, pixels.shape[::-1], interpolation=cv2.INTER_AREA)
    return Radiograph(pixels, window, tuple(notes), colours=colours)


def dicom_image(file: DicomFile, index: int = 0, window: str | None = None) -> Radiograph:
    """One frame of a DICOM file as a radiograph.

    Args:
        file: parsed.
        index: of the frame, from 0.
        window: one of ``file.windows``; the file's own where absent.

    Raises:
        ImageError: too large, too small, damaged, blank, or no such frame.
        KeyError: unknown window.
    """
    _check_size(file.columns, file.rows)
    stored, said = file.frame(index, window)
    if stored.min() == stored.max():
        raise ImageError(BLANK)
    notes = [*file.notes]
    if file.frames > 1:
        notes.append(f"The file holds {file.frames} pictures; this is number {index + 1}.")
    notes.extend(said)
    pixels = _squared(stored, file.aspect, notes)
    spacing = file.spacing
    if spacing is not None:
        spacing = spacing[0] * file.rows / pixels.shape[0], spacing[1] * file.columns / pixels.shape[1]
    return Radiograph(pixels, (0, 65535), tuple(notes), spacing, file.modality)


def _squared(pixels: np.ndarray, tall: float, notes: list[str]) -> np.ndarray:
    """The picture (H, W) with square pixels, the coarser direction refined; unchanged where they cannot be so oblong.

    ``tall`` is the height of a pixel, in widths of it.
    """
    if SQUARE[0] < tall < SQUARE[1]:
        return pixels
    rows, columns = pixels.shape[0] * max(1.0, tall), pixels.shape[1] * max(1.0, 1.0 / tall)
    oblong = max(tall, 1.0 / tall) > MOST_OBLONG or max(rows, columns) > MAX_RATIO * min(rows, columns)
    if oblong:
        notes.append("The file says that its pixels are far from square, which cannot be; it is shown pixel by pixel.")
        return pixels
    notes.append("Its pixels are not square; the picture was stretched so that shapes are true.")
    scale = min(1.0, (MAX_PIXELS / (rows * columns)) ** 0.5)
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR)


def _density(picture: Image.Image) -> float:
    """Height of an upright picture's pixel, in widths of it, by the resolution that its file states; 1 for none."""
    exif = picture.getexif()
    stated = (
        picture.info.get("jfif_density"),
        picture.info.get("aspect"),
        (exif.get(X_RESOLUTION), exif.get(Y_RESOLUTION)),
        picture.info.get("dpi") if picture.format == "PNG" else None,
    )
    for pair in stated:
        try:
            across, down = (float(str(each)) for each in pair or ())
        except (TypeError, ValueError, ZeroDivisionError):
            continue
        if not (0 < across < np.inf and 0 < down < np.inf) or SQUARE[0] < across / down < SQUARE[1]:
            continue
        return down / across if exif.get(EXIF_ORIENTATION) in ORIENTATION_ASIDE else across / down
    return 1.0


def _too_large(size: int) -> str:
    return f"The file has {size / 2**20:.0f} MB; at most {MAX_BYTES // 2**20} MB can be read."


def _too_many_pixels() -> str:
    return f"The picture has too many pixels; at most {MAX_PIXELS // 1_000_000} megapixels can be read."


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(_too_many_pixels())
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            f"The picture is {width} x {height} pixels; its shorter side needs at least {MIN_SIDE} to show anything."
        )
    if max(width, height) > MAX_RATIO * min(width, height):
        raise ImageError(f"The picture is {width} x {height} pixels; no X-ray is that long and thin.")


def _grey(picture: Image.Image, data: bytes, notes: list[str]) -> tuple[np.ndarray, bool]:
    """The first frame as (H, W), uint8 or uint16, upright, without alpha; and whether it has colours to be kept."""
    if picture.format == "TIFF":
        aside = picture.getexif().get(EXIF_ORIENTATION) in ORIENTATION_ASIDE
        if tiff_sizes(data) not in (set(), {picture.size[::-1] if aside else picture.size}):
            raise ImageError(DAMAGED)
        if _has_second(picture):
            notes.append("The file holds several pictures; only the first one is shown.")
    tags, tinted = getattr(picture, "tag_v2", {}), False
    if picture.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        pixels = _deep(picture)
    elif picture.mode == "L" and SIGNED in tags.get(TIFF_SIGN, ()):
        pixels = np.asarray(picture) ^ 0x80
    elif _is_wide(picture, data) and (wide := _wide_colour(data, tags)) is not None:
        pixels = wide
    else:
        pixels, tinted = _shallow(picture, notes)
    return _turned(picture, pixels), tinted


def _deep(picture: Image.Image) -> np.ndarray:
    """One channel of more than 8 bits; floats and 32-bit integers are spread over 16 bits."""
    pixels = np.asarray(picture)
    tags = getattr(picture, "tag_v2", {})
    if picture.mode == "I" and tags.get(TIFF_BITS) == (32,) and tags.get(TIFF_SIGN, (UNSIGNED,)) == (UNSIGNED,):
        pixels = pixels.view(np.uint32)  # Pillow has no mode for them
    if picture.mode in ("I", "F") and not (pixels.min() >= 0 and pixels.max() <= 65535 and picture.mode == "I"):
        if not np.isfinite(pixels).all():
            raise ImageError("The picture holds pixels without a value, so it cannot be shown truthfully.")
        low, high = float(pixels.min()), float(pixels.max())
        spread = np.empty(pixels.shape, np.uint16)
        for rows in strips(*pixels.shape):
            spread[rows] = (pixels[rows].astype(np.float64) - low) / max(high - low, 1e-12) * 65535.0
        pixels = spread
    pixels = pixels.astype(np.uint16, copy=False)
    # Of a BigTIFF, which is opened as it is.
    return pixels.max() - pixels if tags.get(TIFF_PHOTOMETRIC) == 0 else pixels


def _has_second(picture: Image.Image) -> bool:
    """Whether another picture follows the first; to count them all takes the square of their number."""
    try:
        picture.seek(1)
    except (EOFError, SyntaxError, ValueError, TypeError, KeyError, OSError):
        return False
    finally:
        picture.seek(0)
    return True


def _is_wide(picture: Image.Image, data: bytes) -> bool:
    """Whether a picture, neither grey nor of floats, has 16 bits a channel."""
    if picture.format == "PNG":
        return data[24] == 16
    # A BigTIFF, of which no size is found, is read by one decoder only.
    return (
        picture.format == "TIFF" and 16 in getattr(picture, "tag_v2", {}).get(TIFF_BITS, ()) and bool(tiff_sizes(data))
    )


def _wide_colour(data: bytes, tags: Mapping[int, Any]) -> np.ndarray | None:
    """16 bits with colour or alpha, which Pillow would cut to 8, in grey; None where OpenCV cannot read them either.

    Raises:
        ImageError: by its ``tags`` it is a TIFF with a plane a colour.
    """
    if tags.get(TIFF_PLANAR) == PLANES:
        # OpenCV reads the first plane, and leaves in the others what memory held.
        raise ImageError("This kind of TIFF, with a plane a colour and 16 bits, cannot be read here.")
    opaque = tags.get(TIFF_EXTRA, OPACITY)[0] not in OPACITY
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        return None
    if pixels.ndim == 2:
        return pixels
    grey = np.empty(pixels.shape[:2], np.uint16)
    for rows in strips(*grey.shape):
        colours = pixels[rows]
        if pixels.shape[2] == 4 and not opaque:
            opacity = colours[:, :, 3:].astype(np.float32) / 65535.0
            colours = (colours[:, :, :3] * opacity).astype(np.uint16)
        grey[rows] = cv2.cvtColor(np.ascontiguousarray(colours[:, :, :3]), cv2.COLOR_BGR2GRAY)
    return grey


def _shallow(picture: Image.Image, notes: list[str]) -> tuple[np.ndarray, bool]:
    """8 bits in any of Pillow's modes; what is transparent becomes black, like the background of an X-ray.

    Returns:
        Grey, uint8 (H, W), and whether there are colours, however pale.
    """
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L")), False
    grey = np.empty((picture.height, picture.width), np.uint8)
    coloured = pale = 0
    for rows, colours in _in_rgb(picture):
        coloured += count_coloured(colours, 255.0)
        pale += count_coloured(colours, 255.0, PALE)
        grey[rows] = cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)
    if is_coloured(coloured, grey.size):
        notes.append(IN_COLOUR)
    return grey, is_coloured(pale, grey.size)


def _in_rgb(picture: Image.Image) -> Iterator[tuple[slice, np.ndarray]]:
    """Strips of a picture as slices of rows with their colours, uint8 (rows, W, 3)."""
    for rows in strips(picture.height, picture.width):
        part = picture.crop((0, rows.start, picture.width, rows.stop))
        if part.has_transparency_data:
            layer = part.convert("RGBA")
            part = Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer)
        yield rows, np.asarray(part.convert("RGB"))


def _colours(picture: Image.Image) -> np.ndarray:
    """All colours of a picture, uint8 (H, W, 3), upright; asked for once it is known to have some."""
    colours = np.empty((picture.height, picture.width, 3), np.uint8)
    for rows, found in _in_rgb(picture):
        colours[rows] = found
    return np.ascontiguousarray(_turned(picture, colours))


def _turned(picture: Image.Image, pixels: np.ndarray) -> np.ndarray:
    # Both decoders turn TIFF upright themselves.
    return pixels if picture.format == "TIFF" else _upright(pixels, picture.getexif().get(EXIF_ORIENTATION, 1))


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes the camera's rotation (EXIF 2.3, tag Orientation)."""
    if orientation in ORIENTATION_ASIDE:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _window(pixels: np.ndarray, notes: list[str]) -> tuple[float, float]:
    if pixels.dtype == np.uint8:
        return (0, 255)
    # 16-bit files usually hold 10 to 14 bits, so the full range would show them black.
    sample = pixels[:: max(1, pixels.shape[0] // 1024), :: max(1, pixels.shape[1] // 1024)]
    low, high = np.percentile(sample, (0.1, 99.9))
    notes.append("The picture has more than 8 bits; its own darkest and brightest values are shown as black and white.")
    return (float(low), float(high))
