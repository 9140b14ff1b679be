"""Prediction sets that hold the label as often as they say (Vovk et al., 2005), calibrated on out-of-fold predictions.

Two scores are compared: LAC takes every type likelier than a threshold (Sadinle et al., 2019, "Least ambiguous
set-valued classifiers"), APS the likeliest types until their probabilities add up to one (Romano et al., 2020,
"Classification with valid and adaptive coverage").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from app.model.weights import PredictionSets

__all__ = ["LEVEL", "SCORES", "calibrate", "holds", "judge_sets", "quantile"]

LEVEL = 0.9
REPEATS = 200


def _lac(probabilities: np.ndarray) -> np.ndarray:
    return 1.0 - probabilities


def _aps(probabilities: np.ndarray) -> np.ndarray:
    order = np.argsort(-probabilities, axis=1, kind="stable")
    mass = np.cumsum(np.take_along_axis(probabilities, order, axis=1), axis=1)
    scores = np.empty_like(probabilities)
    np.put_along_axis(scores, order, mass, axis=1)
    return scores


SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"LAC": _lac, "APS": _aps}
"""Non-conformity of every type: probabilities (N, C) to float (N, C), low for what belongs into the set first."""


def quantile(scores: np.ndarray, level: float = LEVEL) -> float:
    """The score up to which types enter the set: the ceil((n + 1) level)-th lowest of the labels' own scores.

    Args:
        scores: of the labelled types, float (N,).
        level: share of films whose label the set is to hold, 0 to 1.

    Returns:
        Infinity where there are too few films for the level.
    """
    rank = int(np.ceil((len(scores) + 1) * level))
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else float("inf")


def judge_sets(probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Coverage and size of both kinds of sets, calibrated on half of the groups and judged on the other, many times.

    Args:
        probabilities: float (N, C).
        labels: int (N,).
        groups: int (N,), near-duplicates share a number and stay on one side.
        seed: of the halves.

    Returns:
        By score "coverage" and "size", each the mean as "value", the middle 95 % of repeats as "low" and "high", and
        "n" films.
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
    """Which types each film's set holds, the likeliest always: probabilities (N, C) to bool (N, C)."""
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
