"""Every way to explain a film, by name: what it shows, what it cannot, and what it costs.

All answer the same question, which places of the film speak for a class, with a map of the model's square that is at
least 0; ``draw`` computes any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch

from app import attribution, cam
from app.bodies import ARCHITECTURES
from app.classifier import Classifier
from app.preprocess import Placement, letterbox
from app.radiograph import Radiograph
from app.watch import Watch

__all__ = ["DEFAULT", "METHODS", "Cost", "Method", "Question", "ask", "ask_square", "draw", "heat", "with_square"]

Cost = Literal["instant", "seconds", "slow"]

DEFAULT = "evidence"


@dataclass(frozen=True)
class Question:
    """What a method may look at.

    Attributes:
        classifier: the model.
        square: the film's brightness in the model's square, float32 (S, S) in 0..1.
        pixels, black: the film and a black one, normalised, float (1, 3, S, S).
        features: the body's of the film, float (1, K, h, w).
        target: index of the class to explain.
        against: index of the class to tell it from.
        watch: told how far slow methods are.
    """

    classifier: Classifier
    square: np.ndarray
    pixels: torch.Tensor
    black: torch.Tensor
    features: torch.Tensor
    target: int
    against: int
    watch: Watch


@dataclass(frozen=True)
class Method:
    """A way to explain a film.

    Attributes:
        title: as people know it.
        says: what it shows, and what it cannot, in a sentence or two.
        cost: "instant" needs the head only, "seconds" asks the network some dozen times, "slow" hundreds of times.
        draw: a question to a map, float32 (h, w), at least 0, of any size.
    """

    title: str
    says: str
    cost: Cost
    draw: Callable[[Question], np.ndarray]


def _evidence(question: Question) -> np.ndarray:
    with torch.inference_mode():
        maps = question.classifier.network.judge(question.features).maps
    return np.maximum(maps[0, question.target].numpy(), 0.0)


def _last_layer(name: str, question: Question) -> np.ndarray:
    return cam.last_layer_map(question.classifier.network, question.features, question.target, name)


def _finer(question: Question) -> np.ndarray:
    return cam.finer_cam(question.classifier.network, question.features, question.target, question.against)


def _ablation(question: Question) -> np.ndarray:
    return cam.ablation_cam(question.classifier.network, question.features, question.target)


def _score(question: Question) -> np.ndarray:
    network = question.classifier.network
    return attribution.score_cam(network, question.pixels, question.features, question.target, question.watch)


def _fullgrad(question: Question) -> np.ndarray:
    return attribution.fullgrad(question.classifier.network, question.pixels, question.target)


def _layers(which: slice, question: Question) -> np.ndarray:
    layers = ARCHITECTURES[question.classifier.card.architecture].stages[which]
    return attribution.layer_maps(question.classifier.network, question.pixels, question.target, layers)


def _integrated(question: Question) -> np.ndarray:
    network = question.classifier.network
    return attribution.integrated_gradients(network, question.pixels, question.black, question.target, question.watch)


def _occlusion(question: Question) -> np.ndarray:
    network = question.classifier.network
    return attribution.occlusion(network, question.pixels, question.black, question.target, question.watch)


def _patches(how: Callable[..., np.ndarray], question: Question) -> np.ndarray:
    network = question.classifier.network
    return how(network, question.pixels, question.black, question.square, question.target, question.watch)


METHODS: dict[str, Method] = {
    "evidence": Method(
        "Evidence (exact)",
        "What the score is made of, place by place, and adds up to. Says nothing about what made the features.",
        "instant",
        _evidence,
    ),
    "gradcam": Method(
        "Grad-CAM",
        "Features weighted by how much each would raise the score everywhere. Blind to where a feature matters.",
        "instant",
        partial(_last_layer, "gradcam"),
    ),
    "gradcam++": Method(
        "Grad-CAM++",
        "Grad-CAM that counts several small findings alike. Its weights are not the model's, so it may show too much.",
        "instant",
        partial(_last_layer, "gradcam++"),
    ),
    "hirescam": Method(
        "HiResCAM",
        "Features times gradient, place by place. True to the score of a linear head, nearly so where places are "
        "weighed; silent about earlier layers.",
        "instant",
        partial(_last_layer, "hirescam"),
    ),
    "xgradcam": Method(
        "XGrad-CAM",
        "Grad-CAM with gradients weighted by where features are. Adds up to the score in some networks only.",
        "instant",
        partial(_last_layer, "xgradcam"),
    ),
    "layercam": Method(
        "LayerCAM",
        "Features times positive gradient at each place. Leaves out what speaks against.",
        "instant",
        partial(_last_layer, "layercam"),
    ),
    "eigencam": Method(
        "EigenCAM",
        "The strongest pattern in the features, whatever the class: the same map for every type.",
        "instant",
        partial(_last_layer, "eigencam"),
    ),
    "eigengradcam": Method(
        "EigenGradCAM",
        "The strongest pattern in features times gradient. Its sign is a convention, not evidence.",
        "instant",
        partial(_last_layer, "eigengradcam"),
    ),
    "finercam": Method(
        "Finer-CAM",
        "Grad-CAM of one type's score less another's: why this and not that. Shows differences only.",
        "instant",
        _finer,
    ),
    "ablationcam": Method(
        "Ablation-CAM",
        "Features weighted by how far the score falls without each. Features that stand in for one another hide.",
        "instant",
        _ablation,
    ),
    "gradcam-earlier": Method(
        "Grad-CAM, an earlier layer",
        "Drawn one stage earlier, where features are less about types; no finer in networks with a feature pyramid. "
        "What later layers make of it is only guessed.",
        "seconds",
        partial(_layers, slice(-2, -1)),
    ),
    "gradcam-fused": Method(
        "Grad-CAM, last two stages",
        "Maps of the last two stages averaged; where they agree it is hottest. No longer a part of the score.",
        "seconds",
        partial(_layers, slice(-2, None)),
    ),
    "fullgrad": Method(
        "FullGrad",
        "Gradients of the input and of every bias, added up in size. Knows no sign: against looks like for.",
        "seconds",
        _fullgrad,
    ),
    "integrated-gradients": Method(
        "Integrated gradients",
        "Each pixel's part in the way from a black film to this one. Grainy, and depends on black being nothing.",
        "seconds",
        _integrated,
    ),
    "occlusion": Method(
        "Occlusion",
        "How far the score falls when a window is black. Honest but coarse; a black window is itself odd to the model.",
        "slow",
        _occlusion,
    ),
    "scorecam": Method(
        "Score-CAM",
        "Features weighted by the score of the film seen through each. No gradients; the dimmed films are odd ones.",
        "slow",
        _score,
    ),
    "lime": Method(
        "LIME",
        "Which patches make the score, by a simple model around this film. Changes with patches and draws of lots.",
        "slow",
        partial(_patches, attribution.lime),
    ),
    "shap": Method(
        "SHAP",
        "Each patch's fair share of the score. Estimated from draws of lots, and patches cut across bones.",
        "slow",
        partial(_patches, attribution.shap),
    ),
}


def ask(
    classifier: Classifier,
    film: Radiograph,
    target: str | None = None,
    against: str | None = None,
    watch: Watch | None = None,
) -> Question:
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
    watch: Watch | None = None,
) -> Question:
    """``ask`` for a film that lies in the model's square already, float (S, S) in 0..1."""
    pixels, black = classifier.pixels([square, np.zeros_like(square)]).split(1)
    with torch.inference_mode():
        features = classifier.network.body(pixels)
        logits = classifier.network.judge(features).logits[0]
    order = [classifier.classes[i] for i in logits.argsort(descending=True).tolist()]
    target = target or order[0]
    against = against or next(name for name in order if name != target)
    for name in (target, against):
        if name not in classifier.classes:
            raise ValueError(f"'{name}' is not a type this model knows. Known: {', '.join(classifier.classes)}.")
    if target == against:
        raise ValueError("A type cannot be told from itself; choose another one.")
    index = classifier.classes.index
    return Question(classifier, square, pixels, black, features, index(target), index(against), watch or Watch())


def with_square(question: Question, square: np.ndarray) -> Question:
    """The same question about another picture, or about the same one to another network: float (S, S) in 0..1."""
    pixels = question.classifier.pixels([square])
    with torch.inference_mode():
        features = question.classifier.network.body(pixels)
    return replace(question, square=square, pixels=pixels, features=features)


def heat(found: np.ndarray, placement: Placement) -> np.ndarray:
    """A map on the film, in units of its own peak: methods but the exact evidence have no common unit.

    Args:
        found: from ``draw``.
        placement: of the film in the square.

    Returns:
        float32 (film height, film width) in 0..1; all 0 for a map without heat.
    """
    peak = float(found.max())
    if peak <= 0.0:
        found, peak = np.zeros_like(found), 1.0
    return np.clip(placement.onto_film(found / peak), 0.0, 1.0)


def draw(question: Question, method: str = DEFAULT) -> np.ndarray:
    """One method's answer.

    Args:
        question: from ``ask``; several methods may share one.
        method: a key of ``METHODS``.

    Returns:
        float32 (h, w) over the model's square, at least 0, in the method's own unit.

    Raises:
        KeyError: unknown method.
        Stopped: the question's watch stopped it.
    """
    return METHODS[method].draw(question)
