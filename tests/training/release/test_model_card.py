"""The model card says what was measured and what was not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from app.model.weights import load_card
from training.release.model_card import model_card


def test_the_model_card_says_what_was_measured_and_what_was_not(repository: Path, tmp_path: Path) -> None:
    card = load_card("resnet18", repository / "weights")
    text = model_card(card, repository)
    front = yaml.safe_load(text.split("---\n")[1])
    accuracy = front["model-index"][0]["results"][0]["metrics"][0]
    assert accuracy == {"type": "accuracy", "value": round(card.metrics["test"]["accuracy"]["value"], 4)}
    assert card.intended_use in text
    for row in card.metrics["cross_validation"]["per_class"]:
        assert f"| {row['name']} | {row['films']} |" in text
    assert "## What it rejects\n\nNot measured." in text
    assert "has not been audited" in text
    untested = card.model_copy(
        update={"metrics": {"cross_validation": card.metrics["cross_validation"]}, "presence": None}
    )
    bare = model_card(untested, tmp_path)
    assert "Not evaluated on test images" in bare
    assert "cannot tell whether a bone is broken" in bare
    assert "model-index" not in bare


def test_failures_are_picked_by_what_was_measured(repository: Path) -> None:
    card = load_card("resnet18", repository / "weights")
    folds = card.metrics["cross_validation"]
    names = [kind.name for kind in card.classes]
    confusion = np.diag([10] * len(names))
    confusion[0, 0], confusion[0, 3] = 1, 9
    rows = [{**row, "recall": float(confusion[i, i] / 10)} for i, row in enumerate(folds["per_class"])]
    spoilt = {**folds, "confusion": confusion.tolist(), "per_class": rows}
    text = model_card(card.model_copy(update={"metrics": {"cross_validation": spoilt}}), repository)
    assert f"out of fold: {names[0]} (10.0 %)." in text
    assert f"90.0 % of {names[0]} called {names[3]}" in text
