"""Figures with the uncertainty that their number of images leaves.

Prediction sets hold the label as often as they say (Vovk et al., 2005), calibrated on out-of-fold predictions. Two
scores are compared: LAC takes every type likelier than a threshold (Sadinle et al., 2019, "Least ambiguous set-valued
classifiers"), APS the likeliest types until their probabilities add up to one (Romano et al., 2020, "Classification
with valid and adaptive coverage").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import rankdata
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, precision_recall_fscore_support, roc_auc_score

from app.imaging.letterbox import Placement
from app.model.weights import PredictionSets
from training.data.image import LabelledImage

RESAMPLES = 10_000
INTERVAL = (1 - 0.95) / 2, (1 + 0.95) / 2


def bootstrap(correct: np.ndarray, groups: np.ndarray | None = None, *, seed: int = 0) -> dict[str, float]:
    """Mean of per-image values with its 95 % percentile bootstrap interval (Efron, 1979).

    Copies of one image stand or fall together, so groups are drawn whole (Field and Welsh, 2007): else a test of three
    images, each there a hundred times, would look as sure as one of three hundred. Where all values are 0, or all are
    1, no resample differs and the bootstrap would claim certainty; then the exact binomial interval over groups stands
    (Clopper and Pearson, 1934).

    Args:
        correct: float or bool (N,), one value an image.
        groups: int (N,), near-duplicates share a number; every image is its own group where not given.

    Returns:
        "value", "low", "high", "n" images and, where groups are given, how many of them.
    """
    values = np.asarray(correct, dtype=float)
    _, of = np.unique(np.arange(len(values)) if groups is None else groups, return_inverse=True)
    sizes = np.bincount(of)
    sums = np.bincount(of, weights=values)
    drawn = np.random.default_rng(seed).integers(0, len(sizes), (RESAMPLES, len(sizes)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, INTERVAL)
    unseen = INTERVAL[0] ** (1.0 / len(sizes))
    if not values.any():
        high = 1.0 - unseen
    elif np.all(values == 1.0):
        low = unseen
    share = {"value": float(values.mean()), "low": float(low), "high": float(high), "n": len(values)}
    return share if groups is None else {**share, "groups": len(sizes)}


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the lowest negative log-likelihood (Guo et al., 2017): logits (N, C), labels int (N,).

    Where every label is the likeliest class no temperature is the best: the lower, the surer. One in N + 2 images is
    then taken to be of another class, as in the rule of succession, since N right ones do not promise the next.
    """
    rows, classes = np.arange(len(labels)), logits.shape[1]
    wrong = 1.0 / (len(labels) + 2) if np.all(logits.argmax(axis=1) == labels) else 0.0

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        right = scaled[rows, labels]
        others = (scaled.sum(axis=1) - right) / (classes - 1)
        return float(-((1.0 - wrong) * right + wrong * others).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))


def resampled(
    figure: Callable[[np.ndarray], float], count: int, groups: np.ndarray | None = None, seed: int = 0
) -> dict[str, float]:
    """A figure over images with its percentile bootstrap interval, groups drawn whole as in ``bootstrap``.

    Args:
        figure: from indices of images to a number, which is nan where they leave it undefined.
        count: of images.
        groups: int (count,); every image is its own group where not given.
    """
    _, of = np.unique(np.arange(count) if groups is None else groups, return_inverse=True)
    members = [np.flatnonzero(of == number) for number in range(of.max() + 1)]
    drawn = np.random.default_rng(seed).integers(0, len(members), (RESAMPLES // 10, len(members)))
    values = [figure(np.concatenate([members[number] for number in chosen])) for chosen in drawn]
    low, high = np.nanquantile(values, INTERVAL)
    found = {"value": figure(np.arange(count)), "low": float(low), "high": float(high), "n": count}
    return found if groups is None else {**found, "groups": len(members)}


def area(scores: np.ndarray, fractured: np.ndarray, groups: np.ndarray | None = None) -> dict[str, float]:
    """Area under the receiver operating characteristic, with its interval.

    Args:
        scores: float (N,).
        fractured: bool (N,), some of either.
        groups: int (N,), as of ``resampled``.
    """
    return resampled(lambda chosen: _area(scores[chosen], fractured[chosen]), len(scores), groups)


def area_gained(
    scores: np.ndarray, before: np.ndarray, fractured: np.ndarray, groups: np.ndarray | None = None
) -> dict[str, float]:
    """By how much one score's ``area`` is above another's on the same images; the interval is of the difference."""
    return resampled(
        lambda chosen: _area(scores[chosen], fractured[chosen]) - _area(before[chosen], fractured[chosen]),
        len(scores),
        groups,
    )


def kappa_of_shares(shares: np.ndarray) -> float:
    """Of a table of shares of images, (C, C), by both labels; nan where one label stands for all."""
    by_chance = float(shares.sum(axis=0) @ shares.sum(axis=1))
    return (float(np.trace(shares)) - by_chance) / (1.0 - by_chance) if by_chance < 1.0 else np.nan


def kappa(first: np.ndarray, second: np.ndarray, groups: np.ndarray | None = None) -> dict[str, float] | None:
    """Cohen's kappa (Cohen, 1960, "A coefficient of agreement for nominal scales"), with its interval.

    Args:
        first, second: labels of the same images, (N,).
        groups: int (N,), as of ``resampled``.

    Returns:
        As of ``resampled``; None where kappa is not defined: no image, or one label for all of them.
    """
    if len(set(first) | set(second)) < 2:
        return None
    # Names compare a hundred times slower than numbers.
    labels, of = np.unique([first, second], return_inverse=True)
    one, other = of.reshape(2, -1)

    def figure(chosen: np.ndarray) -> float:
        table = np.bincount(one[chosen] * len(labels) + other[chosen], minlength=len(labels) ** 2)
        return kappa_of_shares(table.reshape(len(labels), -1) / len(chosen))

    return resampled(figure, len(one), groups)


def kappa_of_counts(
    confusion: Sequence[Sequence[int]], groups: Sequence[Sequence[int]] | None = None
) -> dict[str, float]:
    """``kappa`` of a confusion matrix; its interval is over images one by one, since a matrix knows no groups.

    Args:
        confusion: images by label (rows) and prediction, (C, C).
        groups: classes that count as one, as lists of indices; every class by itself where absent.

    Raises:
        ValueError: kappa is not defined.
    """
    of = {index: number for number, group in enumerate(groups or ()) for index in group}
    rows = [(of.get(i, i), of.get(j, j), n) for i, row in enumerate(confusion) for j, n in enumerate(row)]
    labels, predictions = (np.repeat([row[side] for row in rows], [row[2] for row in rows]) for side in (0, 1))
    found = kappa(labels, predictions)
    if found is None:
        raise ValueError("kappa of one class alone is not defined")
    return found


def merged_classes(confusion: Sequence[Sequence[int]]) -> list[list[list[int]]]:
    """Groupings of classes from all but one down to two groups, each merging the pair that raises kappa most.

    The greedy search is bottom-up, so a grouping is good, not the best; it flatters the matrix that it was chosen on.

    Args:
        confusion: images by label (rows) and prediction, (C, C).
    """
    counts = np.asarray(confusion, float)
    groups, found = [[index] for index in range(len(counts))], []

    def value(tried: list[list[int]]) -> float:
        belongs = np.array([[index in group for index in range(len(counts))] for group in tried], float)
        return float(np.nan_to_num(kappa_of_shares(belongs @ counts @ belongs.T / counts.sum()), nan=-1.0))

    while len(groups) > 2:
        pairs = combinations(range(len(groups)), 2)
        tries = [
            [*(group for k, group in enumerate(groups) if k not in pair), groups[pair[0]] + groups[pair[1]]]
            for pair in pairs
        ]
        groups = max(tries, key=value)
        found.append(groups)
    return found


def _area(scores: np.ndarray, fractured: np.ndarray) -> float:
    """By the sum of ranks (Mann and Whitney, 1947): scikit-learn's, which draws the curve, takes ten times as long."""
    count = int(fractured.sum())
    if not 0 < count < len(scores):
        return np.nan
    above = rankdata(scores)[fractured].sum() - count * (count + 1) / 2
    return float(above / (count * (len(scores) - count)))


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> dict[str, Any]:
    """Mean gap between confidence and accuracy over bins of equal width (Naeini et al., 2015; Guo et al., 2017).

    Args:
        probabilities: float (N, C).
        labels: int (N,).
        bins: number of bins of confidence between 0 and 1.

    Returns:
        "value" and, a bin: "images", "confidence", "accuracy" (the latter two None in empty bins).
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    rows: list[dict[str, Any]] = []
    error = 0.0
    for index in range(bins):
        inside = place == index
        films = int(inside.sum())
        if films == 0:
            rows.append({"images": 0, "confidence": None, "accuracy": None})
            continue
        mean_confidence, accuracy = float(confidence[inside].mean()), float(correct[inside].mean())
        error += films / len(labels) * abs(mean_confidence - accuracy)
        rows.append({"images": films, "confidence": mean_confidence, "accuracy": accuracy})
    return {"value": error, "bins": rows}


def report(
    logits: np.ndarray, labels: np.ndarray, classes: Sequence[str], temperature: float, groups: np.ndarray | None = None
) -> dict[str, Any]:
    """Everything measured of a model on one set of images.

    Args:
        logits: float (N, C).
        labels: int (N,); a class without images has no AUROC (None) and is left out of its mean.
        temperature: divides the logits for all that concerns probabilities.
        groups: int (N,), of near-duplicates, for the intervals.

    Returns:
        Plain numbers and lists, ready for JSON.
    """
    probabilities = softmax(logits / temperature, axis=1)
    guess = logits.argmax(axis=1)
    order = np.argsort(-logits, axis=1)
    top3 = (order[:, :3] == labels[:, None]).any(axis=1)
    indices = range(len(classes))
    precision, recall, f1, support = precision_recall_fscore_support(labels, guess, labels=indices, zero_division=0)
    auroc = [
        float(roc_auc_score(labels == index, probabilities[:, index])) if 0 < support[index] < len(labels) else None
        for index in indices
    ]
    return {
        "images": len(labels),
        "accuracy": bootstrap(guess == labels, groups),
        "top3": bootstrap(top3, groups),
        "kappa": kappa(labels, guess, groups),
        "balanced_accuracy": float(balanced_accuracy_score(labels, guess)),
        "macro_precision": float(precision.mean()),
        "macro_recall": float(recall.mean()),
        "macro_f1": float(f1.mean()),
        "macro_auroc": float(np.mean([area for area in auroc if area is not None])),
        "chance_accuracy": float(np.bincount(labels).max() / len(labels)),
        "expected_calibration_error": expected_calibration_error(probabilities, labels),
        "per_class": [
            {
                "name": name,
                "images": int(support[index]),
                "precision": float(precision[index]),
                "recall": float(recall[index]),
                "f1": float(f1[index]),
                "auroc": auroc[index],
            }
            for index, name in enumerate(classes)
        ],
        "confusion": confusion_matrix(labels, guess, labels=indices).tolist(),
    }


TOLERANCE = 0.05
"""Share of the image's diagonal by which a peak may miss a box in the lenient pointing game."""


class Hit(NamedTuple):
    """How one map lies on one image's boxes: peak inside, peak near, and share of positive energy inside (0 to 1)."""

    inside: bool
    near: bool
    energy: float


def hit(class_map: np.ndarray, image: LabelledImage, placement: Placement) -> Hit:
    """The pointing game (Zhang et al., 2018): whether a map's peak lies in a fracture box, at the image's own size.

    Args:
        class_map: float (h, w) over the model's square; its positive part counts as energy.
        image: with at least one box.
        placement: of the image in the square.

    Raises:
        ValueError: an image without a box.
    """
    if not image.boxes:
        raise ValueError(f"{image.name} has no box to be judged by")
    on_image = placement.onto_image(class_map)
    height, width = on_image.shape
    row, column = np.unravel_index(int(on_image.argmax()), on_image.shape)
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    boxed = np.zeros(on_image.shape, bool)
    distance = np.inf
    for x, y, box_width, box_height in image.boxes:
        left, right = (x - box_width / 2) * width, (x + box_width / 2) * width
        top, bottom = (y - box_height / 2) * height, (y + box_height / 2) * height
        boxed |= ((rows >= top) & (rows <= bottom))[:, None] & ((columns >= left) & (columns <= right))[None]
        across = max(left - columns[column], 0.0, columns[column] - right)
        down = max(top - rows[row], 0.0, rows[row] - bottom)
        distance = min(distance, float(np.hypot(across, down)))
    positive = np.clip(on_image, 0.0, None)
    total = float(positive.sum())
    return Hit(
        distance == 0.0,
        distance <= TOLERANCE * float(np.hypot(height, width)),
        float(positive[boxed].sum()) / total if total > 0 else 0.0,
    )


LEVEL = 0.9
"""Share of images whose label a prediction set is to hold."""
REPEATS = 200


def _aps(probabilities: np.ndarray) -> np.ndarray:
    order = np.argsort(-probabilities, axis=1, kind="stable")
    mass = np.cumsum(np.take_along_axis(probabilities, order, axis=1), axis=1)
    scores = np.empty_like(probabilities)
    np.put_along_axis(scores, order, mass, axis=1)
    return scores


SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"LAC": lambda probabilities: 1.0 - probabilities, "APS": _aps}
"""Non-conformity of every type: probabilities (N, C) to float (N, C), low for what belongs into the set first."""


def quantile(scores: np.ndarray, level: float = LEVEL) -> float:
    """The score up to which types enter the set: the ceil((n + 1) level)-th lowest of the labels' own scores.

    Args:
        scores: of the labelled types, float (N,).
        level: share of images whose label the set is to hold, 0 to 1.

    Returns:
        Infinity where there are too few images for the level.
    """
    rank = int(np.ceil((len(scores) + 1) * level))
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else float("inf")


def judge_sets(probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Coverage and size of both kinds of sets, calibrated on half of the groups and judged on the other, many times.

    Args:
        probabilities: float (N, C).
        labels: int (N,).
        groups: int (N,), near-duplicates share a number and stay on one side.

    Returns:
        By score "coverage" and "size", each the mean as "value", the middle 95 % of repeats as "low" and "high", and
        "n" images.
    """
    rng = np.random.default_rng(seed)
    _, of = np.unique(groups, return_inverse=True)
    found: dict[str, Any] = {}
    halves = [(rng.permutation(of.max() + 1) % 2 == 0)[of] for _ in range(REPEATS)]
    rows = np.arange(len(labels))
    for name, score in SCORES.items():
        scores = score(probabilities)
        own = scores[rows, labels]
        covered, sizes = [], []
        for half in halves:
            limit = quantile(own[half])
            covered.append(float((own[~half] <= limit).mean()))
            sizes.append(float((scores[~half] <= limit).sum(axis=1).mean()))
        found[name] = {
            key: {
                "value": float(np.mean(values)),
                "low": float(np.quantile(values, 0.025)),
                "high": float(np.quantile(values, 0.975)),
                "n": len(labels),
            }
            for key, values in (("coverage", covered), ("size", sizes))
        }
    return found


def holds(probabilities: np.ndarray, sets: PredictionSets) -> np.ndarray:
    """Which types each image's set holds, the likeliest always: probabilities (N, C) to bool (N, C)."""
    inside = SCORES[sets.score](probabilities) <= sets.limit
    inside[np.arange(len(inside)), probabilities.argmax(axis=1)] = True
    return inside


def calibrate(
    probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> tuple[PredictionSets, dict[str, Any]]:
    """The sets to ship, of the score whose sets are smaller on average, and how both were judged.

    Args:
        as of ``judge_sets``.
    """
    judged = judge_sets(probabilities, labels, groups)
    score = min(judged, key=lambda name: judged[name]["size"]["value"])
    own = SCORES[score](probabilities)[np.arange(len(labels)), labels]
    return PredictionSets(score=score, level=LEVEL, limit=quantile(own)), judged  # ty: ignore[invalid-argument-type]
