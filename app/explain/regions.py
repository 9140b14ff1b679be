"""Where a heatmap is hottest, and what stands at a point: the parts of a map that people ask about first."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from app.explain.overlay import hottest
from app.model.classifier import Explanation

__all__ = ["Region", "evidence_at", "hot_regions", "where"]

MOST = 5


@dataclass(frozen=True)
class Region:
    """One outlined region of a heatmap.

    Attributes:
        share: of the map's heat that lies in it, 0 to 1.
        centre: its hottest point, (x, y), as shares of the image's width and height.
    """

    share: float
    centre: tuple[float, float]


def hot_regions(heat: np.ndarray) -> tuple[Region, ...]:
    """The regions that ``overlay`` outlines, at most five, those with most heat first.

    Args:
        heat: map on the image, float32 (H, W) in 0..1.
    """
    total = float(heat.sum())
    if total <= 0.0:
        return ()
    height, width = heat.shape
    count, labels = cv2.connectedComponents(hottest(heat).astype(np.uint8), connectivity=8)
    found = []
    for number in range(1, count):
        inside = np.where(labels == number, heat, 0.0)
        y, x = np.unravel_index(int(inside.argmax()), heat.shape)
        found.append(Region(float(inside.sum()) / total, ((int(x) + 0.5) / width, (int(y) + 0.5) / height)))
    return tuple(sorted(found, key=lambda region: -region.share)[:MOST])


def where(region: Region) -> str:
    """A region's place on the image in words, such as "upper left"."""
    x, y = region.centre
    column = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    row = "upper" if y < 1 / 3 else "lower" if y > 2 / 3 else "middle" if column else "centre"
    return f"{row} {column}".strip()


def evidence_at(explanation: Explanation, x: int, y: int) -> dict[str, float]:
    """Every type's evidence at a pixel of the image, in logits, strongest first; its mean over the square is the score.

    Raises:
        ValueError: there is no such pixel.
    """
    image = explanation.radiograph
    if not (0 <= x < image.width and 0 <= y < image.height):
        raise ValueError(f"({x}, {y}) lies outside an image of {image.width} x {image.height}")
    found = {
        name: float(explanation.placement.onto_image(explanation.evidence(name))[y, x])
        for name in explanation.prediction.classes
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]))
