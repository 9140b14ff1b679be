"""From a finished run to ``weights/<model>/``: float16 weights and the card, calibrated on out-of-fold predictions.

A run over many sources goes on from finished weights, which had seen every bone-break training image, so no fold of
those can judge its types. Images of ``bone-break-more`` can: neither the run nor what it started from learnt from them.
They fit the temperature, the prediction sets and the unit of evidence, and the card says so. The operating points come
from the validation images of every source that holds whole bones too.
"""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from scipy.special import softmax

from app.model.backbones import ARCHITECTURES
from app.model.classifier import Classifier, Explanation
from app.model.network import FractureNetwork
from app.model.subject import OURS, Subject
from app.model.weights import (
    DEFAULT_FOLDER,
    FractureType,
    ModelCard,
    WeightsFile,
    load_network,
    write_card,
)
from training import read_json
from training.data.all_sets import BOXED_SETS, LATER, read_table
from training.data.bone_break import CLASSES
from training.data.datamodule import TypedData
from training.data.image import CACHE
from training.data.lessons import lessons
from training.data.own import type_titles
from training.evaluation.metrics import calibrate
from training.evaluation.presence import MAPS, ask, explain_files, points_over, summary
from training.fitting.cross_validation import read_folds, summarise, summarise_types
from training.fitting.fit import Initial, curve, load_task
from training.recipe import Recipe, recipe_of

INTENDED_USE = "For study, not for diagnosis. Not a medical device."


def explain_part(
    classifier: Classifier, films: TypedData, indices: np.ndarray
) -> tuple[list[Explanation], np.ndarray, np.ndarray]:
    """Explanations, logits float (N, C) and labels int (N,) of some images."""
    explained = list(explain_files(classifier, [films.images[i].path for i in indices]))
    return explained, np.stack([e.prediction.logits for e in explained]), films.labels[indices]


def draft(
    run: Path, recipe: Recipe, network: FractureNetwork, data: dict[str, Any], initial: Initial, target: Path
) -> ModelCard:
    """Writes weights in float16, and makes the card that says how they came about, but of no figure yet.

    Args:
        run: folder of the training.
        recipe: that was trained.
        network: what came of it.
        data: what the card says of the images.
        initial: what training started from.
        target: the model's folder.
    """
    target.mkdir(parents=True, exist_ok=True)
    state = network.state_dict().items()
    blob = save({name: (t.half() if t.is_floating_point() else t).contiguous() for name, t in state})
    (target / "model.safetensors").write_bytes(blob)
    shared = ("name", "architecture", "stride", "head", "size", "equalise", "colour", "mean", "std", "seed")
    own, titles = recipe.own, {name: folder.capitalize() for name, folder in CLASSES.items()}
    if own:
        titles = type_titles(own)
        # Where the images lay may name a person.
        recipe = recipe.model_copy(update={"own": own.model_copy(update={"root": Path(own.root.name)})})
    return ModelCard(
        **{field: getattr(recipe, field) for field in shared},
        title=f"{ARCHITECTURES[recipe.architecture].title}, {recipe.size} px",
        places=recipe.places is not None,
        classes=tuple(FractureType(name=name, title=title) for name, title in titles.items()),
        subject=Subject(title=own.title, image=own.image, finding=own.finding) if own else OURS,
        temperature=1.0,
        typical_evidence=1.0,
        weights=WeightsFile(file="model.safetensors", sha256=hashlib.sha256(blob).hexdigest()),
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        intended_use=own.intended_use if own else INTENDED_USE,
        data=data,
        initial={**initial.as_card(), "licence": recipe.initial_licence},
        recipe=recipe.model_dump(mode="json"),
        training={
            **read_json(run / "effort.json"),
            "curve": curve(run),
            "parameters": sum(p.numel() for p in network.parameters()),
        },
    )


def calibrated(
    found: dict[str, Any], logits: np.ndarray, labels: np.ndarray, groups: np.ndarray, evidence: np.ndarray, on: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of a card that judged images decide, and how its prediction sets did; ``found`` of ``summarise_types``."""
    sets, judged = calibrate(softmax(logits / found["temperature"], axis=1), labels, groups)
    fields = {
        "temperature": found["temperature"],
        "sets": sets,
        "typical_evidence": float(np.median(evidence)),
        "calibration": {
            "method": f"temperature scaling on {on}",
            "images": len(labels),
            "error_before": found["calibration_error_before"],
            "error_after": found["calibration_error_crossed"],
        },
    }
    return fields, judged


def export(run: Path, folds: Path, data: Path, weights: Path, cache: Path = CACHE) -> ModelCard:
    """Writes a run's weights as a model the app can load.

    Temperature, typical evidence and all figures of validation come from a cross-validation of the same recipe: what
    trained on all training images has none left to be judged by. Some of its folds are enough; the card tells which.

    Args:
        folds: folder that ``cross_validate`` wrote, for the same recipe.
        weights: folder of models; ``weights/<recipe name>`` is written.

    Returns:
        The card, without test figures; ``evaluate`` adds them.

    Raises:
        FileNotFoundError: the run or a fold is not finished.
        ValueError: the folds are another recipe's, or the images are split otherwise than when the run was trained.
    """
    task, films, initial = load_task(run, data, cache)
    recipe = task.recipe
    found = read_folds(folds, recipe, partial=True)
    target = weights / recipe.name
    drafted = draft(run, recipe, task.network, films.as_card(), initial, target)
    summary = summarise(found)
    fields, judged = calibrated(
        summary, found.logits, found.labels, found.groups, found.evidence, "out-of-fold predictions"
    )
    figures = {
        **summary["types"],
        "views_averaged": summary["views_averaged"],
        "places": summary.get("places"),
        "minutes": summary["minutes"],
        "folds": summary["folds"],
        "sets": judged,
    }
    card = drafted.model_copy(update={**fields, "metrics": {"cross_validation": figures}})
    write_card(card, target)
    return card


JUDGED_ON = "bone-break-more, images of the same ten types that no weights learnt from"


def typed_images(data: Path) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """The held-out typed images: files, labels int (N,) and groups int (N,).

    Raises:
        FileNotFoundError: the set is not there.
    """
    rows = {row.film: row for row in read_table() if row.set == "bone-break-more" and row.part == "validation"}
    films = [film for film in LATER["bone-break-more"](data).images if film.name in rows]
    groups = np.array([rows[film.name].group for film in films])
    return [film.path for film in films], np.array([film.label for film in films]), groups


def _data_card(run: Path, films: TypedData) -> dict[str, Any]:
    card, sources = films.as_card(), read_json(run / "sources.json")
    terms = {name: its.licence for name, its in BOXED_SETS.items() if name in sources}
    research = "Images that look like Stanford's MURA (set veda) taught it; MURA's research terms would bind its use."
    return {
        **card,
        "limits": [*card["limits"], *([research] if "veda" in sources else [])],
        "sources": sources,
        "terms": terms,
    }


def draft_card(run: Path, data: Path, target: Path, cache: Path = CACHE, weights: Path = DEFAULT_FOLDER) -> ModelCard:
    """Writes a run's weights in float16 beside a card that says how they came about, but of no figure yet.

    Weights drawn back towards where they started often keep what the start knew and most of what was learnt (Wortsman
    et al., 2022, "Robust fine-tuning of zero-shot models").

    Args:
        run: folder that ``fit_sources`` wrote.
        data: folder with the sets.
        target: the model's folder.
        cache: where decoded images are kept.
        weights: folder of the weights the run went on from.

    Raises:
        FileNotFoundError: the run is not finished, or a set is not there.
        ValueError: the images are split otherwise than when the run was trained, or the run started elsewhere.
    """
    task, films, initial = load_task(run, data, cache)
    recipe, network = task.recipe, task.network
    assert recipe.many is not None
    start, known = load_network(recipe.many.start, weights)
    if known.weights.sha256 != initial.sha256:
        raise ValueError(f"{recipe.many.start} under {weights} is not what {run} went on from")
    before, blend = start.state_dict(), recipe.many.blend
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.lerp(before[name], value, blend))
    card = draft(run, recipe, network, _data_card(run, films), initial, target)
    write_card(card, target)
    return card


def _places(by_source: dict[str, Any]) -> dict[str, Any] | None:
    """What other cards say of FracAtlas' validation images, so that models can be put beside each other."""
    found = by_source.get("fracatlas")
    if found is None:
        return None
    inside = {name: found[name]["inside"] for name in MAPS}
    return {
        "presence_auroc": [found["auroc"]["value"]],
        "type_peak_in_box": inside[MAPS[0]],
        "fracture_peak_in_box": inside[MAPS[1]],
    }


def export_sources(
    run: Path, data: Path, weights: Path, cache: Path = CACHE, start: Path = DEFAULT_FOLDER
) -> ModelCard:
    """Writes a run's weights as a model the app can load, with everything that validation images can tell.

    Args:
        run: folder that ``fit_sources`` wrote.
        data: folder with the sets.
        weights: folder of models; ``weights/<recipe name>`` is written.
        cache: where decoded images are kept.
        start: folder of the weights the run went on from.

    Returns:
        The card, without test figures; ``evaluate``, ``presence`` and ``localise`` add theirs.

    Raises:
        FileNotFoundError: the run is not finished, or a set is not there.
        ValueError: the run is of one source, or the images are split otherwise than when it was trained.
    """
    recipe = recipe_of(run)
    if recipe.many is None:
        raise ValueError(f"{run} did not learn from many sources; use `python -m training export`.")
    name, target = recipe.name, weights / recipe.name
    drafted = draft_card(run, data, target, cache, start)
    classifier = Classifier.load(name, weights)
    paths, labels, groups = typed_images(data)
    explained = list(explain_files(classifier, paths))
    logits = np.stack([each.prediction.logits for each in explained])
    evidence = np.array([each.peak(each.prediction.best) for each in explained])
    types = summarise_types(logits, labels, groups)
    fields, judged = calibrated(types, logits, labels, groups, evidence, JUDGED_ON)
    asked = lessons(data, "validation", tuple(recipe.many.draws))
    answers = ask(classifier, asked)
    points = points_over(asked, answers)
    by_source = summary(asked, answers, points)
    figures = {
        **types["types"],
        "judged_on": JUDGED_ON,
        "places": _places(by_source),
        "minutes": drafted.training["minutes"],
        "folds": [],
        "sets": judged,
    }
    metrics = {"cross_validation": figures, "sources": by_source}
    card = drafted.model_copy(update={**fields, "presence": points, "metrics": metrics})
    write_card(card, target)
    return card
