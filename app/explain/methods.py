"""Every way to explain a film, by name; ``app.explain.method_list`` describes them.

All answer the same question, which places of the film speak for a class, with a map of the model's square that is at
least 0; ``draw`` computes any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from app.errors import Progress
from app.explain import cam
from app.explain import perturbation as attribution
from app.explain.method_list import DEFAULT, METHODS, Cost, Method
from app.imaging.letterbox import Placement, letterbox
from app.imaging.radiograph import Radiograph
from app.model.backbones import ARCHITECTURES
from app.model.classifier import Classifier

__all__ = ["DEFAULT", "METHODS", "Cost", "MapRequest", "Method", "ask", "ask_square", "draw", "heat", "with_square"]


@dataclass(frozen=True)
class MapRequest:
    """What a method may look at.

    Attributes:
        classifier: the model.
        square: the film's brightness in the model's square, float32 (S, S) in 0..1.
        pixels, black: the film and a black one, normalised, float (1, 3, S, S).
        last: the film's last feature map, which the head reads, float (1, L, h, w).
        target: index of the class to explain.
        against: index of the class to tell it from.
        watch: told how far slow methods are.
    """

    classifier: Classifier
    square: np.ndarray
    pixels: torch.Tensor
    black: torch.Tensor
    last: torch.Tensor
    target: int
    against: int
    watch: Progress


def _gradcam(question: MapRequest) -> np.ndarray:
    # The class map is Grad-CAM times the number of cells, in logits, and needs no gradient.
    with torch.inference_mode():
        maps = question.classifier.network.head.maps(question.last)
    return np.maximum(maps[0, question.target].numpy(), 0.0)


def _last_layer(name: str, question: MapRequest) -> np.ndarray:
    return cam.last_layer_map(question.classifier.network.head, question.last, question.target, name)


def _finer(question: MapRequest) -> np.ndarray:
    return cam.finer_cam(question.classifier.network.head, question.last, question.target, question.against)


def _ablation(question: MapRequest) -> np.ndarray:
    return cam.ablation_cam(question.classifier.network.head, question.last, question.target)


def _score(question: MapRequest) -> np.ndarray:
    return attribution.score_cam(question.classifier.network, question.pixels, question.target, question.watch)


def _fullgrad(question: MapRequest) -> np.ndarray:
    return attribution.fullgrad(question.classifier.network, question.pixels, question.target)


def _layers(which: slice, question: MapRequest) -> np.ndarray:
    layers = ARCHITECTURES[question.classifier.card.architecture].stages[which]
    return attribution.layer_maps(question.classifier.network, question.pixels, question.target, layers)


def _integrated(question: MapRequest) -> np.ndarray:
    network = question.classifier.network
    return attribution.integrated_gradients(network, question.pixels, question.black, question.target, question.watch)


def _occlusion(question: MapRequest) -> np.ndarray:
    network = question.classifier.network
    return attribution.occlusion(network, question.pixels, question.black, question.target, question.watch)


def _patches(how: Callable[..., np.ndarray], question: MapRequest) -> np.ndarray:
    network = question.classifier.network
    return how(network, question.pixels, question.black, question.square, question.target, question.watch)


_DRAWN: dict[str, Callable[[MapRequest], np.ndarray]] = {
    "gradcam": _gradcam,
    "gradcam++": partial(_last_layer, "gradcam++"),
    "hirescam": partial(_last_layer, "hirescam"),
    "xgradcam": partial(_last_layer, "xgradcam"),
    "layercam": partial(_last_layer, "layercam"),
    "eigencam": partial(_last_layer, "eigencam"),
    "eigengradcam": partial(_last_layer, "eigengradcam"),
    "finercam": _finer,
    "ablationcam": _ablation,
    "gradcam-earlier": partial(_layers, slice(-2, -1)),
    "gradcam-fused": partial(_layers, slice(-2, None)),
    "fullgrad": _fullgrad,
    "integrated-gradients": _integrated,
    "occlusion": _occlusion,
    "scorecam": _score,
    "lime": partial(_patches, attribution.lime),
    "shap": partial(_patches, attribution.shap),
}
"""A question to a map, float32 (h, w), at least 0, of any size; the keys are those of ``METHODS``."""


def ask(
    classifier: Classifier,
    film: Radiograph,
    target: str | None = None,
    against: str | None = None,
    watch: Progress | None = None,
) -> MapRequest:
    """A film as methods want it.

    Args:
        classifier: the model.
        film: of any size.
        target: class to explain; the predicted one where absent.
        against: class to tell it from; the likeliest other one where absent.
        watch: for slow methods.

    Raises:
        ValueError: a class the model does not know, or one against itself.
    """
    card = classifier.card
    return ask_square(classifier, letterbox(film, card.size, card.equalise)[0], target, against, watch)


def ask_square(
    classifier: Classifier,
    square: np.ndarray,
    target: str | None = None,
    against: str | None = None,
    watch: Progress | None = None,
) -> MapRequest:
    """``ask`` for a film that lies in the model's square already, float (S, S) in 0..1."""
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


def with_square(question: MapRequest, square: np.ndarray) -> MapRequest:
    """The same question about another picture, or about the same one to another network: float (S, S) in 0..1."""
    pixels = question.classifier.pixels([square])
    with torch.inference_mode():
        last, _ = question.classifier.network.features(pixels)
    return replace(question, square=square, pixels=pixels, last=last)


def heat(found: np.ndarray, placement: Placement) -> np.ndarray:
    """A map on the film, in units of its own peak: methods but Grad-CAM have no common unit.

    Args:
        found: from ``draw``.
        placement: of the film in the square.

    Returns:
        float32 (film height, film width) in 0..1; all 0 for a map without heat.
    """
    peak = float(found.max())
    if peak <= 0.0:
        found, peak = np.zeros_like(found), 1.0
    return np.clip(placement.onto_image(found / peak), 0.0, 1.0)


def draw(question: MapRequest, method: str = DEFAULT) -> np.ndarray:
    """One method's answer.

    Args:
        question: from ``ask``; several methods may share one.
        method: a key of ``METHODS``.

    Returns:
        float32 (h, w) over the model's square, at least 0, in the method's own unit.

    Raises:
        KeyError: unknown method.
        Cancelled: the question's watch stopped it.
    """
    return _DRAWN[method](question)
