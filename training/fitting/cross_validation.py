"""Judges a recipe: ``python -m training cross-validate RECIPE`` out of fold, ``seeds RECIPE`` on test images.

Every fold's model judges the images it was not trained on, so that together they give one out-of-fold prediction an
image; each also judges FracAtlas' validation images, if it learnt where fractures lie. Finished folds are kept and not
repeated. ``seeds`` trains one network a seed on all training images and judges it once; the first seed's run is the
one to export, which is settled before anything is judged.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from app.model.backbones import ARCHITECTURES
from training import read_json, write_json
from training.data.augmentation import VIEWS, View, averaged_views, seen_as
from training.data.bone_break import CLASSES
from training.data.datamodule import BoxedImages, TypedData, as_channels
from training.data.image import CACHE, placements
from training.evaluation.metrics import bootstrap, expected_calibration_error, fit_temperature, hit, report
from training.fitting.fit import Taught, class_names, fit, load_task, read_groups, refuse_another, save_whole
from training.fitting.probe import judge_probe
from training.fitting.task import FractureTypes
from training.recipe import Precision, Recipe, fold_of, recipe_of

log = logging.getLogger(__name__)

RESULTS = Path(__file__).resolve().parents[1] / "results"
REFERENCE = "resnet18"
"""The recipe others are compared with, image by image."""


@dataclass(frozen=True)
class OutOfFold:
    """What models said of images they were not trained on.

    Attributes:
        images: indices into the set's images, int (N,), ascending.
        labels: int (N,).
        groups: int (N,), near-duplicates share a number.
        logits: float32 (N, C).
        views: the same for every view of the images, float32 (V, N, C).
        evidence: strongest evidence for the predicted type on the image, float32 (N,), in logits.
        places: of FracAtlas' validation images, a fold: "presence", scores, float (M,), "fractured", bool (M,), and of
            the fractured ones "peaks", bool (F, 2): fracture map's peak in a box, predicted type's peak in a box. Empty
            for networks without a fracture map.
        minutes: of training, all folds together.
        folds: which were judged.
        started: what training started from, as the folds' initial layers name it, or "random".
        device: what trained, as the folds tell it.
        classes: in the order of the logits.
    """

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    logits: np.ndarray
    views: np.ndarray
    evidence: np.ndarray
    places: list[dict[str, np.ndarray]]
    minutes: float
    folds: tuple[int, ...]
    started: str
    device: str
    classes: tuple[str, ...]


def _see(task: FractureTypes, squares: np.ndarray, view: View = VIEWS[0]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    logits, maps, fracture = [], [], []
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task = task.to(device)
    with torch.inference_mode():
        for start in range(0, len(squares), 64):
            films = as_channels(squares[start : start + 64]).to(device).float() / 255.0
            evidence = task(seen_as(films, view))
            best = evidence.logits.argmax(dim=1)
            logits.append(evidence.logits.cpu())
            maps.append(evidence.maps[torch.arange(len(best)), best].cpu())
            if evidence.fracture is not None:
                fracture.append(evidence.fracture.cpu())
    seen = torch.cat(fracture).numpy() if fracture else np.zeros((0, 0, 0), np.float32)
    return torch.cat(logits).numpy(), torch.cat(maps).numpy(), seen


def judge_types(task: FractureTypes, films: TypedData, indices: np.ndarray) -> dict[str, np.ndarray]:
    """What a trained task says of some images: the arrays of ``OutOfFold`` from "images" to "evidence"."""
    logits, maps, _ = _see(task, films.squares[indices])
    others = [_see(task, films.squares[indices], view)[0] for view in VIEWS[1:]]
    placed = placements([films.images[i].path for i in indices], task.recipe.size)
    evidence = [float(m[p.padding(*m.shape) <= 0.5].max(initial=0.0)) for m, p in zip(maps, placed, strict=True)]
    return {
        "images": indices,
        "labels": films.labels[indices],
        "logits": logits,
        "views": np.stack([logits, *others]),
        "evidence": np.array(evidence, np.float32),
    }


def _judge_places(task: FractureTypes, data: Path, cache: Path) -> dict[str, np.ndarray]:
    """What ``OutOfFold.places`` holds of a fold."""
    boxed = BoxedImages(data, "validation", task.recipe.size, cache, task.recipe.equalise)
    _, maps, fracture = _see(task, boxed.squares)
    peaks = [
        [hit(m, boxed.images[i], boxed.placements[i]).inside for m in (fracture[i], maps[i])]
        for i in np.flatnonzero(boxed.fractured)
    ]
    presence = np.logaddexp.reduce(fracture.reshape(len(fracture), -1), axis=1)
    return {"presence": presence, "fractured": boxed.fractured, "peaks": np.array(peaks)}


FILES = {"validation": "judged.npz", "test": "test.npz"}
"""What a run's model says of a part of the images, in the run's folder."""


def judged(
    recipe: Recipe,
    data: Path,
    run: Path,
    part: str,
    *,
    init: Path | None,
    precision: Precision = "auto",
    cache: Path = CACHE,
    minutes: float | None = None,
    taught: Taught | None = None,
) -> dict[str, np.ndarray]:
    """What a recipe's model says of one part of the images, trained and judged unless that was done.

    The teacher's run lies beside the student's; for a run on all training images it is that of the first seed.

    Args:
        part: "validation" or "test".
        minutes, taught: as of ``fit``.

    Returns:
        Arrays as of ``OutOfFold``.

    Raises:
        ValueError: the folder holds a run of another recipe.
    """
    refuse_another(run, recipe)
    if not (run / FILES[part]).is_file():
        if recipe.frozen:
            found = judge_probe(recipe, recipe.frozen, data, run, part, init=init, cache=cache)
        else:
            beside = "seed0" if part == "test" else run.name
            teacher = run.parent.parent / recipe.distil.teacher / beside if recipe.distil else None
            how: dict[str, Any] = {"init": init, "precision": precision, "cache": cache, "teacher": teacher}
            if not (run / "effort.json").is_file():
                fit(recipe, data, run, resume=True, progress=False, minutes=minutes, taught=taught, **how)
            task, films, _ = load_task(run, data, cache, taught)
            found = judge_types(task, films, getattr(films.split, part))
            if recipe.places and not recipe.many and part == "validation":
                found |= _judge_places(task, data, cache)
        save_whole(run / FILES[part], found)
    return read_judged(run, part)


def read_judged(run: Path, part: str) -> dict[str, np.ndarray]:
    """What a run's model said of "validation" or "test" images: arrays as of ``OutOfFold``."""
    with np.load(run / FILES[part]) as stored:
        return {**stored, "groups": read_groups(run)[stored["images"]]}


def cross_validate(
    recipe: Recipe,
    data: Path,
    run: Path,
    *,
    folds: Sequence[int] | None = None,
    init: Path | None = None,
    precision: Precision = "auto",
    cache: Path = CACHE,
    minutes: float | None = None,
) -> OutOfFold:
    """Trains and judges a model a fold; of many sources, each also does without one of them.

    Args:
        folds: which to run; all of the recipe's where not given.
        minutes: of training a fold, of recipes of many sources; none for all steps.

    Raises:
        ValueError: the folder holds folds of another recipe.
    """
    chosen = tuple(range(recipe.folds) if folds is None else folds)
    how: dict[str, Any] = {"init": init, "precision": precision, "cache": cache, "minutes": minutes}
    for fold in chosen:
        where = run / f"fold{fold}"
        judged(fold_of(recipe, fold), data, where, "validation", **how)
        (where / "last.ckpt").unlink(missing_ok=True)
    return _join(run, chosen)


def finished_folds(run: Path, recipe: Recipe) -> tuple[int, ...]:
    """The folds of a cross-validation that were trained and judged."""
    return tuple(fold for fold in range(recipe.folds) if (run / f"fold{fold}" / FILES["validation"]).is_file())


def read_folds(run: Path, recipe: Recipe, *, partial: bool = False, only: Sequence[int] | None = None) -> OutOfFold:
    """The finished cross-validation of a recipe; the recipe's own fold and seed do not matter.

    Args:
        partial: whether some of the folds are enough.
        only: folds to read; all that are finished where not given.

    Raises:
        FileNotFoundError: a fold, or, where some are enough, every fold, is not finished.
        ValueError: the folds are another recipe's.
    """
    finished = tuple(fold for fold in finished_folds(run, recipe) if only is None or fold in only)
    if not finished or (len(finished) < recipe.folds and not partial):
        raise FileNotFoundError(
            f"{len(finished)} of {recipe.folds} folds in {run} are finished; run `python -m training cross-validate` "
            "first"
        )
    for fold in finished:
        where = run / f"fold{fold}"
        theirs = recipe_of(where)
        if theirs != fold_of(recipe, fold).model_copy(update={"seed": theirs.seed}):
            raise ValueError(f"{where} holds a run of another recipe")
    return _join(run, finished)


def _join(run: Path, folds: tuple[int, ...]) -> OutOfFold:
    wheres = [run / f"fold{fold}" for fold in folds]
    parts = [read_judged(where, "validation") for where in wheres]
    efforts = [read_json(where / "effort.json") for where in wheres]

    films = np.concatenate([part["images"] for part in parts])
    if len(np.unique(films)) < len(films):
        raise ValueError(f"folds in {run} judged the same images, so they were dealt differently; train them again")

    def joined(key: str) -> np.ndarray:
        return np.concatenate([part[key] for part in parts])[np.argsort(films)]

    return OutOfFold(
        images=np.sort(films),
        labels=joined("labels"),
        groups=joined("groups"),
        logits=joined("logits"),
        views=np.concatenate([part["views"] for part in parts], axis=1)[:, np.argsort(films)],
        evidence=joined("evidence"),
        places=[part for part in parts if "presence" in part],
        minutes=round(sum(effort["minutes"] for effort in efforts), 1),
        folds=folds,
        started=read_json(wheres[0] / "initial.json")["source"],
        device=efforts[0]["device"],
        classes=class_names(recipe_of(wheres[0])),
    )


def summarise_types(
    logits: np.ndarray, labels: np.ndarray, groups: np.ndarray, classes: Sequence[str] = tuple(CLASSES)
) -> dict[str, Any]:
    """Figures and calibration of out-of-fold predictions, ready for JSON.

    Calibration is judged by temperatures fitted on the other half of the groups, so that no image judges itself.

    Args:
        logits: float (N, C).
        labels: int (N,).
        groups: int (N,), of near-duplicates.
        classes: in the order of the logits.
    """
    temperature = fit_temperature(logits, labels)
    _, of = np.unique(groups, return_inverse=True)
    half = (np.random.default_rng(0).permutation(of.max() + 1) % 2 == 0)[of]
    scaled = np.empty_like(logits)
    for side in (half, ~half):
        scaled[side] = logits[side] / fit_temperature(logits[~side], labels[~side])
    before, crossed = (expected_calibration_error(softmax(each, axis=1), labels) for each in (logits, scaled))
    return {
        "types": report(logits, labels, classes, temperature, groups),
        "temperature": temperature,
        "calibration_error_before": before["value"],
        "calibration_error_crossed": crossed["value"],
        "reliability": {"before scaling": before["bins"], "after, temperature of the other half": crossed["bins"]},
    }


def summarise(found: OutOfFold) -> dict[str, Any]:
    """Figures over all folds' images, ready for JSON: types, calibration, all views and, if learnt, fracture maps."""
    averaged = averaged_views(found.views)
    summary = {
        **summarise_types(found.logits, found.labels, found.groups, found.classes),
        "views_averaged": bootstrap(averaged.argmax(axis=1) == found.labels, found.groups),
        "minutes": found.minutes,
        "folds": list(found.folds),
    }
    if found.places:
        # Folds share these images, so intervals are over images, each the mean of the folds' models.
        peaks = np.stack([its["peaks"] for its in found.places]).mean(axis=0)
        summary["places"] = {
            "presence_auroc": [float(roc_auc_score(its["fractured"], its["presence"])) for its in found.places],
            "fracture_peak_in_box": bootstrap(peaks[:, 0]),
            "type_peak_in_box": bootstrap(peaks[:, 1]),
        }
    return summary


def _beside(found: OutOfFold, run: Path) -> dict[str, float] | None:
    """How much oftener than the reference the labelled type was named, image by image, if its folds are there."""
    other = run.parent / REFERENCE
    if other == run or any(not (other / f"fold{fold}" / FILES["validation"]).is_file() for fold in found.folds):
        return None
    theirs = read_folds(other, recipe_of(other / f"fold{found.folds[0]}"), partial=True, only=found.folds)
    if not np.array_equal(found.images, theirs.images):
        return None
    right, reference = (each.logits.argmax(axis=1) == each.labels for each in (found, theirs))
    return {**bootstrap(right.astype(float) - reference, found.groups), "reference": float(reference.mean())}


def record(found: OutOfFold, recipe: Recipe, run: Path, results: Path = RESULTS) -> dict[str, Any]:
    """Writes what was found where the report reads it, unless that holds more folds already.

    Args:
        found: some folds' predictions, or all.

    Returns:
        The summary, and of the recipe what tells it from others.
    """
    title = ARCHITECTURES[recipe.architecture].title
    if recipe.frozen:
        # What is built on the stages that the probe reads is none of its.
        title = title.partition(",")[0]
    written = {
        "recipe": recipe.name,
        "title": f"{title}, {recipe.size} px"
        + (", training labels cleaned" if recipe.clean else "")
        + (", frozen features, logistic regression" if recipe.frozen else ""),
        "epochs": recipe.head_epochs + recipe.tune_epochs,
        "started": found.started,
        "teacher": recipe.distil.teacher if recipe.distil else None,
        "device": found.device,
        "of": recipe.folds,
        "against_reference": _beside(found, run),
        **summarise(found),
    }
    if recipe.own:
        # Beside the run: the report reads the other folder, and is about the public sets.
        write_json(run / "summary.json", written)
        return written
    target = results / ("whole" if recipe.whole else "folds") / f"{recipe.name}.json"
    # The reference's folds may be gone since.
    kept = written["against_reference"] or (read_json(target) or {}).get("against_reference")
    _write_unless_more(target, {**written, "against_reference": kept}, "folds")
    return written


def _write_unless_more(target: Path, found: dict[str, Any], counted: str) -> None:
    known = (read_json(target) or {counted: ()})[counted]
    if len(known) > len(found[counted]):
        log.warning("%s holds %d %s and is left as it is", target, len(known), counted)
    else:
        write_json(target, found)


def seeds(
    recipe: Recipe,
    numbers: Sequence[int],
    data: Path,
    runs: Path,
    *,
    init: Path | None = None,
    precision: Precision = "auto",
    results: Path = RESULTS / "seeds",
    cache: Path = CACHE,
    minutes: float | None = None,
) -> dict[str, Any]:
    """Trains what has not been trained yet, judges it, and writes the figures, unless more seeds' are there already.

    Returns:
        Mean and standard deviation of accuracy, and a seed: accuracy, kappa and top-3, with all views averaged or
        not, and minutes.

    Raises:
        ValueError: the folder holds runs of another recipe.
    """
    rows: dict[str, Any] = {}
    for number in numbers:
        where = runs / f"seed{number}"
        chosen = recipe.model_copy(update={"seed": number, "fold": None})
        said = judged(chosen, data, where, "test", init=init, precision=precision, cache=cache, minutes=minutes)
        labels, groups = said["labels"], said["groups"]
        figures = report(said["logits"], labels, class_names(recipe), 1.0, groups)
        rows[str(number)] = {
            "accuracy": figures["accuracy"],
            "kappa": figures["kappa"],
            "top3": figures["top3"],
            "views_averaged": bootstrap(averaged_views(said["views"]).argmax(axis=1) == labels, groups),
            "minutes": read_json(where / "effort.json")["minutes"],
        }
    values = [row["accuracy"]["value"] for row in rows.values()]
    # A linear probe is the same for every seed.
    spread = float(np.std(values, ddof=1)) if len(values) > 1 and not recipe.frozen else None
    found = {"recipe": recipe.name, "mean": float(np.mean(values)), "spread": spread, "seeds": rows}
    _write_unless_more(results / f"{recipe.name}.json", found, "seeds")
    return found
