"""Random changes of training images, drawn anew for every image of a batch; and views for test-time augmentation.

torchvision's transforms draw once per call, so one call per image would be needed; this draws one affine matrix an
image and samples the batch in a single pass on whatever device it lies. The turns and sizes of ``VIEWS`` are within
what the recipes train with (Krizhevsky et al., 2012, averaged crops and mirror images the same way).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import log_softmax
from torch.nn import functional

from training.recipe import Augment

DARKEST = 0.5 / 255.0
"""Half a grey level: sampling leaves traces of rounding in the padding."""


def _between(count: int, reach: float, device: torch.device) -> torch.Tensor:
    return (torch.rand(count, device=device) * 2.0 - 1.0) * reach


def random_affine(count: int, how: Augment, device: torch.device) -> torch.Tensor:
    """One affine matrix an image, from output to input in ``affine_grid``'s coordinates (-1 to 1): float (N, 2, 3)."""
    angle = _between(count, math.radians(how.rotation), device)
    shear = torch.tan(_between(count, math.radians(how.shear), device))
    scale = 1.0 + _between(count, how.zoom, device)
    mirror = torch.where(torch.rand(count, device=device) < 0.5 * how.flip, -1.0, 1.0)
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    matrix = torch.zeros(count, 2, 3, device=device)
    matrix[:, 0, 0] = cosine * mirror
    matrix[:, 0, 1] = cosine * shear - sine
    matrix[:, 1, 0] = sine * mirror
    matrix[:, 1, 1] = sine * shear + cosine
    matrix[:, 0, 2] = _between(count, 2.0 * how.shift, device)
    matrix[:, 1, 2] = _between(count, 2.0 * how.shift, device)
    return matrix


def _warp(pictures: torch.Tensor, how: Augment) -> torch.Tensor:
    affine = random_affine(len(pictures), how, pictures.device)
    grid = functional.affine_grid(affine, list(pictures.shape), align_corners=False)
    return functional.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _relight(films: torch.Tensor, how: Augment) -> torch.Tensor:
    count = len(films)
    contrast = (1.0 + _between(count, how.contrast, films.device)).view(-1, 1, 1, 1)
    brightness = _between(count, how.brightness, films.device).view(-1, 1, 1, 1)
    lit = films > DARKEST
    middle = films.mean(dim=(2, 3), keepdim=True)
    changed = ((films - middle) * contrast + middle + brightness).clamp(0.0, 1.0)
    # The padding stays black, otherwise its brightness would tell how an image was changed.
    return torch.where(lit, changed, films)


def augment(films: torch.Tensor, how: Augment) -> torch.Tensor:
    """Randomly changed copies.

    Args:
        images: float (N, 1, H, W) in 0..1.

    Returns:
        float (N, 1, H, W) in 0..1; what comes in from outside the square is black, as in the letterbox.
    """
    return _relight(_warp(films, how), how)


def augment_with_masks(films: torch.Tensor, masks: torch.Tensor, how: Augment) -> tuple[torch.Tensor, torch.Tensor]:
    """Randomly changed copies whose masks move along: both float (N, 1, H, W) in 0..1, in and out."""
    films, masks = _warp(torch.cat([films, masks], dim=1), how).split(1, dim=1)
    return _relight(films, how), masks


class View(NamedTuple):
    """One way to show an image: mirrored or not, turned by so many degrees, enlarged by so much."""

    mirrored: bool = False
    degrees: float = 0.0
    scale: float = 1.0


VIEWS = tuple(
    View(mirrored, degrees, scale)
    for mirrored in (False, True)
    for degrees, scale in ((0.0, 1.0), (12.0, 1.0), (-12.0, 1.0), (0.0, 0.87), (0.0, 1.15))
)
"""The image as it is comes first."""


def seen_as(films: torch.Tensor, view: View) -> torch.Tensor:
    """Images, float (N, 1, H, W), as a view shows them; what lies outside of an image is black."""
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
    """What a network says of images over all views.

    Args:
        logits: float (V, N, C), one row a view.
        temperature: divides the logits.

    Returns:
        Logarithms of the mean probabilities, float (N, C), to be used like logits.
    """
    return np.logaddexp.reduce(log_softmax(logits / temperature, axis=2), axis=0) - math.log(len(logits))
