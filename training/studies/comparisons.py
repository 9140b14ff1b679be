"""What changes of a recipe give: values searched (``tune``), switches alone (``ablate``), ensembles (``ensemble``).

- ``tune``: one fold of the training images judges every trial by its validation loss; trials worse than the median at
  the same epoch are stopped (Akiba et al., 2019, "Optuna"). The study lies in a journal beside the trials, so that a
  stopped search goes on where it was, and several processes may work on it at once.
- ``ablate``: a base recipe and, one at a time, changes to it are cross-validated on the same folds; differences are
  paired by image.
- ``ensemble``: members' probabilities, each at its own temperature and of every view of the image, are averaged. The
  out-of-fold figure comes from the folds that all members finished, the test figure from their seeds.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from training import write_json
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
    summarise,
    summarise_types,
)
from training.fitting.fit import curve, fit, read_groups
from training.recipe import Ablation, Precision, Recipe

log = logging.getLogger(__name__)

WARM_UP_TRIALS = 4
WARM_UP_EPOCHS = 3


def suggest(trial: optuna.trial.BaseTrial, base: Recipe) -> Recipe:
    """A recipe within the ranges searched; the base's own values are the first trial."""
    augment = base.augment.model_copy(
        update={
            "rotation": trial.suggest_float("rotation", 5.0, 90.0),
            "zoom": trial.suggest_float("zoom", 0.05, 0.45),
            "contrast": trial.suggest_float("contrast", 0.05, 0.6),
        }
    )
    changes = {
        "head_rate": trial.suggest_float("head_rate", 1e-4, 3e-3, log=True),
        "body_rate": trial.suggest_float("body_rate", 2e-5, 1e-3, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-3, 0.5, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.7),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2),
    }
    return base.model_copy(update={**changes, "augment": augment})


def _start(base: Recipe) -> dict[str, float]:
    names = ("head_rate", "body_rate", "weight_decay", "dropout", "label_smoothing")
    return {name: getattr(base, name) for name in names} | {
        name: getattr(base.augment, name) for name in ("rotation", "zoom", "contrast")
    }


class _Pruner(lightning.Callback):
    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self.trial.set_user_attr("accuracy", float(trainer.callback_metrics["validation_accuracy"]))
        self.trial.report(float(trainer.callback_metrics["validation_loss"]), trainer.current_epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def _as_row(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "epochs": len(trial.intermediate_values),
        "loss": trial.value,
        "accuracy": trial.user_attrs.get("accuracy"),
        **trial.params,
    }


def _open_study(base: Recipe, question: dict[str, Any], runs: Path) -> optuna.Study:
    runs.mkdir(parents=True, exist_ok=True)
    journal = str(runs / "study.journal")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(journal, JournalFileOpenLock(journal))),
        study_name=base.name,
        pruner=optuna.pruners.MedianPruner(WARM_UP_TRIALS, WARM_UP_EPOCHS),
        load_if_exists=True,
    )
    known = study.user_attrs.get("asked", question)
    if (Recipe.model_validate(known["recipe"]), known["fold"]) != (base, question["fold"]):
        raise ValueError(f"{runs} holds the search of another recipe or fold; delete it or name another folder")
    study.set_user_attr("asked", question)
    # With the same seed at every start, a search that goes on would draw what it has drawn before.
    study.sampler = optuna.samplers.TPESampler(
        seed=base.seed + len(study.trials), n_startup_trials=WARM_UP_TRIALS, multivariate=True
    )
    return study


def tune(
    base: Recipe,
    data: Path,
    runs: Path,
    *,
    trials: int,
    fold: int = 0,
    init: Path | None = None,
    precision: Precision = "auto",
    results: Path = RESULTS / "tuning",
    cache: Path = CACHE,
) -> dict[str, Any]:
    """Goes on with a recipe's search until it has so many trials.

    Args:
        trials: finished or stopped ones wanted in all, those of earlier calls included.

    Returns:
        The trial with the recipe's own values, the best one and every one, each with its loss, its accuracy after the
        last epoch it saw, and its values; the file is written after each.

    Raises:
        ValueError: the folder holds the study of another recipe or fold.
    """
    question = {"recipe": base.model_dump(mode="json"), "fold": fold}
    study = _open_study(base, question, runs)
    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    start = _start(base)

    def done() -> list[optuna.trial.FrozenTrial]:
        return study.get_trials(deepcopy=False, states=ended)

    # A search killed in its first trial has trials, but none that tells what the recipe itself is worth.
    if all(trial.params != start for trial in done()):
        study.enqueue_trial(start)

    def objective(trial: optuna.Trial) -> float:
        where = runs / f"trial{trial.number}"
        recipe = suggest(trial, base).model_copy(update={"fold": fold})
        try:
            how = (recipe, data, where)
            fit(*how, init=init, precision=precision, cache=cache, progress=False, callbacks=[_Pruner(trial)])
        finally:
            (where / "last.ckpt").unlink(missing_ok=True)
            shutil.rmtree(where / "logs" / "tensorboard", ignore_errors=True)
        return curve(where)[-1]["validation_loss"]

    found: dict[str, Any] = {}
    while not found or len(done()) < trials:
        if len(done()) < trials:
            study.optimize(objective, n_trials=1)
        found = {
            **question,
            "base": next((_as_row(trial) for trial in done() if trial.params == start), None),
            "best": _as_row(study.best_trial),
            "trials": [_as_row(trial) for trial in done()],
        }
        write_json(results / f"{base.name}.json", found)
        log.info("best so far: %s", found["best"])
    return found


VIEWS = "ten-views"
"""The one switch that needs no training of its own."""


def _row(found: OutOfFold, base: OutOfFold) -> dict[str, Any]:
    if not np.array_equal(found.films, base.films):
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
    if results.is_file():
        known = json.loads(results.read_text(encoding="utf-8"))
        if (Recipe.model_validate(known["base"]), known["folds"]) != (plan.base, list(plan.folds)):
            raise ValueError(f"{results} holds switches of another base or other folds; delete it or name another file")
    rows: dict[str, Any] = {}

    def found(name: str) -> OutOfFold:
        recipe = plan.recipe(name)
        where = runs / name
        return cross_validate(recipe, data, where, folds=plan.folds, init=init, precision=precision, cache=cache)

    base = found("base")
    own = {
        "base": base,
        VIEWS: replace(base, logits=averaged_views(base.views), presence=[], fractured=[], peaks=[], minutes=0.0),
    }
    words = {"base": "base", VIEWS: "base, asked about ten views of each film (test-time augmentation)"}
    for name in (*own, *(names or plan.switches)):
        says = words[name] if name in own else plan.switches[name].says
        row = {"says": says, **_row(own[name] if name in own else found(name), base)}
        # Read again each time: another process may be at other switches of the plan.
        if results.is_file():
            rows = json.loads(results.read_text(encoding="utf-8"))["rows"]
        rows = {
            key: its for key in dict.fromkeys((*own, *plan.switches, *rows)) if (its := {**rows, name: row}.get(key))
        }
        whole = {"folds": list(plan.folds), "base": plan.base.model_dump(mode="json"), "rows": rows}
        write_json(results, whole)
    return rows


WHOLE = ", over all films"


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


def _sorted(found: OutOfFold) -> OutOfFold:
    order = np.argsort(found.films)
    names = ("films", "labels", "groups", "logits")
    return replace(found, views=found.views[:, order], **{name: getattr(found, name)[order] for name in names})


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
    found = [_sorted(read_folds(folds / recipe.name, recipe, partial=True, only=tuple(common))) for recipe in recipes]
    first = found[0]
    if any(not np.array_equal(first.films, other.films) for other in found):
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
    write_json(results, {**rows, name: row})
    return row
