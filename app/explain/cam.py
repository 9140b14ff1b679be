"""Class activation maps at the gate, computed on the head alone from pytorch-grad-cam's formulas.

There a method needs no more than the last feature map A and the gradient of the class's logit with respect to it. Both
come without hooks from one call of the head, so nothing is shared between threads and nothing is left behind; the
package's own classes turn them into a map. The result equals a call on the whole network, at a fraction of its cost.
Grad-CAM itself is not among them: there it is the class map, which every forward gives.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from pytorch_grad_cam import EigenCAM, EigenGradCAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget, FinerWeightedTarget

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
    head: Head, last: torch.Tensor, target: Callable[[torch.Tensor], torch.Tensor], formula: type[BaseCAM]
) -> np.ndarray:
    # A tensor made under inference mode cannot be differentiated; a clone outside can.
    with torch.inference_mode(False), torch.enable_grad():
        leaf = last.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(target(head(leaf)[0]), leaf)
    # No target layers, so that the package hangs no hooks.
    drawn = formula(head, []).get_cam_image(last, head, [], leaf.detach().numpy(), gradient.numpy(), eigen_smooth=False)
    return np.maximum(drawn[0], 0.0).astype(np.float32)


def last_layer_map(head: Head, last: torch.Tensor, class_index: int, method: str) -> np.ndarray:
    """One method's map of one film.

    Args:
        head: of a network.
        last: the gate's output, float (1, L, h, w).
        class_index: of the class to explain.
        method: a key of ``FORMULAS``.

    Returns:
        float32 (h, w), at least 0, unscaled.

    Raises:
        KeyError: unknown method.
    """
    return _draw(head, last, ClassifierOutputTarget(class_index), FORMULAS[method])


def finer_cam(head: Head, last: torch.Tensor, class_index: int, against: int) -> np.ndarray:
    """Finer-CAM (Zhang et al., 2025): Grad-CAM of one class's score less another's, "why this and not that".

    Args:
        head: of a network.
        last: the gate's output, float (1, L, h, w).
        class_index, against: the two classes.

    Returns:
        float32 (h, w), at least 0, unscaled.
    """
    return _draw(head, last, FinerWeightedTarget(class_index, [against], 1.0), GradCAM)


def ablation_cam(head: Head, last: torch.Tensor, class_index: int) -> np.ndarray:
    """Ablation-CAM (Desai and Ramaswamy, 2020): each channel weighted by how far the score falls without it.

    The head is linear in what it pools, so the score without any one channel is a formula and asks the network nothing.
    The package divides by the score itself, which turns the map over where the score is negative; here it is divided by
    the score's size, so both agree where it is positive.

    Args:
        head: of a network.
        last: the gate's output, float (1, L, h, w), at least 0, so that a channel of zeros is one left out.
        class_index: of the class to explain.

    Returns:
        float32 (h, w), at least 0, unscaled.
    """
    with torch.inference_mode():
        fall = head.weight[class_index] * last[0].mean(dim=(1, 2))
        weights = fall / head(last)[0, class_index].abs().clamp(min=1e-8)
        drawn = torch.einsum("k,khw->hw", weights, last[0])
    return np.maximum(drawn.numpy(), 0.0).astype(np.float32)
