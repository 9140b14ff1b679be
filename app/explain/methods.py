"""Every method of ``app.explain``, by name, behind one function: ``draw``.

All answer the same question, which parts of the X-ray speak for a class, with a map of the model's square that is at
least 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from app.errors import Progress
from app.explain import DEFAULT, METHODS, Cost, Method, cam, perturbation
from app.imaging.letterbox import Placement
from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier
from app.model.network import FractureNetwork

__all__ = ["DEFAULT", "METHODS", "Cost", "MapRequest", "Method", "draw", "heat", "map_request", "with_square"]


@dataclass(frozen=True)
class MapRequest:
    """What a method may look at.

    Attributes:
        classifier: the model.
        square: brightness in the model's square, float32 (S, S) in 0..1; colours, (S, S, 3), for models that see them.
        pixels, black: the square and a black one, normalised, float (1, 3, S, S).
        last: the last feature map, which the head reads, float (1, L, h, w).
        target: index of the class to explain.
        against: index of the class to contrast it with.
        watch: receives the progress of slow methods.
    """

    classifier: Classifier
    square: np.ndarray
    pixels: torch.Tensor
    black: torch.Tensor
    last: torch.Tensor
    target: int
    against: int
    watch: Progress

    @property
    def network(self) -> FractureNetwork:
        return self.classifier.network


def _gradcam(request: MapRequest) -> np.ndarray:
    # The class map is Grad-CAM times the number of cells, in logits, and needs no gradient.
    with torch.inference_mode():
        maps = request.network.head.maps(request.last)
    return np.maximum(maps[0, request.target].numpy(), 0.0)


def _last_layer(name: str, request: MapRequest) -> np.ndarray:
    return cam.last_layer_map(request.network.head, request.last, request.target, name)


def _layers(which: slice, request: MapRequest) -> np.ndarray:
    layers = request.network.stages
    return perturbation.layer_maps(request.network, request.pixels, request.target, layers[which] or layers)


_DRAWN: dict[str, Callable[[MapRequest], np.ndarray]] = {
    "gradcam": _gradcam,
    **{name: partial(_last_layer, name) for name in (*cam.FORMULAS, *cam.EIGEN)},
    "finercam": lambda r: cam.finer_cam(r.network.head, r.last, r.target, r.against),
    "ablationcam": lambda r: cam.ablation_cam(r.network.head, r.last, r.target),
    "gradcam-earlier": partial(_layers, slice(-2, -1)),
    "gradcam-fused": partial(_layers, slice(-2, None)),
    "fullgrad": lambda r: perturbation.fullgrad(r.network, r.pixels, r.target),
    "integrated-gradients": lambda r: perturbation.integrated_gradients(
        r.network, r.pixels, r.black, r.target, r.watch
    ),
    "occlusion": lambda r: perturbation.occlusion(r.network, r.pixels, r.black, r.target, r.watch),
    "scorecam": lambda r: perturbation.score_cam(r.network, r.pixels, r.target, r.watch),
    "lime": lambda r: perturbation.lime(r.network, r.pixels, r.black, r.square, r.target, r.watch),
    "shap": lambda r: perturbation.shap(r.network, r.pixels, r.black, r.square, r.target, r.watch),
}
"""A request to a map, float32 (h, w), at least 0, of any size; the keys are those of ``METHODS``."""


def map_request(
    classifier: Classifier,
    image: Radiograph | np.ndarray,
    target: str | None = None,
    against: str | None = None,
    watch: Progress | None = None,
) -> MapRequest:
    """A request for maps of one image; several methods may share it.

    Args:
        classifier: the model.
        image: of any size, or in the model's square already, float (S, S) in 0..1.
        target: class to explain; the predicted one where absent.
        against: class to contrast it with; the likeliest other one where absent.
        watch: for slow methods.

    Raises:
        ValueError: a class that the model does not know, or one against itself.
    """
    square = classifier.boxed(image)[0] if isinstance(image, Radiograph) else image
    pixels, black = classifier.pixels([square, np.zeros_like(square)]).split(1)
    with torch.inference_mode():
        last, _ = classifier.network.features(pixels)
        logits = classifier.network.head(last)[0]
    order = [classifier.classes[i] for i in logits.argsort(descending=True).tolist()]
    target = target or order[0]
    against = against or next(name for name in order if name != target)
    for name in (target, against):
        if name not in classifier.classes:
            raise ValueError(f"'{name}' is not a type this model knows. Known: {', '.join(classifier.classes)}.")
    if target == against:
        raise ValueError("A type cannot be told from itself; choose another one.")
    index = classifier.classes.index
    return MapRequest(classifier, square, pixels, black, last, index(target), index(against), watch or Progress())


def with_square(request: MapRequest, square: np.ndarray) -> MapRequest:
    """The same request for another square, float (S, S) in 0..1, or for the same one where the network changed."""
    pixels = request.classifier.pixels([square])
    with torch.inference_mode():
        last, _ = request.network.features(pixels)
    return replace(request, square=square, pixels=pixels, last=last)


def heat(found: np.ndarray, placement: Placement) -> np.ndarray:
    """A map of the square on the image, in units of its own maximum: methods but Grad-CAM have no common unit.

    Returns:
        float32 (image height, image width) in 0..1; all 0 for a map without heat.
    """
    peak = float(found.max())
    if peak <= 0.0:
        found, peak = np.zeros_like(found), 1.0
    return np.clip(placement.onto_image(found / peak), 0.0, 1.0)


def draw(request: MapRequest, method: str = DEFAULT) -> np.ndarray:
    """The map of one of ``METHODS`` over the model's square: float32 (h, w), at least 0, in the method's own unit.

    Raises:
        KeyError: unknown method.
        Cancelled: the request's watch stopped it.
    """
    return _DRAWN[method](request)
