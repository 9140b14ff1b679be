"""What bfloat16 changes: ``python -m training precision MODEL`` asks the same network twice.

The page and ``python -m app batch`` compute the backbone in bfloat16 where that is faster. Every other figure of this
project is of float32, so it has to hold for both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from app.imaging.radiograph import read
from app.model.classifier import Classifier
from app.model.precision import ReducedNetwork
from training import write_json
from training.data.datamodule import BoxedImages, TypedData
from training.data.image import CACHE
from training.evaluation.metrics import bootstrap, expected_calibration_error, hit
from training.recipe import Recipe
from training.release.export import explain_part

BATCH = 16


def compare(name: str, data: Path, weights: Path, cache: Path = CACHE) -> dict[str, Any]:
    """Types on the official test images, and maps on FracAtlas' fractured validation images, in both.

    Args:
        name: folder under ``weights``; ``precision.json`` is written into it.

    Returns:
        By precision accuracy, expected calibration error and pointing game; their differences, paired by image; and the
        changes of probabilities and the correlations of maps over all images.

    Raises:
        WeightsError: no such model.
        FileNotFoundError: the images are not there.
    """
    usual = Classifier.load(name, weights)
    both = {
        "float32": usual,
        "bfloat16": Classifier(usual.network, usual.card, usual.detector, ReducedNetwork(usual.network)),
    }
    typed = TypedData(Recipe.model_validate(usual.card.recipe), data, cache)
    answers = {key: explain_part(each, typed, typed.split.test) for key, each in both.items()}
    shares = {key: softmax(logits / usual.card.temperature, axis=1) for key, (_, logits, _) in answers.items()}
    labels = answers["float32"][2]
    right = {key: (its.argmax(axis=1) == labels).astype(float) for key, its in shares.items()}
    boxed = BoxedImages(data, "validation", usual.card.size, cache)
    chosen = [index for index, image in enumerate(boxed.images) if image.boxes]
    inside: dict[str, list[float]] = {key: [] for key in both}
    moved, alike = [np.abs(shares["float32"] - shares["bfloat16"]).max(axis=1)], []
    for start in range(0, len(chosen), BATCH):
        images = [boxed.images[index] for index in chosen[start : start + BATCH]]
        seen = [read(image.path) for image in images]
        explained = {key: each.explain(seen) for key, each in both.items()}
        for image, before, after in zip(images, *explained.values(), strict=True):
            best = before.prediction.best
            moved.append(np.abs(before.prediction.probabilities - after.prediction.probabilities).max(keepdims=True))
            alike.append(np.corrcoef(before.evidence(best).ravel(), after.evidence(best).ravel())[0, 1])
            for key, its in (("float32", before), ("bfloat16", after)):
                inside[key].append(hit(its.evidence(its.prediction.best), image, its.placement).inside)
    found: dict[str, Any] = {
        "typed": len(labels),
        "boxed": len(chosen),
        "changes": _spread(np.concatenate(moved)),
        "correlations": _spread(np.array(alike)),
    }
    groups = {"accuracy": typed.groups[typed.split.test], "pointing": boxed.groups[chosen]}
    for figure, values in (
        ("accuracy", right),
        ("pointing", {key: np.array(its, float) for key, its in inside.items()}),
    ):
        found[figure] = {key: bootstrap(its, groups[figure]) for key, its in values.items()}
        found[figure]["difference"] = bootstrap(values["bfloat16"] - values["float32"], groups[figure])
    found["calibration_error"] = {key: expected_calibration_error(its, labels)["value"] for key, its in shares.items()}
    write_json(weights / name / "precision.json", found)
    return found


def _spread(values: np.ndarray) -> dict[str, float]:
    return {"least": float(values.min()), "median": float(np.median(values)), "most": float(values.max())}
