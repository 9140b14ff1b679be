"""From a finished run on images of one's own to ``weights/<model>/``: weights, card, detector and the card for people.

Without a cross-validation the run's own validation images calibrate it and say how good it is. They chose nothing: the
weights are those of the last epoch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from app.model.classifier import Classifier, Explanation
from app.model.readme import write_readme
from app.model.weights import ModelCard, write_card
from training.data.datamodule import TypedData
from training.data.image import CACHE
from training.evaluation.metrics import bootstrap, hit
from training.evaluation.reference import write_detector
from training.fitting.cross_validation import read_folds, summarise, summarise_types
from training.fitting.fit import class_names, load_task
from training.release.export import calibrated, draft, explain_part

__all__ = ["export_own"]

FEWEST = 20
"""Validation images without which no temperature and no prediction set can be fitted."""


def export_own(run: Path, weights: Path, folds: Path | None = None, cache: Path = CACHE) -> ModelCard:
    """Writes a run's weights as a model the app can load.

    Args:
        run: folder that ``fit`` wrote.
        weights: folder of models; ``weights/<recipe name>`` is written.
        folds: folder of the recipe's cross-validation, whose out-of-fold predictions then calibrate instead of the
            validation images.
        cache: where decoded images are kept.

    Raises:
        FileNotFoundError: the run or every fold is not finished.
        ValueError: the images are split otherwise than when the run was trained, the folds are another recipe's, or
            there are too few images to calibrate on.
    """
    task, films, initial = load_task(run, Path(), cache)
    recipe = task.recipe
    target = weights / recipe.name
    # First, since what is refused is not to lie where the demo finds it.
    if not folds and (judging := len(films.split.validation)) < FEWEST:
        raise ValueError(
            f"{judging} validation images are too few to calibrate on; at least {FEWEST} are needed. "
            "Cross-validate the recipe and name its folder with --folds."
        )
    drafted = draft(run, recipe, task.network, films.as_card(), initial, target)
    write_card(drafted, target)
    found = _out_of_fold(folds, recipe) if folds else _held_out(Classifier.load(recipe.name, weights), films)
    fields, judged = calibrated(*found.pop("to_calibrate"))
    figures = {**found, "sets": judged, "minutes": drafted.training["minutes"]}
    write_detector(films, target)
    card = drafted.model_copy(update={**fields, "metrics": {"cross_validation": figures}})
    write_card(card, target)
    write_readme(card, target)
    return card


def _out_of_fold(folds: Path, recipe: Any) -> dict[str, Any]:
    found = read_folds(folds, recipe.model_copy(update={"fold": None}), partial=True)
    summary = summarise(found)
    return {
        **summary["types"],
        "folds": summary["folds"],
        "to_calibrate": (
            summary,
            found.logits,
            found.labels,
            found.groups,
            found.evidence,
            "out-of-fold predictions",
        ),
    }


def _held_out(classifier: Classifier, films: TypedData) -> dict[str, Any]:
    indices = films.split.validation
    explained, logits, labels = explain_part(classifier, films, indices)
    groups = films.groups[indices]
    summary = summarise_types(logits, labels, groups, class_names(films.recipe))
    evidence = np.array([each.peak(each.prediction.best) for each in explained])
    on = "held-out validation images"
    return {
        **summary["types"],
        "held_out": True,
        "folds": [],
        "pointing_game": pointing_game(explained, films, indices),
        "to_calibrate": (summary, logits, labels, groups, evidence, on),
    }


def pointing_game(explained: list[Explanation], films: TypedData, indices: np.ndarray) -> dict[str, float] | None:
    """How often the predicted class's map peaks in a box; None where no image has one."""
    boxed = [(each, films.images[i], i) for each, i in zip(explained, indices, strict=True) if films.images[i].boxes]
    if not boxed:
        return None
    inside = [hit(each.evidence(each.prediction.best), image, each.placement).inside for each, image, _ in boxed]
    return bootstrap(np.array(inside), films.groups[[index for *_, index in boxed]])
