"""Sanity checks of a map: does it depend on what the model has learnt, and does it stay under small changes?

- Weight randomisation (Adebayo et al., 2018, "Sanity checks for saliency maps"): a map that stays when the weights lose
  their order does not depend on the model.
- Stability: the map of a slightly changed image, changed back, should be the same map.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from scipy.stats import rankdata

from app.explain.methods import METHODS, Cost, MapRequest, draw, with_square
from app.model.classifier import Classifier
from app.model.network import FractureNetwork
from app.model.weights import ModelCard

__all__ = [
    "CHANGES",
    "FEW",
    "HEAD",
    "REPEATS",
    "REST",
    "SAME_FOR_ANY_TYPE",
    "UNCHANGED",
    "Change",
    "Randomised",
    "Stable",
    "fair_changes",
    "randomise_weights",
    "rank_correlation",
    "stability",
]

HEAD = "head"
"""The first part to be randomised: it tells the types apart."""

REST = "all the rest"
"""The last part to be randomised: stem, lateral layers and whatever else belongs to no stage."""

REPEATS: dict[Cost, int] = {"instant": 5, "seconds": 3, "slow": 1}
"""Randomisations for a method of each cost: smooth maps are alike by chance now and then."""

SAME_FOR_ANY_TYPE = 0.9
"""Mean absolute rank correlation under a randomised head from which a map is the same for any type.

Far above ``UNCHANGED``, since maps of other types of one X-ray are rightly alike: there is one bone to look at."""

UNCHANGED = 0.3
"""Mean absolute rank correlation under fully randomised weights from which a map counts as unchanged."""


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rank correlation of two maps of one shape, -1 to 1; 0 where one of them is flat."""
    first, second = rankdata(one), rankdata(other)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


@dataclass(frozen=True)
class Randomised:
    """Maps of the network with weights randomised from the head down to one part, several times anew.

    Attributes:
        down_to: the part: ``HEAD``, a stage of the backbone, or ``REST``, after which no weight is in its place.
        found: the first map that has heat, else one without: float (h, w).
        correlations: rank correlation with the real map, of every map that has heat.
    """

    down_to: str
    found: np.ndarray
    correlations: tuple[float, ...]

    @property
    def correlation(self) -> float | None:
        """Mean absolute correlation, since an inverted map shows the same; None where no map has heat."""
        return float(np.mean(np.abs(self.correlations))) if self.correlations else None


def _shuffle(network: FractureNetwork, part: str, done: set[str], generator: torch.Generator) -> None:
    """Randomises the order of a part's weights and batch-norm statistics, in place, but of those ``done`` before."""
    starts = {HEAD: ("head.", "places."), REST: ("",)}.get(part, (f"body.{part}.",))
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and name.startswith(starts) and name not in done:
            done.add(name)
            order = torch.randperm(tensor.numel(), generator=generator)
            tensor.copy_(tensor.flatten()[order].view_as(tensor))


def randomise_weights(request: MapRequest, method: str, found: np.ndarray, *, seed: int = 0) -> tuple[Randomised, ...]:
    """The maps of copies of the network with ever more weights randomised (Adebayo et al., 2018).

    Weights keep their values and lose their order, so that features keep their size.

    Args:
        request: the request that ``found`` answers.
        method: a key of ``METHODS``; one that is not instant is drawn only for the first part and the last.
        found: the real map.
        seed: of the random order.

    Returns:
        One Randomised a part, from the head down.

    Raises:
        Cancelled: the request's watch stopped it.
    """
    classifier = request.classifier
    parts = [HEAD, *reversed(classifier.network.stages), REST]
    cost = METHODS[method].cost
    shown = parts if cost == "instant" else [HEAD, REST]
    drawn: dict[str, list[np.ndarray]] = {part: [] for part in shown}
    generator = torch.Generator().manual_seed(seed)
    for number in range(REPEATS[cost]):
        network = copy.deepcopy(classifier.network)
        done: set[str] = set()
        for part in parts:
            _shuffle(network, part, done, generator)
            if part in drawn:
                other = replace(request, classifier=Classifier(network, classifier.card))
                drawn[part].append(draw(with_square(other, request.square), method))
            request.watch.step((number + (parts.index(part) + 1) / len(parts)) / REPEATS[cost])
    results = []
    for part, maps in drawn.items():
        hot = [each for each in maps if np.ptp(each) > 0.0]
        correlations = tuple(rank_correlation(found, each) for each in hot)
        results.append(Randomised(part, (hot or maps)[0], correlations))
    return tuple(results)


@dataclass(frozen=True)
class Change:
    """A small change of an image that should not change what it shows.

    Attributes:
        title: in words.
        there: from the model's square, float (S, S) or (S, S, 3) in 0..1, to the changed one.
        back: from a map of the changed square, float (h, w), to one of the square.
    """

    title: str
    there: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]


def _turned(values: np.ndarray, degrees: float) -> np.ndarray:
    height, width = values.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return cv2.warpAffine(values.astype(np.float32), matrix, (width, height), flags=cv2.INTER_LINEAR)


def _contrasted(square: np.ndarray, factor: float) -> np.ndarray:
    middle = square[square > 0].mean() if (square > 0).any() else 0.0
    return np.where(square > 0, np.clip((square - middle) * factor + middle, 0.0, 1.0), 0.0).astype(np.float32)


def _noisy(square: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0.0, 0.02, square.shape)
    return np.where(square > 0, np.clip(square + noise, 0.0, 1.0), 0.0).astype(np.float32)


CHANGES = (
    Change("mirrored", lambda s: np.ascontiguousarray(s[:, ::-1]), lambda m: m[:, ::-1]),
    Change("turned by 7 degrees", lambda s: _turned(s, 7.0), lambda m: _turned(m, -7.0)),
    Change("turned by -7 degrees", lambda s: _turned(s, -7.0), lambda m: _turned(m, 7.0)),
    Change("less contrast", lambda s: _contrasted(s, 0.85), lambda m: m),
    Change("more contrast", lambda s: _contrasted(s, 1.15), lambda m: m),
    Change("a little noise", _noisy, lambda m: m),
)

FEW = 2
"""How many of them for slow methods, whose map each change needs anew."""


def fair_changes(card: ModelCard) -> tuple[Change, ...]:
    """The changes under which a model's map should stay: not the mirror where it learnt that sides differ."""
    mirrors = card.recipe.get("augment", {}).get("flip", True)
    return CHANGES if mirrors else CHANGES[1:]


@dataclass(frozen=True)
class Stable:
    """The map of a changed image, changed back, and its rank correlation with the map of the image."""

    title: str
    found: np.ndarray
    correlation: float


def stability(
    request: MapRequest, method: str, found: np.ndarray, changes: Sequence[Change] = CHANGES
) -> tuple[Stable, ...]:
    """Compares ``found``, the map that ``method`` draws for a request, with its maps under small changes of the image.

    Raises:
        Cancelled: the request's watch stopped it.
    """
    results = []
    for number, change in enumerate(changes, start=1):
        back = change.back(draw(with_square(request, change.there(request.square)), method))
        results.append(Stable(change.title, back, rank_correlation(found, back)))
        request.watch.step(number / len(changes))
    return tuple(results)
