"""What tests share: drawn films, a tiny seeded model, and the folder of real films where there is one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save
from xdist.scheduler import LoadScopeScheduling

from app.imaging.examples import BREAKS, draw
from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier
from app.model.network import build_network
from app.model.subject import Subject
from app.model.weights import FractureType, ModelCard, WeightsFile, available, load_card, write_card
from training.data.bone_break import CLASSES
from training.release.export import INTENDED_USE

SHIPPED = [name for name in available() if load_card(name).subject.ours]
"""Models of this project; anybody's own may lie beside them."""


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


class SharedFixtures(LoadScopeScheduling):
    """Keeps on one worker what shares a fixture that takes long: a file's tests, and all that ask for toy runs."""

    def _split_scope(self, nodeid: str) -> str:
        return "toy runs" if nodeid.startswith("tests/training/") else nodeid.split("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SharedFixtures:
    return SharedFixtures(config, log)


@pytest.fixture(scope="session", autouse=True)
def uploads(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is uploaded to one worker's page is no business of another's, nor of a page that somebody uses meanwhile."""
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("uploads"))


@pytest.fixture
def film() -> Radiograph:
    """A drawn film, taller than wide."""
    return Radiograph(draw("oblique", seed=3, height=240, width=160), (0, 255))


@pytest.fixture
def films() -> list[Radiograph]:
    """Ten drawn images of different shapes."""
    kinds = list(BREAKS)
    return [
        Radiograph(draw(kinds[i % len(kinds)], seed=i, height=120 + 17 * i, width=220 - 13 * i), (0, 255))
        for i in range(10)
    ]


def varied(seed: int, height: int = 420, width: int = 300) -> np.ndarray:
    """A drawn film that nobody would take for another: turned, stretched and scarred by its seed. uint8 (H, W)."""
    rng = np.random.default_rng(seed)
    film = draw(list(BREAKS)[seed % len(BREAKS)], seed=seed, height=height, width=width)
    middle = (width / 2, height / 2)
    turn = cv2.getRotationMatrix2D(middle, float(rng.uniform(15, 75)), float(rng.uniform(0.9, 1.6)))
    film = cv2.warpAffine(film, turn, (width, height))
    for _ in range(6):
        centre = (int(rng.uniform(0.1, 0.9) * width), int(rng.uniform(0.1, 0.9) * height))
        cv2.circle(film, centre, int(rng.uniform(0.07, 0.2) * width), int(rng.integers(0, 255)), -1)
    return film


def write_tiny_model(folder: Path, name: str = "tiny", stride: int = 16, seed: int = 7) -> Path:
    """An untrained ResNet-18 for 96 px squares with ten classes, in the shape of a shipped model."""
    torch.manual_seed(seed)
    network = build_network("resnet18", len(CLASSES), stride=stride).eval()
    with torch.no_grad():
        network.head.weight.mul_(8.0)
    blob = save({key: value.contiguous() for key, value in network.state_dict().items()})
    target = folder / name
    target.mkdir(parents=True)
    (target / "model.safetensors").write_bytes(blob)
    parts = {part: {"images": 0, "sha256": ""} for part in ("train", "validation", "test", "leaked")}
    card = ModelCard(
        name=name,
        title="Untrained network for tests",
        architecture="resnet18",
        stride=stride,
        classes=tuple(FractureType(name=n, title=t.capitalize()) for n, t in CLASSES.items()),
        size=96,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        temperature=1.0,
        typical_evidence=0.5,
        weights=WeightsFile(file="model.safetensors", sha256=hashlib.sha256(blob).hexdigest()),
        date="2026-01-01",
        seed=7,
        intended_use=INTENDED_USE,
        data={"parts": parts},
    )
    write_card(card, target)
    return target


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models that holds one tiny model."""
    folder = tmp_path_factory.mktemp("weights")
    write_tiny_model(folder)
    return folder


@pytest.fixture(scope="session")
def classifier(tiny_weights: Path) -> Classifier:
    return Classifier.load("tiny", tiny_weights)


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """Another model to choose: the same layout, other weights."""
    folder = tmp_path_factory.mktemp("more-weights")
    write_tiny_model(folder, "second", seed=8)
    found = Classifier.load("second", folder)
    return Classifier(found.network, found.card.model_copy(update={"title": "Second network"}))


@pytest.fixture(scope="session")
def flowers() -> Classifier:
    """A model that has nothing to do with fractures and sees colours; one class is called as a type of fracture is."""
    torch.manual_seed(11)
    network = build_network("resnet18", 3, stride=16).eval().requires_grad_(False)
    network.head.weight.mul_(8.0)
    names = ("daisy", "spiral", "wild rose")
    card = ModelCard(
        name="flowers",
        title="Untrained network for tests",
        architecture="resnet18",
        stride=16,
        classes=tuple(FractureType(name=name, title=name.capitalize()) for name in names),
        size=96,
        colour=True,
        subject=Subject(title="Flowers", image="photo", finding=""),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        temperature=1.0,
        typical_evidence=0.0,
        weights=WeightsFile(file="model.safetensors", sha256="0" * 64),
        date="2026-01-01",
        seed=11,
        intended_use="For tests. Nothing else.",
    )
    return Classifier(network, card)


@pytest.fixture(scope="session")
def drawn_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn images in the layout of the bone-break set: 5 to train and 1 to test on, a type.

    The test image of the first type is a mirrored copy of a training image, so that one leak is planted.
    """
    root = tmp_path_factory.mktemp("images") / "bone-break"
    for label, folder in enumerate(CLASSES.values()):
        for number in range(6):
            place = root / folder / ("Test" if number == 5 else "Train")
            place.mkdir(parents=True, exist_ok=True)
            seed = 100 * label + number
            picture = varied(seed, height=96 + seed % 64, width=96 + seed % 48)
            if label == 0 and number == 5:
                picture = cv2.imread(str(root / folder / "Train" / "film0.png"), cv2.IMREAD_GRAYSCALE)[:, ::-1]
            cv2.imwrite(str(place / f"film{number}.png"), picture)
    return root.parent


@pytest.fixture(scope="session")
def drawn_atlas(drawn_set: Path) -> Path:
    """The same folder with drawn films in FracAtlas' layout beside them: 44, every other one fractured and boxed."""
    root = drawn_set / "FracAtlas"
    rows = ["image_id,hand,leg,hip,shoulder,mixed,hardware,multiscan,fractured,fracture_count,frontal,lateral,oblique"]
    (root / "Annotations" / "YOLO").mkdir(parents=True)
    for number in range(44):
        fractured = number % 2
        rows.append(f"IMG{number}.png,1,0,0,0,0,0,0,{fractured},{fractured},1,0,0")
        place = root / "images" / ("Fractured" if fractured else "Non_fractured")
        place.mkdir(parents=True, exist_ok=True)
        film = varied(5000 + number, height=128, width=96)
        if fractured:
            row, column = 20 + 2 * number, 15 + number
            film[row : row + 16, column : column + 16] = 255
            box = f"0 {(column + 8) / 96} {(row + 8) / 128} {16 / 96} {16 / 128}"
            (root / "Annotations" / "YOLO" / f"IMG{number}.txt").write_text(box)
        cv2.imwrite(str(place / f"IMG{number}.png"), film)
    (root / "dataset.csv").write_text("\n".join(rows))
    return drawn_set


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where drawn films are kept decoded and grouped: searching them for near-duplicates takes longer than training."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def real_films() -> Path:
    """The folder FRACTURE_DATA names; tests that ask for it are skipped where there is none."""
    folder = os.environ.get("FRACTURE_DATA")
    if not folder:
        pytest.skip("FRACTURE_DATA names no folder with real films")
    return Path(folder)
