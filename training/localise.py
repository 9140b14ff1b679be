"""Whether a model looks where the fracture is, on boxed films: ``python -m training localise MODEL --data FOLDER``.

Three measures a map, each with its interval over films:

- pointing game (Zhang et al., 2018, "Top-down neural attention by excitation backprop"): the map's peak lies in a box;
- the same, or no farther from one than 5 % of the film's diagonal;
- energy in box (Wang et al., 2020, "Score-CAM"): share of the map's positive sum that lies in boxes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from app.preprocess import Placement
from training.data.film import Film

__all__ = ["BASELINES", "TOLERANCE", "Hit", "hit"]

TOLERANCE = 0.05
"""Share of the film's diagonal by which a peak may miss a box in the lenient pointing game."""


class Hit(NamedTuple):
    """How one map lies on one film's boxes: peak inside, peak near, and share of positive energy inside (0 to 1)."""

    inside: bool
    near: bool
    energy: float


def hit(class_map: np.ndarray, film: Film, placement: Placement) -> Hit:
    """Judges a map by the film's fracture boxes, at the film's own size.

    Args:
        class_map: float (h, w) over the model's square; its positive part counts as energy.
        film: with at least one box.
        placement: of the film in the square.

    Raises:
        ValueError: a film without a box.
    """
    if not film.boxes:
        raise ValueError(f"{film.name} has no box to be judged by")
    on_film = placement.onto_film(class_map)
    height, width = on_film.shape
    row, column = np.unravel_index(int(on_film.argmax()), on_film.shape)
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    boxed = np.zeros(on_film.shape, bool)
    distance = np.inf
    for x, y, box_width, box_height in film.boxes:
        left, right = (x - box_width / 2) * width, (x + box_width / 2) * width
        top, bottom = (y - box_height / 2) * height, (y + box_height / 2) * height
        boxed |= ((rows >= top) & (rows <= bottom))[:, None] & ((columns >= left) & (columns <= right))[None]
        across = max(left - columns[column], 0.0, columns[column] - right)
        down = max(top - rows[row], 0.0, rows[row] - bottom)
        distance = min(distance, float(np.hypot(across, down)))
    positive = np.clip(on_film, 0.0, None)
    total = float(positive.sum())
    return Hit(
        distance == 0.0,
        distance <= TOLERANCE * float(np.hypot(height, width)),
        float(positive[boxed].sum()) / total if total > 0 else 0.0,
    )


def _random(square: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(rng.random(shape).astype(np.float32), (0, 0), 1.0)


def _centre(square: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    rows, columns = (np.linspace(-1.0, 1.0, side) for side in shape)
    return np.exp(-2.0 * (rows[:, None] ** 2 + columns[None] ** 2)).astype(np.float32)


def _brightness(square: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    return cv2.resize(square.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)


BASELINES: dict[str, Callable[[np.ndarray, tuple[int, int], np.random.Generator], np.ndarray]] = {
    "random": _random,
    "centred Gaussian": _centre,
    "the film's brightness": _brightness,
}
"""Maps that know nothing of fractures: the model's square (size, size), the map's shape and a generator to a map."""
