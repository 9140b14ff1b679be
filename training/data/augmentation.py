"""Random changes of training images, drawn anew for every image of a batch; and views for test-time augmentation.

torchvision's transforms draw once per call, so one call per image would be needed; this draws one affine matrix an
image and samples the batch in a single pass on whatever device it lies. The turns and sizes of ``VIEWS`` are within
what the recipes train with (Krizhevsky et al., 2012, averaged crops and mirror images the same way).

``take_away`` hides which source an image comes from. Each hospital and each export has its own gamma, sharpness,
noise, compression, resolution, frame, burnt-in letters and collimation; a network that sees them learns which sources
hold many fractures (Zech et al., 2018, "Variable generalization performance of a deep learning model to detect
pneumonia in chest radiographs").
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
import torch
from scipy.special import log_softmax
from torch.nn import functional

from training.recipe import Augment, Signature

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
    lit = films.amax(dim=1, keepdim=True) > DARKEST
    middle = films.mean(dim=(2, 3), keepdim=True)
    changed = ((films - middle) * contrast + middle + brightness).clamp(0.0, 1.0)
    # The padding stays black, otherwise its brightness would tell how an image was changed.
    return torch.where(lit, changed, films)


def augment(films: torch.Tensor, how: Augment) -> torch.Tensor:
    """Randomly changed copies.

    Args:
        images: float (N, 1, H, W), or (N, 3, H, W) in colour, in 0..1.

    Returns:
        The same shape; what comes in from outside the square is black, as in the letterbox.
    """
    return _relight(_warp(films, how), how)


def augment_with_masks(films: torch.Tensor, masks: torch.Tensor, how: Augment) -> tuple[torch.Tensor, torch.Tensor]:
    """Randomly changed copies whose masks move along: both float (N, 1, H, W) in 0..1, in and out."""
    films, masks = _warp(torch.cat([films, masks], dim=1), how).split(1, dim=1)
    return _relight(films, how), masks


BLUR = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0
LETTERS = ("L", "R", "LEFT", "AP", "LAT", "R 12", "PORTABLE", "D")
LUMINANCE = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
"""How coarsely JPEG keeps each frequency of a block of 8 x 8 pixels (ITU-T T.81, table K.1)."""


def _chosen(count: int, probability: float, device: torch.device) -> torch.Tensor:
    return (torch.rand(count, device=device) < probability).nonzero()[:, 0]


def _drawn(count: int, low: float, high: float, device: torch.device) -> torch.Tensor:
    return (low + (high - low) * torch.rand(count, device=device)).view(-1, 1, 1, 1)


def _blurred(images: torch.Tensor) -> torch.Tensor:
    padded = functional.pad(images, (2, 2, 2, 2), mode="replicate")
    kernel = BLUR.to(images.device)
    across = functional.conv2d(padded, kernel.view(1, 1, 1, 5))
    return functional.conv2d(across, kernel.view(1, 1, 5, 1))


def _coarse(images: torch.Tensor) -> torch.Tensor:
    """Each image averaged over cells of 1.2 to 2.5 pixels and read off between these again, as one matrix a side."""
    side, device = images.shape[-1], images.device
    cells = (side / _drawn(len(images), 1.2, 2.5, device).flatten()).floor().clamp(min=min(32, side)).view(-1, 1, 1)
    pixels = torch.arange(side, device=device, dtype=images.dtype)
    numbers = torch.arange(int(cells.max()), device=device, dtype=images.dtype).view(1, -1, 1)
    width = side / cells
    reach = torch.minimum(pixels + 1, (numbers + 1) * width) - torch.maximum(pixels, numbers * width)
    down = reach.clamp(min=0) / width
    place = torch.minimum(((pixels + 0.5) / width - 0.5).clamp(min=0), cells - 1)
    up = (1.0 - (place - numbers).abs()).clamp(min=0)
    both = up.transpose(1, 2) @ down
    return (both @ images[:, 0] @ both.transpose(1, 2))[:, None]


def _compressed(images: torch.Tensor) -> torch.Tensor:
    """Each image as a grey JPEG of quality 15 to 80 shows it (Wallace, 1992, "The JPEG still picture compression")."""
    side, device = images.shape[-1], images.device
    lacking = -side % 8
    levels = (functional.pad(images, (0, lacking, 0, lacking), mode="replicate") * 255.0).round() - 128.0
    blocks = levels.unflatten(3, (-1, 8)).unflatten(2, (-1, 8))[:, 0].transpose(2, 3)
    frequency = torch.arange(8, device=device)
    cosine = torch.cos((2 * frequency + 1) * frequency[:, None] * math.pi / 16.0) / 2.0
    cosine[0] /= math.sqrt(2.0)
    quality = torch.randint(15, 81, (len(images), 1, 1, 1, 1), device=device)
    scale = torch.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    step = ((LUMINANCE.to(device) * scale + 50) // 100).clamp(1, 255)
    kept = (cosine @ blocks @ cosine.T / step).round() * step
    shown = (cosine.T @ kept @ cosine).transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, None]
    return ((shown + 128.0).round() / 255.0).clamp(0.0, 1.0)[..., :side, :side]


def _written(side: int) -> np.ndarray:
    canvas = np.zeros((side, side), np.uint8)
    word = LETTERS[int(torch.randint(len(LETTERS), ()))]
    scale = side / 256.0 * float(0.4 + 0.8 * torch.rand(()))
    left, base = (int(side * (0.03 + 0.87 * float(torch.rand(())))) for _ in range(2))
    cv2.putText(canvas, word, (left, base), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, 2 if scale > 0.7 else 1, cv2.LINE_AA)
    return canvas


def _lettered(images: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor:
    device = images.device
    words = np.stack([_written(images.shape[-1]) for _ in images])
    ink = torch.from_numpy(words)[:, None].to(device).float() / 255.0
    if masks is not None:
        ink = ink * (masks <= 0)
    return images * (1.0 - ink) + _drawn(len(images), 0.6, 1.0, device) * ink


def _framed(
    images: torch.Tensor, masks: torch.Tensor | None, shade: torch.Tensor | float, deepest: float
) -> torch.Tensor:
    """Four edges painted over, none deeper than where the first box begins."""
    count, side, device = len(images), images.shape[-1], images.device
    place = torch.arange(side, device=device)
    painted = torch.zeros_like(images, dtype=torch.bool)
    for axis, shape in ((3, (1, 1, side, 1)), (2, (1, 1, 1, side))):
        free = torch.full((2, count), side, device=device)
        if masks is not None:
            inside = (masks > 0).any(dim=axis)[:, 0]
            # Of equal values the first is found, so an image without a box is free as far as its other edge.
            far = torch.where(inside.any(dim=1), 0, side)
            free = torch.stack([inside.int().argmax(dim=1) + far, inside.flip(1).int().argmax(dim=1) + far])
        deep = torch.minimum((deepest * side * torch.rand(2, count, device=device)).long(), free).view(2, -1, 1, 1, 1)
        along = place.view(shape)
        painted |= (along < deep[0]) | (along >= side - deep[1])
    return torch.where(painted, shade, images)


def take_away(images: torch.Tensor, how: Signature, masks: torch.Tensor | None = None) -> torch.Tensor:
    """Copies whose make no longer tells their source.

    Args:
        images: float (N, 1, H, H) in 0..1, on any device.
        how: the switches.
        masks: float (N, 1, H, H), above 0 inside a box: neither painted over nor cut off.

    Returns:
        float (N, 1, H, H) in 0..1.
    """
    device, count = images.device, len(images)
    images = images.clone()
    lit = images > DARKEST

    def boxes(some: torch.Tensor) -> torch.Tensor | None:
        return None if masks is None else masks[some]

    some = _chosen(count, how.gamma, device)
    images[some] = images[some].clamp(min=DARKEST) ** torch.exp(_drawn(len(some), -0.6, 0.6, device))
    some = _chosen(count, how.sharpness, device)
    images[some] = images[some] + _drawn(len(some), -1.0, 1.5, device) * (images[some] - _blurred(images[some]))
    images = images.clamp(0.0, 1.0)
    if len(some := _chosen(count, how.resolution, device)):
        images[some] = _coarse(images[some])
    some = _chosen(count, how.noise, device)
    images[some] += torch.randn_like(images[some]) * _drawn(len(some), 0.0, 0.05, device)
    # What is not lit is the square's padding: a change of it would tell how the image was changed.
    images = torch.where(lit, images.clamp(0.0, 1.0), 0.0)
    some = _chosen(count, how.collimation, device)
    images[some] = _framed(images[some], boxes(some), 0.0, 0.2)
    some = _chosen(count, how.border, device)
    images[some] = _framed(images[some], boxes(some), _drawn(len(some), 0.2, 1.0, device), 0.06)
    if len(some := _chosen(count, how.letters, device)):
        images[some] = _lettered(images[some], boxes(some))
    if len(some := _chosen(count, how.jpeg, device)):
        images[some] = _compressed(images[some])
    return images


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
