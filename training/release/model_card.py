"""A model's card for people, ``weights/<model>/README.md``, made from what the commands measured.

Sections follow the model cards of the Hugging Face hub (Mitchell et al., 2019, "Model cards for model reporting") and
the items of CLAIM, the checklist for artificial intelligence in medical imaging (Mongan et al., 2020; Tejani et al.,
2024). The text is ``training/templates/model_card.md.j2``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from app.model.weights import ModelCard
from training.evaluation.localisation import ASKED
from training.studies.tables import read, read_detector, render

__all__ = ["MEASURED", "model_card"]

MEASURED = ("localisation", "presence", "faithfulness")
"""Files beside the card that commands of ``training`` write, without suffix."""

PLOTS = (
    ("curves.png", "Training curves"),
    ("confusion.png", "Confusion matrix"),
    ("reliability.png", "Calibration"),
    ("per_class.png", "Precision and recall by type"),
    ("faithfulness.png", "Faithfulness of every method"),
)
SOURCE = "bone-break"
ENOUGH = 10
"""Fractured images under which a region is not called the worst."""
SELDOM = 0.05
"""Share of altered images of one kind up to which it is no failure that they are judged."""
RARELY = 0.2
"""Recall under which a type counts as one the model fails at."""
MISTAKES = 5
"""Confusions that the card names."""


def _mistakes(card: ModelCard) -> list[tuple[float, str, str]]:
    """The commonest confusions out of fold: share of the type, the type, what it was called."""
    names = [kind.name for kind in card.classes]
    shares = [
        (count / max(1, sum(row)), names[truth], names[named])
        for truth, row in enumerate(card.metrics["cross_validation"]["confusion"])
        for named, count in enumerate(row)
        if named != truth
    ]
    return sorted(shares, reverse=True)[:MISTAKES]


def _failures(card: ModelCard, beside: dict[str, Any], detector: dict[str, Any] | None) -> dict[str, Any]:
    """Where the model fails, picked by rule from what was measured."""
    found: dict[str, Any] = {
        "recall": RARELY,
        "missed": [row for row in card.metrics["cross_validation"]["per_class"] if row["recall"] < RARELY],
        "mistakes": _mistakes(card),
        "enough": ENOUGH,
        "size": None,
        "region": None,
        "accepted": {},
    }
    if maps := beside["localisation"]:
        found["size"] = min(maps["maps"][ASKED]["by_size"].items(), key=lambda item: item[1]["inside"]["value"])
    if presence := beside["presence"]:
        regions = {
            region: its["sensitive"]["sensitivity"]
            for region, its in presence["test"]["by_region"].items()
            if its["sensitive"]["sensitivity"] is not None and its["sensitive"]["sensitivity"]["n"] >= ENOUGH
        }
        found["region"] = min(regions.items(), key=lambda item: item[1]["value"], default=None)
    if detector:
        passed = {name: 1.0 - its["value"] for name, its in detector["tampered"].items()}
        found["accepted"] = {name: share for name, share in passed.items() if share > SELDOM}
    return found


def _front(card: ModelCard) -> str:
    """The metadata that the hub reads, as YAML."""
    metadata: dict[str, Any] = {
        "license": "mit",
        "library_name": "pytorch",
        "pipeline_tag": "image-classification",
        "tags": ["x-ray", "fracture", "class-activation-map", "not-a-medical-device"],
    }
    if test := card.metrics.get("test"):
        result = {
            "task": {"type": "image-classification", "name": "Type of fracture"},
            "dataset": {"type": SOURCE, "name": str(card.data["title"]), "split": "test"},
            "metrics": [
                {"type": "accuracy", "value": round(test["accuracy"]["value"], 4)},
                {"type": "f1", "value": round(test["macro_f1"], 4), "name": "macro F1"},
            ],
        }
        metadata["model-index"] = [{"name": card.name, "results": [result]}]
    return yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=110)


def model_card(card: ModelCard, root: Path) -> str:
    """The card in Markdown, with the hub's metadata in front.

    Args:
        card: of a model that was exported; what was not measured is said to be missing.
        root: of the repository, for what was measured beside the card.
    """
    folder = root / "weights" / card.name
    detector = read_detector(root)
    beside = {name: read(folder / f"{name}.json") for name in MEASURED}
    return render(
        "model_card",
        card=card,
        front=_front(card),
        failures=_failures(card, beside, detector),
        detector=detector,
        seeds=read(root / "training" / "results" / "seeds" / f"{card.name}.json"),
        audit=read(root / "training" / "data" / "audits" / f"{SOURCE}.json"),
        plots=[(file, words) for file, words in PLOTS if (folder / file).is_file()],
        **beside,
    )
