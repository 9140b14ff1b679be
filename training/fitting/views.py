"""Test-time augmentation: a film asked as several views, whose probabilities are averaged.

Turns and sizes are well within what the recipes train with, so that no view is strange to the network (Krizhevsky et
al., 2012, averaged crops and mirror images the same way).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import log_softmax
from torch.nn import functional

__all__ = ["VIEWS", "View", "averaged_views", "seen_as"]


class View(NamedTuple):
    """One way to show a film: mirrored or not, turned by so many degrees, enlarged by so much."""

    mirrored: bool = False
    degrees: float = 0.0
    scale: float = 1.0


VIEWS = tuple(
    View(mirrored, degrees, scale)
    for mirrored in (False, True)
    for degrees, scale in ((0.0, 1.0), (12.0, 1.0), (-12.0, 1.0), (0.0, 0.87), (0.0, 1.15))
)
"""The film as it is comes first."""


def seen_as(films: torch.Tensor, view: View) -> torch.Tensor:
    """Films, float (N, 1, H, W), as a view shows them; what lies outside of a film is black."""
    if view.mirrored:
        films = films.flip(3)
    if view.degrees == 0.0 and view.scale == 1.0:
        return films
    angle = math.radians(view.degrees)
    cosine, sine = math.cos(angle) / view.scale, math.sin(angle) / view.scale
    matrix = films.new_tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0]]).expand(len(films), 2, 3)
    grid = functional.affine_grid(matrix, list(films.shape), align_corners=False)
    return functional.grid_sample(films, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def averaged_views(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """What a network says of films over all views.

    Args:
        logits: float (V, N, C), one row a view.
        temperature: divides the logits.

    Returns:
        Logarithms of the mean probabilities, float (N, C), to be used like logits.
    """
    return np.logaddexp.reduce(log_softmax(logits / temperature, axis=2), axis=0) - math.log(len(logits))
