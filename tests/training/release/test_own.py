"""From a folder of drawn photos to a model that the app serves, in small."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from app.errors import RejectedError
from app.imaging.radiograph import Radiograph, read
from app.model.classifier import Classifier
from app.model.weights import load_card, shipped, together
from app.pipeline import explain_image
from tests.training.toys import STILL
from training.data.own import listed
from training.evaluation.classification import evaluate
from training.fitting.cross_validation import cross_validate, record
from training.fitting.fit import fit, load_initial, network_of
from training.recipe import OwnData, Recipe
from training.release.own import export_own

pytestmark = pytest.mark.slow


COLOURS = {"red": (30, 30, 220), "green": (30, 200, 30), "blue": (220, 60, 30)}
"""Blue, green and red of each class, as OpenCV writes them."""


def photo(colour: tuple[int, int, int], seed: int) -> tuple[np.ndarray, str]:
    """A disc of a colour somewhere on a rough ground, uint8 (64, 80, 3), and its box in YOLO's form."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(60, 130, (64, 80, 3)).astype(np.uint8)
    x, y, r = int(rng.integers(16, 64)), int(rng.integers(16, 48)), int(rng.integers(8, 14))
    cv2.circle(picture, (x, y), r, colour, -1)
    return picture, f"0 {x / 80} {y / 64} {2 * r / 80} {2 * r / 64}\n"


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("own") / "discs"
    for label, (name, colour) in enumerate(
        {"red": (30, 30, 220), "green": (30, 200, 30), "blue": (220, 60, 30)}.items()
    ):
        for part, count in (("train", 40), ("test", 8)):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                picture, box = photo(colour, 1000 * label + 100 * (part == "test") + number)
                cv2.imwrite(str(root / part / name / f"{number}.png"), picture)
                (root / part / name / f"{number}.txt").write_text(box)
    return root


@pytest.fixture(scope="module")
def recipe(discs: Path) -> Recipe:
    own = OwnData(root=discs, classes=("red", "green", "blue"), title="Discs", image="photo", duplicates="exact")
    return Recipe(
        name="discs",
        architecture="custom-cnn",
        own=own,
        size=64,
        stride=8,
        colour=True,
        fold=0,
        folds=2,
        batch_size=16,
        head_epochs=0,
        tune_epochs=8,
        tune=(),
        head_rate=5e-3,
        augment=STILL,
    )


@pytest.fixture(scope="module")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    run = tmp_path_factory.mktemp("own-run")
    fit(recipe, Path(), run, precision="32-true", cache=cache, progress=False)
    return run


@pytest.fixture(scope="module")
def served(trained: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    weights = tmp_path_factory.mktemp("own-weights")
    export_own(trained, weights, cache=cache)
    return weights


def test_what_cannot_be_calibrated_leaves_no_model_behind(
    trained: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.release.own.FEWEST", 61)
    with pytest.raises(ValueError, match="60 validation images are too few"):
        export_own(trained, tmp_path / "weights", cache=cache)
    assert not (tmp_path / "weights").exists()


def test_a_model_of_own_images_learns_and_is_calibrated(served: Path, discs: Path) -> None:
    card = load_card("discs", served)
    figures = card.metrics["cross_validation"]
    assert [kind.title for kind in card.classes] == ["Red", "Green", "Blue"]
    assert card.colour
    assert card.subject.title == "Discs"
    assert figures["held_out"]
    assert figures["accuracy"]["value"] > 0.8
    assert figures["pointing_game"]["value"] > 0.5
    assert figures["pointing_game"]["n"] == figures["images"] == 60
    assert card.calibration["images"] == 60
    assert card.sets is not None
    assert card.recipe["own"]["root"] == "discs", "the card tells where the images lay"
    assert together(served) == ["discs"]
    told = (served / "discs" / "README.md").read_text(encoding="utf-8")
    assert told.count("---\n") >= 2
    assert "held out" in told
    assert "fractur" not in told
    assert "Not calibrated" not in told


def test_its_answer_is_by_colour_and_its_detector_rejects_nothing_of_its_own(served: Path, discs: Path) -> None:
    classifier = Classifier.load("discs", served)
    assert classifier.detector is not None
    right = 0
    for film in listed(discs).images:
        if film.part == "test":
            likeness = classifier.check(read(film.path), anyway=True)
            assert likeness is not None
            result = explain_image(film.path, model=classifier, anyway=True)
            right += result.explanation.prediction.best == film.path.parent.name
            assert result.overlay().shape[2] == 3
    assert right > 18
    with pytest.raises(RejectedError, match="look like any photo known here"):
        classifier.check(read_noise(served))


def read_noise(folder: Path) -> Radiograph:
    path = folder / "noise.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8))
    return read(path)


def test_its_test_images_judge_it(served: Path, discs: Path, cache: Path) -> None:
    card = evaluate("discs", discs.parent, served, cache)
    assert card.metrics["test"]["images"] == 24
    assert "| test |" in (served / "discs" / "README.md").read_text(encoding="utf-8")


def test_folds_calibrate_it_too(
    recipe: Recipe, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path
) -> None:
    whole = recipe.model_copy(update={"fold": None, "tune_epochs": 1})
    found = cross_validate(whole, Path(), tmp_path / "folds", precision="32-true", cache=cache)
    assert found.classes == ("red", "green", "blue")
    written = record(found, whole, tmp_path / "folds", tmp_path / "results")
    assert (tmp_path / "folds" / "summary.json").is_file()
    assert not (tmp_path / "results").exists()
    assert written["types"]["images"] == 120
    fit(whole, Path(), tmp_path / "run", precision="32-true", cache=cache, progress=False)
    with pytest.raises(ValueError, match="too few to calibrate"):
        export_own(tmp_path / "run", tmp_path / "weights", cache=cache)
    card = export_own(tmp_path / "run", tmp_path / "weights", tmp_path / "folds", cache)
    assert card.calibration["images"] == 120
    assert not card.metrics["cross_validation"].get("held_out")


def test_without_a_download_own_images_go_on_from_a_shipped_backbone(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models.WeightsEnum.get_state_dict", offline)
    deep = recipe.model_copy(update={"architecture": "resnet18", "stride": 16})
    initial = load_initial(network_of(deep), "resnet18", None, shipped("weights"))
    assert initial.source == "the backbone of resnet18"
    assert initial.fresh == ()
    alone = load_initial(network_of(deep), "resnet18", None)
    assert alone.source == "ImageNet layers of detector.safetensors"
