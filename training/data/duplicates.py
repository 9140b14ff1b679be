"""Near-duplicates: the same film again, mirrored, turned by 90 degrees, re-encoded, cropped or brightened.

A film's dark margin is trimmed, the rest brought to a square and hashed (perceptual hash of 256 bits, imagehash) in its
eight rotations and mirrors. Two films are twins when any orientation of one is within ``MAX_DISTANCE`` bits of the
other; twins of twins share a group.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

__all__ = ["MAX_DISTANCE", "distances", "group", "hashes"]

HASH_SIDE = 16
MAX_DISTANCE = 84
"""Bits of 256. Unrelated films of the bone-break set lie above 86 with few exceptions; of the pairs between 80 and 84
about half are twins when looked at. Grouping too much costs a few training films, too little would leak."""

DARK = 12
THUMBNAIL = 128


def _trim(film: np.ndarray) -> np.ndarray:
    """Without the dark margin, which copies gain or lose: (H, W) uint8 to a smaller view."""
    lit = film > DARK
    rows = np.flatnonzero(lit.mean(axis=1) > 0.02)
    columns = np.flatnonzero(lit.mean(axis=0) > 0.02)
    if len(rows) < 16 or len(columns) < 16:
        return film
    return film[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def hashes(film: np.ndarray) -> np.ndarray:
    """The eight orientations' hashes, the upright one first: uint8 (H, W) to bool (8, 256)."""
    square = cv2.resize(_trim(film), (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    orientations = [np.rot90(side, turns) for turns in range(4) for side in (square, square[:, ::-1])]
    return np.stack(
        [
            imagehash.phash(Image.fromarray(np.ascontiguousarray(view)), hash_size=HASH_SIDE).hash.ravel()
            for view in orientations
        ]
    )


def distances(hashed: np.ndarray) -> np.ndarray:
    """Smallest Hamming distance over orientations between every two films: bool (N, 8, 256) to float32 (N, N)."""
    signs = hashed.astype(np.float32) * 2.0 - 1.0
    bits = signs.shape[2]
    upright = signs[:, 0]
    nearest = np.full((len(signs), len(signs)), float(bits), np.float32)
    for orientation in range(signs.shape[1]):
        np.minimum(nearest, (bits - upright @ signs[:, orientation].T) / 2.0, out=nearest)
    return np.minimum(nearest, nearest.T)


def group(films: Sequence[np.ndarray], max_distance: int = MAX_DISTANCE) -> np.ndarray:
    """Group number of each film, int (N,); twins and twins of twins share one."""
    near = coo_matrix(distances(np.stack([hashes(film) for film in films])) <= max_distance)
    return connected_components(near, directed=False)[1]
