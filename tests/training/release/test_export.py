"""What ships is what was trained, calibrated on its own folds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from app.model.weights import load_card
from tests.training.toys import TINY
from training.evaluation.metrics import fit_temperature
from training.fitting.cross_validation import read_folds
from training.release.export import export


def test_the_shipped_model_is_the_trained_one(shipped: Path, run: Path, drawn_set: Path) -> None:
    card = load_card("tiny", shipped)
    stored = load_file(shipped / "tiny" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()} == {torch.float16}
    trained = torch.load(run / "last.ckpt", weights_only=False)["state_dict"]
    for name, tensor in stored.items():
        assert torch.equal(tensor, trained[f"network.{name}"].half() if tensor.is_floating_point() else tensor) or (
            not tensor.is_floating_point()
        )
    assert card.initial["fresh"] == ["layer4"]
    assert card.initial["licence"]
    assert card.data["parts"]["test"]["images"] == 10
    assert card.temperature > 0
    assert card.recipe["seed"] == card.seed == 0


def test_a_run_of_another_split_is_not_exported(
    run: Path, folds: Path, drawn_set: Path, tmp_path: Path, cache: Path
) -> None:
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    table = (moved / "split.csv").read_text()
    (moved / "split.csv").write_text(table.replace(",leaked\n", ",train\n"))
    with pytest.raises(ValueError, match="train again"):
        export(moved, folds, drawn_set, tmp_path / "weights", cache)


def test_the_cards_calibration_is_the_folds(shipped: Path, folds: Path) -> None:
    card, found = load_card("tiny", shipped), read_folds(folds, TINY)
    assert card.temperature == pytest.approx(fit_temperature(found.logits, found.labels))
    share = float((found.logits.argmax(axis=1) == found.labels).mean())
    assert card.metrics["cross_validation"]["accuracy"]["value"] == pytest.approx(share)
    assert card.typical_evidence == pytest.approx(float(np.median(found.evidence)))


def test_the_exported_seed_and_the_judged_one_are_the_same_network(repository: Path) -> None:
    card = json.loads((repository / "weights/resnet18/card.json").read_text())
    found = json.loads((repository / "training/results/seeds/resnet18.json").read_text())
    # Half precision may tip a film or two of a network that has learnt next to nothing.
    assert abs(card["metrics"]["test"]["accuracy"]["value"] - found["seeds"]["0"]["accuracy"]["value"]) <= 0.2
    assert card["training"]["curve"][0].keys() >= {"epoch", "training_loss", "place_loss"}
    assert card["data"]["places"]["set"] == "fracatlas"
