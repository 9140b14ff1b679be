"""Whether a heatmap deserves belief: it is put on trial before the model itself.

- Deletion and insertion (Petsiuk et al., 2018, "RISE"): if the map is right, blurring its hottest places first makes
  the score fall fast, and uncovering them first on a blurred film makes it rise fast.
- ROAD (Rong et al., 2022, "A consistent and efficient evaluation strategy for attribution methods"): the same with
  places filled in from their surroundings, so that the shape of what is removed tells nothing.
- All against the same map moved elsewhere at random, since any map of that smoothness does something.
- Scrambling (Adebayo et al., 2018, "Sanity checks for saliency maps"): a map that stays when the weights are shuffled
  does not depend on what the model has learnt.
- Stability: the map of a slightly changed film, changed back, should be the same map.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from scipy.stats import rankdata

from app.explain.methods import METHODS, Cost, MapRequest, draw, with_square
from app.explain.perturbation import BATCH
from app.imaging.letterbox import Placement
from app.model.backbones import ARCHITECTURES
from app.model.classifier import Classifier
from app.model.network import FractureNetwork

__all__ = [
    "CHANGES",
    "FEW_CHANGES",
    "HEAD",
    "REST",
    "SHUFFLES",
    "Change",
    "Curves",
    "Randomised",
    "Stable",
    "Trial",
    "randomise_weights",
    "rank_correlation",
    "stability",
    "structural_similarity",
    "surrogate",
    "trial",
]

SHARES = np.linspace(0.0, 1.0, 11)
"""Shares of the film that are blurred or uncovered, one forward each; none and all are the same for every map."""

REMOVED = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Shares of the film that ROAD fills in."""

IMPUTED = 96
"""Side at which places are filled in; what is filled in is smooth, so nothing is lost."""

NOISE = 0.01
SURROGATES = 8


@dataclass(frozen=True)
class Curves:
    """What one map does to the class's probability.

    Attributes:
        deletion, insertion: probability after each of ``SHARES``, float (11,).
        road: mean over ``REMOVED`` of the probability with the coldest places filled in less that with the hottest,
            halved: -0.5 to 0.5, above 0 for a map that knows something.
    """

    deletion: np.ndarray
    insertion: np.ndarray
    road: float

    @property
    def deletion_area(self) -> float:
        """Area under the deletion curve, 0 to 1; low is good."""
        return float(np.trapezoid(self.deletion, SHARES))

    @property
    def insertion_area(self) -> float:
        """Area under the insertion curve, 0 to 1; high is good."""
        return float(np.trapezoid(self.insertion, SHARES))


@dataclass(frozen=True)
class Trial:
    """A map's curves beside those of random maps (``surrogate``)."""

    real: Curves
    random: tuple[Curves, ...]

    def margins(self) -> dict[str, float]:
        """By measure, how much better than the mean random map; above 0 is better, in units of probability."""
        return {
            "deletion": float(np.mean([r.deletion_area for r in self.random])) - self.real.deletion_area,
            "insertion": self.real.insertion_area - float(np.mean([r.insertion_area for r in self.random])),
            "ROAD": self.real.road - float(np.mean([r.road for r in self.random])),
        }

    def beaten(self) -> dict[str, int]:
        """By measure, how many of the random maps do worse."""
        return {
            "deletion": sum(r.deletion_area > self.real.deletion_area for r in self.random),
            "insertion": sum(r.insertion_area < self.real.insertion_area for r in self.random),
            "ROAD": sum(r.road < self.real.road for r in self.random),
        }

    def won(self) -> tuple[str, ...]:
        """The measures by which every random map does worse; with N of them chance does so once in N + 1 times."""
        return tuple(name for name, count in self.beaten().items() if count == len(self.random))


def surrogate(found: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same map at another place: moved at random over a plane on which it is repeated mirrored.

    It is as smooth as the map and made of its values, so what the map gains over it, it gains by where its heat lies.
    (Random phases under the map's power spectrum, the usual surrogate, leave maps of few hot places up to twice as
    rough.)

    Args:
        found: float (h, w).
        rng: of the place.
    """
    height, width = found.shape
    mirrored = np.pad(found, ((0, height), (0, width)), mode="symmetric")
    return np.roll(mirrored, (rng.integers(2 * height), rng.integers(2 * width)), axis=(0, 1))[:height, :width]


def _inside(placement: Placement) -> np.ndarray:
    """Where in the square the film lies: bool (S, S)."""
    inside = np.zeros((placement.size, placement.size), bool)
    placement.crop(inside)[:] = True
    return inside


def _on_film(found: np.ndarray, placement: Placement) -> np.ndarray:
    """What a map over the square says of the film: float32, as many rows and columns as the film has there."""
    stretched = cv2.resize(found.astype(np.float32), (placement.size, placement.size), interpolation=cv2.INTER_LINEAR)
    return placement.crop(stretched)


def _order(on_film: np.ndarray, placement: Placement) -> np.ndarray:
    """Pixels of the image in the square, hottest first: indices into the flattened square; equals are shuffled."""
    pixels = np.flatnonzero(_inside(placement))
    shuffle = np.random.default_rng(0).permutation(len(pixels))
    return pixels[shuffle[np.argsort(-on_film.ravel()[shuffle], kind="stable")]]


def _mixtures(square: np.ndarray, blurred: np.ndarray, order: np.ndarray) -> list[np.ndarray]:
    """Films with more and more of the hottest places blurred, then blurred ones with more and more uncovered."""
    pictures = []
    for start, patch in ((square, blurred), (blurred, square)):
        for share in SHARES[1:-1]:
            mixed = start.ravel().copy()
            chosen = order[: round(share * len(order))]
            mixed[chosen] = patch.ravel()[chosen]
            pictures.append(mixed.reshape(square.shape))
    return pictures


def _filled(square: np.ndarray, removed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The film with places filled in from what is left around them: float (S, S) and bool (S, S) to float (S, S)."""
    size = square.shape[0]
    side = min(IMPUTED, size)
    left = (~removed).astype(np.float32)
    share = cv2.resize(left, (side, side), interpolation=cv2.INTER_AREA)
    # Cells partly removed speak for the pixels that are left: what was removed must not leak back in.
    small = cv2.resize(square * left, (side, side), interpolation=cv2.INTER_AREA) / np.maximum(share, 1e-6)
    kept = share > 0.5
    if not kept.any():
        smooth = np.full_like(small, square.mean())
    elif kept.all():
        smooth = small
    else:
        imputer = NoisyLinearImputer(noise=0.0)
        smooth = imputer(torch.from_numpy(small)[None], torch.from_numpy(kept.astype(np.float32)))[0].numpy()
    grown = cv2.resize(smooth.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    noisy = grown + rng.normal(0.0, NOISE, square.shape).astype(np.float32)
    return np.where(removed, np.clip(noisy, 0.0, 1.0), square).astype(np.float32)


def _fillings(square: np.ndarray, order: np.ndarray) -> list[np.ndarray]:
    """For every share removed, the film with its hottest and with its coldest places filled in."""
    rng = np.random.default_rng(0)
    pictures = []
    for share in REMOVED:
        count = round(share * len(order))
        for chosen in (order[:count], order[len(order) - count :]):
            removed = np.zeros(square.size, bool)
            removed[chosen] = True
            pictures.append(_filled(square, removed.reshape(square.shape), rng))
    return pictures


def _probabilities(classifier: Classifier, squares: Sequence[np.ndarray], target: int) -> np.ndarray:
    found = []
    with torch.inference_mode():
        for start in range(0, len(squares), BATCH):
            logits = classifier.network(classifier.pixels(squares[start : start + BATCH])).logits
            found.append((logits / classifier.card.temperature).softmax(dim=1)[:, target].numpy())
    return np.concatenate(found)


def _curves(
    question: MapRequest, blurred: np.ndarray, ends: np.ndarray, on_film: np.ndarray, placement: Placement
) -> Curves:
    """Curves of one map; ``ends`` are the probabilities of the film and of the film all blurred."""
    order = _order(on_film, placement)
    pictures = [*_mixtures(question.square, blurred, order), *_fillings(question.square, order)]
    chances = _probabilities(question.classifier, pictures, question.target)
    count = len(SHARES) - 2
    hot, cold = chances[2 * count :: 2], chances[2 * count + 1 :: 2]
    return Curves(
        deletion=np.concatenate([ends[:1], chances[:count], ends[1:]]),
        insertion=np.concatenate([ends[1:], chances[count : 2 * count], ends[:1]]),
        road=float((cold - hot).mean() / 2.0),
    )


def trial(
    question: MapRequest, found: np.ndarray, placement: Placement, *, random: int = SURROGATES, seed: int = 0
) -> Trial:
    """Deletion, insertion and ROAD of a map and of random ones.

    Args:
        question: what the map answers; its watch is told after every map.
        found: the map over the model's square, float (h, w), at least 0.
        placement: of the film in the square; only the film is blurred or filled in.
        random: how many random maps.
        seed: of the random maps.

    Raises:
        Cancelled: the watch stopped it.
    """
    # Other films get other maps, lest one lucky draw decide over all of them; the same film gets the same again.
    rng = np.random.default_rng([seed, zlib.crc32(question.square.tobytes())])
    spread = cv2.GaussianBlur(question.square, (0, 0), question.square.shape[0] / 16.0)
    blurred = np.where(_inside(placement), spread, question.square)
    ends = _probabilities(question.classifier, [question.square, blurred], question.target)
    on_film = _on_film(found, placement)
    curves = []
    for number in range(random + 1):
        shown = on_film if number == 0 else surrogate(on_film, rng)
        curves.append(_curves(question, blurred, ends, shown, placement))
        question.watch.step((number + 1) / (random + 1))
    return Trial(curves[0], tuple(curves[1:]))


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rank correlation of two maps of one shape, -1 to 1; 0 where one of them is flat."""
    first, second = rankdata(one), rankdata(other)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def structural_similarity(one: np.ndarray, other: np.ndarray, window: float = 1.5) -> float:
    """Structural similarity (Wang et al., 2004) of two maps, each scaled to 0..1 first: -1 to 1, 1 for the same."""

    def scaled(values: np.ndarray) -> np.ndarray:
        spread = float(np.ptp(values))
        return ((values - values.min()) / spread if spread > 0 else np.zeros_like(values)).astype(np.float64)

    def smooth(values: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(values, (0, 0), window)

    x, y = scaled(one), scaled(other)
    mean_x, mean_y = smooth(x), smooth(y)
    spread_x, spread_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    both = smooth(x * y) - mean_x * mean_y
    low, high = 0.01**2, 0.03**2
    quality = (2 * mean_x * mean_y + low) * (2 * both + high)
    return float((quality / ((mean_x**2 + mean_y**2 + low) * (spread_x + spread_y + high))).mean())


@dataclass(frozen=True)
class Randomised:
    """Maps drawn after the weights from the head down to one part were shuffled, several times anew.

    Attributes:
        down_to: the part: "head", a stage of the body, or ``REST``, after which nothing is in its place.
        found: the first map that has heat, else one without: float (h, w).
        correlations: by rank, with the real map, of every map that has heat: a flat one is like nothing at all.
        similarity: structural, of ``found`` with the real map.
    """

    down_to: str
    found: np.ndarray
    correlations: tuple[float, ...]
    similarity: float

    @property
    def correlation(self) -> float | None:
        """Mean size of the correlations, 0 to 1; None where no map has heat.

        A map turned into its opposite has kept what it shows, so signs must not cancel.
        """
        return float(np.mean(np.abs(self.correlations))) if self.correlations else None


HEAD = "head"
"""The first part to be shuffled: what the types are told by."""

REST = "all the rest"
"""The last part to be shuffled: stem, lateral layers and whatever else belongs to no stage."""


def _learnt(network: FractureNetwork, part: str) -> dict[str, torch.Tensor]:
    """Names and values of what a part has learnt: weights, and the statistics of its batch norms."""
    everything = {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
    if part == REST:
        return everything
    starts = ("head.", "places.") if part == HEAD else (f"body.{part}.",)
    return {name: tensor for name, tensor in everything.items() if name.startswith(starts)}


def _shuffle(network: FractureNetwork, part: str, done: set[str], generator: torch.Generator) -> None:
    for name, tensor in _learnt(network, part).items():
        if name not in done:
            done.add(name)
            order = torch.randperm(tensor.numel(), generator=generator)
            tensor.copy_(tensor.flatten()[order].view_as(tensor))


SHUFFLES: dict[Cost, int] = {"instant": 5, "seconds": 3, "slow": 1}
"""How often weights are shuffled anew for a method of each cost: smooth maps are alike by chance now and then."""


def randomise_weights(question: MapRequest, method: str, found: np.ndarray, *, seed: int = 0) -> tuple[Randomised, ...]:
    """The maps of ever more scrambled networks.

    Weights keep their values and lose their order, so that features keep their size; the networks asked are copies.

    Args:
        question: what the map answers.
        method: a key of ``METHODS``; one that is not instant sees only the first part and the last shuffled.
        found: the real map.
        seed: of the shuffling.

    Returns:
        One Randomised a part, from the head down.

    Raises:
        Cancelled: the question's watch stopped it.
    """
    classifier = question.classifier
    parts = [HEAD, *reversed(ARCHITECTURES[classifier.card.architecture].stages), REST]
    cost = METHODS[method].cost
    shown = parts if cost == "instant" else [HEAD, REST]
    drawn: dict[str, list[np.ndarray]] = {part: [] for part in shown}
    generator = torch.Generator().manual_seed(seed)
    for number in range(SHUFFLES[cost]):
        network = copy.deepcopy(classifier.network)
        done: set[str] = set()
        for part in parts:
            _shuffle(network, part, done, generator)
            if part in drawn:
                asked = replace(question, classifier=Classifier(network, classifier.card))
                drawn[part].append(draw(with_square(asked, question.square), method))
            question.watch.step((number + (parts.index(part) + 1) / len(parts)) / SHUFFLES[cost])
    results = []
    for part, maps in drawn.items():
        hot = [each for each in maps if np.ptp(each) > 0.0]
        first = (hot or maps)[0]
        correlations = tuple(rank_correlation(found, each) for each in hot)
        results.append(Randomised(part, first, correlations, structural_similarity(found, first)))
    return tuple(results)


@dataclass(frozen=True)
class Change:
    """A small change of a film that should not change what is seen on it.

    Attributes:
        title: in words.
        there: the model's square, float (S, S) in 0..1, to the changed one.
        back: a map of the changed square to one of the square, float (h, w).
    """

    title: str
    there: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]


def _turned(values: np.ndarray, degrees: float) -> np.ndarray:
    height, width = values.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return cv2.warpAffine(values.astype(np.float32), matrix, (width, height), flags=cv2.INTER_LINEAR)


def _contrasted(square: np.ndarray, factor: float) -> np.ndarray:
    middle = square[square > 0].mean() if (square > 0).any() else 0.0
    return np.where(square > 0, np.clip((square - middle) * factor + middle, 0.0, 1.0), 0.0).astype(np.float32)


def _noisy(square: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0.0, 0.02, square.shape)
    return np.where(square > 0, np.clip(square + noise, 0.0, 1.0), 0.0).astype(np.float32)


def _same(found: np.ndarray) -> np.ndarray:
    return found


CHANGES = (
    Change("mirrored", lambda s: np.ascontiguousarray(s[:, ::-1]), lambda m: m[:, ::-1]),
    Change("turned by 7 degrees", lambda s: _turned(s, 7.0), lambda m: _turned(m, -7.0)),
    Change("turned by -7 degrees", lambda s: _turned(s, -7.0), lambda m: _turned(m, 7.0)),
    Change("less contrast", lambda s: _contrasted(s, 0.85), _same),
    Change("more contrast", lambda s: _contrasted(s, 1.15), _same),
    Change("a little noise", _noisy, _same),
)

FEW_CHANGES = CHANGES[:2]
"""For slow methods, whose map is drawn anew for each."""


@dataclass(frozen=True)
class Stable:
    """How the map of a changed film, changed back, agrees with the map of the film."""

    title: str
    found: np.ndarray
    correlation: float


def stability(
    question: MapRequest, method: str, found: np.ndarray, changes: Sequence[Change] = CHANGES
) -> tuple[Stable, ...]:
    """The map under small changes of the film, mapped back.

    Args:
        question: what the map answers.
        method: a key of ``METHODS``.
        found: the map of the film as it is.
        changes: which.

    Raises:
        Cancelled: the question's watch stopped it.
    """
    results = []
    for number, change in enumerate(changes, start=1):
        back = change.back(draw(with_square(question, change.there(question.square)), method))
        results.append(Stable(change.title, back, rank_correlation(found, back)))
        question.watch.step(number / len(changes))
    return tuple(results)
