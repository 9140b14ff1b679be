"""Fractured at all: operating points and what they give, by ``python -m training presence MODEL --data FOLDER``.

The score is the logsumexp of the model's fracture map, so the odds of a fracture are the sum of the cells' odds. Two
points are chosen on FracAtlas' validation images: a sensitive one, under which no fracture is seen, and a specific one,
from which on it is called definite; commercial readers show both. FracAtlas' test images judge them once. What changes
with the source tell the bone-break test images, all fractured, and the images of multi-region that no other set holds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.imaging.radiograph import read
from app.model.classifier import Classifier
from app.model.weights import PresencePoints, write_card
from training import write_json
from training.data.datamodule import BoneBreakData, BoxedImages
from training.data.image import CACHE, LabelledImage
from training.data.multi_region import LISTED, external_set
from training.evaluation.metrics import area, bootstrap
from training.recipe import Recipe

log = logging.getLogger(__name__)

SENSITIVITY, SPECIFICITY = 0.9, 0.95
"""What the sensitive and the specific point are chosen to reach on validation images."""


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


def _rates(scores: np.ndarray, fractured: np.ndarray, points: PresencePoints, groups: np.ndarray) -> dict[str, Any]:
    return {
        name: {
            "sensitivity": bootstrap(scores[fractured] >= point, groups[fractured]) if fractured.any() else None,
            "specificity": bootstrap(scores[~fractured] < point, groups[~fractured]) if (~fractured).any() else None,
        }
        for name, point in (("sensitive", points.sensitive), ("specific", points.specific))
    }


def _of_region(scores: np.ndarray, fractured: np.ndarray, points: PresencePoints, groups: np.ndarray) -> dict[str, Any]:
    both = 0 < fractured.sum() < len(fractured)
    return {
        "films": len(scores),
        "fractured": int(fractured.sum()),
        "auroc": area(scores, fractured, groups) if both else None,
        **_rates(scores, fractured, points, groups),
    }


def _scores(classifier: Classifier, films: Sequence[LabelledImage]) -> np.ndarray:
    found = []
    for start in range(0, len(films), 64):
        found += [e.presence for e in classifier.explain([read(film.path) for film in films[start : start + 64]])]
    return np.array(found, float)


def presence(name: str, data: Path, weights: Path, cache: Path = CACHE, listed: Path = LISTED) -> dict[str, Any]:
    """Chooses the points, judges them, and writes both into the model's folder.

    Args:
        name: folder under ``weights``; ``presence.json`` is written into it, the points into its card.

    Returns:
        What was written.

    Raises:
        ValueError: the model did not learn where fractures lie, or on other images than these.
        WeightsError: no such model.
    """
    classifier = Classifier.load(name, weights)
    card = classifier.card
    if not card.places:
        raise ValueError(f"{name} did not learn where fractures lie, so it cannot say whether a bone is broken")
    if BoxedImages(data, "train", card.size, cache).as_card()["sha256"] != card.data["places"]["sha256"]:
        raise ValueError(f"the FracAtlas images under {data} are not those {name} was trained on")
    found: dict[str, Any] = {}
    points = None
    for part in ("validation", "test"):
        boxed = BoxedImages(data, part, card.size, cache)
        scores, fractured = _scores(classifier, boxed.films), boxed.fractured
        points = points or operating_points(scores, fractured)
        regions = np.array([film.region or "unknown" for film in boxed.films])
        groups = boxed.groups
        found[part] = {
            "films": len(scores),
            "fractured": int(fractured.sum()),
            "auroc": area(scores, fractured, groups),
            **_rates(scores, fractured, points, groups),
            "by_region": {
                region: _of_region(scores[its], fractured[its], points, groups[its])
                for region in sorted(set(regions))
                for its in [regions == region]
            },
        }
    assert points is not None
    others = BoneBreakData(Recipe.model_validate(card.recipe), data, cache)
    scores = _scores(classifier, [others.films[i] for i in others.split.test])
    groups = others.groups[others.split.test]
    elsewhere: dict[str, Any] = {
        "bone-break": {
            "films": len(scores),
            "fractured": len(scores),
            "sensitive": {"sensitivity": bootstrap(scores >= points.sensitive, groups)},
            "specific": {"sensitivity": bootstrap(scores >= points.specific, groups)},
        }
    }
    try:
        unknown = external_set(data, listed)
    except FileNotFoundError:
        log.warning("there are no multi-region images under %s, so they judge nothing", data)
    else:
        scores, fractured = _scores(classifier, unknown), np.array([film.label == 1 for film in unknown])
        elsewhere["multi-region"] = {
            "films": len(scores),
            "fractured": int(fractured.sum()),
            "auroc": area(scores, fractured),
            **_rates(scores, fractured, points, np.arange(len(scores))),
        }
    found["elsewhere"] = elsewhere
    found["points"] = points.model_dump()
    write_json(weights / name / "presence.json", found)
    figures = {key: found["test"][key] for key in ("films", "fractured", "auroc", "sensitive", "specific", "by_region")}
    metrics = {**card.metrics, "presence": {**figures, "elsewhere": elsewhere}}
    write_card(card.model_copy(update={"presence": points, "metrics": metrics}), weights / name)
    return found
