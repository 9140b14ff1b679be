"""From a finished run to ``weights/<model>/``: float16 weights and the card, calibrated on out-of-fold predictions."""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save
from scipy.special import softmax

from app.model.backbones import ARCHITECTURES
from app.model.classifier import Classifier, Explanation
from app.model.network import FractureNetwork
from app.model.subject import OURS, Subject
from app.model.weights import (
    FractureType,
    ModelCard,
    WeightsFile,
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
from training.evaluation.presence import MAPS, ask, explain_files, points_over
from training.evaluation.presence import summary as by_source
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


def _data_card(run: Path, films: TypedData) -> dict[str, Any]:
    card, sources = films.as_card(), read_json(run / "sources.json")
    if sources is None:
        return card
    terms = {name: its.licence for name, its in BOXED_SETS.items() if name in sources}
    research = "Images that look like Stanford's MURA (set veda) taught it; MURA's research terms would bind its use."
    return {
        **card,
        "limits": [*card["limits"], *([research] if "veda" in sources else [])],
        "sources": sources,
        "terms": terms,
    }


def draft_card(run: Path, data: Path, target: Path, cache: Path = CACHE) -> ModelCard:
    """Writes a run's weights in float16 beside a card that says how they came about, but of no figure yet.

    Args:
        run: folder that ``fit`` wrote.
        data: folder with the sets.
        target: the model's folder.
        cache: where decoded images are kept.

    Raises:
        FileNotFoundError: the run is not finished, or a set is not there.
        ValueError: the images are split otherwise than when the run was trained.
    """
    task, films, initial = load_task(run, data, cache)
    card = draft(run, task.recipe, task.network, _data_card(run, films), initial, target)
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


JUDGED_ON = "bone-break-more, images of the same ten types that no weights learnt from"


def _held_out(name: str, data: Path, weights: Path) -> tuple[dict[str, Any], tuple[np.ndarray, ...]]:
    """What a model says of typed images that none learnt from: a summary, and what ``calibrated`` takes beside it."""
    rows = {row.film: row for row in read_table() if row.set == "bone-break-more" and row.part == "validation"}
    films = [film for film in LATER["bone-break-more"](data).images if film.name in rows]
    explained = list(explain_files(Classifier.load(name, weights), [film.path for film in films]))
    logits = np.stack([each.prediction.logits for each in explained])
    labels, groups = (np.array(its) for its in zip(*((f.label, rows[f.name].group) for f in films), strict=True))
    evidence = np.array([each.peak(each.prediction.best) for each in explained])
    found = {**summarise_types(logits, labels, groups), "judged_on": JUDGED_ON, "minutes": None, "folds": []}
    return found, (logits, labels, groups, evidence)


def export(run: Path, folds: Path | None, data: Path, weights: Path, cache: Path = CACHE) -> ModelCard:
    """Writes a run's weights as a model the app can load.

    Temperature, typical evidence and all figures of validation come from a cross-validation of the same recipe: what
    trained on all training images has none left to be judged by. Some of its folds are enough; the card tells which.
    Without a cross-validation, images of ``bone-break-more`` judge, which no weights learnt from.

    Of a run over many sources the operating points come from the validation images of every source that holds normal
    images too.

    Args:
        folds: folder that ``cross_validate`` wrote, for the same recipe; none for no cross-validation.
        weights: folder of models; ``weights/<recipe name>`` is written.

    Returns:
        The card, without test figures; ``evaluate``, ``presence`` and ``localise`` add theirs.

    Raises:
        FileNotFoundError: the run or a fold is not finished, or a set is not there.
        ValueError: the folds are another recipe's, or the images are split otherwise than when the run was trained.
    """
    recipe = recipe_of(run)
    joined = None if folds is None else read_folds(folds, recipe, partial=True)
    drafted = draft_card(run, data, weights / recipe.name, cache)
    if joined:
        found, on = summarise(joined), "out-of-fold predictions"
        said = joined.logits, joined.labels, joined.groups, joined.evidence
    else:
        found, said = _held_out(recipe.name, data, weights)
        on = JUDGED_ON
    fields, judged = calibrated(found, *said, on)
    others = ("views_averaged", "places", "minutes", "folds", "judged_on")
    figures = {**found["types"], **{name: found[name] for name in others if name in found}, "sets": judged}
    metrics: dict[str, Any] = {"cross_validation": figures}
    if recipe.many:
        asked = lessons(data, "validation", tuple(recipe.many.draws))
        answers = ask(Classifier.load(recipe.name, weights), asked)
        fields["presence"] = points_over(asked, answers)
        metrics["sources"] = by_source(asked, answers, fields["presence"])
        figures["places"] = _places(metrics["sources"])
        # Cards of models whose folds did not yet keep them apart lack this, and tell of it.
        figures["places_apart"] = True
    card = drafted.model_copy(update={**fields, "metrics": metrics})
    write_card(card, weights / recipe.name)
    return card
