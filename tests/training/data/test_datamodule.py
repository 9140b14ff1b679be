"""The images of a recipe: boxes as masks, parts, and the pixels the app sees."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from app.imaging.letterbox import Placement
from tests.training.toys import TINY, film
from training.data.bone_break import CLASSES
from training.data.datamodule import TypedData, box_mask


def test_a_box_lies_where_the_letterbox_puts_it() -> None:
    placement = Placement.fit(200, 100, 64)
    mask = box_mask(film((0.5, 0.25, 0.5, 0.1)), placement)
    rows, columns = np.nonzero(mask)
    assert mask.shape == (64, 64)
    assert (rows.min(), rows.max()) == (12, 19)
    assert (columns.min(), columns.max()) == (24, 39)
    assert box_mask(film((0.5, 0.5, 1e-6, 1e-6)), placement).sum() >= 1


def test_the_planted_leak_is_left_out(run: Path) -> None:
    rows = list(csv.DictReader((run / "split.csv").open()))
    leaked = {row["image"] for row in rows if row["part"] == "leaked"}
    assert "Avulsion fracture/Train/film0" in leaked
    sides: dict[str, set[str]] = {}
    for row in rows:
        if row["part"] != "leaked":
            sides.setdefault(row["group"], set()).add(row["part"])
    assert all(len(parts) == 1 for parts in sides.values())


def test_a_whole_cross_validation_deals_the_test_images_out(drawn_set: Path, run: Path, cache: Path) -> None:
    films = TypedData(TINY.model_copy(update={"fold": 0, "whole": True}), drawn_set, cache)
    assert len(films.split.test) == len(films.split.leaked) == 0
    groups = films.groups
    assert not set(groups[films.split.train]) & set(groups[films.split.validation])
    assert len(films.split.train) + len(films.split.validation) == len(films.images)


@pytest.mark.parametrize("equalise", [False, True])
def test_training_and_app_see_the_same_pixels(
    drawn_set: Path, stem: Path, run: Path, equalise: bool, cache: Path
) -> None:
    """The cached, eight-bit way of training and the app's way differ by no more than the rounding to eight bits."""
    from app.imaging.letterbox import letterbox
    from app.imaging.radiograph import read

    films = TypedData(TINY.model_copy(update={"equalise": equalise}), drawn_set, cache)
    for index in (0, 13, 41):
        square, _ = letterbox(read(films.images[index].path), TINY.size, equalise)
        assert np.abs(films.squares[index] / 255.0 - square).max() <= 0.5 / 255 + 1e-6


@pytest.mark.slow
def test_images_with_a_contested_label_can_be_left_out_of_training(
    drawn_set: Path, run: Path, tmp_path: Path, cache: Path
) -> None:
    contested = tmp_path / "images"
    shutil.copytree(drawn_set / "bone-break", contested / "bone-break")
    ours, theirs = (contested / "bone-break" / CLASSES[name] / "Train" for name in ("spiral", "oblique"))
    shutil.copy(ours / "film1.png", theirs / "film1.png")
    pair = {f"{CLASSES[name]}/Train/film1" for name in ("spiral", "oblique")}
    for fold in (0, 1):
        before, after = (
            TypedData(TINY.model_copy(update={"clean": clean, "fold": fold}), contested, cache)
            for clean in (False, True)
        )
        lost = {before.images[i].name for i in set(before.split.train) - set(after.split.train)}
        assert lost == pair - {before.images[i].name for i in before.split.validation}
        assert np.array_equal(before.split.validation, after.split.validation)
        assert after.split_table().count("left out") == len(lost)
