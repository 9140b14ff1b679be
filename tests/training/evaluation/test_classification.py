"""The final figure is the classifier's own, on the images that the card names."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from app.model.classifier import Classifier
from app.model.weights import load_card, write_card
from tests.training.toys import TINY
from training.data.bone_break import CLASSES
from training.data.datamodule import TypedData
from training.evaluation.classification import evaluate


def test_the_figures_are_the_classifiers_own(shipped: Path, drawn_set: Path, run: Path, cache: Path) -> None:
    from app.imaging.radiograph import read

    card = load_card("tiny", shipped)
    films = TypedData(TINY, drawn_set, cache)
    classifier = Classifier.load("tiny", shipped)
    guesses = [classifier.explain([read(films.images[i].path)])[0].prediction.best for i in films.split.test]
    labels = [list(CLASSES)[films.labels[i]] for i in films.split.test]
    share = np.mean([guess == label for guess, label in zip(guesses, labels, strict=True)])
    assert card.metrics["test"]["accuracy"]["value"] == pytest.approx(share)
    assert (shipped / "tiny" / "confusion.png").stat().st_size > 1000
    assert (shipped / "tiny" / "per_class.png").stat().st_size > 1000


def test_other_images_are_refused(shipped: Path, drawn_set: Path, tmp_path: Path, cache: Path) -> None:
    shutil.copytree(shipped, tmp_path / "weights")
    card = load_card("tiny", shipped)
    parts = {**card.data["parts"], "train": {**card.data["parts"]["train"], "sha256": "0" * 64}}
    write_card(card.model_copy(update={"data": {**card.data, "parts": parts}}), tmp_path / "weights" / "tiny")
    with pytest.raises(ValueError, match=r"the train images .* are not those in the card"):
        evaluate("tiny", drawn_set, tmp_path / "weights", cache)
