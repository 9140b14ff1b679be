"""From films to a shipped model on drawn films: fit, resume, export, evaluate, and what is refused on the way."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision import models
from typer.testing import CliRunner

from app.model.classifier import Classifier
from app.model.weights import load_card
from training.cli import cli
from training.data.bone_break import CLASSES
from training.data.cache import squares
from training.data.datamodule import BoneBreakData
from training.evaluation.classification import evaluate
from training.evaluation.metrics import fit_temperature
from training.fitting import fit as fitting
from training.fitting.cross_validation import cross_validate, read_folds
from training.fitting.initial import load_initial
from training.fitting.task import FractureTypes
from training.recipe import Augment, Recipe
from training.release.export import export

TINY = Recipe(
    name="tiny",
    architecture="resnet18",
    size=64,
    folds=2,
    batch_size=8,
    head_epochs=1,
    tune_epochs=2,
    tune=("layer3",),
    augment=Augment(),
)


@pytest.fixture(scope="module")
def stem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random layers up to layer3, standing in for pretrained ones."""
    torch.manual_seed(0)
    state = models.resnet18(weights=None).state_dict()
    path = tmp_path_factory.mktemp("initial") / "stem.safetensors"
    save_file({k: v for k, v in state.items() if not k.startswith(("layer4", "fc"))}, path)
    return path


@pytest.fixture(scope="module")
def run(drawn_set: Path, stem: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A run of one epoch that was stopped, then resumed for the remaining two."""
    folder = tmp_path_factory.mktemp("run")
    options = {"init": stem, "precision": "32-true", "cache": cache, "progress": False}
    fitting.fit(TINY.model_copy(update={"tune_epochs": 0}), drawn_set, folder, **options)
    assert torch.load(folder / "last.ckpt", weights_only=False)["epoch"] == 0
    fitting.fit(TINY, drawn_set, folder, resume=True, **options)
    return folder


@pytest.fixture(scope="module")
def folds(run: Path, drawn_set: Path, stem: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The same recipe's cross-validation."""
    folder = tmp_path_factory.mktemp("folds")
    cross_validate(TINY, drawn_set, folder, init=stem, precision="32-true", cache=cache)
    return folder


@pytest.fixture(scope="module")
def shipped(run: Path, folds: Path, drawn_set: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    weights = tmp_path_factory.mktemp("weights")
    export(run, folds, drawn_set, weights, cache)
    evaluate("tiny", drawn_set, weights, cache)
    return weights


def test_a_resumed_run_goes_on_where_it_stopped(run: Path) -> None:
    assert torch.load(run / "last.ckpt", weights_only=False)["epoch"] == 2
    logs = sorted(run.glob("logs/csv-*/metrics.csv"))
    assert len(logs) == 2
    assert [row["epoch"] for row in csv.DictReader(logs[1].open()) if row["training_loss"]] == ["1", "2"]
    assert list(run.glob("logs/tensorboard/events*"))
    assert json.loads((run / "effort.json").read_text())["epochs"] == 3


def test_the_planted_leak_is_left_out(run: Path) -> None:
    rows = list(csv.DictReader((run / "split.csv").open()))
    leaked = {row["film"] for row in rows if row["part"] == "leaked"}
    assert "Avulsion fracture/Train/film0" in leaked
    sides: dict[str, set[str]] = {}
    for row in rows:
        if row["part"] != "leaked":
            sides.setdefault(row["group"], set()).add(row["part"])
    assert all(len(parts) == 1 for parts in sides.values())


def test_a_run_of_another_recipe_is_not_resumed(run: Path, drawn_set: Path, cache: Path) -> None:
    before = (run / "recipe.json").read_bytes(), (run / "effort.json").read_bytes()
    with pytest.raises(ValueError, match="another recipe"):
        fitting.fit(TINY.model_copy(update={"body_rate": 0.9}), drawn_set, run, resume=True, cache=cache)
    assert ((run / "recipe.json").read_bytes(), (run / "effort.json").read_bytes()) == before


def test_frozen_layers_do_not_move_and_the_others_do(run: Path, stem: Path) -> None:
    start = load_file(stem)
    trained = torch.load(run / "last.ckpt", weights_only=False)["state_dict"]
    for name, tensor in start.items():
        moved = not torch.equal(tensor, trained[f"network.body.{name}"])
        assert moved == name.startswith("layer3"), name


def test_phase_one_trains_only_what_is_new(drawn_set: Path, stem: Path, tmp_path: Path, cache: Path) -> None:
    fitting.fit(
        TINY.model_copy(update={"tune_epochs": 0}),
        drawn_set,
        tmp_path,
        init=stem,
        precision="32-true",
        cache=cache,
        progress=False,
    )
    trained = torch.load(tmp_path / "last.ckpt", weights_only=False)["state_dict"]
    for name, tensor in load_file(stem).items():
        assert torch.equal(tensor, trained[f"network.body.{name}"]), name


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
    assert card.data["parts"]["test"]["films"] == 10
    assert card.temperature > 0
    assert card.recipe["seed"] == card.seed == 0


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


def test_a_run_of_another_split_is_not_exported(
    run: Path, folds: Path, drawn_set: Path, tmp_path: Path, cache: Path
) -> None:
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    table = (moved / "split.csv").read_text()
    (moved / "split.csv").write_text(table.replace(",leaked\n", ",train\n"))
    with pytest.raises(ValueError, match="train again"):
        export(moved, folds, drawn_set, tmp_path / "weights", cache)


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


def test_every_training_film_is_judged_once_by_a_model_that_never_saw_it(
    run: Path, folds: Path, drawn_set: Path, cache: Path
) -> None:
    found = read_folds(folds, TINY)
    films = BoneBreakData(TINY, drawn_set, cache)
    assert sorted(found.films) == sorted(films.split.train)
    assert np.array_equal(found.labels, films.labels[found.films])
    for fold in (0, 1):
        rows = list(csv.DictReader((folds / f"fold{fold}" / "split.csv").open()))
        part = {row["film"]: row["part"] for row in rows}
        with np.load(folds / f"fold{fold}" / "judged.npz") as judged:
            assert {part[films.films[i].name] for i in judged["films"]} == {"validation"}


def test_the_cards_calibration_is_the_folds(shipped: Path, folds: Path) -> None:
    card, found = load_card("tiny", shipped), read_folds(folds, TINY)
    assert card.temperature == pytest.approx(fit_temperature(found.logits, found.labels))
    share = float((found.logits.argmax(axis=1) == found.labels).mean())
    assert card.metrics["cross_validation"]["accuracy"]["value"] == pytest.approx(share)
    assert card.typical_evidence == pytest.approx(float(np.median(found.evidence)))


def test_a_whole_cross_validation_deals_the_test_films_out(drawn_set: Path, run: Path, cache: Path) -> None:
    films = BoneBreakData(TINY.model_copy(update={"fold": 0, "whole": True}), drawn_set, cache)
    assert len(films.split.test) == len(films.split.leaked) == 0
    groups = films.groups
    assert not set(groups[films.split.train]) & set(groups[films.split.validation])
    assert len(films.split.train) + len(films.split.validation) == len(films.films)


def test_other_films_are_refused(shipped: Path, drawn_set: Path, tmp_path: Path, cache: Path) -> None:
    other = tmp_path / "films"
    shutil.copytree(drawn_set, other)
    victim = other / "bone-break" / "Spiral Fracture" / "Train" / "film1.png"
    victim.write_bytes((other / "bone-break" / "Spiral Fracture" / "Train" / "film2.png").read_bytes())
    with pytest.raises(ValueError, match="not those in the card"):
        evaluate("tiny", other, shipped, cache)


@pytest.mark.parametrize("equalise", [False, True])
def test_training_and_app_see_the_same_pixels(
    drawn_set: Path, stem: Path, run: Path, equalise: bool, cache: Path
) -> None:
    """The cached, eight-bit way of training and the app's way differ by no more than the rounding to eight bits."""
    from app.imaging.letterbox import letterbox
    from app.imaging.radiograph import read

    films = BoneBreakData(TINY.model_copy(update={"equalise": equalise}), drawn_set, cache)
    for index in (0, 13, 41):
        square, _ = letterbox(read(films.films[index].path), TINY.size, equalise)
        assert np.abs(films.squares[index] / 255.0 - square).max() <= 0.5 / 255 + 1e-6


def test_films_with_a_contested_label_can_be_left_out_of_training(
    drawn_set: Path, run: Path, tmp_path: Path, cache: Path
) -> None:
    contested = tmp_path / "films"
    shutil.copytree(drawn_set / "bone-break", contested / "bone-break")
    ours, theirs = (contested / "bone-break" / CLASSES[name] / "Train" for name in ("spiral", "oblique"))
    shutil.copy(ours / "film1.png", theirs / "film1.png")
    pair = {f"{CLASSES[name]}/Train/film1" for name in ("spiral", "oblique")}
    for fold in (0, 1):
        before, after = (
            BoneBreakData(TINY.model_copy(update={"clean": clean, "fold": fold}), contested, cache)
            for clean in (False, True)
        )
        lost = {before.films[i].name for i in set(before.split.train) - set(after.split.train)}
        assert lost == pair - {before.films[i].name for i in before.split.validation}
        assert np.array_equal(before.split.validation, after.split.validation)
        assert after.split_table().count("contested") == len(lost)


def test_the_cache_notices_a_changed_film(tmp_path: Path, drawn_set: Path, cache: Path) -> None:
    source = sorted(drawn_set.glob("bone-break/*/Train/*.png"))
    film = tmp_path / "film.png"
    shutil.copy(source[0], film)
    first = squares([film], 64, cache)
    assert np.array_equal(first, squares([film], 64, cache))
    shutil.copy(source[9], film)
    assert not np.array_equal(first, squares([film], 64, cache))


def test_a_recipe_that_tunes_nothing_real_is_refused(stem: Path) -> None:
    from app.model.network import build_network

    network = build_network("resnet18", 10)
    initial = load_initial(network, "resnet18", stem)
    with pytest.raises(ValueError, match="layer9"):
        FractureTypes(TINY.model_copy(update={"tune": ("layer9",)}), network, initial.fresh, torch.ones(10))


def test_rare_classes_weigh_more(stem: Path) -> None:
    from app.model.network import build_network

    network = build_network("resnet18", 10)
    counts = torch.tensor([10] * 9 + [40])
    task = FractureTypes(TINY, network, (), counts)
    assert task.class_weights[0] == pytest.approx(4 * float(task.class_weights[9]))


def test_missing_films_are_a_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["fit", "training/recipes/resnet18.yaml", "--data", str(tmp_path)])
    assert result.exit_code == 1
    assert "download bone-break" in result.output
    assert "Traceback" not in result.output
