"""Fractured at all: operating points and what they give, by ``python -m training presence MODEL --data FOLDER``.

The score is the logsumexp of the model's fracture map, so the odds of a fracture are the sum of the places' odds. Two
points are chosen on FracAtlas' validation films: a sensitive one, under which no fracture is seen, and a specific one,
from which on it is called definite; commercial readers show both. FracAtlas' test films judge them once, and the
bone-break test films, all fractured and from elsewhere, tell what changes with the source.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from app.classifier import Classifier
from app.radiograph import read
from app.weights import PresencePoints
from training.boxed import BoxedFilms
from training.data.cache import CACHE
from training.data.film import Film
from training.export import write_card
from training.films import BoneBreakFilms
from training.metrics import RESAMPLES, bootstrap
from training.recipe import Recipe

__all__ = ["SENSITIVITY", "SPECIFICITY", "area", "operating_points", "presence"]

SENSITIVITY, SPECIFICITY = 0.9, 0.95
"""What the sensitive and the specific point are chosen to reach on validation films."""


def area(scores: np.ndarray, fractured: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Area under the receiver operating characteristic, with its percentile bootstrap interval over films.

    Args:
        scores: float (N,).
        fractured: bool (N,), some of either.
        seed: of the resampling.
    """
    ranks = np.argsort(np.argsort(scores, kind="stable"), kind="stable")
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(scores), (RESAMPLES // 10, len(scores)))
    areas = [roc_auc_score(fractured[d], ranks[d]) for d in drawn if 0 < fractured[d].sum() < len(d)]
    low, high = np.quantile(areas, [0.025, 0.975])
    value = float(roc_auc_score(fractured, scores))
    return {"value": value, "low": float(low), "high": float(high), "n": len(scores)}


def operating_points(scores: np.ndarray, fractured: np.ndarray) -> PresencePoints:
    """The highest score that still reaches ``SENSITIVITY`` and the lowest that reaches ``SPECIFICITY``.

    Args:
        scores: float (N,), log odds of a fracture.
        fractured: bool (N,), some of either.

    Returns:
        Both points; where the classes are so far apart that the sensitive one would lie above, both are the lower.
    """
    sensitive = float(np.quantile(scores[fractured], 1.0 - SENSITIVITY, method="lower"))
    whole = np.sort(scores[~fractured])
    specific = float(np.nextafter(whole[int(np.ceil(SPECIFICITY * len(whole))) - 1], np.inf))
    return PresencePoints(sensitive=min(sensitive, specific), specific=specific)


def _rates(scores: np.ndarray, fractured: np.ndarray, points: PresencePoints) -> dict[str, Any]:
    return {
        name: {
            "sensitivity": bootstrap(scores[fractured] >= point) if fractured.any() else None,
            "specificity": bootstrap(scores[~fractured] < point) if (~fractured).any() else None,
        }
        for name, point in (("sensitive", points.sensitive), ("specific", points.specific))
    }


def _scores(classifier: Classifier, films: Sequence[Film]) -> np.ndarray:
    found = []
    for start in range(0, len(films), 64):
        found += [e.presence for e in classifier.explain([read(film.path) for film in films[start : start + 64]])]
    return np.array(found, float)


def presence(name: str, data: Path, weights: Path, cache: Path = CACHE) -> dict[str, Any]:
    """Chooses the points, judges them, and writes both into the model's folder.

    Args:
        name: folder under ``weights``; ``presence.json`` is written into it, the points into its card.
        data: folder with FracAtlas and bone-break.
        weights: folder of models.
        cache: where decoded films are kept.

    Returns:
        What was written.

    Raises:
        ValueError: the model was not taught places, or on other films than these.
        WeightsError: no such model.
    """
    classifier = Classifier.load(name, weights)
    card = classifier.card
    if not card.places:
        raise ValueError(f"{name} was not taught places, so it cannot say whether a bone is broken")
    if BoxedFilms(data, "train", card.size, cache).as_card()["sha256"] != card.data["places"]["sha256"]:
        raise ValueError(f"the FracAtlas films under {data} are not those {name} was trained on")
    found: dict[str, Any] = {}
    points = None
    for part in ("validation", "test"):
        boxed = BoxedFilms(data, part, card.size, cache)
        scores, fractured = _scores(classifier, boxed.films), boxed.fractured
        points = points or operating_points(scores, fractured)
        regions = np.array([film.region or "unknown" for film in boxed.films])
        found[part] = {
            "films": len(scores),
            "fractured": int(fractured.sum()),
            "auroc": area(scores, fractured),
            **_rates(scores, fractured, points),
            "by_region": {
                region: {
                    "films": int((regions == region).sum()),
                    "fractured": int(fractured[regions == region].sum()),
                    **_rates(scores[regions == region], fractured[regions == region], points),
                }
                for region in sorted(set(regions))
            },
        }
    assert points is not None
    others = BoneBreakFilms(Recipe.model_validate(card.recipe), data, cache)
    scores = _scores(classifier, [others.films[i] for i in others.split.test])
    groups = others.groups[others.split.test]
    found["elsewhere"] = {
        "set": "bone-break",
        "part": "test",
        "sensitive": {"sensitivity": bootstrap(scores >= points.sensitive, groups)},
        "specific": {"sensitivity": bootstrap(scores >= points.specific, groups)},
    }
    found["points"] = points.model_dump()
    (weights / name / "presence.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    figures = {key: found["test"][key] for key in ("films", "fractured", "auroc", "sensitive", "specific")}
    metrics = {**card.metrics, "presence": {**figures, "elsewhere": found["elsewhere"]}}
    write_card(card.model_copy(update={"presence": points, "metrics": metrics}), weights / name)
    return found
