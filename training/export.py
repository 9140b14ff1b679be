"""From a finished run to ``weights/<model>/``: float16 weights and the card, calibrated on validation films."""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from app.classifier import Classifier, Explanation
from app.radiograph import read
from app.weights import FractureType, ModelCard, WeightsFile
from training.data.bone_break import CLASSES
from training.data.cache import CACHE
from training.films import BoneBreakFilms
from training.fit import load_task
from training.metrics import expected_calibration_error, fit_temperature, report

__all__ = ["INTENDED_USE", "explain_part", "export"]

INTENDED_USE = "For study, not for diagnosis. Not a medical device."


def explain_part(
    classifier: Classifier, films: BoneBreakFilms, indices: np.ndarray
) -> tuple[list[Explanation], np.ndarray, np.ndarray]:
    """Explanations, logits float (N, C) and labels int (N,) of some films, by the app's own path from file to map."""
    explained = []
    for start in range(0, len(indices), 64):
        explained += classifier.explain([read(films.films[i].path) for i in indices[start : start + 64]])
    return explained, np.stack([e.prediction.logits for e in explained]), films.labels[indices]


def export(run: Path, data: Path, weights: Path, cache: Path = CACHE) -> ModelCard:
    """Writes a run's best weights as a model the app can load.

    Temperature and typical evidence are measured on the run's validation films with the float16 weights that ship.

    Args:
        run: folder that ``fit`` wrote.
        data: folder with the bone-break set.
        weights: folder of models; ``weights/<recipe name>`` is written.

    Returns:
        The card, without test figures; ``evaluate`` adds them.
    """
    task, films, initial = load_task(run, data, cache)
    recipe = task.recipe
    target = weights / recipe.name
    target.mkdir(parents=True, exist_ok=True)
    state = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in task.network.state_dict().items()
    }
    blob = save(state)
    (target / "model.safetensors").write_bytes(blob)
    draft = ModelCard(
        name=recipe.name,
        title=f"{recipe.architecture.replace('resnet', 'ResNet-').replace('vgg', 'VGG-')}, {recipe.size} px",
        architecture=recipe.architecture,
        stride=recipe.stride,
        classes=tuple(FractureType(name=n, title=folder.capitalize()) for n, folder in CLASSES.items()),
        size=recipe.size,
        mean=recipe.mean,
        std=recipe.std,
        temperature=1.0,
        typical_evidence=1.0,
        weights=WeightsFile(file="model.safetensors", sha256=hashlib.sha256(blob).hexdigest()),
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        seed=recipe.seed,
        intended_use=INTENDED_USE,
        data=films.as_card(),
        initial={**initial.as_card(), "licence": recipe.initial_licence},
        recipe=recipe.model_dump(mode="json"),
        training={
            **json.loads((run / "effort.json").read_text()),
            "parameters": sum(p.numel() for p in task.network.parameters()),
        },
    )
    write_card(draft, target)
    classifier = Classifier.load(recipe.name, weights)
    explained, logits, labels = explain_part(classifier, films, films.split.validation)
    temperature = fit_temperature(logits, labels)
    card = draft.model_copy(
        update={
            "temperature": temperature,
            "typical_evidence": float(np.median([e.peak(e.prediction.best) for e in explained])),
            "calibration": {
                "method": "temperature scaling",
                "films": len(labels),
                "part": "validation",
                "error_before": expected_calibration_error(_probabilities(logits, 1.0), labels)["value"],
                "error_after": expected_calibration_error(_probabilities(logits, temperature), labels)["value"],
            },
            "metrics": {"validation": report(logits, labels, list(CLASSES), temperature)},
        }
    )
    write_card(card, target)
    return card


def _probabilities(logits: np.ndarray, temperature: float) -> np.ndarray:
    return torch.from_numpy(logits / temperature).softmax(dim=1).numpy()


def write_card(card: ModelCard, target: Path) -> None:
    """Writes ``card.json``, readable and with stable order."""
    text = json.dumps(card.model_dump(mode="json"), indent=1, ensure_ascii=False)
    (target / "card.json").write_text(text + "\n", encoding="utf-8")
