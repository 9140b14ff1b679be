"""Cross-validation of a recipe: ``python -m training cross-validate RECIPE --data FOLDER``.

Every fold's model judges the films it was not trained on, so that together they give one out-of-fold prediction a
film; each also judges FracAtlas' validation films, if it was taught places. Finished folds are kept under the run's
folder and not repeated.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from app.bodies import ARCHITECTURES
from training.boxed import BoxedFilms
from training.data.bone_break import CLASSES
from training.data.cache import CACHE, placements
from training.films import BoneBreakFilms
from training.fit import read_groups, trained
from training.localise import hit
from training.metrics import bootstrap, expected_calibration_error, fit_temperature, report
from training.recipe import Precision, Recipe
from training.task import FractureTypes
from training.views import VIEWS, View, averaged_views, seen_as

__all__ = [
    "RESULTS",
    "OutOfFold",
    "cross_validate",
    "finished_folds",
    "judge_types",
    "read_folds",
    "record",
    "summarise",
    "summarise_types",
]

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class OutOfFold:
    """What models said of films they were not trained on.

    Attributes:
        films: indices into the set's films, int (N,), each at most once.
        labels: int (N,).
        groups: int (N,), near-duplicates share a number.
        logits: float32 (N, C).
        views: the same for every view of the films, float32 (V, N, C).
        evidence: strongest evidence for the predicted type on the film, float32 (N,), in logits.
        presence: a fold's scores of FracAtlas' validation films, float (M,); empty for networks without places.
        fractured: bool (M,), of the same films.
        peaks: of the fractured ones and each fold: fracture map's peak in a box, predicted type's peak in a box.
        minutes: of training, all folds together.
        folds: which were judged.
    """

    films: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    logits: np.ndarray
    views: np.ndarray
    evidence: np.ndarray
    presence: list[np.ndarray]
    fractured: list[np.ndarray]
    peaks: list[np.ndarray]
    minutes: float
    folds: tuple[int, ...]


def _see(task: FractureTypes, squares: np.ndarray, view: View = VIEWS[0]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    logits, maps, fracture = [], [], []
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task = task.to(device)
    with torch.inference_mode():
        for start in range(0, len(squares), 64):
            films = torch.from_numpy(squares[start : start + 64])[:, None].to(device).float() / 255.0
            evidence = task(seen_as(films, view))
            best = evidence.logits.argmax(dim=1)
            logits.append(evidence.logits.cpu())
            maps.append(evidence.maps[torch.arange(len(best)), best].cpu())
            if evidence.fracture is not None:
                fracture.append(evidence.fracture.cpu())
    seen = torch.cat(fracture).numpy() if fracture else np.zeros((0, 0, 0), np.float32)
    return torch.cat(logits).numpy(), torch.cat(maps).numpy(), seen


def judge_types(task: FractureTypes, films: BoneBreakFilms, indices: np.ndarray) -> dict[str, np.ndarray]:
    """What a trained task says of some films: the arrays of ``OutOfFold`` from "films" to "evidence"."""
    logits, maps, _ = _see(task, films.squares[indices])
    others = [_see(task, films.squares[indices], view)[0] for view in VIEWS[1:]]
    placed = placements([films.films[i].path for i in indices], task.recipe.size)
    evidence = [float(m[p.padding(*m.shape) <= 0.5].max(initial=0.0)) for m, p in zip(maps, placed, strict=True)]
    return {
        "films": indices,
        "labels": films.labels[indices],
        "logits": logits,
        "views": np.stack([logits, *others]),
        "evidence": np.array(evidence, np.float32),
    }


def _judge(task: FractureTypes, films: BoneBreakFilms, data: Path, cache: Path) -> dict[str, np.ndarray]:
    judged = judge_types(task, films, films.split.validation)
    if task.recipe.places:
        boxed = BoxedFilms(data, "validation", task.recipe.size, cache, task.recipe.equalise)
        _, maps, fracture = _see(task, boxed.squares)
        judged["presence"] = np.logaddexp.reduce(fracture.reshape(len(fracture), -1), axis=1)
        judged["fractured"] = boxed.fractured
        judged["peaks"] = np.array(
            [
                [hit(m, boxed.films[i], boxed.placements[i]).inside for m in (fracture[i], maps[i])]
                for i in np.flatnonzero(boxed.fractured)
            ]
        )
    return judged


def cross_validate(
    recipe: Recipe,
    data: Path,
    run: Path,
    *,
    folds: Sequence[int] | None = None,
    init: Path | None = None,
    precision: Precision = "auto",
    cache: Path = CACHE,
    progress: bool = False,
) -> OutOfFold:
    """Trains and judges a model a fold.

    Args:
        recipe: what to train.
        data: folder with the sets.
        run: folder for the folds' runs; an unfinished fold is resumed, a finished one read.
        folds: which to run; all of the recipe's where not given.
        init: initial layers.
        precision: of training.
        cache: where decoded films are kept.
        progress: draw progress bars.

    Raises:
        ValueError: the folder holds folds of another recipe.
    """
    parts: list[dict[str, np.ndarray]] = []
    minutes = 0.0
    judged = tuple(folds if folds is not None else range(recipe.folds))
    for fold in judged:
        chosen = recipe.model_copy(update={"fold": fold})
        where = run / f"fold{fold}"
        known = where / "recipe.json"
        if known.is_file() and Recipe.model_validate_json(known.read_text()) != chosen:
            raise ValueError(f"{where} holds a run of another recipe; delete it or name another folder")
        if not (where / "judged.npz").is_file():
            teacher = run.parent / chosen.distil.teacher / where.name if chosen.distil else None
            task, films = trained(
                chosen, data, where, init=init, precision=precision, cache=cache, progress=progress, teacher=teacher
            )
            np.savez(where / "judged.npz", **_judge(task, films, data, cache))  # ty: ignore[invalid-argument-type]
            (where / "last.ckpt").unlink()
        parts.append(_read(where))
        minutes += json.loads((where / "effort.json").read_text())["minutes"]
    return _join(parts, minutes, judged)


def finished_folds(run: Path, recipe: Recipe) -> tuple[int, ...]:
    """The folds of a cross-validation that were trained and judged."""
    return tuple(fold for fold in range(recipe.folds) if (run / f"fold{fold}" / "judged.npz").is_file())


def read_folds(run: Path, recipe: Recipe, *, partial: bool = False, only: Sequence[int] | None = None) -> OutOfFold:
    """The finished cross-validation of a recipe; the recipe's own fold and seed do not matter.

    Args:
        run: folder of the folds.
        recipe: that all of them were trained by.
        partial: whether some of the folds are enough.
        only: folds to read; all that are finished where not given.

    Raises:
        FileNotFoundError: a fold, or, where some are enough, every fold, is not finished.
        ValueError: the folds are another recipe's.
    """
    parts = []
    minutes = 0.0
    finished = tuple(fold for fold in finished_folds(run, recipe) if only is None or fold in only)
    if not finished or (len(finished) < recipe.folds and not partial):
        raise FileNotFoundError(
            f"{len(finished)} of {recipe.folds} folds in {run} are finished; run `python -m training cross-validate` "
            "first"
        )
    for fold in finished:
        where = run / f"fold{fold}"
        theirs = Recipe.model_validate_json((where / "recipe.json").read_text())
        if theirs != recipe.model_copy(update={"fold": fold, "seed": theirs.seed}):
            raise ValueError(f"{where} holds a run of another recipe")
        parts.append(_read(where))
        minutes += json.loads((where / "effort.json").read_text())["minutes"]
    return _join(parts, minutes, finished)


def _read(where: Path) -> dict[str, np.ndarray]:
    with np.load(where / "judged.npz") as stored:
        return {**stored, "groups": read_groups(where)[stored["films"]]}


def _join(parts: list[dict[str, np.ndarray]], minutes: float, folds: tuple[int, ...]) -> OutOfFold:
    def joined(key: str) -> np.ndarray:
        return np.concatenate([part[key] for part in parts])

    def listed(key: str) -> list[np.ndarray]:
        return [part[key] for part in parts if key in part]

    return OutOfFold(
        films=joined("films"),
        labels=joined("labels"),
        groups=joined("groups"),
        logits=joined("logits"),
        views=np.concatenate([part["views"] for part in parts], axis=1),
        evidence=joined("evidence"),
        presence=listed("presence"),
        fractured=listed("fractured"),
        peaks=listed("peaks"),
        minutes=round(minutes, 1),
        folds=folds,
    )


def summarise_types(logits: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """Figures and calibration of out-of-fold predictions, ready for JSON.

    Calibration is judged by temperatures fitted on the other half of the groups, so that no film judges itself.

    Args:
        logits: float (N, C).
        labels: int (N,).
        groups: int (N,), of near-duplicates.
    """
    temperature = fit_temperature(logits, labels)
    _, of = np.unique(groups, return_inverse=True)
    half = (np.random.default_rng(0).permutation(of.max() + 1) % 2 == 0)[of]
    scaled = np.empty_like(logits)
    for side in (half, ~half):
        scaled[side] = logits[side] / fit_temperature(logits[~side], labels[~side])
    return {
        "types": report(logits, labels, list(CLASSES), temperature, groups),
        "temperature": temperature,
        "calibration_error_before": expected_calibration_error(softmax(logits, axis=1), labels)["value"],
        "calibration_error_crossed": expected_calibration_error(softmax(scaled, axis=1), labels)["value"],
    }


def summarise(found: OutOfFold) -> dict[str, Any]:
    """Figures over all folds' films, ready for JSON: types, calibration, all views and, where taught, places."""
    averaged = averaged_views(found.views)
    summary = {
        **summarise_types(found.logits, found.labels, found.groups),
        "views_averaged": bootstrap(averaged.argmax(axis=1) == found.labels, found.groups),
        "minutes": found.minutes,
        "folds": list(found.folds),
    }
    if found.presence:
        # Folds share these films, so intervals are over films, each the mean of the folds' models.
        peaks = np.stack(found.peaks).mean(axis=0)
        summary["places"] = {
            "presence_auroc": [
                float(roc_auc_score(fractured, score))
                for fractured, score in zip(found.fractured, found.presence, strict=True)
            ],
            "fracture_peak_in_box": bootstrap(peaks[:, 0]),
            "type_peak_in_box": bootstrap(peaks[:, 1]),
        }
    return summary


def record(found: OutOfFold, recipe: Recipe, results: Path = RESULTS) -> dict[str, Any]:
    """Writes what was found where the report reads it.

    Args:
        found: some folds' predictions, or all.
        recipe: that they were trained by; ``whole`` decides which of two folders gets the file.
        results: folder of committed figures.

    Returns:
        What was written: the summary, and of the recipe what tells it from others.
    """
    written = {
        "recipe": recipe.name,
        "title": f"{ARCHITECTURES[recipe.architecture].title}, {recipe.size} px"
        + (", training labels cleaned" if recipe.clean else ""),
        "epochs": recipe.head_epochs + recipe.tune_epochs,
        **summarise(found),
    }
    folder = results / ("whole" if recipe.whole else "folds")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{recipe.name}.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    return written
