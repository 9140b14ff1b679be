"""How much of a heatmap lies where no fracture can be: on letters, at the collimator's edge, on empty background.

Networks learn such shortcuts easily, since letters reveal the hospital, and the hospital its cases. Rules simple enough
to check by eye find the regions on the image itself; tilted collimators are not found. The detector of letters and
arrows errs on both sides, so its counts say how common marks are, not which image has one.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from app.imaging.letterbox import Placement
from app.model.subject import OURS, Subject

__all__ = ["KINDS", "WARNING", "Shortcuts", "mark_boxes", "nowhere", "shortcut_regions", "shortcut_shares"]

KINDS = {
    "marks": "letters, arrows and the like",
    "edge": "the edge of the collimated field",
    "background": "empty background",
    "padding": "the black margin around the X-ray",
}

WARNING = 0.25
"""Share of the heat from which on the user is warned."""

SIDE = 384
"""Longer side, in pixels, at which regions are found."""
DARK = 24
"""Grey level, of 255, under which a smooth area counts as air or as the collimator's shadow."""
GROWN = 0.015
"""How far around a mark, and to either side of an edge, heat counts as lying on it, as share of the longer side."""
FAINTLY, ABRUPTLY = 0.02, 0.5
"""Share of a line that is exposed outside of a field at most, and just inside of its edge at least."""
PATCH = 0.01
"""Least share of the image for a dark patch to count as background."""
BRIGHT = 225
SMALLEST, LARGEST = 0.012, 0.16
"""Height or width of a mark, as share of the image's longer side."""


@dataclass(frozen=True)
class Shortcuts:
    """Shares of a map's heat by ``KINDS``, each 0 to 1; heat on two kinds counts for the first of them."""

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
            # A field that reaches the end of the image has no edge there, and a limb fades in over many lines.
            reaches_end = not reach < line < len(share) - 1 - reach
            if reaches_end or share[line + inward * reach] < ABRUPTLY:
                continue
            band = slice(line - reach, line + reach + 1)
            found[(band, slice(None)) if axis == 0 else (slice(None), band)] = True
    return found


def _small(image: np.ndarray) -> np.ndarray:
    scale = SIDE / max(image.shape)
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def mark_boxes(image: np.ndarray) -> list[tuple[float, float, float, float]]:
    """Boxes of likely letters and arrows, small, bright, sharp-edged spots on a darker ground.

    Takes uint8 (H, W), high is bright; returns left, top, width and height as shares of the image.
    """
    small = _small(image)
    height, width = small.shape
    bright = (small >= BRIGHT).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=8)
    found = []
    for left, top, wide, high, area in stats[1:count]:
        longest = max(wide, high) / SIDE
        if not SMALLEST <= longest <= LARGEST or area < 6 or area > 0.9 * wide * high + 8:
            continue
        # Strips of collimator or cassette run along the edge of the image.
        at_edge = left < 2 or top < 2 or left + wide > width - 2 or top + high > height - 2
        if at_edge and max(wide, high) > 2.5 * min(wide, high):
            continue
        ring = 3
        patch = small[max(0, top - ring) : top + high + ring, max(0, left - ring) : left + wide + ring]
        around = np.asarray(patch[patch < BRIGHT], dtype=float)
        # Bone fades into flesh; ink ends at its edge.
        if around.size and float(np.median(around)) < 110 and np.mean(around < 150) > 0.6:
            found.append((left / width, top / height, wide / width, high / height))
    return found


def shortcut_regions(image: np.ndarray) -> dict[str, np.ndarray]:
    """Where an image, uint8 (H, W), shows no fracture: by kind but "padding" a mask, bool (H, W), without overlaps."""
    small = _small(image)
    height, width = small.shape
    reach = max(1, round(GROWN * SIDE))
    marks = np.zeros(small.shape, bool)
    for left, top, wide, high in mark_boxes(image):
        rows = slice(max(0, int(top * height) - reach), int(np.ceil((top + high) * height)) + reach)
        marks[rows, max(0, int(left * width) - reach) : int(np.ceil((left + wide) * width)) + reach] = True
    edge = _edges(small)
    dark = (cv2.GaussianBlur(small, (0, 0), 2.0) < DARK).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(dark, connectivity=8)
    background = np.zeros(small.shape, bool)
    for number in range(1, count):
        x, y, wide, high, area = stats[number]
        touches = x == 0 or y == 0 or x + wide == width or y + high == height
        if touches and area >= PATCH * small.size:
            background |= labels == number
    found = {"marks": marks, "edge": edge & ~marks, "background": background & ~marks & ~edge}
    return {
        kind: cv2.resize(mask.astype(np.uint8), image.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
        for kind, mask in found.items()
    }


def nowhere(subject: Subject) -> str:
    """Where heat is on a shortcut, in words."""
    return "where no fracture can be" if subject.finding else "outside the X-ray"


def shortcut_shares(image: np.ndarray, heat: np.ndarray, placement: Placement, subject: Subject = OURS) -> Shortcuts:
    """The shares of a map's heat on shortcuts; all 0 for a map without heat.

    Only of images with a finding to be located is it known that letters, edges and background cannot hold it; of
    others the margin alone counts.

    Args:
        image: the image, uint8 (H, W).
        heat: map over the model's square, float (h, w); values below 0 count as 0.
        placement: of the image in the square.
        subject: what the image shows.
    """
    kinds = KINDS if subject.finding else {"padding": KINDS["padding"]}
    positive = np.clip(heat, 0.0, None).astype(np.float32)
    total = float(positive.sum())
    if total <= 0.0:
        return Shortcuts(dict.fromkeys(kinds, 0.0))
    outside = float((positive * placement.padding(*positive.shape)).sum()) / total
    if not subject.finding:
        return Shortcuts({"padding": outside})
    on_image = np.clip(placement.onto_image(positive), 0.0, None)
    inside = float(on_image.sum())
    found = shortcut_regions(image)
    # Heat is no finer than the map's cells: heat within one cell of flesh may be meant for the flesh.
    cell = max(image.shape) / max(positive.shape)
    depth = cv2.distanceTransform(found["background"].astype(np.uint8), cv2.DIST_L2, 3)
    found["background"] = depth > cell
    shares = {
        kind: (1.0 - outside) * float(on_image[mask].sum()) / inside if inside > 0 else 0.0
        for kind, mask in found.items()
    }
    return Shortcuts({**shares, "padding": outside})
