"""Fractured at all: operating points and what they give, by ``python -m training presence MODEL --data FOLDER``.

The score is the logsumexp of the model's fracture map, so the odds of a fracture are the sum of the cells' odds. Two
points are chosen on FracAtlas' validation images: a sensitive one, under which no fracture is seen, and a specific one,
from which on it is called definite; commercial readers show both. FracAtlas' test images judge them once. What changes
with the source tell the bone-break test images, all fractured, and the images of multi-region that no other set holds.

A model that learnt from many sources brings points chosen over all of them, and is judged on each one's test images.

``python -m training by-source MODEL`` judges any model source by source. Every radiograph has one copy a source, and
shares no group with one the model learnt from. Of sources that hold both kinds: the area under the receiver operating
characteristic, sensitivity and specificity at the card's points. Of sources with boxes: the pointing game (Zhang et
al., 2018) and the energy in box (Wang et al., 2020) of the fracture map and of the map the page draws first. Intervals
are over groups.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.imaging.radiograph import read
from app.model.classifier import Classifier, Explanation
from app.model.weights import PresencePoints, write_card
from training import write_json
from training.data.all_sets import SOURCES
from training.data.datamodule import BoxedImages, TypedData
from training.data.image import CACHE, LabelledImage
from training.data.lessons import Lesson, learnt_sets, lessons, never_seen
from training.data.multi_region import LISTED, external_set
from training.evaluation.metrics import area, bootstrap, hit
from training.recipe import Recipe

log = logging.getLogger(__name__)

SENSITIVITY, SPECIFICITY = 0.9, 0.95
"""What the sensitive and the specific point are chosen to reach on validation images."""


def operating_points(scores: np.ndarray, fractured: np.ndarray, sources: np.ndarray | None = None) -> PresencePoints:
    """The highest score that still reaches ``SENSITIVITY`` and the lowest that reaches ``SPECIFICITY``.

    Args:
        scores: float (N,), log odds of a fracture.
        fractured: bool (N,).
        sources: str (N,), where several are to weigh alike, however many images each has; those with one kind only
            are left out.

    Returns:
        Both points; where the classes are so far apart that the sensitive one would lie above, both are the lower.

    Raises:
        ValueError: no source holds both kinds.
    """
    of = np.zeros(len(scores), int) if sources is None else np.unique(sources, return_inverse=True)[1]
    both = [source for source in np.unique(of) if len(set(fractured[of == source].tolist())) == 2]
    if not both:
        raise ValueError("no source holds both kinds, so there is nothing to choose operating points by")

    def below(points: np.ndarray, kind: bool) -> np.ndarray:
        """Mean over sources of the share of one kind below each point."""
        its = [np.sort(scores[(of == source) & (fractured == kind)]) for source in both]
        return np.mean([np.searchsorted(known, points) / len(known) for known in its], axis=0)

    judged = np.isin(of, both)
    highest = scores[judged & fractured]
    sensitive = highest[1.0 - below(highest, True) >= SENSITIVITY].max()
    above = np.nextafter(scores[judged & ~fractured], np.inf)
    specific = float(above[below(above, False) >= SPECIFICITY].min())
    return PresencePoints(sensitive=float(min(sensitive, specific)), specific=specific)


def _rates(scores: np.ndarray, fractured: np.ndarray, points: PresencePoints, groups: np.ndarray) -> dict[str, Any]:
    return {
        name: {
            "sensitivity": bootstrap(scores[fractured] >= point, groups[fractured]) if fractured.any() else None,
            "specificity": bootstrap(scores[~fractured] < point, groups[~fractured]) if (~fractured).any() else None,
        }
        for name, point in (("sensitive", points.sensitive), ("specific", points.specific))
    }


MAPS = ("page", "fracture map")
"""The map the page draws first, which is the evidence for the predicted type, and the fracture map."""


@dataclass(frozen=True)
class Answers:
    """What a model says of some lessons.

    Attributes:
        odds: log odds of a fracture, float (N,).
        inside, energy: of both ``MAPS``, float (N, 2): whether the peak lies in a box, and the share of positive
            evidence that does; NaN without a box.
    """

    odds: np.ndarray
    inside: np.ndarray
    energy: np.ndarray


def explain_files(classifier: Classifier, paths: Sequence[Path], batch: int = 64) -> Iterator[Explanation]:
    """Explanations of images in turn, by the app's own path from file to map."""
    for start in range(0, len(paths), batch):
        yield from classifier.explain([read(path) for path in paths[start : start + batch]])


def ask(classifier: Classifier, asked: Sequence[Lesson]) -> Answers:
    """What a model says of some lessons.

    Raises:
        ValueError: the model was not taught places.
    """
    if not classifier.card.places:
        raise ValueError(f"{classifier.card.name} was not taught places, so it has no fracture map to be judged by")
    odds = np.zeros(len(asked))
    inside, energy = (np.full((len(asked), len(MAPS)), np.nan) for _ in range(2))
    films = [lesson.film for lesson in asked]
    for index, found in enumerate(explain_files(classifier, [film.path for film in films])):
        assert found.presence is not None
        assert found.fracture is not None
        odds[index] = found.presence
        if films[index].boxes:
            maps = (found.evidence(found.prediction.best), np.exp(found.fracture - found.fracture.max()))
            hits = [hit(each, films[index], found.placement) for each in maps]
            inside[index], energy[index] = [h.inside for h in hits], [h.energy for h in hits]
    return Answers(odds, inside, energy)


def points_over(asked: Sequence[Lesson], found: Answers) -> PresencePoints:
    """Operating points over the lessons whose presence may be asked; every source weighs alike."""
    judged = np.array([lesson.presence for lesson in asked])
    fractured, sources = np.array([x.fractured for x in asked]), np.array([x.source for x in asked])
    return operating_points(found.odds[judged], fractured[judged], sources[judged])


def _of_source(
    its: np.ndarray, found: Answers, asked: Sequence[Lesson], points: PresencePoints | None
) -> dict[str, Any]:
    groups = np.array([lesson.group for lesson in asked])
    fractured = np.array([lesson.fractured for lesson in asked])
    judged = its & np.array([lesson.presence for lesson in asked])
    boxed = its & ~np.isnan(found.inside[:, 0])
    row: dict[str, Any] = {"images": int(its.sum()), "fractured": int(fractured[its].sum()), "boxed": int(boxed.sum())}
    broken, whole = judged & fractured, judged & ~fractured
    if broken.any() and whole.any():
        row["auroc"] = area(found.odds[judged], fractured[judged], groups[judged])
    if points:
        # Of a source without whole bones, every fracture may still be asked for.
        told = (its & fractured) | whole
        row |= _rates(found.odds[told], fractured[told], points, groups[told])
    if boxed.any():
        for column, name in enumerate(MAPS):
            row[name] = {
                "inside": bootstrap(found.inside[boxed, column], groups[boxed]),
                "energy": bootstrap(found.energy[boxed, column], groups[boxed]),
            }
    return row


def summary(asked: Sequence[Lesson], found: Answers, points: PresencePoints | None) -> dict[str, Any]:
    """Figures by source, with intervals over groups, ready for JSON."""
    sources = np.array([lesson.source for lesson in asked])
    return {source: _of_source(sources == source, found, asked, points) for source in SOURCES if source in sources}


def by_source(name: str, data: Path, weights: Path, part: str, sources: Sequence[str] = SOURCES) -> dict[str, Any]:
    """Judges a model on one part of every source.

    Args:
        name: folder under ``weights``.
        data: folder that holds the sets.
        weights: folder of models.
        part: "validation", which may choose; "test", for the final figure only; or "unseen": of the sources the model
            learnt nothing from, every image that shares no group with one it learnt from.
        sources: which to judge on.

    Raises:
        FileNotFoundError: a set is not there.
        ValueError: the model was not taught places.
        WeightsError: no such model.
    """
    classifier = Classifier.load(name, weights)
    if part == "unseen":
        learnt = learnt_sets(classifier.card)
        asked = [x for source in sources if source not in learnt for x in never_seen(data, source, learnt)]
    else:
        asked = lessons(data, part, sources)
    judged = summary(asked, ask(classifier, asked), classifier.card.presence)
    return {"model": name, "weights": classifier.card.weights.sha256, "part": part, "sources": judged}


def _of_region(scores: np.ndarray, fractured: np.ndarray, points: PresencePoints, groups: np.ndarray) -> dict[str, Any]:
    both = 0 < fractured.sum() < len(fractured)
    return {
        "images": len(scores),
        "fractured": int(fractured.sum()),
        "auroc": area(scores, fractured, groups) if both else None,
        **_rates(scores, fractured, points, groups),
    }


def _scores(classifier: Classifier, films: Sequence[LabelledImage]) -> np.ndarray:
    return np.array([found.presence for found in explain_files(classifier, [film.path for film in films])], float)


def _unknown_source(classifier: Classifier, data: Path, listed: Path, points: PresencePoints) -> dict[str, Any]:
    """Figures on the images of multi-region that no other set holds; empty where they are not there."""
    try:
        unknown = external_set(data, listed)
    except FileNotFoundError:
        log.warning("there are no multi-region images under %s, so they judge nothing", data)
        return {}
    scores, fractured = _scores(classifier, unknown), np.array([film.label == 1 for film in unknown])
    figures = {
        "images": len(scores),
        "fractured": int(fractured.sum()),
        "auroc": area(scores, fractured),
        **_rates(scores, fractured, points, np.arange(len(scores))),
    }
    return {"multi-region": figures}


def _unseen_images(name: str, data: Path, weights: Path, sources: Sequence[str]) -> dict[str, Any]:
    """Figures on the test images of every other source that a model learnt from."""
    asked = [source for source in sources if source != "fracatlas"]
    judged = by_source(name, data, weights, "test", asked)["sources"]
    return {f"{source}, unseen images": {"images": row.pop("images"), **row} for source, row in judged.items()}


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
    recipe = Recipe.model_validate(card.recipe)
    points = card.presence if recipe.many else None
    for part in ("validation", "test"):
        boxed = BoxedImages(data, part, card.size, cache)
        scores, fractured = _scores(classifier, boxed.images), boxed.fractured
        points = points or operating_points(scores, fractured)
        regions = np.array([film.region or "unknown" for film in boxed.images])
        groups = boxed.groups
        found[part] = {
            **_of_region(scores, fractured, points, groups),
            "by_region": {
                region: _of_region(scores[its], fractured[its], points, groups[its])
                for region in sorted(set(regions))
                for its in [regions == region]
            },
        }
    assert points is not None
    others = TypedData(recipe, data, cache)
    scores = _scores(classifier, [others.images[i] for i in others.split.test])
    groups = others.groups[others.split.test]
    elsewhere: dict[str, Any] = {
        "bone-break": {
            "images": len(scores),
            "fractured": len(scores),
            "sensitive": {"sensitivity": bootstrap(scores >= points.sensitive, groups)},
            "specific": {"sensitivity": bootstrap(scores >= points.specific, groups)},
        }
    }
    if recipe.many:
        elsewhere |= _unseen_images(name, data, weights, tuple(recipe.many.draws))
    else:
        elsewhere |= _unknown_source(classifier, data, listed, points)
    found["elsewhere"] = elsewhere
    found["points"] = points.model_dump()
    write_json(weights / name / "presence.json", found)
    figures = {
        key: found["test"][key] for key in ("images", "fractured", "auroc", "sensitive", "specific", "by_region")
    }
    metrics = {**card.metrics, "presence": {**figures, "elsewhere": elsewhere}}
    write_card(card.model_copy(update={"presence": points, "metrics": metrics}), weights / name)
    return found
