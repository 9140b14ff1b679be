"""Images that cannot be read are named, and squares are those the app sees."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.training.toys import picture
from training.data import SETS, fracatlas
from training.data.image import readable, squares


def test_images_that_cannot_be_decoded_are_named_and_left_out(atlas: Path) -> None:
    data, decoded = readable(fracatlas.load(atlas))
    assert "IMG6" not in {film.name for film in data.images}
    assert len(decoded) == len(data.images) == 4
    assert any(problem.image == "IMG6" and "damaged" in problem.what for problem in data.problems)


def test_a_image_that_cannot_be_read_stops_training_by_name(tmp_path: Path) -> None:
    picture(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"bad\.png: "):
        squares([tmp_path / "good.png", tmp_path / "bad.png"], 64, tmp_path / "cache")


def test_the_cache_notices_a_changed_image(tmp_path: Path, drawn_set: Path, cache: Path) -> None:
    source = sorted(drawn_set.glob("bone-break/*/Train/*.png"))
    film = tmp_path / "film.png"
    shutil.copy(source[0], film)
    first = squares([film], 64, cache)
    assert np.array_equal(first, squares([film], 64, cache))
    shutil.copy(source[9], film)
    assert not np.array_equal(first, squares([film], 64, cache))


@pytest.mark.parametrize("name", list(SETS))
def test_a_set_that_is_not_there_says_how_to_get_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"download {name}"):
        SETS[name].load(tmp_path)
