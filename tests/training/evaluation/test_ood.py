"""Out-of-distribution pictures are rejected by a threshold that they had no part in."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from app.errors import RejectedError
from app.imaging.letterbox import letterbox
from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier
from app.model.weights import load_card
from training.evaluation.ood import checked_by, refusal, tampered
from training.release.export import write_card


def test_refusal_is_judged_by_pictures_that_chose_nothing(
    repository: Path, drawn_atlas: Path, tmp_path: Path, cache: Path
) -> None:
    shutil.copytree(repository / "weights", tmp_path / "weights")
    shutil.copytree(drawn_atlas, tmp_path / "data")
    with pytest.raises(FileNotFoundError, match="no pictures"):
        refusal("resnet18", tmp_path / "data", tmp_path / "weights", cache)
    (tmp_path / "data/not-xray").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        noise = rng.integers(0, 255, (90, 90), np.uint8)
        cv2.imwrite(str(tmp_path / f"data/not-xray/{number}.png"), noise)
    (tmp_path / "data/not-xray/words.txt").write_text("not a picture")
    found = refusal("resnet18", tmp_path / "data", tmp_path / "weights", cache)
    assert found["others_refused"]["n"] == 3
    assert found["tampered_refused"]["noise"]["value"] == 1.0
    for share in found["real_films_kept"].values():
        assert share["value"] >= 0.95
    loaded = Classifier.load("resnet18", tmp_path / "weights")
    assert loaded.typical is not None
    assert loaded.typical.limit == pytest.approx(found["limit"])
    assert len(loaded.typical.bank) == found["known_films"]
    shutil.copytree(tmp_path / "weights/resnet18", tmp_path / "weights/other")
    card = load_card("other", tmp_path / "weights")
    write_card(card.model_copy(update={"name": "other", "typical": None}), tmp_path / "weights/other")
    with pytest.raises(FileNotFoundError, match="refusal other"):
        checked_by("resnet18", "other", tmp_path / "weights")
    told = checked_by("other", "resnet18", tmp_path / "weights")
    assert told == {**found, "by": "resnet18"}
    checked, checker = Classifier.load_all(["other", "resnet18"], tmp_path / "weights")
    assert checked.checker is checker
    assert (checked.card.name, checker.card.name) == ("other", "resnet18")
    assert checked.card.refuses
    noise = Radiograph(rng.integers(0, 255, (90, 90), np.uint8), (0, 255))
    with pytest.raises(RejectedError):
        checked.check(noise)
    assert checked.check(noise, anyway=True)
    assert not (tmp_path / "weights/other/typical.safetensors").exists()


def test_what_people_may_drop_in_is_made_from_films() -> None:
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
