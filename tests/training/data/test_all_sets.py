"""The committed table of groups over all sets keeps every radiograph on one side."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tests.training.toys import picture
from training.data import all_sets
from training.data.all_sets import BELIEVED, Row, build, read_table, write_table
from training.data.splits import FOLDER

JUDGING = {"validation", "test"}


@pytest.fixture(scope="module")
def table() -> list[Row]:
    return read_table()


def test_no_group_learns_and_judges(table: list[Row]) -> None:
    parts = defaultdict(set)
    for row in table:
        parts[row.group].add(row.part)
    assert [group for group, found in parts.items() if "train" in found and found & JUDGING] == []


def test_a_radiograph_has_one_group(table: list[Row]) -> None:
    groups = defaultdict(set)
    for row in table:
        if row.image:
            groups[row.image].add(row.group)
    assert max(map(len, groups.values())) == 1


def test_what_the_older_splits_judge_by_teaches_nothing(table: list[Row]) -> None:
    judged = {row.group for row in table if row.set in ("bone-break", "fracatlas") and row.part in JUDGING}
    assert len(judged) > 1000
    strayed = [row for row in table if row.group in judged and row.part == "train"]
    assert strayed == []
    others = [row for row in table if row.group in judged and row.set not in ("bone-break", "fracatlas")]
    assert {row.part for row in others} == {"out"}


def test_no_typed_training_image_judges_elsewhere(table: list[Row]) -> None:
    """Types are learnt by bone-break's own split, which this table must not contradict."""
    assert {row.part for row in table if row.set == "bone-break"} == {"train", "test", "leaked"}
    learnt = {row.group for row in table if row.set == "bone-break" and row.part == "train"}
    beside = [row.part for row in table if row.group in learnt and row.set != "bone-break"]
    assert len(beside) > 100
    assert not set(beside) & set(JUDGING)


def test_an_image_under_its_fracatlas_name_shares_the_group(table: list[Row]) -> None:
    groups = {row.film: row.group for row in table if row.set == "fracatlas"}
    named = [
        (row.group, groups[found[0]])
        for row in table
        if row.set == "multi-region-distinct"
        if (found := re.findall(r"IMG\d{7}", row.film)) and found[0] in groups
    ]
    assert len(named) > 80
    assert all(here == there for here, there in named)


def test_listed_near_duplicates_share_a_group(table: list[Row]) -> None:
    folder = os.environ.get("FRACTURE_DATA")
    if not folder or not (Path(folder) / "near-duplicates.csv").is_file():
        pytest.skip("FRACTURE_DATA names no folder with near-duplicates.csv")
    groups = {(row.set, row.film.rpartition("/")[2]): row.group for row in table if row.set != "multi-region-distinct"}
    with (Path(folder) / "near-duplicates.csv").open(newline="", encoding="utf-8-sig") as file:
        pairs = [[(row[f"set_{end}"], Path(row[f"file_{end}"]).stem) for end in "ab"] for row in csv.DictReader(file)]
    known = [(groups[one], groups[other]) for one, other in pairs if one in groups and other in groups]
    assert len(known) > 1000
    assert all(one == other for one, other in known)


@pytest.mark.parametrize("source", ["bone-break", "fracatlas"])
def test_the_older_splits_stay(table: list[Row], source: str) -> None:
    with (FOLDER / f"{source}.csv").open(newline="", encoding="utf-8") as file:
        known = {row["image"]: row["part"] for row in csv.DictReader(file)}
    here = {row.film: row.part for row in table if row.set == source}
    assert known.keys() == here.keys()
    assert {(known[film], part) for film, part in here.items() if part != known[film]} <= {("train", "out")}


def test_one_copy_a_radiograph_and_set(table: list[Row]) -> None:
    kept = Counter((row.set, row.image) for row in table if row.kept and row.image and row.set != "bone-break")
    assert {key: count for key, count in kept.items() if count > 1 and key[0] != "fracatlas"} == {}
    shown = {(row.set, row.image) for row in table if row.image and row.set not in ("bone-break", "fracatlas")}
    assert shown <= kept.keys()


def test_a_radiograph_that_is_marked_somewhere_in_its_set_is_kept_marked(table: list[Row]) -> None:
    marked = {(row.set, row.image) for row in table if row.label == "fractured" and row.image}
    kept = {(row.set, row.image): row.label for row in table if row.kept and row.set in ("veda", "ca1len", "hbfmid")}
    assert {key for key, label in kept.items() if label != "fractured" and key in marked} == set()


def test_every_source_judges_both_kinds_where_it_is_believed(table: list[Row]) -> None:
    for part in JUDGING:
        for source in BELIEVED:
            labels = {row.label for row in table if row.set == source and row.part == part and row.kept}
            assert labels == {"fractured", "not fractured"}, (source, part)


@pytest.mark.slow
def test_the_table_comes_out_of_the_sets(table: list[Row], tmp_path: Path) -> None:
    folder = os.environ.get("FRACTURE_DATA")
    if not folder or not (Path(folder) / "films.csv").is_file():
        pytest.skip("FRACTURE_DATA names no folder with films.csv")
    assert read_table(write_table(build(Path(folder)), tmp_path / "again.csv")) == table


def test_drawn_sets_are_grouped_by_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of a FracAtlas test image goes out; one of a training image stays in training; a lost mark is a mark."""
    splits = tmp_path / "splits"
    splits.mkdir()
    (splits / "bone-break.csv").write_text("image,class,group,part\nOblique fracture/Test/a,oblique,0,test\n")
    (splits / "fracatlas.csv").write_text(
        "image,class,group,part\nIMG1,fractured,0,test\nIMG2,not fractured,1,train\nIMG3,fractured,1,train\n"
    )
    head = "set,file,film,in_pack,label,boxes,brightness_p95,turned\n"
    rows = [
        "fracatlas,images/Fractured/IMG1.jpg,1,0,fractured,,,",
        "veda,train/images/one.jpg,1,1,elbow positive,1,180,",
        "multi-region-distinct,not fractured/two.jpg,2,1,not fractured,,,0",
        "fracatlas,images/Non_fractured/IMG2.jpg,2,0,not fractured,,,",
    ]
    for number in range(3, 43):
        rows += [
            f"veda,train/images/{number}a.jpg,{number},1,nothing marked,0,200,",
            f"veda,train/images/{number}b.jpg,{number},1,wrist positive,1,90,",
        ]
    (tmp_path / "films.csv").write_text(head + "\n".join(rows) + "\n")
    pair = "fracatlas,images/Fractured/IMG3.jpg,veda,train/images/42b.jpg,same"
    (tmp_path / "near-duplicates.csv").write_text(f"set_a,file_a,set_b,file_b,how\n{pair}\n")
    monkeypatch.setattr("training.data.all_sets.FOLDER", splits)
    found = {(row.set, row.film): row for row in build(tmp_path)}
    assert found["veda", "train/images/one"].part == "out"
    assert found["multi-region-distinct", "not fractured/two"].part == "train"
    assert found["veda", "train/images/42b"].part == "train"
    assert found["veda", "train/images/42b"].group == found["fracatlas", "IMG2"].group
    assert found["veda", "train/images/5b"].kept
    assert not found["veda", "train/images/5a"].kept
    assert {row.part for key, row in found.items() if key[0] == "veda"} == {"train", "validation", "test", "out"}
    assert not any(row.contested for row in found.values())


def test_boxes_polygons_and_faults(drawn_boxed_set: Path) -> None:
    found = all_sets.load("hbfmid", drawn_boxed_set)
    films = {film.name.rsplit("/", 1)[1]: film for film in found.images}
    assert films["box"].boxes == (pytest.approx((0.5, 0.25, 0.2, 0.1)),)
    assert films["polygon"].boxes == (pytest.approx((0.2, 0.4, 0.2, 0.4)),)
    assert [films[name].label for name in ("box", "healthy", "empty", "alone")] == [1, 0, 0, 0]
    assert len(films["broken"].boxes) == 1
    assert sum(problem.image.endswith("broken") for problem in found.problems) == 4
    assert sum(problem.image.endswith("alone") for problem in found.problems) == 1
    assert all_sets.kinds("hbfmid", drawn_boxed_set)["train/images/healthy"] == {"Healthy"}


def test_a_set_that_is_not_there_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="xwfs6xbk47"):
        all_sets.load("hbfmid", tmp_path)
    (tmp_path / "data.yaml").write_text("nc: 3\n")
    with pytest.raises(ValueError, match="names no classes"):
        all_sets.class_names(tmp_path)
    (tmp_path / "data.yaml").write_text("names: [a, b")
    with pytest.raises(ValueError, match="not YAML"):
        all_sets.class_names(tmp_path)


def test_a_set_of_folders_names_images_by_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="folders such as 'not fractured'"):
        all_sets.LATER["multi-region-distinct"](tmp_path)
    for kind in ("fractured", "not fractured"):
        picture(tmp_path / "multi-region-distinct" / kind / "a.png", 1)
    for place in (tmp_path, tmp_path / "multi-region-distinct"):
        found = all_sets.LATER["multi-region-distinct"](place)
        labels = {film.name: found.classes[film.label] for film in found.images}
        assert labels == {"fractured/a": "fractured", "not fractured/a": "not fractured"}


def test_a_list_that_lacks_a_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "films.csv").write_text("set,file,label,brightness_p95,turned\n")
    with pytest.raises(ValueError, match="lacks the column 'film'"):
        build(tmp_path)
