"""The detector of what is no radiograph is judged by pictures that had no part in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from app.imaging.letterbox import letterbox
from app.imaging.radiograph import Radiograph
from app.model.ood import Detector
from training.evaluation.ood import measure as measure_detector
from training.evaluation.ood import tampered


@pytest.fixture
def beside(drawn_atlas: Path) -> Iterator[Path]:
    """The drawn sets, where other pictures may be put: the groups of their images are in the cache."""
    yield drawn_atlas
    for name in ("other-pictures", "not-xray"):
        shutil.rmtree(drawn_atlas / name)


@pytest.mark.slow
def test_the_detector_is_judged_by_pictures_that_trained_nothing(beside: Path, tmp_path: Path, cache: Path) -> None:
    data, weights = beside, tmp_path / "weights"
    torch.manual_seed(0)
    layers = {key: its for key, its in models.resnet18(weights=None).state_dict().items() if not key.startswith("fc")}
    save_file(layers, tmp_path / "resnet18-layers.safetensors")
    with pytest.raises(FileNotFoundError, match="no pictures"):
        measure_detector(data, weights, tmp_path, cache)
    rng = np.random.default_rng(0)
    for name, count in (("other-pictures", 9), ("not-xray", 3)):
        (data / name).mkdir()
        for number in range(count):
            cv2.imwrite(str(data / name / f"{number}.png"), rng.integers(0, 255, (90, 90), np.uint8))
        (data / name / "words.txt").write_text("not a picture")
    shutil.copy(data / "other-pictures" / "0.png", data / "other-pictures" / "again.png")
    card = measure_detector(data, weights, tmp_path, cache)
    found = card.metrics
    assert found["others_trained_on"]["pictures"] == 6
    assert found["others"]["rejected"]["n"] == 6
    assert found["others"]["not-xray"] == pytest.approx({"value": 1.0, "low": 0.025 ** (1 / 3), "high": 1.0, "n": 3})
    assert found["tampered"]["noise"]["value"] == 1.0
    assert card.warning <= card.rejection
    assert set(found["source_left_out"]) == set(found["reference"]) == {"bone-break", "FracAtlas"}
    for name in found["reference"]:
        its = found["radiographs"][f"{name}, training images out of fold"]
        assert its["kept"]["value"] >= 0.98
        assert its["kept"]["value"] >= its["without_warning"]["value"]
    detector = Detector.load(weights)
    assert detector is not None
    assert detector.card == card
    assert detector.likeness(Radiograph(rng.integers(0, 255, (90, 90), np.uint8), (0, 255))) == "out-of-distribution"
    before = (weights / "ood" / "detector.json").read_bytes()
    measure_detector(data, weights, tmp_path, cache)
    assert (weights / "ood" / "detector.json").read_bytes() == before


def test_what_people_may_drop_in_is_made_from_images() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 48, 30), np.uint8)
    films = [Radiograph(each, (0, 255)) for each in pixels]
    squares = np.stack([letterbox(film, 48)[0] for film in films])
    made = tampered(films, 48)
    assert all(each.shape[1:] == (48, 48) for each in made.values())
    assert all(0.0 <= each.min() <= each.max() <= 1.0 for each in made.values())
    np.testing.assert_allclose(made["upside down"][:, 0], squares[:, -1], atol=1e-6)
    np.testing.assert_allclose((made["inverted"] + squares)[:, :, 9:39], 1.0, atol=1e-6)
    assert not made["inverted"][:, :, :9].any(), "the square's border is black, whatever lies in it"
    assert np.ptp(made["blank"], axis=(1, 2)).max() == 0.0
