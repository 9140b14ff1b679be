"""How much of a heatmap lies where no fracture can be: on letters, at the collimator's edge, on nothing at all.

Networks learn such shortcuts gladly, since a hospital's letters tell the hospital, and the hospital the cases. The
regions are found on the film itself, with rules simple enough to be checked by eye; tilted collimators are not found.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from app.explain.marks import mark_boxes
from app.imaging.letterbox import Placement

__all__ = ["KINDS", "WARNING", "Shortcuts", "find", "judge"]

KINDS = {
    "marks": "letters, arrows and the like",
    "edge": "the edge of the collimated field",
    "background": "empty background",
    "padding": "the black margin around the film",
}

WARNING = 0.25
"""Share of the heat from which on people are warned."""

SIDE = 384
DARK = 24
"""Grey level, of 255, under which a smooth place is taken for air or for the collimator's shadow."""
GROWN = 0.015
"""How far around a mark, and to either side of an edge, heat counts as lying on it, as share of the longer side."""
FAINTLY, ABRUPTLY = 0.02, 0.5
"""Share of a line that is exposed outside of a field at most, and just inside of its edge at least."""
SMALLEST = 0.01
"""Share of the film under which a dark patch is not called background."""


@dataclass(frozen=True)
class Shortcuts:
    """Shares of a map's heat by ``KINDS``, each 0 to 1; what lies on two kinds counts for the first of them."""

    shares: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.shares.values())

    @property
    def warns(self) -> bool:
        return self.total >= WARNING


def _edges(small: np.ndarray) -> np.ndarray:
    """Bands along the sides of the exposed field, where it ends at once and along its whole length: bool (H, W)."""
    lit = cv2.medianBlur(small, 5) > DARK
    reach = max(1, round(GROWN * SIDE))
    found = np.zeros(small.shape, bool)
    for axis in (0, 1):
        share = lit.mean(axis=1 - axis)
        lines = np.flatnonzero(share > FAINTLY)
        if not len(lines):
            continue
        for line, inward in ((int(lines[0]), 1), (int(lines[-1]), -1)):
            # A field that reaches the film's end has no edge there, and a limb fades in over many lines.
            reaches_end = not reach < line < len(share) - 1 - reach
            if reaches_end or share[line + inward * reach] < ABRUPTLY:
                continue
            band = slice(line - reach, line + reach + 1)
            found[(band, slice(None)) if axis == 0 else (slice(None), band)] = True
    return found


def find(film: np.ndarray) -> dict[str, np.ndarray]:
    """Where a film shows what no fracture is.

    Args:
        film: uint8 (H, W), high is bright.

    Returns:
        By kind, without "padding", a mask: bool (H, W). A pixel is in one mask at most.
    """
    scale = SIDE / max(film.shape)
    small = cv2.resize(film, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = small.shape
    reach = max(1, round(GROWN * SIDE))
    marks = np.zeros(small.shape, bool)
    for left, top, wide, high in mark_boxes(film):
        rows = slice(max(0, int(top * height) - reach), int(np.ceil((top + high) * height)) + reach)
        marks[rows, max(0, int(left * width) - reach) : int(np.ceil((left + wide) * width)) + reach] = True
    edge = _edges(small)
    dark = (cv2.GaussianBlur(small, (0, 0), 2.0) < DARK).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(dark, connectivity=8)
    background = np.zeros(small.shape, bool)
    for number in range(1, count):
        x, y, wide, high, area = stats[number]
        touches = x == 0 or y == 0 or x + wide == width or y + high == height
        if touches and area >= SMALLEST * small.size:
            background |= labels == number
    found = {"marks": marks, "edge": edge & ~marks, "background": background & ~marks & ~edge}
    return {
        kind: cv2.resize(mask.astype(np.uint8), film.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
        for kind, mask in found.items()
    }


def judge(film: np.ndarray, heat: np.ndarray, placement: Placement) -> Shortcuts:
    """How a map's heat is shared out.

    Args:
        film: uint8 (H, W).
        heat: map over the model's square, float (h, w); what is below 0 counts as none.
        placement: of the film in the square.

    Returns:
        Shares; all 0 for a map without heat.
    """
    positive = np.clip(heat, 0.0, None).astype(np.float32)
    total = float(positive.sum())
    if total <= 0.0:
        return Shortcuts(dict.fromkeys(KINDS, 0.0))
    outside = float((positive * placement.padding(*positive.shape)).sum()) / total
    on_film = np.clip(placement.onto_image(positive), 0.0, None)
    inside = float(on_film.sum())
    found = find(film)
    # Heat lies no finer than the map's places: what is within one of them from flesh may be meant for the flesh.
    place = max(film.shape) / max(positive.shape)
    depth = cv2.distanceTransform(found["background"].astype(np.uint8), cv2.DIST_L2, 3)
    found["background"] = depth > place
    shares = {
        kind: (1.0 - outside) * float(on_film[mask].sum()) / inside if inside > 0 else 0.0
        for kind, mask in found.items()
    }
    return Shortcuts({**shares, "padding": outside})
