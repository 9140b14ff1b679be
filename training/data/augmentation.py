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


def _chosen(count: int, probability: float) -> torch.Tensor:
    return (torch.rand(count) < probability).nonzero()[:, 0]


def _drawn(count: int, low: float, high: float) -> torch.Tensor:
    return (low + (high - low) * torch.rand(count)).view(-1, 1, 1, 1)


def _blurred(images: torch.Tensor) -> torch.Tensor:
    padded = functional.pad(images, (2, 2, 2, 2), mode="replicate")
    across = functional.conv2d(padded, BLUR.view(1, 1, 1, 5))
    return functional.conv2d(across, BLUR.view(1, 1, 5, 1))


def _coarse(image: torch.Tensor) -> torch.Tensor:
    side = image.shape[-1]
    small = max(32, int(side / float(1.2 + 1.3 * torch.rand(()))))
    less = functional.interpolate(image[None], (small, small), mode="area")
    return functional.interpolate(less, (side, side), mode="bilinear", align_corners=False)[0]


def _compressed(image: torch.Tensor) -> torch.Tensor:
    levels = (image[0].numpy() * 255.0 + 0.5).astype(np.uint8)
    quality = int(torch.randint(15, 81, ()))
    _, coded = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE), np.float32)
    return torch.from_numpy(decoded / 255.0)[None]


def _lettered(image: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    side = image.shape[-1]
    canvas = np.zeros((side, side), np.uint8)
    word = LETTERS[int(torch.randint(len(LETTERS), ()))]
    scale = side / 256.0 * float(0.4 + 0.8 * torch.rand(()))
    left, base = (int(side * (0.03 + 0.87 * float(torch.rand(())))) for _ in range(2))
    cv2.putText(canvas, word, (left, base), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, 2 if scale > 0.7 else 1, cv2.LINE_AA)
    ink = torch.from_numpy(canvas)[None].float() / 255.0
    if mask is not None:
        ink = ink * (mask <= 0)
    shade = float(0.6 + 0.4 * torch.rand(()))
    return image * (1.0 - ink) + shade * ink


def _framed(image: torch.Tensor, mask: torch.Tensor | None, shade: float, deepest: float) -> torch.Tensor:
    """Up to four edges painted over; no deeper than where the first box begins."""
    side = image.shape[-1]
    rows = columns = torch.zeros(0, dtype=torch.long)
    if mask is not None:
        rows, columns = (mask[0] > 0).any(1).nonzero()[:, 0], (mask[0] > 0).any(0).nonzero()[:, 0]
    painted = image.clone()
    deep = [int(deepest * side * float(torch.rand(()))) for _ in range(4)]
    if len(rows):
        free = (int(rows[0]), side - 1 - int(rows[-1]), int(columns[0]), side - 1 - int(columns[-1]))
        deep = [min(pair) for pair in zip(deep, free, strict=True)]
    top, bottom, left, right = deep
    painted[:, :top] = shade
    painted[:, side - bottom :] = shade
    painted[:, :, :left] = shade
    painted[:, :, side - right :] = shade
    return painted


def take_away(images: torch.Tensor, how: Signature, masks: torch.Tensor | None = None) -> torch.Tensor:
    """Copies whose make no longer tells their source.

    Args:
        images: float (N, 1, H, W) in 0..1.
        how: the switches.
        masks: float (N, 1, H, W), above 0 inside a box: neither painted over nor cut off.

    Returns:
        float (N, 1, H, W) in 0..1.
    """
    device, count = images.device, len(images)
    # OpenCV and numpy change single images, which they cannot on a GPU.
    images = images.clone().cpu()
    masks = None if masks is None else masks.cpu()
    lit = images > DARKEST
    some = _chosen(count, how.gamma)
    images[some] = images[some].clamp(min=DARKEST) ** torch.exp(_drawn(len(some), -0.6, 0.6))
    some = _chosen(count, how.sharpness)
    images[some] = images[some] + _drawn(len(some), -1.0, 1.5) * (images[some] - _blurred(images[some]))
    images = images.clamp(0.0, 1.0)
    for index in _chosen(count, how.resolution):
        images[index] = _coarse(images[index])
    some = _chosen(count, how.noise)
    images[some] += torch.randn_like(images[some]) * _drawn(len(some), 0.0, 0.05)
    # What is not lit is the square's padding: a change of it would tell how the image was changed.
    images = torch.where(lit, images.clamp(0.0, 1.0), 0.0)
    for index in _chosen(count, how.collimation):
        images[index] = _framed(images[index], None if masks is None else masks[index], 0.0, 0.2)
    for index in _chosen(count, how.border):
        shade = float(0.2 + 0.8 * torch.rand(()))
        images[index] = _framed(images[index], None if masks is None else masks[index], shade, 0.06)
    for index in _chosen(count, how.letters):
        images[index] = _lettered(images[index], None if masks is None else masks[index])
    for index in _chosen(count, how.jpeg):
        images[index] = _compressed(images[index])
    return images.to(device)


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
