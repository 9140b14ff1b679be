"""Marks somebody put on a film: side letters, arrows, watermarks and colour, each a shortcut a network can learn.

Letters and arrows are found as small, bright, sharp-edged spots on a darker ground; the detector errs on both sides, so
its counts say how common marks are, not which film has one.
"""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["is_coloured", "mark_boxes"]

SIDE = 384
BRIGHT = 225
SMALLEST, LARGEST = 0.012, 0.16
"""Height or width of a mark, as share of the film's longer side."""


def mark_boxes(film: np.ndarray) -> list[tuple[float, float, float, float]]:
    """Boxes of what looks like a letter or an arrow: uint8 (H, W) to (left, top, width, height), shares of the film."""
    scale = SIDE / max(film.shape)
    small = cv2.resize(film, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = small.shape
    bright = (small >= BRIGHT).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=8)
    found = []
    for left, top, wide, high, area in stats[1:count]:
        longest = max(wide, high) / SIDE
        if not SMALLEST <= longest <= LARGEST or area < 6 or area > 0.9 * wide * high + 8:
            continue
        # Strips of collimator or cassette run along the film's edge.
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


def is_coloured(picture: np.ndarray) -> bool:
    """Whether a visible share of an RGB picture, uint8 (H, W, 3), is tinted rather than grey."""
    spread = picture.max(axis=2).astype(np.int16) - picture.min(axis=2)
    return float((spread > 24).mean()) > 0.005
