"""What changes of a recipe give: switches alone (``ablate``), ensembles (``ensemble``).

- ``ablate``: a base recipe and, one at a time, changes to it are cross-validated on the same folds; differences are
  paired by image.
- ``ablate_unseen``: the same where a source that taught nothing judges.
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

from app.model.classifier import Classifier
from training import read_json, write_json
from training.data.augmentation import averaged_views
from training.data.bone_break import CLASSES
from training.data.image import CACHE
from training.data.lessons import Lesson, never_seen
from training.evaluation.metrics import area, area_gained, bootstrap, fit_temperature, report
from training.evaluation.presence import Answers, ask
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
from training.fitting.fit import fit, refuse_another, save_whole
from training.recipe import Ablation, Precision, Recipe, fold_of, fold_without
from training.release.export import draft_card

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
        "kappa": summary["types"]["kappa"],
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
    _refuse_another(plan, results)

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
        rows = _add(plan, results, name, row, tuple(own))
    return rows


def _refuse_another(plan: Ablation, results: Path) -> None:
    known = read_json(results)
    if known and any(known[key] != its for key, its in _judged_by(plan).items()):
        raise ValueError(f"{results} holds switches of another base or other folds; delete it or name another file")


def _judged_by(plan: Ablation) -> dict[str, Any]:
    by = {"left_out": plan.left_out} if plan.left_out else {"folds": list(plan.folds)}
    return {**by, "base": plan.base.model_dump(mode="json")}


def _add(plan: Ablation, results: Path, name: str, row: dict[str, Any], first: Sequence[str]) -> dict[str, Any]:
    """Writes a row into the table and returns all rows, those named first before the plan's."""
    # Read again each time: another process may be at other switches of the plan.
    rows = {**(read_json(results) or {"rows": {}})["rows"], name: row}
    rows = {key: rows[key] for key in (*first, *plan.switches, *rows) if key in rows}
    write_json(results, {**_judged_by(plan), "rows": rows})
    return rows


def _of_unseen(
    recipe: Recipe, source: str, asked: Sequence[Lesson], data: Path, run: Path, how: dict[str, Any]
) -> Answers:
    """What a recipe's model says of a source that it did without, trained and asked unless that was done."""
    chosen = fold_of(recipe, fold_without(recipe, source))
    refuse_another(run, chosen)
    if not (run / "unseen.npz").is_file():
        if not (run / "effort.json").is_file():
            fit(chosen, data, run, resume=True, progress=False, **how)
        draft_card(run, data, run / "model" / chosen.name, how["cache"])
        found = ask(Classifier.load(chosen.name, run / "model"), asked)
        save_whole(run / "unseen.npz", vars(found))
        (run / "last.ckpt").unlink(missing_ok=True)
    with np.load(run / "unseen.npz") as stored:
        return Answers(**stored)


def ablate_unseen(
    plan: Ablation,
    data: Path,
    runs: Path,
    init: Path | None,
    *,
    names: tuple[str, ...] = (),
    precision: Precision = "auto",
    results: Path = RESULTS / "unseen_source.json",
    cache: Path = CACHE,
) -> dict[str, Any]:
    """Runs what has not been run yet of a plan that leaves a source out, and writes the table after every switch.

    A base that was trained before stays in the table; a switch is compared with the base beside it in ``runs``, which
    another machine may have rounded into another model, so that each row keeps its own base's AUROC.

    Returns:
        Rows by name: AUROC of whether a bone is broken and the pointing game of the map the page draws, on that
        source's training and validation images, and both differences from the base, paired by image.

    Raises:
        ValueError: the table holds switches of another base or another source.
    """
    _refuse_another(plan, results)
    how = {"init": init, "precision": precision, "cache": cache}
    # Test images are for final figures, and what is chosen here is not one.
    asked = never_seen(data, plan.left_out, ("bone-break",), parts=("train", "validation"))
    base = _of_unseen(plan.base, plan.left_out, asked, data, runs / "base", how)
    groups, fractured, judged = (
        np.array([getattr(each, x) for each in asked]) for x in ("group", "fractured", "presence")
    )
    boxed = ~np.isnan(base.inside[:, 0])
    rows: dict[str, Any] = {}
    written = (read_json(results) or {"rows": {}})["rows"]
    for name in (*(() if "base" in written else ("base",)), *(names or plan.switches)):
        says = "base recipe" if name == "base" else plan.switches[name].says
        found = _of_unseen(plan.recipe(name), plan.left_out, asked, data, runs / name, how)
        inside, before = found.inside[boxed, 0], base.inside[boxed, 0]
        row = {
            "says": says,
            "auroc": area(found.odds[judged], fractured[judged], groups[judged]),
            "base_auroc": area(base.odds[judged], fractured[judged], groups[judged])["value"],
            "auroc_gained": area_gained(found.odds[judged], base.odds[judged], fractured[judged], groups[judged]),
            "inside": bootstrap(inside, groups[boxed]),
            "inside_gained": bootstrap(inside - before, groups[boxed]),
            "minutes": read_json(runs / name / "effort.json")["minutes"],
        }
        rows = _add(plan, results, name, row, ("base",))
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
        Members, out-of-fold figures, each member's accuracy alone on the same images and views, and by seed accuracy,
        kappa and top-3 on the test images.

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
        row["test"][seed.removeprefix("seed")] = {key: figures[key] for key in ("accuracy", "kappa", "top3")}
    rows = read_json(results) or {}
    name = " + ".join(row["members"]) + (WHOLE if recipes[0].whole else "")
    known = rows.get(name, row)
    if len(known["folds"]) > len(row["folds"]) or len(known["test"]) > len(row["test"]):
        log.warning("%s was judged on more folds or seeds before and is left as it is", name)
    else:
        write_json(results, {**rows, name: row})
    return row
