"""The final figure is the classifier's own, and the gallery shows what it was judged on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from app.model.classifier import Classifier
from app.model.weights import load_card
from tests.training.toys import TINY
from training.data.bone_break import CLASSES
from training.data.datamodule import BoneBreakData
from training.evaluation.classification import MOST, evaluate, gallery, mean_heat


def test_the_figures_are_the_classifiers_own(shipped: Path, drawn_set: Path, run: Path, cache: Path) -> None:
    from app.imaging.radiograph import read

    card = load_card("tiny", shipped)
    films = BoneBreakData(TINY, drawn_set, cache)
    classifier = Classifier.load("tiny", shipped)
    guesses = [classifier.explain([read(films.films[i].path)])[0].prediction.best for i in films.split.test]
    labels = [list(CLASSES)[films.labels[i]] for i in films.split.test]
    share = np.mean([guess == label for guess, label in zip(guesses, labels, strict=True)])
    assert card.metrics["test"]["accuracy"]["value"] == pytest.approx(share)
    assert (shipped / "tiny" / "confusion.png").stat().st_size > 1000
    assert (shipped / "tiny" / "per_class.png").stat().st_size > 1000


def test_other_films_are_refused(shipped: Path, drawn_set: Path, tmp_path: Path, cache: Path) -> None:
    other = tmp_path / "films"
    shutil.copytree(drawn_set, other)
    victim = other / "bone-break" / "Spiral Fracture" / "Train" / "film1.png"
    victim.write_bytes((other / "bone-break" / "Spiral Fracture" / "Train" / "film2.png").read_bytes())
    with pytest.raises(ValueError, match="not those in the card"):
        evaluate("tiny", other, shipped, cache)


def test_the_gallery_shows_films_of_the_fold_and_every_mistake_first(
    repository: Path, drawn_atlas: Path, tmp_path: Path, cache: Path
) -> None:
    fold, weights = repository / "folds/resnet18/fold1", repository / "weights"
    page = gallery("resnet18", fold, drawn_atlas, weights, tmp_path, cache).read_text()
    with np.load(fold / "judged.npz") as judged:
        wrong = int((judged["logits"].argmax(axis=1) != judged["labels"]).sum())
        count = len(judged["labels"])
    assert f"{count} images that this fold" in page
    assert f"of {wrong})" in page
    assert page.count('class="row pair"') == min(wrong, MOST)
    assert "keep it to yourself" in page
    with pytest.raises(ValueError, match="not a fold"):
        gallery("resnet18", repository / "seeds/resnet18/seed0", drawn_atlas, weights, tmp_path, cache)
    with pytest.raises(FileNotFoundError, match="holds no run"):
        gallery("resnet18", tmp_path, drawn_atlas, weights, tmp_path, cache)
    with pytest.raises(ValueError, match="no images"):
        mean_heat([])
