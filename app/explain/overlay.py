"""Heat drawn over an X-ray with OpenCV: no heat, no paint.

Opacity follows the evidence, so the image stays untouched where nothing speaks for the class; the colour bar carries
the scale, so a weak map looks weak. Pictures are RGB uint8 (H, W, 3), images uint8 (H, W), or
(H, W, 3) in colour.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from app.explain.shortcuts import mark_boxes
from app.imaging.pixels import strips
from app.imaging.radiograph import Radiograph
from app.model.classifier import Explanation

__all__ = [
    "COLD",
    "COLOUR_MAPS",
    "CONTOUR_COLOUR",
    "CONTOUR_EDGE",
    "NO_EVIDENCE",
    "WARM",
    "as_picture",
    "colour_bar",
    "difference",
    "fracture_outline",
    "gradient",
    "hottest",
    "levels",
    "outline_marks",
    "overlay",
    "palette",
    "panel",
    "plain",
    "scale_bar",
]

COLOUR_MAPS: dict[str, int] = {
    "inferno": cv2.COLORMAP_INFERNO,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "turbo": cv2.COLORMAP_TURBO,
    "jet": cv2.COLORMAP_JET,
}

NO_EVIDENCE = "no positive evidence"

HOTTEST, VISIBLE = 0.7, 0.2
"""Least heat within the contour, as shares of the map's maximum and of full colour: a line round heat that can hardly
be seen would claim more than the map does."""

CONTOUR_COLOUR = (255, 255, 255)
CONTOUR_EDGE = (0, 0, 0)
WARM, COLD = (255, 140, 30), (60, 150, 255)
FRACTURE_COLOUR = (56, 214, 235)
MARK_COLOUR = (245, 158, 11)
GREY = (160, 160, 160)
MID_GREY = 96


def _colours(heat: np.ndarray, colour_map: str) -> np.ndarray:
    """Heat in 0..1 (H, W) to RGB uint8 (H, W, 3).

    Raises:
        ValueError: unknown colour map.
    """
    if colour_map not in COLOUR_MAPS:
        raise ValueError(f"unknown colour map {colour_map!r}; known are {', '.join(COLOUR_MAPS)}")
    # The lowest fifth of most maps is nearly black or dark blue, which on an X-ray reads as shadow.
    levels = np.round((0.2 + 0.8 * heat) * 255.0).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(levels, COLOUR_MAPS[colour_map]), cv2.COLOR_BGR2RGB)


def _heated(heat: np.ndarray) -> Iterator[tuple[slice, slice]]:
    """Rectangles that together hold all heat: most of a large image is bare, and painting takes longer than looking."""
    for rows in strips(*heat.shape):
        found = np.flatnonzero(heat[rows].any(axis=0))
        if len(found):
            yield rows, slice(int(found[0]), int(found[-1]) + 1)


def overlay(
    image: np.ndarray,
    heat: np.ndarray,
    *,
    colour_map: str = "inferno",
    opacity: float = 0.6,
    contour: bool = True,
) -> np.ndarray:
    """The image with heat, float32 (H, W) in 0..1, over it; equal to the image wherever heat is 0 and no contour runs.

    Args:
        image: uint8 (H, W) or (H, W, 3).
        heat: float32 (H, W) in 0..1.
        colour_map: a key of ``COLOUR_MAPS``.
        opacity: of full heat, 0 to 1; of lesser heat in proportion.
        contour: outline the hottest region.

    Raises:
        ValueError: shapes differ, or unknown colour map.
    """
    if image.shape[:2] != heat.shape:
        raise ValueError(f"image {image.shape} and heat {heat.shape} differ in shape")
    mixed = as_picture(image).copy()
    for part in _heated(heat):
        paint = opacity * np.clip(heat[part], 0.0, 1.0)
        mixed[part] = cv2.blendLinear(mixed[part], _colours(heat[part], colour_map), 1.0 - paint, paint)
    if contour:
        outlines, _ = cv2.findContours(hottest(heat).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        width = max(1, round(max(heat.shape) / 320))
        cv2.drawContours(mixed, outlines, -1, CONTOUR_EDGE, width + 2, cv2.LINE_AA)
        cv2.drawContours(mixed, outlines, -1, CONTOUR_COLOUR, width, cv2.LINE_AA)
    return mixed


def as_picture(image: np.ndarray) -> np.ndarray:
    """An image, uint8 (H, W) or (H, W, 3), as RGB, uint8 (H, W, 3)."""
    return image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)


def hottest(heat: np.ndarray) -> np.ndarray:
    """Where the contour runs round: bool (H, W), of a map, float (H, W) in 0..1; nowhere on a faint one."""
    return heat >= max(HOTTEST * float(heat.max()), VISIBLE)


def difference(image: np.ndarray, signed: np.ndarray, *, opacity: float = 0.6) -> np.ndarray:
    """The image, warm where ``signed``, float (H, W), speaks for one class, cold for another, up to its own peak."""
    grey = as_picture(image).astype(np.float32)
    size = np.abs(signed)
    paint = (opacity * size / max(float(size.max()), 1e-6))[:, :, None]
    colour = np.where(signed[:, :, None] > 0, np.array(WARM, np.float32), np.array(COLD, np.float32))
    return np.round(grey * (1.0 - paint) + colour * paint).astype(np.uint8)


def palette(colour_map: str = "inferno") -> np.ndarray:
    """Colours of the heat's 256 levels, each as opaque as it is hot: RGBA uint8 (256, 4)."""
    steps = np.arange(256, dtype=np.uint8)
    colours = _colours(steps[None].astype(np.float32) / 255.0, colour_map)[0]
    return np.column_stack([colours, steps])


def levels(heat: np.ndarray) -> np.ndarray:
    """Heat, float32 (H, W) in 0..1, in 256 levels: uint8 (H, W)."""
    return np.vstack([cv2.convertScaleAbs(np.clip(heat[rows], 0.0, 1.0), alpha=255.0) for rows in strips(*heat.shape)])


def gradient(colour_map: str, opacity: float, steps: int = 9) -> list[tuple[int, int, int]]:
    """Colours of rising heat as they look over mid-grey, the grey of soft tissue: RGB, 0 to 255, none to full."""
    painted = _over_grey(np.linspace(0.0, 1.0, steps, dtype=np.float32)[None], colour_map, opacity)
    return [(int(red), int(green), int(blue)) for red, green, blue in painted[0]]


def _over_grey(heat: np.ndarray, colour_map: str, opacity: float) -> np.ndarray:
    grey = np.full(heat.shape, MID_GREY, np.uint8)
    return overlay(grey, heat, colour_map=colour_map, opacity=opacity, contour=False)


def _write(picture: np.ndarray, text: str, bottom_left: tuple[int, int], height: float) -> None:
    face = cv2.FONT_HERSHEY_SIMPLEX
    scale = height / 22.0
    cv2.putText(picture, text, bottom_left, face, scale, GREY, max(1, round(height / 14)), cv2.LINE_AA)


def colour_bar(height: int, full_colour: float, *, colour_map: str = "inferno", opacity: float = 0.6) -> np.ndarray:
    """The scale beside an overlay: colours over mid-grey, from no evidence (0) to ``full_colour``, in logits.

    ``height`` is in rows, at least 32; the returned picture chooses its width.
    """
    letter = float(np.clip(height / 24.0, 9.0, 26.0))
    margin = round(letter)
    bar = np.linspace(1.0, 0.0, max(2, height - 4 * margin), dtype=np.float32)[:, None].repeat(margin, axis=1)
    picture = np.zeros((height, round(5.2 * letter), 3), np.uint8)
    top = (height - len(bar)) // 2
    picture[top : top + len(bar), margin // 2 : margin // 2 + margin] = _over_grey(bar, colour_map, opacity)
    left = margin // 2 + margin + round(letter / 3)
    _write(picture, f"{full_colour:.3g}", (left, top + margin), letter)
    _write(picture, "0", (left, top + len(bar)), letter)
    return picture


def fracture_outline(picture: np.ndarray, odds: np.ndarray, *, dashed: bool) -> np.ndarray:
    """A copy with a line round a likely fracture, dashed for a mere suspicion.

    ``odds`` are relative ones of a fracture, float (H, W), 1 at their maximum; the line encloses those of half and
    more.
    """
    drawn = picture.copy()
    lines, _ = cv2.findContours((odds >= 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    thick = max(2, round(max(picture.shape[:2]) / 300))
    dash = 5 * thick
    for line in lines:
        points = line[:, 0]
        for start in range(0, len(points), 2 * dash if dashed else max(1, len(points))):
            part = points[start : start + (dash if dashed else len(points))]
            for colour, width in ((CONTOUR_EDGE, thick + 2), (FRACTURE_COLOUR, thick)):
                cv2.polylines(drawn, [part], not dashed, colour, width, cv2.LINE_AA)
    return drawn


def scale_bar(picture: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """A copy with a bar of a round length at its lower left; the picture itself where none from 1 mm to 1 m fits.

    ``spacing`` is the height and width of a pixel in mm, both above 0.
    """
    height, width = picture.shape[:2]
    lengths = [base * 10**power for power in range(3) for base in (1, 2, 5)]
    fitting = [length for length in lengths if 0.04 * width <= length / spacing[1] <= 0.25 * width]
    if not fitting:
        return picture
    length = fitting[-1]
    drawn = picture.copy()
    letter = float(np.clip(width / 40.0, 9.0, 22.0))
    left, bottom, thick = round(letter), height - round(letter), max(2, round(letter / 5))
    right = left + round(length / spacing[1])
    words = f"{length // 10} cm" if length >= 10 else f"{length} mm"
    for colour, grown in ((CONTOUR_EDGE, 1), (CONTOUR_COLOUR, 0)):
        cv2.rectangle(drawn, (left - grown, bottom - thick - grown), (right + grown, bottom + grown), colour, -1)
    _write(drawn, words, (left, bottom - thick - round(letter / 2)), letter)
    return drawn


def outline_marks(picture: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, int]:
    """A copy of a painted image with boxes round what may be letters on it, and their number."""
    height, width = image.shape
    drawn, boxes = picture.copy(), mark_boxes(image)
    margin = max(2, round(max(image.shape) / 200))
    for left, top, wide, high in boxes:
        corner = max(0, round(left * width) - margin), max(0, round(top * height) - margin)
        other = round((left + wide) * width) + margin, round((top + high) * height) + margin
        cv2.rectangle(drawn, corner, other, MARK_COLOUR, max(1, margin // 2))
    return drawn, len(boxes)


def plain(image: Radiograph) -> np.ndarray:
    """The X-ray as it is; what comes from a hospital with its scale, and with what may name a person outlined.

    Returns:
        uint8 (H, W) or (H, W, 3).
    """
    shown = image.shown()
    if not image.modality:
        return shown
    picture, _ = outline_marks(as_picture(shown), image.display())
    return picture if image.spacing is None else scale_bar(picture, image.spacing)


def panel(explanation: Explanation, name: str, *, colour_map: str = "inferno", opacity: float = 0.6) -> np.ndarray:
    """Overlay and colour bar side by side, with a caption where there is no evidence."""
    heat = explanation.heat(name)
    picture = overlay(explanation.radiograph.shown(), heat, colour_map=colour_map, opacity=opacity)
    if not explanation.has_evidence(name):
        letter = float(np.clip(picture.shape[1] / 22.0, 8.0, 40.0))
        _write(picture, NO_EVIDENCE, (round(letter / 2), round(letter * 1.5)), letter)
    bar = colour_bar(picture.shape[0], explanation.full_colour, colour_map=colour_map, opacity=opacity)
    return np.hstack([picture, bar])
