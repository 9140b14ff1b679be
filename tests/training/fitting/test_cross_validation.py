"""Every image is judged once by a model that never saw it; seeds are judged on the test images."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.training.toys import JOINT, SMALL, TINY
from training.data.datamodule import BoxedImages, TypedData
from training.fitting.cross_validation import cross_validate, read_folds, record, summarise
from training.fitting.fit import fit
from training.recipe import Distil
from training.release.export import export


@pytest.mark.slow
def test_a_joint_cross_validation_judges_types_and_places(drawn_atlas: Path, tmp_path: Path, cache: Path) -> None:
    found = cross_validate(JOINT, drawn_atlas, tmp_path / "folds", precision="32-true", cache=cache)
    summary = summarise(found)
    assert summary["types"]["images"] == len(set(found.images.tolist()))
    boxed = BoxedImages(drawn_atlas, "validation", 64, cache)
    assert len(summary["places"]["presence_auroc"]) == 2
    assert summary["places"]["fracture_peak_in_box"]["n"] == boxed.fractured.sum() > 0
    trained = {film.name for film in BoxedImages(drawn_atlas, "train", 64, cache).images}
    assert not trained & {film.name for film in boxed.images}
    again = cross_validate(JOINT, drawn_atlas, tmp_path / "folds", cache=cache)
    assert np.array_equal(again.logits, found.logits)


def test_folds_of_another_recipe_calibrate_nothing(
    run: Path, folds: Path, drawn_set: Path, tmp_path: Path, cache: Path
) -> None:
    other = TINY.model_copy(update={"dropout": 0.7})
    with pytest.raises(ValueError, match="another recipe"):
        read_folds(folds, other)
    with pytest.raises(ValueError, match="another recipe"):
        cross_validate(other, drawn_set, folds, cache=cache)
    with pytest.raises(FileNotFoundError, match="cross-validate"):
        export(run, tmp_path, drawn_set, tmp_path / "weights", cache)


def test_every_training_image_is_judged_once_by_a_model_that_never_saw_it(
    run: Path, folds: Path, drawn_set: Path, cache: Path
) -> None:
    found = read_folds(folds, TINY)
    films = TypedData(TINY, drawn_set, cache)
    assert sorted(found.images) == sorted(films.split.train)
    assert np.array_equal(found.labels, films.labels[found.images])
    for fold in (0, 1):
        rows = list(csv.DictReader((folds / f"fold{fold}" / "split.csv").open()))
        part = {row["image"]: row["part"] for row in rows}
        with np.load(folds / f"fold{fold}" / "judged.npz") as judged:
            assert {part[films.images[i].name] for i in judged["images"]} == {"validation"}


TAUGHT = SMALL.model_copy(update={"name": "taught", "distil": Distil(teacher="small", hint=1.0)})


@pytest.mark.slow
def test_folds_learn_from_the_teachers_folds(drawn_set: Path, tmp_path: Path, cache: Path) -> None:
    options = {"precision": "32-true", "cache": cache}
    with pytest.raises(FileNotFoundError):
        cross_validate(TAUGHT, drawn_set, tmp_path / "folds" / "taught", **options)
    cross_validate(SMALL, drawn_set, tmp_path / "folds" / "small", **options)
    found = cross_validate(TAUGHT, drawn_set, tmp_path / "folds" / "taught", **options)
    films = TypedData(SMALL, drawn_set, cache)
    assert len(found.images) == len(set(found.images)) == len(films.split.train) + len(films.split.validation)
    other = tmp_path / "folds" / "small" / "fold1"
    with pytest.raises(ValueError, match="other images"):
        fit(TAUGHT.model_copy(update={"fold": 0}), drawn_set, tmp_path / "run", teacher=other, **options)
    with pytest.raises(ValueError, match="name its run"):
        fit(TAUGHT, drawn_set, tmp_path / "run", **options)


def test_seeds_are_judged_on_the_test_images(repository: Path, drawn_atlas: Path, cache: Path) -> None:
    found = json.loads((repository / "training/results/seeds/resnet18.json").read_text())
    films = TypedData(JOINT, drawn_atlas, cache)
    shares = []
    for number in ("0", "1"):
        with np.load(repository / "seeds" / "resnet18" / f"seed{number}" / "test.npz") as judged:
            assert np.array_equal(judged["images"], films.split.test)
            shares.append(float((judged["logits"].argmax(axis=1) == films.labels[films.split.test]).mean()))
        assert found["seeds"][number]["accuracy"]["value"] == pytest.approx(shares[-1])
    assert found["mean"] == pytest.approx(np.mean(shares))
    assert found["spread"] == pytest.approx(np.std(shares, ddof=1))


def test_some_folds_are_enough_for_a_card_that_says_which(
    repository: Path, drawn_atlas: Path, tmp_path: Path, cache: Path
) -> None:
    recipe = JOINT.model_copy(update={"name": "resnet18"})
    shutil.copytree(repository / "folds/resnet18/fold1", tmp_path / "folds/fold1")
    with pytest.raises(FileNotFoundError, match="1 of 2 folds"):
        read_folds(tmp_path / "folds", recipe)
    found = read_folds(tmp_path / "folds", recipe, partial=True)
    assert record(found, recipe, tmp_path / "folds", tmp_path)["folds"] == [1]
    more = repository / "training/results/folds/resnet18.json"
    before = more.read_text()
    assert record(found, recipe, tmp_path / "folds", repository / "training/results")["folds"] == [1]
    assert more.read_text() == before
    card = export(repository / "seeds/resnet18/seed0", tmp_path / "folds", drawn_atlas, tmp_path, cache)
    assert card.metrics["cross_validation"]["folds"] == [1]
    assert (
        card.metrics["cross_validation"]["images"]
        == len(found.labels)
        < len(read_folds(repository / "folds/resnet18", recipe).labels)
    )
