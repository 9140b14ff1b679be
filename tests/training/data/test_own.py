from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import varied
from training.data import own
from training.data.image import Problem
from training.data.own import grouped, listed, load
from training.recipe import OwnData


def picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), varied(seed, height=80, width=64))
    return path


def test_a_folder_of_class_folders_is_a_data_set(tmp_path: Path) -> None:
    for number, name in enumerate(("class 10", "class 9", "ärger")):
        for index in range(2):
            picture(tmp_path / name / f"{index}.png", 10 * number + index)
    (tmp_path / "class 9" / "notes.doc").write_text("not a picture")
    (tmp_path / "empty").mkdir()
    found = listed(tmp_path, "Mine")
    assert found.classes == ("class 9", "class 10", "ärger")
    assert [film.name for film in found.images][:2] == ["class 10/0.png", "class 10/1.png"]
    assert {film.part for film in found.images} == {""}
    assert [problem.image for problem in found.problems] == ["class 9/notes.doc", "empty"]


def test_a_split_that_came_with_the_folders_is_kept(tmp_path: Path) -> None:
    for part in ("Train", "valid", "test"):
        for number, name in enumerate(("cat", "dog")):
            picture(tmp_path / part / name / "a.png", number)
    picture(tmp_path / "spare" / "cat" / "b.png", 5)
    found = listed(tmp_path)
    assert found.classes == ("cat", "dog")
    assert sorted(film.part for film in found.images) == ["test", "test", "train", "train", "validation", "validation"]
    assert [problem.image for problem in found.problems] == ["spare"]


def test_a_table_is_a_data_set(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    rows = [
        ["path", "label", "split"],
        ["images/a.png", "cat", "train"],
        ["images/b.png", "dog", ""],
        ["images/gone.png", "dog", "test"],
        ["images/c.xyz", "dog", "test"],
        ["images/a.png", "", "test"],
    ]
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    for seed, name in enumerate("ab"):
        picture(tmp_path / "images" / f"{name}.png", seed)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.1\n0 2 0.5 0.1 0.1\nnonsense\n")
    found = listed(table)
    assert [(film.name, film.part, film.label) for film in found.images] == [
        ("images/a.png", "train", 0),
        ("images/b.png", "", 1),
    ]
    assert found.images[0].boxes == ((0.5, 0.5, 0.2, 0.1),)
    told = {problem.image: problem.what for problem in found.problems}
    assert told["images/gone.png"] == "The file is missing."
    assert "line 6" in told
    assert sum("box" in problem.what for problem in found.problems) == 2


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("path,kind\na.png,cat\n", "needs the columns path and label"),
        ("path,label,split\na.png,cat,somewhere\n", "line 2: there is no part 'somewhere'"),
        ("path,label\na.png,cat\n", "holds 1 class with"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path: Path, rows: str, told: str) -> None:
    picture(tmp_path / "a.png", 0)
    (tmp_path / "labels.csv").write_text(rows)
    with pytest.raises(ValueError, match=told):
        listed(tmp_path / "labels.csv")


def test_a_class_without_pictures_and_pictures_without_a_class_are_told(tmp_path: Path) -> None:
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        picture(tmp_path / name / "a.png", number)
    (tmp_path / "emu").mkdir()
    assert listed(tmp_path).problems == (Problem("emu", "A folder without pictures, so no class."),)
    with pytest.raises(ValueError, match=r"0 classes.* 1 pictures lie in it itself"):
        listed(tmp_path / "cat")


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There are no images"):
        listed(tmp_path / "nothing")


def test_the_recipe_decides_the_order_of_classes(tmp_path: Path) -> None:
    for number, name in enumerate(("cat", "dog")):
        picture(tmp_path / "pets" / name / "a.png", number)
    how = OwnData(root=tmp_path / "pets", classes=("dog", "cat"), title="Pets")
    found = load(how)
    assert found.classes == ("dog", "cat")
    assert {film.name: found.classes[film.label] for film in found.images} == {"cat/a.png": "cat", "dog/a.png": "dog"}
    assert load(how.model_copy(update={"root": Path("pets")}), tmp_path).images == found.images
    with pytest.raises(ValueError, match="the recipe names dog, fish"):
        load(how.model_copy(update={"classes": ("dog", "fish")}))


def test_copies_share_a_group_and_broken_files_are_left_out(tmp_path: Path, cache: Path) -> None:
    for seed in range(6):
        picture(tmp_path / "cat" / f"{seed}.png", 40 + seed)
        picture(tmp_path / "dog" / f"{seed}.png", 60 + seed)
    turned = np.ascontiguousarray(varied(40, height=80, width=64)[::-1, ::-1])
    cv2.imwrite(str(tmp_path / "dog" / "turned.png"), turned)
    (tmp_path / "dog" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    found, groups, how = grouped(listed(tmp_path), None, cache)
    names = [film.name for film in found.images]
    assert how == "lenient"
    assert len(names) == 13
    assert "dog/broken.png" in [problem.image for problem in found.problems]
    assert groups[names.index("cat/0.png")] == groups[names.index("dog/turned.png")]
    assert len(set(groups.tolist())) == 12
    again, same, _ = grouped(listed(tmp_path), None, cache)
    assert again == found
    assert np.array_equal(same, groups)


def test_images_that_are_too_alike_are_told_apart_by_their_pixels(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(8):
        film = varied(3, height=80, width=64)
        film[40, 10 + seed] ^= 64
        path = tmp_path / ("many" if seed > 3 else "few") / f"{seed}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), film)
    cv2.imwrite(str(tmp_path / "few" / "copy.png"), film)
    monkeypatch.setattr(own, "LARGEST", 0.2)
    found, groups, how = grouped(listed(tmp_path), None, cache)
    assert how == "exact"
    assert len(found.images) == 9
    assert len(set(groups.tolist())) == 8
