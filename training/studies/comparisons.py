"""What changes of a recipe give: switches alone (``ablate``), ensembles (``ensemble``).

- ``ablate``: a base recipe and, one at a time, changes to it are cross-validated on the same folds; differences are
  paired by image.
- ``ensemble``: members' probabilities, each at its own temperature and of every view of the image, are averaged. The
  out-of-fold figure comes from the folds that all members finished, the test figure from their seeds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from training import read_json, write_json
from training.data.augmentation import averaged_views
from training.data.bone_break import CLASSES
from training.data.image import CACHE
from training.evaluation.metrics import bootstrap, fit_temperature, report
from training.fitting.cross_validation import (
    RESULTS,
    OutOfFold,
    cross_validate,
    finished_folds,
    read_folds,
    read_judged,
    summarise,
    summarise_types,
)
from training.recipe import Ablation, Precision, Recipe

log = logging.getLogger(__name__)

VIEWS = "ten-views"
"""The one switch that needs no training of its own."""


def _row(found: OutOfFold, base: OutOfFold) -> dict[str, Any]:
    if not np.array_equal(found.images, base.images):
        raise ValueError("the switch was judged on other images than the base")
    summary = summarise(found)
    right, before = (each.logits.argmax(axis=1) == each.labels for each in (found, base))
    row = {
        "accuracy": summary["types"]["accuracy"],
        "difference": bootstrap(right.astype(float) - before, found.groups),
        "top3": summary["types"]["top3"]["value"],
        "macro_auroc": summary["types"]["macro_auroc"],
        "views_averaged": summary["views_averaged"]["value"],
        "minutes": found.minutes,
    }
    if "places" in summary:
        places = summary["places"]
        row["presence_auroc"] = float(np.mean(places["presence_auroc"]))
        row["fracture_peak_in_box"] = places["fracture_peak_in_box"]["value"]
        row["type_peak_in_box"] = places["type_peak_in_box"]["value"]
    return row


def ablate(
    plan: Ablation,
    data: Path,
    runs: Path,
    init: Path | None,
    *,
    names: tuple[str, ...] = (),
    precision: Precision = "auto",
    results: Path = RESULTS / "ablation.json",
    cache: Path = CACHE,
) -> dict[str, Any]:
    """Runs what has not been run yet and writes the table after every switch.

    Returns:
        Rows by name, in the order of the plan, first the base, alone and with all views averaged.

    Raises:
        ValueError: the table holds switches of another base or other folds.
    """
    known = read_json(results)
    if known and (Recipe.model_validate(known["base"]), known["folds"]) != (plan.base, list(plan.folds)):
        raise ValueError(f"{results} holds switches of another base or other folds; delete it or name another file")

    def judged(name: str) -> OutOfFold:
        recipe, where = plan.recipe(name), runs / name
        return cross_validate(recipe, data, where, folds=plan.folds, init=init, precision=precision, cache=cache)

    base = judged("base")
    views = replace(base, logits=averaged_views(base.views), places=[], minutes=0.0)
    own = {"base": ("base recipe", base), VIEWS: ("test-time augmentation, ten views", views)}
    rows: dict[str, Any] = {}
    for name in (*own, *(names or plan.switches)):
        says, found = own.get(name) or (plan.switches[name].says, judged(name))
        row = {"says": says, **_row(found, base)}
        # Read again each time: another process may be at other switches of the plan.
        rows = {**(read_json(results) or {"rows": {}})["rows"], name: row}
        rows = {key: rows[key] for key in (*own, *plan.switches, *rows) if key in rows}
        whole = {"folds": list(plan.folds), "base": plan.base.model_dump(mode="json"), "rows": rows}
        write_json(results, whole)
    return rows


WHOLE = ", over all images"


def averaged(members: Sequence[np.ndarray], temperatures: Sequence[float]) -> np.ndarray:
    """What members say together.

    Args:
        members: logits of every view of the images, each float (V, N, C).
        temperatures: one a member, dividing its logits.

    Returns:
        Logarithms of the mean probabilities, float (N, C), to be used like logits.
    """
    said = [averaged_views(views, temperature) for views, temperature in zip(members, temperatures, strict=True)]
    return np.logaddexp.reduce(said, axis=0) - np.log(len(said))


def ensemble(
    recipes: Sequence[Recipe], folds: Path, seeds: Path, results: Path = RESULTS / "ensembles.json"
) -> dict[str, Any]:
    """Judges recipes together.

    Args:
        recipes: of the members.
        folds: folder with a cross-validation a recipe, by name.
        seeds: folder with runs on all training images, by recipe and seed; without a seed that all members share there
            is no test figure, and none where the folds judged the test images, which then chose the temperatures.

    Returns:
        Members, out-of-fold figures, each member's accuracy alone on the same images and views, and by seed accuracy
        and top-3 on the test images.

    Raises:
        FileNotFoundError: there is no fold that all members finished.
        ValueError: members were judged on different images.
    """
    common = set.intersection(*(set(finished_folds(folds / recipe.name, recipe)) for recipe in recipes))
    found = [read_folds(folds / recipe.name, recipe, partial=True, only=tuple(common)) for recipe in recipes]
    first = found[0]
    if any(not np.array_equal(first.images, other.images) for other in found):
        raise ValueError("the members were judged on different images")
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
    runs = [{path.parent.name: path.parent for path in (seeds / r.name).glob("seed*/test.npz")} for r in recipes]
    shared = set() if recipes[0].whole else set.intersection(*(set(each) for each in runs))
    for seed in sorted(shared):
        judged = [read_judged(each[seed], "test") for each in runs]
        together = averaged([its["views"] for its in judged], temperatures)
        figures = report(together, judged[0]["labels"], list(CLASSES), 1.0, judged[0]["groups"])
        row["test"][seed.removeprefix("seed")] = {key: figures[key] for key in ("accuracy", "top3")}
    rows = read_json(results) or {}
    name = " + ".join(row["members"]) + (WHOLE if recipes[0].whole else "")
    known = rows.get(name, row)
    if len(known["folds"]) > len(row["folds"]) or len(known["test"]) > len(row["test"]):
        log.warning("%s was judged on more folds or seeds before and is left as it is", name)
    else:
        write_json(results, {**rows, name: row})
    return row
