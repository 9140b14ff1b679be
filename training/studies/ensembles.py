"""Several models asked together: ``python -m training ensemble RECIPE RECIPE ...``.

Members' probabilities, each at its own temperature and of every view of the film, are averaged. The out-of-fold
figure comes from the folds that all members were trained on, which are the same films; the test figure from their
seeds.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from training.data.bone_break import CLASSES
from training.evaluation.metrics import fit_temperature, report
from training.fitting.cross_validation import OutOfFold, finished_folds, read_folds, summarise_types
from training.fitting.fit import read_groups
from training.fitting.views import averaged_views
from training.recipe import Recipe

__all__ = ["RESULTS", "WHOLE", "averaged", "ensemble"]

WHOLE = ", over all films"
log = logging.getLogger(__name__)

RESULTS = Path(__file__).resolve().parents[1] / "results" / "ensembles.json"


def averaged(members: Sequence[np.ndarray], temperatures: Sequence[float]) -> np.ndarray:
    """What members say together.

    Args:
        members: logits of every view of the films, each float (V, N, C).
        temperatures: one a member, dividing its logits.

    Returns:
        Logarithms of the mean probabilities, float (N, C), to be used like logits.
    """
    said = [averaged_views(views, temperature) for views, temperature in zip(members, temperatures, strict=True)]
    return np.logaddexp.reduce(said, axis=0) - np.log(len(said))


def _sorted(found: OutOfFold) -> OutOfFold:
    order = np.argsort(found.films)
    names = ("films", "labels", "groups", "logits")
    return replace(found, views=found.views[:, order], **{name: getattr(found, name)[order] for name in names})


def ensemble(recipes: Sequence[Recipe], folds: Path, seeds: Path, results: Path = RESULTS) -> dict[str, Any]:
    """Judges recipes together.

    Args:
        recipes: of the members.
        folds: folder with a cross-validation a recipe, by name.
        seeds: folder with runs on all training films, by recipe and seed; without a seed that all members share there
            is no test figure, and none where the folds judged the test films, which then chose the temperatures.
        results: JSON that gets a row under the members' names, unless it has one of more folds or seeds.

    Returns:
        Members, out-of-fold figures, each member's accuracy alone on the same films and views, and by seed accuracy
        and top-3 on the test films.

    Raises:
        FileNotFoundError: there is no fold that all members finished.
        ValueError: members were judged on different films.
    """
    common = set.intersection(*(set(finished_folds(folds / recipe.name, recipe)) for recipe in recipes))
    found = [_sorted(read_folds(folds / recipe.name, recipe, partial=True, only=tuple(common))) for recipe in recipes]
    first = found[0]
    if any(not np.array_equal(first.films, other.films) for other in found):
        raise ValueError("the members were judged on different films")
    temperatures = [fit_temperature(each.logits, each.labels) for each in found]
    row: dict[str, Any] = {
        "members": [recipe.name for recipe in recipes],
        "folds": sorted(common),
        "alone": {
            recipe.name: float((averaged_views(each.views).argmax(axis=1) == each.labels).mean())
            for recipe, each in zip(recipes, found, strict=True)
        },
        "cross_validation": summarise_types(
            averaged([each.views for each in found], temperatures), first.labels, first.groups
        ),
        "test": {},
    }
    runs = [{path.parent.name: path for path in (seeds / r.name).glob("seed*/test.npz")} for r in recipes]
    shared = set() if recipes[0].whole else set.intersection(*(set(each) for each in runs))
    for seed in sorted(shared):
        judged = [dict(np.load(each[seed])) for each in runs]
        together = averaged([its["views"] for its in judged], temperatures)
        groups = read_groups(seeds / recipes[0].name / seed)[judged[0]["films"]]
        figures = report(together, judged[0]["labels"], list(CLASSES), 1.0, groups)
        row["test"][seed.removeprefix("seed")] = {key: figures[key] for key in ("accuracy", "top3")}
    rows = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {}
    name = " + ".join(row["members"]) + (WHOLE if recipes[0].whole else "")
    known = rows.get(name, row)
    if len(known["folds"]) > len(row["folds"]) or len(known["test"]) > len(row["test"]):
        log.warning("%s was judged on more folds or seeds before and is left as it is", name)
        return row
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps({**rows, name: row}, indent=1) + "\n", encoding="utf-8")
    return row
