from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import varied
from training.data.look import look, write_recipe
from training.recipe import load_recipe


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes with a split; one test image is a training image turned, and one class is tiny."""
    root = tmp_path_factory.mktemp("leaky") / "My_pets"
    for part, count in (("train", 6), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                film = varied(1000 * label + 100 * (part == "test") + number, height=90, width=70)
                colours = np.dstack([film, film, np.uint8(255) - film])
                cv2.imwrite(str(root / part / name / f"{number}.png"), colours)
    film = varied(0, height=90, width=70)[::-1, ::-1]
    cv2.imwrite(str(root / "test" / "dog" / "leak.png"), np.dstack([film, film, np.uint8(255) - film]))
    return root


def test_what_a_folder_holds_is_told(leaky: Path, cache: Path) -> None:
    found = look(leaky, cache)
    assert found.colour
    assert found.different() == {"cat": 8, "dog": 9}
    assert found.leaks() == {("test", "train"): 1}
    assert found.contradictory() == 1
    told = "\n".join(found.lines())
    assert "17 images of 2 classes, in colour" in told
    assert "width 70 to 70 px" in told
    assert "LEAK: 1 test images have a near-duplicate in train" in told
    assert "TINY: cat has 8 different images" in told
    assert "split as given: 5 test, 12 train" in told


def test_colour_images_among_grey_ones_are_told(leaky: Path, cache: Path) -> None:
    found = look(leaky, cache)
    few = "\n".join(replace(found, coloured=3).lines())
    assert "17 images of 2 classes, grey" in few
    assert "MIXED: 3 of them are in colour; all are read in grey" in few
    assert "MIXED" not in "\n".join(found.lines())


def test_a_recipe_is_written_that_can_be_read(leaky: Path, cache: Path, tmp_path: Path) -> None:
    found = look(leaky, cache)
    path = write_recipe(found, out=tmp_path / "recipe.yaml", image="photo", finding="")
    recipe = load_recipe(path)
    assert recipe.name == "my-pets"
    assert recipe.own is not None
    assert recipe.own.root == leaky.resolve()
    assert recipe.own.title == "My pets"
    assert recipe.own.classes == ("cat", "dog")
    assert recipe.colour
    assert recipe.fold == 0
    assert recipe.size == 96
    assert "# " in path.read_text().splitlines()[0]
    with pytest.raises(ValueError, match="is there already"):
        write_recipe(found, out=path)
    with pytest.raises(ValueError, match="a model of this project"):
        write_recipe(found, name="resnet18", out=tmp_path / "other.yaml")


def test_a_given_validation_part_takes_the_place_of_a_fold(leaky: Path, cache: Path, tmp_path: Path) -> None:
    root = tmp_path / "given"
    for part in ("train", "val"):
        for label, name in enumerate(("cat", "dog")):
            (root / part / name).mkdir(parents=True)
            for number in range(3):
                film = varied(500 + 1000 * label + 100 * (part == "val") + number, height=90, width=70)
                cv2.imwrite(str(root / part / name / f"{number}.png"), film)
    found = look(root, cache)
    assert not found.colour
    assert load_recipe(write_recipe(found, out=tmp_path / "given.yaml")).fold is None
