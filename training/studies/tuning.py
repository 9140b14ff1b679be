"""Search for learning rates, decay and strength of augmentation: ``python -m training tune RECIPE --data FOLDER``.

One fold of the training films judges every trial by its validation loss; trials that are worse than the median at the
same epoch are stopped (Akiba et al., 2019, "Optuna"). The study lies in a journal beside the trials, so that a stopped
search goes on where it was, and several processes may work on it at once.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import lightning
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from training.data.cache import CACHE
from training.fitting.fit import curve, fit
from training.recipe import Precision, Recipe

__all__ = ["RESULTS", "suggest", "tune"]

RESULTS = Path(__file__).resolve().parents[1] / "results" / "tuning"
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


def _told(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "epochs": len(trial.intermediate_values),
        "loss": trial.value,
        "accuracy": trial.user_attrs.get("accuracy"),
        **trial.params,
    }


def tune(
    base: Recipe,
    data: Path,
    runs: Path,
    *,
    trials: int,
    fold: int = 0,
    init: Path | None = None,
    precision: Precision = "auto",
    results: Path = RESULTS,
    cache: Path = CACHE,
) -> dict[str, Any]:
    """Goes on with a recipe's search until it has so many trials.

    Args:
        base: what to start from; its number of epochs is every trial's.
        data: folder with the sets.
        runs: folder for the study and the trials.
        trials: finished or stopped ones wanted in all, those of earlier calls included.
        fold: which fold judges.
        init: initial layers.
        precision: of training.
        results: folder that gets ``<recipe name>.json``.
        cache: where decoded films are kept.

    Returns:
        The trial with the recipe's own values, the best one and every one, each with its loss, its accuracy after the
        last epoch it saw, and its values; the file is written after each.

    Raises:
        ValueError: the folder holds the study of another recipe or fold.
    """
    runs.mkdir(parents=True, exist_ok=True)
    journal = str(runs / "study.journal")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(journal, JournalFileOpenLock(journal))),
        study_name=base.name,
        pruner=optuna.pruners.MedianPruner(WARM_UP_TRIALS, WARM_UP_EPOCHS),
        load_if_exists=True,
    )
    asked = {"recipe": base.model_dump(mode="json"), "fold": fold}
    known = study.user_attrs.get("asked", asked)
    if (Recipe.model_validate(known["recipe"]), known["fold"]) != (base, fold):
        raise ValueError(f"{runs} holds the search of another recipe or fold; delete it or name another folder")
    study.set_user_attr("asked", asked)
    # With the same seed at every start, a search that goes on would draw what it has drawn before.
    study.sampler = optuna.samplers.TPESampler(
        seed=base.seed + len(study.trials), n_startup_trials=WARM_UP_TRIALS, multivariate=True
    )
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
            fit(
                recipe,
                data,
                where,
                init=init,
                precision=precision,
                cache=cache,
                progress=False,
                callbacks=(_Pruner(trial),),
            )
        finally:
            (where / "last.ckpt").unlink(missing_ok=True)
            shutil.rmtree(where / "logs" / "tensorboard", ignore_errors=True)
        return curve(where)[-1]["validation_loss"]

    results.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    while not found or len(done()) < trials:
        if len(done()) < trials:
            study.optimize(objective, n_trials=1)
        found = {
            **asked,
            "base": next((_told(trial) for trial in done() if trial.params == start), None),
            "best": _told(study.best_trial),
            "trials": [_told(trial) for trial in done()],
        }
        (results / f"{base.name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        logging.getLogger(__name__).info("best so far: %s", found["best"])
    return found
