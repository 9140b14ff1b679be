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
from pytorch_grad_cam import EigenCAM, EigenGradCAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
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
    "eigencam": EigenCAM,
    "eigengradcam": EigenGradCAM,
}
"""The package's classes whose maps need the last feature map and its gradients only."""


def _draw(
    head: nn.Module, last: torch.Tensor, target: Callable[[torch.Tensor], torch.Tensor], formula: type[BaseCAM]
) -> np.ndarray:
    # A tensor made under inference mode cannot be differentiated; a clone outside can.
    with torch.inference_mode(False), torch.enable_grad():
        leaf = last.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(target(head(leaf)[0]), leaf)
    # No target layers, so that the package hangs no hooks.
    drawn = formula(head, []).get_cam_image(last, head, [], leaf.detach().numpy(), gradient.numpy(), eigen_smooth=False)
    return np.maximum(drawn[0], 0.0).astype(np.float32)


def last_layer_map(head: nn.Module, last: torch.Tensor, class_index: int, method: str) -> np.ndarray:
    """The map of a key of ``FORMULAS``.

    Raises:
        KeyError: unknown method.
    """
    return _draw(head, last, ClassifierOutputTarget(class_index), FORMULAS[method])


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
