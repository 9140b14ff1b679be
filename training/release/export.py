"""From a finished run to ``weights/<model>/``: float16 weights and the card, calibrated on out-of-fold predictions."""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.torch import save
from scipy.special import softmax

from app.imaging.radiograph import read
from app.model.backbones import ARCHITECTURES
from app.model.classifier import Classifier, Explanation
from app.model.weights import FractureType, ModelCard, WeightsFile, write_card
from training.data.bone_break import CLASSES
from training.data.datamodule import BoneBreakData
from training.data.image import CACHE
from training.evaluation.metrics import calibrate
from training.fitting.cross_validation import read_folds, summarise
from training.fitting.fit import curve, load_task

INTENDED_USE = "For study, not for diagnosis. Not a medical device."


def explain_part(
    classifier: Classifier, films: BoneBreakData, indices: np.ndarray
) -> tuple[list[Explanation], np.ndarray, np.ndarray]:
    """Explanations, logits float (N, C) and labels int (N,) of some images, by the app's own path from file to map."""
    explained = []
    for start in range(0, len(indices), 64):
        explained += classifier.explain([read(films.films[i].path) for i in indices[start : start + 64]])
    return explained, np.stack([e.prediction.logits for e in explained]), films.labels[indices]


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
    target.mkdir(parents=True, exist_ok=True)
    state = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in task.network.state_dict().items()
    }
    blob = save(state)
    (target / "model.safetensors").write_bytes(blob)
    summary = summarise(found)
    probabilities = softmax(found.logits / summary["temperature"], axis=1)
    sets, judged_sets = calibrate(probabilities, found.labels, found.groups)
    shared = ("name", "architecture", "stride", "head", "size", "equalise", "mean", "std", "seed")
    card = ModelCard(
        **{field: getattr(recipe, field) for field in shared},
        title=f"{ARCHITECTURES[recipe.architecture].title}, {recipe.size} px",
        places=recipe.places is not None,
        classes=tuple(FractureType(name=n, title=folder.capitalize()) for n, folder in CLASSES.items()),
        temperature=summary["temperature"],
        sets=sets,
        typical_evidence=float(np.median(found.evidence)),
        weights=WeightsFile(file="model.safetensors", sha256=hashlib.sha256(blob).hexdigest()),
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        intended_use=INTENDED_USE,
        data=films.as_card(),
        initial={**initial.as_card(), "licence": recipe.initial_licence},
        recipe=recipe.model_dump(mode="json"),
        training={
            **json.loads((run / "effort.json").read_text()),
            "curve": curve(run),
            "parameters": sum(p.numel() for p in task.network.parameters()),
        },
        calibration={
            "method": "temperature scaling on out-of-fold predictions",
            "films": len(found.labels),
            "error_before": summary["calibration_error_before"],
            "error_after": summary["calibration_error_crossed"],
        },
        metrics={
            "cross_validation": {
                **summary["types"],
                "views_averaged": summary["views_averaged"],
                "places": summary.get("places"),
                "minutes": summary["minutes"],
                "folds": summary["folds"],
                "sets": judged_sets,
            }
        },
    )
    write_card(card, target)
    return card
