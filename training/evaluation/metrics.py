"""Figures with the uncertainty that their number of films leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
)

__all__ = ["area", "bootstrap", "expected_calibration_error", "fit_temperature", "report"]

RESAMPLES = 10_000


def bootstrap(
    correct: np.ndarray, groups: np.ndarray | None = None, *, seed: int = 0, level: float = 0.95
) -> dict[str, float]:
    """Mean of per-film values with its percentile bootstrap interval (Efron, 1979).

    Copies of one film stand or fall together, so groups are drawn whole (Field and Welsh, 2007): else a test of three
    films, each there a hundred times, would look as sure as one of three hundred.

    Args:
        correct: float or bool (N,), one value a film.
        groups: int (N,), near-duplicates share a number; every film is its own group where not given.
        seed: of the resampling.
        level: of the interval, 0 to 1.

    Returns:
        "value", "low", "high", "n" films and, where groups are given, how many of them.
    """
    values = np.asarray(correct, dtype=float)
    _, of = np.unique(np.arange(len(values)) if groups is None else groups, return_inverse=True)
    sizes = np.bincount(of)
    sums = np.bincount(of, weights=values)
    drawn = np.random.default_rng(seed).integers(0, len(sizes), (RESAMPLES, len(sizes)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    share = {"value": float(values.mean()), "low": float(low), "high": float(high), "n": len(values)}
    return share if groups is None else {**share, "groups": len(sizes)}


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the lowest negative log-likelihood (Guo et al., 2017): logits (N, C), labels int (N,)."""

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-scaled[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))


def area(
    scores: np.ndarray, fractured: np.ndarray, groups: np.ndarray | None = None, seed: int = 0
) -> dict[str, float]:
    """Area under the receiver operating characteristic, with its percentile bootstrap interval.

    Args:
        scores: float (N,).
        fractured: bool (N,), some of either.
        groups: int (N,), drawn whole as in ``bootstrap``; every film is its own group where not given.
        seed: of the resampling.
    """
    _, of = np.unique(np.arange(len(scores)) if groups is None else groups, return_inverse=True)
    members = [np.flatnonzero(of == number) for number in range(of.max() + 1)]
    rng = np.random.default_rng(seed)
    areas = []
    for chosen in rng.integers(0, len(members), (RESAMPLES // 10, len(members))):
        drawn = np.concatenate([members[number] for number in chosen])
        if 0 < fractured[drawn].sum() < len(drawn):
            areas.append(roc_auc_score(fractured[drawn], scores[drawn]))
    low, high = np.quantile(areas, [0.025, 0.975])
    value = float(roc_auc_score(fractured, scores))
    share = {"value": value, "low": float(low), "high": float(high), "n": len(scores)}
    return share if groups is None else {**share, "groups": len(members)}


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> dict[str, Any]:
    """Mean gap between confidence and accuracy over bins of equal width (Naeini et al., 2015; Guo et al., 2017).

    Args:
        probabilities: float (N, C).
        labels: int (N,).
        bins: number of bins of confidence between 0 and 1.

    Returns:
        "value" and, a bin: "films", "confidence", "accuracy" (the latter two None in empty bins).
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
            rows.append({"films": 0, "confidence": None, "accuracy": None})
            continue
        mean_confidence, accuracy = float(confidence[inside].mean()), float(correct[inside].mean())
        error += films / len(labels) * abs(mean_confidence - accuracy)
        rows.append({"films": films, "confidence": mean_confidence, "accuracy": accuracy})
    return {"value": error, "bins": rows}


def report(
    logits: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    temperature: float,
    groups: np.ndarray | None = None,
) -> dict[str, Any]:
    """Everything told about a model on one set of films.

    Args:
        logits: float (N, C).
        labels: int (N,); a class without films has no AUROC (None) and is left out of its mean.
        classes: names in the order of the columns.
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
        "films": len(labels),
        "accuracy": bootstrap(guess == labels, groups),
        "top3": bootstrap(top3, groups),
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
                "films": int(support[index]),
                "precision": float(precision[index]),
                "recall": float(recall[index]),
                "f1": float(f1[index]),
                "auroc": auroc[index],
            }
            for index, name in enumerate(classes)
        ],
        "confusion": confusion_matrix(labels, guess, labels=indices).tolist(),
    }
