"""Class activation maps at the last layer, computed on the head alone from pytorch-grad-cam's formulas.

There a method needs no more than the features F and the gradient of the class's logit with respect to them. Both come
without hooks from one call of the head, so nothing is shared between threads and nothing is left behind; the package's
own classes turn them into a map. The result equals a call on the whole network, at a fraction of its cost.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from pytorch_grad_cam import EigenCAM, EigenGradCAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget, FinerWeightedTarget

from app.model.network import FractureNetwork

__all__ = ["FORMULAS", "ablation_cam", "finer_cam", "last_layer_map"]

FORMULAS: dict[str, type[BaseCAM]] = {
    "gradcam": GradCAM,
    "gradcam++": GradCAMPlusPlus,
    "hirescam": HiResCAM,
    "xgradcam": XGradCAM,
    "layercam": LayerCAM,
    "eigencam": EigenCAM,
    "eigengradcam": EigenGradCAM,
}
"""The package's classes whose maps need features and gradients at the last layer only."""


def _draw(
    network: FractureNetwork,
    features: torch.Tensor,
    target: Callable[[torch.Tensor], torch.Tensor],
    formula: type[BaseCAM],
) -> np.ndarray:
    # A tensor made under inference mode cannot be differentiated; a clone outside can.
    with torch.inference_mode(False), torch.enable_grad():
        leaf = features.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(target(network.judge(leaf).logits[0]), leaf)
    # No target layers, so that the package hangs no hooks.
    drawn = formula(network, []).get_cam_image(
        features, network, [], leaf.detach().numpy(), gradient.numpy(), eigen_smooth=False
    )
    return np.maximum(drawn[0], 0.0).astype(np.float32)


def last_layer_map(network: FractureNetwork, features: torch.Tensor, class_index: int, method: str) -> np.ndarray:
    """One method's map of one film.

    Args:
        network: in evaluation mode.
        features: the body's, float (1, K, h, w).
        class_index: of the class to explain.
        method: a key of ``FORMULAS``.

    Returns:
        float32 (h, w), at least 0, unscaled.

    Raises:
        KeyError: unknown method.
    """
    return _draw(network, features, ClassifierOutputTarget(class_index), FORMULAS[method])


def finer_cam(network: FractureNetwork, features: torch.Tensor, class_index: int, against: int) -> np.ndarray:
    """Finer-CAM (Zhang et al., 2025): Grad-CAM of one class's score less another's, "why this and not that".

    Args:
        network: in evaluation mode.
        features: the body's, float (1, K, h, w).
        class_index, against: the two classes.

    Returns:
        float32 (h, w), at least 0, unscaled.
    """
    return _draw(network, features, FinerWeightedTarget(class_index, [against], 1.0), GradCAM)


def ablation_cam(network: FractureNetwork, features: torch.Tensor, class_index: int) -> np.ndarray:
    """Ablation-CAM (Desai and Ramaswamy, 2020): each feature weighted by how far the score falls without it.

    The head is linear in what it pools, so the score without any one feature is a formula and asks the network nothing.
    The package divides by the score itself, which turns the map over where the score is negative; here it is divided by
    the score's size, so both agree where it is positive.

    Args:
        network: in evaluation mode; features are at least 0, so that none is "without" it.
        features: the body's, float (1, K, h, w).
        class_index: of the class to explain.

    Returns:
        float32 (h, w), at least 0, unscaled.
    """
    with torch.inference_mode():
        flat = features[0].flatten(1)
        fall = network.head.weight[class_index] * flat.mean(dim=1)
        if network.attended is not None and network.places is not None:
            fracture = (network.places.weight @ flat)[0] + network.places.bias
            evidence = network.attended.weight[class_index] @ flat
            without = (fracture - network.places.weight[0][:, None] * flat).softmax(dim=1)
            left = (without * (evidence - network.attended.weight[class_index][:, None] * flat)).sum(dim=1)
            fall = fall + (fracture.softmax(dim=0) * evidence).sum() - left
        score = network.judge(features).logits[0, class_index]
        weights = fall / score.abs().clamp(min=1e-8)
        drawn = torch.einsum("k,khw->hw", weights, features[0])
    return np.maximum(drawn.numpy(), 0.0).astype(np.float32)
