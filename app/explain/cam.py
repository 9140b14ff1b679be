"""Class activation maps at the gate, computed on the head alone from pytorch-grad-cam's formulas.

There a method needs only the last feature map A and the gradient of the class's logit with respect to it. One call of
the head gives both without hooks, so that threads share nothing; the package's own classes turn them into a map, equal
to that of a call on the whole network, at a fraction of its cost. Grad-CAM itself is absent: it is the class map, which
every forward gives.

Each function takes the network's head, the gate's output ``last``, float (1, L, h, w), and the index of the class to
explain, and returns a map: float32 (h, w), at least 0, unscaled.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget, FinerWeightedTarget
from torch import nn

from app.model.network import Head

__all__ = ["FORMULAS", "ablation_cam", "finer_cam", "last_layer_map"]

FORMULAS: dict[str, type[BaseCAM]] = {
    "gradcam++": GradCAMPlusPlus,
    "hirescam": HiResCAM,
    "xgradcam": XGradCAM,
    "layercam": LayerCAM,
}
"""The package's classes whose maps need the last feature map and its gradients only."""

EIGEN = ("eigencam", "eigengradcam")
"""The package takes all of a singular value decomposition for these, 2.5 s of a map of 48 x 48 cells, and uses one
vector of it, whose sign it leaves to chance."""
PATTERNS, ROUNDS = 8, 30
"""Of subspace iteration: vectors side by side, and how often they are multiplied."""


def _gradient(
    head: nn.Module, last: torch.Tensor, target: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """A copy of the last feature map, and the target's gradient there."""
    # A tensor made under inference mode cannot be differentiated; a clone outside can.
    with torch.inference_mode(False), torch.enable_grad():
        leaf = last.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(target(head(leaf)[0]), leaf)
    return leaf.detach(), gradient


def _draw(
    head: nn.Module, last: torch.Tensor, target: Callable[[torch.Tensor], torch.Tensor], formula: type[BaseCAM]
) -> np.ndarray:
    leaf, gradient = _gradient(head, last, target)
    # No target layers, so that the package hangs no hooks.
    drawn = formula(head, []).get_cam_image(last, head, [], leaf.numpy(), gradient.numpy(), eigen_smooth=False)
    return np.maximum(drawn[0], 0.0).astype(np.float32)


def last_layer_map(head: nn.Module, last: torch.Tensor, class_index: int, method: str) -> np.ndarray:
    """The map of a key of ``FORMULAS`` or one of ``EIGEN``.

    Raises:
        KeyError: unknown method.
    """
    if method in EIGEN:
        return _strongest_pattern(head, last, class_index, method)
    return _draw(head, last, ClassifierOutputTarget(class_index), FORMULAS[method])


def _strongest_pattern(head: nn.Module, last: torch.Tensor, class_index: int, method: str) -> np.ndarray:
    """Each cell's part in the first principal component of the features, or of features times gradient.

    EigenCAM (Muhammad and Yeasin, 2020), by subspace iteration (Halko et al., 2011, "Finding structure with
    randomness"). A component has no sign of its own; here it is the one that is high where features are strong.
    """
    patterns = last[0]
    if method == "eigengradcam":
        leaf, gradient = _gradient(head, last, ClassifierOutputTarget(class_index))
        patterns = (leaf * gradient)[0]
    channels, height, width = patterns.shape
    cells = patterns.reshape(channels, -1).T.double()
    cells = cells - cells.mean(dim=0)
    with torch.inference_mode():
        found = cells[:: max(1, len(cells) // PATTERNS)][:PATTERNS].T
        for _ in range(ROUNDS):
            found = torch.linalg.qr(cells.T @ (cells @ found))[0]
        inside = torch.linalg.eigh(found.T @ (cells.T @ (cells @ found)))[1]
        component = cells @ (found @ inside[:, -1])
        strength = last[0].reshape(last.shape[1], -1).norm(dim=0)
        sign = 1.0 if component @ (strength - strength.mean()).double() >= 0.0 else -1.0
    return np.maximum(sign * component.numpy(), 0.0).astype(np.float32).reshape(height, width)


def finer_cam(head: nn.Module, last: torch.Tensor, class_index: int, against: int) -> np.ndarray:
    """Finer-CAM (Zhang et al., 2025): Grad-CAM of one class's score less another's, "why this and not that"."""
    return _draw(head, last, FinerWeightedTarget(class_index, [against], 1.0), GradCAM)


def _fall(head: nn.Module, last: torch.Tensor, class_index: int, channels: torch.Tensor) -> torch.Tensor:
    """How far the score falls without each of some channels, int (M,): float (M,)."""
    without = last.repeat(len(channels), 1, 1, 1)
    without[torch.arange(len(channels)), channels] = 0.0
    return head(last)[0, class_index] - head(without)[:, class_index]


def ablation_cam(head: nn.Module, last: torch.Tensor, class_index: int) -> np.ndarray:
    """Ablation-CAM (Desai and Ramaswamy, 2020): each channel weighted by the fall of the score without it.

    The head is linear in the pooled features, so a formula gives the score without any one channel. The package divides
    by the score itself, which inverts the map where the score is negative; this function divides by the score's size,
    so that both agree where it is positive. A channel of zeros counts as left out, so ``last`` must be at least 0.
    Whatever end is not linear is asked without each channel in turn.
    """
    with torch.inference_mode():
        if isinstance(head, Head):
            fall = head.weight[class_index] * last[0].mean(dim=(1, 2))
        else:
            fall = torch.cat([_fall(head, last, class_index, some) for some in torch.arange(last.shape[1]).split(64)])
        weights = fall / head(last)[0, class_index].abs().clamp(min=1e-8)
        drawn = torch.einsum("k,khw->hw", weights, last[0])
    return np.maximum(drawn.numpy(), 0.0).astype(np.float32)
