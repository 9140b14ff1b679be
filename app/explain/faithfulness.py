"""Tests of faithfulness: does a map point at what the model's score needs?

- Deletion and insertion (Petsiuk et al., 2018, "RISE"): if the map is right, blurring its hottest pixels first makes
  the score fall fast, and uncovering them first on a blurred image makes it rise fast.
- ROAD (Rong et al., 2022, "A consistent and efficient evaluation strategy for attribution methods"): the same with
  pixels filled in from their surroundings, so that the shape of the removed region reveals nothing.

Each compares with a trivial baseline, the same map moved elsewhere at random, since any map of that smoothness does
something. ``measured`` and its like read what ``training faithfulness`` found for each method over many X-rays, for
page and report alike.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer

from app.explain.methods import MapRequest
from app.explain.perturbation import BATCH
from app.explain.sanity import HEAD, REST, SAME_FOR_ANY_TYPE, UNCHANGED
from app.imaging.letterbox import Placement
from app.model.classifier import Classifier
from app.model.weights import DEFAULT_FOLDER
from app.sentence import Sentence

__all__ = [
    "SHARES",
    "Curves",
    "Faithfulness",
    "beats_random",
    "depends_on_model",
    "depends_on_type",
    "lost_to_random",
    "measure",
    "measure_faithfulness",
    "measured",
    "objection",
    "surrogate",
]

MEASURES = ("deletion", "insertion", "ROAD")

SHARES = np.linspace(0.0, 1.0, 11)
"""Shares of the image that are blurred or uncovered, one forward each; none and all are the same for every map."""

REMOVED = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Shares of the image that ROAD fills in."""

IMPUTED = 96
"""Side at which pixels are filled in; the filling is smooth, so nothing is lost."""

NOISE = 0.01
SURROGATES = 8


@dataclass(frozen=True)
class Curves:
    """What one map does to the class's probability.

    Attributes:
        deletion, insertion: probability after each of ``SHARES``, float (11,).
        road: mean over ``REMOVED`` of the probability with the coldest pixels filled in less that with the hottest,
            halved: -0.5 to 0.5, above 0 for an informative map.
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
class Faithfulness:
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
        """The measures by which every one of N random maps does worse; chance alone does so once in N + 1 times."""
        return tuple(name for name, count in self.beaten().items() if count == len(self.random))


def surrogate(found: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random map: the map (h, w) moved at random over a plane on which it is repeated mirrored.

    It is as smooth as the map and made of its values, so the map can gain over it only by where its heat lies. (Random
    phases under the map's power spectrum, the usual surrogate, leave maps of few hot cells up to twice as rough.)
    """
    height, width = found.shape
    mirrored = np.pad(found, ((0, height), (0, width)), mode="symmetric")
    return np.roll(mirrored, (rng.integers(2 * height), rng.integers(2 * width)), axis=(0, 1))[:height, :width]


def _inside(placement: Placement) -> np.ndarray:
    """Where in the square the image lies: bool (S, S)."""
    inside = np.zeros((placement.size, placement.size), bool)
    placement.crop(inside)[:] = True
    return inside


def _order(on_image: np.ndarray, placement: Placement) -> np.ndarray:
    """Pixels of the image in the square, hottest first: indices into the flattened square; ties in random order."""
    pixels = np.flatnonzero(_inside(placement))
    shuffle = np.random.default_rng(0).permutation(len(pixels))
    return pixels[shuffle[np.argsort(-on_image.ravel()[shuffle], kind="stable")]]


def _listed(square: np.ndarray) -> np.ndarray:
    """A square, (S, S) or (S, S, 3), pixel by pixel: (S S,) or (S S, 3)."""
    return square.reshape(-1, *square.shape[2:])


def _mixtures(square: np.ndarray, blurred: np.ndarray, order: np.ndarray) -> list[np.ndarray]:
    """Images with more and more of the hottest pixels blurred, then blurred ones with more and more uncovered."""
    pictures = []
    for start, patch in ((square, blurred), (blurred, square)):
        for share in SHARES[1:-1]:
            mixed = _listed(start).copy()
            chosen = order[: round(share * len(order))]
            mixed[chosen] = _listed(patch)[chosen]
            pictures.append(mixed.reshape(square.shape))
    return pictures


def _filled(square: np.ndarray, removed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image, float (S, S) or (S, S, 3), with removed pixels, bool (S, S), filled in from what is left around."""
    if square.ndim == 3:
        return np.dstack(
            [_filled(np.ascontiguousarray(channel), removed, rng) for channel in square.transpose(2, 0, 1)]
        )
    size = square.shape[0]
    side = min(IMPUTED, size)
    left = (~removed).astype(np.float32)
    share = cv2.resize(left, (side, side), interpolation=cv2.INTER_AREA)
    # A cell removed in part takes the mean of the pixels left: the removed ones must not leak back in.
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
    """For every share removed, the image with its hottest and with its coldest pixels filled in."""
    rng = np.random.default_rng(0)
    pictures = []
    for share in REMOVED:
        count = round(share * len(order))
        for chosen in (order[:count], order[len(order) - count :]):
            removed = np.zeros(len(_listed(square)), bool)
            removed[chosen] = True
            pictures.append(_filled(square, removed.reshape(square.shape[:2]), rng))
    return pictures


def _probabilities(classifier: Classifier, squares: Sequence[np.ndarray], target: int) -> np.ndarray:
    found = []
    with torch.inference_mode():
        for start in range(0, len(squares), BATCH):
            logits = classifier.network.logits(classifier.pixels(squares[start : start + BATCH]))
            found.append((logits / classifier.card.temperature).softmax(dim=1)[:, target].numpy())
    return np.concatenate(found)


def _curves(
    request: MapRequest, blurred: np.ndarray, ends: np.ndarray, on_image: np.ndarray, placement: Placement
) -> Curves:
    """Curves of one map; ``ends`` are the probabilities of the image and of the image all blurred."""
    order = _order(on_image, placement)
    pictures = [*_mixtures(request.square, blurred, order), *_fillings(request.square, order)]
    chances = _probabilities(request.classifier, pictures, request.target)
    count = len(SHARES) - 2
    hot, cold = chances[2 * count :: 2], chances[2 * count + 1 :: 2]
    return Curves(
        deletion=np.concatenate([ends[:1], chances[:count], ends[1:]]),
        insertion=np.concatenate([ends[1:], chances[count : 2 * count], ends[:1]]),
        road=float((cold - hot).mean() / 2.0),
    )


def measure_faithfulness(
    request: MapRequest, found: np.ndarray, placement: Placement, *, random: int = SURROGATES, seed: int = 0
) -> Faithfulness:
    """Deletion, insertion and ROAD of a map and of random ones.

    Args:
        request: the request that the map answers; its watch is told after every map.
        found: the map over the model's square, float (h, w), at least 0.
        placement: of the image in the square; only the image is blurred or filled in.
        random: how many random maps.
        seed: of the random maps.

    Raises:
        Cancelled: the watch stopped it.
    """
    # Each image gets its own random maps, lest one lucky draw decide over all; the same image always gets the same.
    rng = np.random.default_rng([seed, zlib.crc32(request.square.tobytes())])
    spread = cv2.GaussianBlur(request.square, (0, 0), request.square.shape[0] / 16.0)
    inside = _inside(placement)
    blurred = np.where(inside if spread.ndim == 2 else inside[:, :, None], spread, request.square)
    ends = _probabilities(request.classifier, [request.square, blurred], request.target)
    size = placement.size, placement.size
    on_image = placement.crop(cv2.resize(found.astype(np.float32), size, interpolation=cv2.INTER_LINEAR))
    curves = []
    for number in range(random + 1):
        shown = on_image if number == 0 else surrogate(on_image, rng)
        curves.append(_curves(request, blurred, ends, shown, placement))
        request.watch.step((number + 1) / (random + 1))
    return Faithfulness(curves[0], tuple(curves[1:]))


def measured(name: str, folder: Path = DEFAULT_FOLDER) -> dict[str, Any] | None:
    """What ``training faithfulness`` found for every method on a model; None where it never ran."""
    path = folder / name / "faithfulness.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def depends_on_model(row: dict[str, Any]) -> bool | None:
    """Whether a method's map changes under fully randomised weights; None where that was not measured."""
    last = row.get("scrambled", {}).get(REST)
    return last["value"] < UNCHANGED if last else None


def depends_on_type(row: dict[str, Any]) -> bool | None:
    """Whether a method's map changes under a randomised head; None where that was not measured."""
    first = row.get("scrambled", {}).get(HEAD)
    return first["value"] < SAME_FOR_ANY_TYPE if first else None


def beats_random(row: dict[str, Any]) -> dict[str, bool]:
    """By measure, whether the interval of the margin over random maps lies above zero."""
    return {key: row["margins"][key]["low"] > 0.0 for key in MEASURES}


def lost_to_random(row: dict[str, Any]) -> list[str]:
    """The measures by which a method is not shown to beat random maps."""
    return [key for key, better in beats_random(row).items() if not better]


def measure(name: str) -> str:
    """One of ``MEASURES`` in words; ROAD is a name."""
    return name if name == "ROAD" else Sentence(name)


def objection(row: dict[str, Any]) -> Sentence | None:
    """The worst that was measured of a method, a sentence; None where nothing speaks against it."""
    if depends_on_model(row) is False:
        return Sentence("Does not depend on the model: it stays when all weights are shuffled.")
    if depends_on_type(row) is False:
        return Sentence("Does not depend on the type: it stays when the head's weights are shuffled.")
    if lost := lost_to_random(row):
        measures = Sentence.listed("{one}, {other}", [measure(name) for name in lost])
        return Sentence("No better than random maps by {measures}.", measures=measures)
    return None
