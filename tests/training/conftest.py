"""Toy runs that tests of several modules share, each trained once a worker."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from app.imaging.examples import draw
from tests.conftest import varied
from tests.training.toys import COLUMNS, JOINT, MANY, TINY, draw_listed, listed, picture
from training.data import all_sets, multi_region, splits
from training.data.image import DataSet, LabelledImage
from training.evaluation.classification import evaluate
from training.evaluation.heatmaps import faithfulness, localise
from training.evaluation.presence import presence
from training.fitting import fit as fitting
from training.fitting.cross_validation import cross_validate, read_folds, record, seeds
from training.fitting.fit import fit
from training.release.export import export
from training.studies.comparisons import ensemble


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is trained, judged and exported takes a processor half a minute."""
    for item in items:
        if {"folds", "repository", "shipped"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def stem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random layers up to layer3, standing in for pretrained ones."""
    torch.manual_seed(0)
    state = models.resnet18(weights=None).state_dict()
    path = tmp_path_factory.mktemp("initial") / "stem.safetensors"
    save_file({k: v for k, v in state.items() if not k.startswith(("layer4", "fc"))}, path)
    return path


@pytest.fixture(scope="session")
def run(drawn_set: Path, stem: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A run of one epoch that was stopped and kept as ``first.ckpt``, then resumed for the remaining two."""
    folder = tmp_path_factory.mktemp("run")
    options = {"init": stem, "precision": "32-true", "cache": cache, "progress": False}
    fitting.fit(TINY.model_copy(update={"tune_epochs": 0}), drawn_set, folder, **options)
    assert torch.load(folder / "last.ckpt", weights_only=False)["epoch"] == 0
    shutil.copy(folder / "last.ckpt", folder / "first.ckpt")
    fitting.fit(TINY, drawn_set, folder, resume=True, **options)
    return folder


@pytest.fixture(scope="session")
def folds(run: Path, drawn_set: Path, stem: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The same recipe's cross-validation."""
    folder = tmp_path_factory.mktemp("folds")
    cross_validate(TINY, drawn_set, folder, init=stem, precision="32-true", cache=cache)
    return folder


@pytest.fixture(scope="session")
def shipped(run: Path, folds: Path, drawn_set: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    weights = tmp_path_factory.mktemp("weights")
    export(run, folds, drawn_set, weights, cache)
    evaluate("tiny", drawn_set, weights, cache)
    return weights


@pytest.fixture(scope="session")
def repository(drawn_atlas: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """What a repository holds after a model was trained on drawn films: its weights and all of its figures."""
    root = tmp_path_factory.mktemp("repository")
    weights = root / "weights"
    recipe = JOINT.model_copy(update={"name": "resnet18"})
    options = {"precision": "32-true", "cache": cache}
    results, folds, trained = root / "training/results", root / "folds/resnet18", root / "seeds/resnet18"
    for chosen, where in ((recipe, folds), (recipe.model_copy(update={"whole": True}), root / "whole/resnet18")):
        cross_validate(chosen, drawn_atlas, where, **options)
        record(read_folds(where, chosen), chosen, where, results)
    seeds(recipe, range(2), drawn_atlas, trained, results=results / "seeds", **options)
    export(trained / "seed0", folds, drawn_atlas, weights, cache)
    evaluate("resnet18", drawn_atlas, weights, cache)
    localise("resnet18", drawn_atlas, weights, cache=cache)
    presence("resnet18", drawn_atlas, weights, cache)
    kept = {"runs": root / "faithfulness", "cache": cache}
    faithfulness("resnet18", drawn_atlas, weights, images=1, methods=["gradcam", "layercam"], **kept)
    ensemble([recipe, recipe], root / "folds", root / "seeds", results / "ensembles.json")
    return root


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    """FracAtlas in small, with one of each fault."""
    root = tmp_path / "FracAtlas"
    rows = {
        "IMG1.jpg": "1,0,0,0,0,0,0,1,1,1,0,0",
        "IMG2.jpg": "0,1,0,0,0,0,0,0,0,0,1,0",
        "IMG3.jpg": "0,1,0,0,0,0,0,0,0,1,1,0",
        "IMG4.jpg": "0,0,1,0,0,0,0,0,0,1,0,0",
        "IMG5.jpg": "0,0,0,1,0,1,0,1,1,1,0,0",
        "IMG6.jpg": "0,0,0,1,0,0,0,1,1,1,0,0",
    }
    for seed, name in enumerate(("IMG1", "IMG5", "IMG3", "IMG6")):
        picture(root / "images" / "Fractured" / f"{name}.jpg", seed)
    picture(root / "images" / "Non_fractured" / "IMG2.jpg", 9)
    picture(root / "images" / "Non_fractured" / "IMG7.jpg", 10)
    whole = (root / "images" / "Fractured" / "IMG6.jpg").read_bytes()
    (root / "images" / "Fractured" / "IMG6.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "dataset.csv").write_text("\n".join([COLUMNS, *(f"{name},{row}" for name, row in rows.items())]))
    boxes = root / "Annotations" / "YOLO"
    boxes.mkdir(parents=True)
    (boxes / "IMG1.txt").write_text("0 0.5 0.25 0.1 0.2\n\n")
    (boxes / "IMG2.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (boxes / "IMG6.txt").write_text("0 0.5 nonsense\n0 1.5 0.5 0.1 0.1\n")
    split = root / "Utilities" / "Fracture Split"
    split.mkdir(parents=True)
    (split / "valid.csv").write_text("image_id\nIMG5.jpg\n")
    (split / "train.csv").write_text("image_id\nIMG1.jpg\n")
    return tmp_path


@pytest.fixture(scope="session")
def three_sources(drawn_atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn images of all three sets: of multi-region 24, each once more turned, and one that is FracAtlas's."""
    root = tmp_path_factory.mktemp("sources")
    shutil.copytree(drawn_atlas, root, dirs_exist_ok=True)
    for part in ("train", "val", "test"):
        for kind in multi_region.CLASSES:
            (root / "multi-region" / part / kind).mkdir(parents=True)
    for number in range(24):
        place = root / "multi-region" / "train" / multi_region.CLASSES[number % 2]
        film = varied(9000 + number, height=96, width=96 + number)
        cv2.imwrite(str(place / f"{number}.png"), film)
        cv2.imwrite(str(place / f"{number}-rotated1.png"), np.ascontiguousarray(film[::-1, ::-1]))
    shutil.copy(
        drawn_atlas / "FracAtlas/images/Fractured/IMG1.png", root / "multi-region/train/fractured/also-elsewhere.png"
    )
    return root


@pytest.fixture
def grouped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups as if they were committed: a film and its turned copy."""

    def committed(data: DataSet, **_options: object) -> tuple[np.ndarray, list[str]] | None:
        if data.name != "multi-region":
            return None
        stems = [film.path.stem.split("-rotated")[0] for film in data.images]
        return np.unique(stems, return_inverse=True)[1], ["train"] * len(stems)

    monkeypatch.setattr(splits, "committed", committed)


@pytest.fixture
def dealt() -> tuple[DataSet, np.ndarray]:
    """400 of ten classes in 200 groups of two; a group has one label and lies on both official sides at times."""
    rng = np.random.default_rng(0)
    groups = np.arange(400) // 2
    labels = rng.integers(0, 10, 200)[groups]
    parts = np.where(rng.random(400) < 0.15, "test", "train")
    listed = tuple(LabelledImage(f"f{i}", Path(), int(labels[i]), str(parts[i])) for i in range(400))
    return DataSet("bone-break", "", tuple("abcdefghij"), listed, ()), groups


@pytest.fixture
def drawn_boxed_set(tmp_path: Path) -> Path:
    root = tmp_path / "hbfmid"
    for part in ("images", "labels"):
        (root / "train" / part).mkdir(parents=True)
    (root / "data.yaml").write_text("train: train/images\nnames: {0: Oblique, 1: Healthy}\n")
    marks = {
        "box": "0 0.5 0.25 0.2 0.1\n",
        "polygon": "0 0.1 0.2 0.3 0.2 0.3 0.6 0.1 0.5\n",
        "healthy": "1 0.5 0.5 0.9 0.9\n",
        "empty": "",
        "broken": "0 0.5\n7 0.5 0.5 0.1 0.1\n0 0.5 0.5 nan 0.1\n0 2 0.5 0.1 0.1\n0 0.5 0.5 0.2 0.2\n",
    }
    for seed, (name, text) in enumerate(marks.items()):
        cv2.imwrite(str(root / "train" / "images" / f"{name}.png"), draw("oblique", seed=seed, height=64, width=48))
        (root / "train" / "labels" / f"{name}.txt").write_text(text)
    cv2.imwrite(str(root / "train" / "images" / "alone.png"), draw("oblique", seed=9, height=64, width=48))
    return tmp_path


@pytest.fixture(scope="session")
def many_data(drawn_atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn images under names of the committed table, which decides what a part may teach."""
    root = tmp_path_factory.mktemp("many-sources") / "data"
    shutil.copytree(drawn_atlas, root)
    seed = 9000
    for source in ("veda", "hbfmid", "bone-break-more"):
        (root / source).mkdir()
        if source in all_sets.BOXED_SETS:
            (root / source / "data.yaml").write_text("names: [broken]\n")
        for part in ("train", "validation", "test"):
            for label in ("fractured", "not fractured") if source == "veda" else ("",):
                for row in listed(part, source, 24 if source == "bone-break-more" else 6, label):
                    seed += 1
                    draw_listed(root, row, seed)
    return root


@pytest.fixture(scope="session")
def many_run(many_data: Path, stem: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A run over many sources that was stopped after an epoch, then resumed for another."""
    where = tmp_path_factory.mktemp("many")
    fit(MANY.model_copy(update={"tune_epochs": 1}), many_data, where, init=stem, cache=cache)
    fit(MANY, many_data, where, init=stem, resume=True, cache=cache)
    return where


@pytest.fixture(scope="session")
def many_folds(many_data: Path, stem: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The same recipe's cross-validation: each fold did without a source too."""
    folder = tmp_path_factory.mktemp("many-folds")
    cross_validate(MANY, many_data, folder, init=stem, precision="32-true", cache=cache)
    return folder


@pytest.fixture(scope="session")
def many_shipped(
    many_run: Path, many_folds: Path, many_data: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path
) -> Path:
    folder = tmp_path_factory.mktemp("many-exported")
    export(many_run, many_folds, many_data, folder, cache)
    return folder
