"""Every recipe, from films to the report, in one call: ``python -m training everything --data FOLDER --init FOLDER``.

For whoever has a GPU and an hour: each step is the one its own command takes, finished ones are not repeated, so that
a stopped call goes on where it was.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from training.cross_validate import REFERENCE, cross_validate, read_folds, record
from training.data.cache import CACHE
from training.ensemble import RESULTS as ENSEMBLES
from training.ensemble import ensemble
from training.evaluate import evaluate
from training.export import export
from training.faithfulness import faithfulness
from training.localise import localise
from training.presence import presence
from training.recipe import Precision, Recipe
from training.refusal import refusal
from training.seeds import seeds

__all__ = ["everything", "taught_last"]

log = logging.getLogger(__name__)


def taught_last(recipes: Sequence[Recipe]) -> list[Recipe]:
    """The recipes with teachers before those who learn from them, and before all the one others are compared with.

    Raises:
        ValueError: a teacher is not among them, or is taught itself, or a recipe makes no model to ship.
    """
    if any(recipe.frozen for recipe in recipes):
        raise ValueError("features that are frozen make no model to ship; cross-validate such a recipe by itself")
    teachers = {recipe.name for recipe in recipes if recipe.distil is None}
    for recipe in recipes:
        if recipe.distil and recipe.distil.teacher not in teachers:
            raise ValueError(f"{recipe.name} learns from {recipe.distil.teacher}, which is not among the recipes")
    return sorted(recipes, key=lambda recipe: (recipe.distil is not None, recipe.name != REFERENCE))


def everything(
    recipes: Sequence[Recipe],
    data: Path,
    runs: Path,
    weights: Path,
    results: Path,
    *,
    init: Path | None = None,
    count: int = 3,
    whole: bool = True,
    films: int = 120,
    precision: Precision = "auto",
    cache: Path = CACHE,
) -> None:
    """Cross-validates, trains, exports and judges every recipe, then asks all of them together.

    Args:
        recipes: which; teachers among them.
        data: folder with the sets.
        runs: folder for the runs.
        weights: folder of models; each recipe's first seed is exported.
        results: folder of committed figures.
        init: initial layers.
        count: seeds.
        whole: whether to cross-validate over all films as well.
        films: fractured films on which methods are put on trial.
        precision: of training.
        cache: where decoded films are kept.

    Raises:
        FileNotFoundError: films or layers are not there.
        ValueError: a teacher is missing, or a run is of another recipe.
    """
    for recipe in taught_last(recipes):
        log.info("%s", recipe.name)
        for chosen in (recipe, recipe.model_copy(update={"whole": True}))[: 1 + whole]:
            folds = runs / ("whole" if chosen.whole else "folds") / recipe.name
            cross_validate(chosen, data, folds, init=init, precision=precision, cache=cache)
            record(read_folds(folds, chosen), chosen, folds, results)
        trained = runs / "seeds" / recipe.name
        options = {"init": init, "precision": precision, "cache": cache}
        seeds(recipe, range(count), data, trained, results=results / "seeds", **options)
        export(trained / "seed0", runs / "folds" / recipe.name, data, weights, cache)
        evaluate(recipe.name, data, weights, cache)
        if recipe.places:
            localise(recipe.name, data, weights)
            presence(recipe.name, data, weights, cache)
            faithfulness(recipe.name, data, weights, films=films, runs=runs / "faithfulness")
        if (data / "not-xray").is_dir():
            refusal(recipe.name, data, weights, cache)
    if len(recipes) > 1:
        ensemble(recipes, runs / "folds", runs / "seeds", results / ENSEMBLES.name)
