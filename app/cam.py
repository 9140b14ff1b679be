"""Other class activation maps, computed on the head alone from pytorch-grad-cam's formulas.

At the last layer a method needs no more than the features F and the gradient of the class's logit with respect to them.
Both come without hooks from one call of the head, so nothing is shared between threads and nothing is left behind; the
package's own classes turn them into a map. The result equals a call on the whole network, at a fraction of its cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from pytorch_grad_cam import EigenCAM, EigenGradCAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from pytorch_grad_cam.base_cam import BaseCAM

from app.network import FractureNetwork

__all__ = ["METHODS", "Method", "last_layer_map"]


@dataclass(frozen=True)
class Method:
    """A class activation map that needs the last layer only.

    Attributes:
        title: as people know it.
        says: what it shows, and what it cannot, in a sentence.
        formula: the package's class.
    """

    title: str
    says: str
    formula: type[BaseCAM]


METHODS: dict[str, Method] = {
    "gradcam": Method(
        "Grad-CAM",
        "Features weighted by how much each would raise the score everywhere; blind to where a feature matters.",
        GradCAM,
    ),
    "gradcam++": Method(
        "Grad-CAM++",
        "Grad-CAM that counts several small findings alike; its weights are not the model's, so it may show too much.",
        GradCAMPlusPlus,
    ),
    "hirescam": Method(
        "HiResCAM",
        "Features times gradient, place by place: what the score is made of; says nothing about earlier layers.",
        HiResCAM,
    ),
    "xgradcam": Method(
        "XGrad-CAM",
        "Grad-CAM with gradients weighted by where features are; adds up to the score in some networks only.",
        XGradCAM,
    ),
    "layercam": Method(
        "LayerCAM",
        "Features times positive gradient at each place; leaves out what speaks against.",
        LayerCAM,
    ),
    "eigencam": Method(
        "EigenCAM",
        "The strongest pattern in the features, whatever the class; the same map for every type.",
        EigenCAM,
    ),
    "eigengradcam": Method(
        "EigenGradCAM",
        "The strongest pattern in features times gradient; its sign is a convention, not evidence.",
        EigenGradCAM,
    ),
}


def last_layer_map(network: FractureNetwork, features: torch.Tensor, class_index: int, method: str) -> np.ndarray:
    """One method's map of one film.

    Args:
        network: in evaluation mode.
        features: the body's, float (1, K, h, w).
        class_index: of the class to explain.
        method: a key of ``METHODS``.

    Returns:
        float32 (h, w), at least 0, unscaled.

    Raises:
        KeyError: unknown method.
    """
    formula = METHODS[method].formula
    # A tensor made under inference mode cannot be differentiated; a clone outside can.
    with torch.inference_mode(False), torch.enable_grad():
        leaf = features.clone().requires_grad_(True)
        logit = network.judge(leaf).logits[0, class_index]
        (gradient,) = torch.autograd.grad(logit, leaf)
    # No target layers, so that the package hangs no hooks.
    drawn = formula(network, []).get_cam_image(
        features, network, [], leaf.detach().numpy(), gradient.numpy(), eigen_smooth=False
    )
    return np.maximum(drawn[0], 0.0).astype(np.float32)
