"""The audit on drawn images with planted faults: every count can be made by hand."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from torchvision.models._api import WeightsEnum

from app.explain.shortcuts import mark_boxes
from app.imaging.examples import draw
from app.imaging.radiograph import Radiograph
from tests.training.toys import detailed
from training.data import bone_break
from training.data.duplicates import Grouping, find_groups
from training.data.image import LENIENT, DataSet, readable
from training.data.splits import FOLDER, part_images
from training.studies import audit as auditing
from training.studies.audit import AUDITS, COPIES, audit, brute_force, is_tinted, looked_at, suspects


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images a type, and four copies: exact, mirrored under another label, turned by 7 degrees, half a file."""
    root = tmp_path_factory.mktemp("planted")
    for label, folder in enumerate(bone_break.CLASSES.values()):
        for number in range(6):
            place = root / folder / ("Test" if number == 5 else "Train")
            place.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(place / f"film{number}.png"), detailed(10 * label + number))
    avulsion, spiral = root / "Avulsion fracture", root / "Spiral Fracture"
    shutil.copy(avulsion / "Test" / "film5.png", avulsion / "Train" / "exact.png")
    cv2.imwrite(str(spiral / "Train" / "mirrored.png"), detailed(0)[:, ::-1])
    cv2.imwrite(str(spiral / "Train" / "turned.png"), COPIES["turned by 7 degrees"](detailed(95)))
    (spiral / "Train" / "broken.png").write_bytes((spiral / "Train" / "film0.png").read_bytes()[:4000])
    return root


@pytest.fixture(scope="module")
def offline() -> Iterator[None]:
    """Few planted copies, and no download: the label check works on random features, which counts do not mind."""

    def refuse(self: object, **options: object) -> None:
        raise OSError("offline")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WeightsEnum, "get_state_dict", refuse)
        patch.setattr(auditing, "PLANTED", 8)
        patch.setattr(auditing, "COPIES", {kind: COPIES[kind] for kind in ("exact", "turned by 7 degrees")})
        yield


@pytest.fixture(scope="module")
def grouped_images(planted: Path, cache: Path) -> tuple[DataSet, list[Radiograph], Grouping]:
    data, decoded = readable(bone_break.load(planted))
    return data, decoded, find_groups(data, decoded, cache)


@pytest.mark.slow
def test_every_planted_fault_is_counted(planted: Path, offline: None, cache: Path, tmp_path: Path) -> None:
    summary = audit(bone_break.load(planted), tmp_path, cache=cache)
    assert summary == json.loads((tmp_path / "bone-break.json").read_text(encoding="utf-8"))
    assert summary["images"] == 63
    assert [problem["image"] for problem in summary["problems"]] == ["Spiral Fracture/Train/broken"]
    exact = summary["exact_copies"]
    assert (exact["sets_of_copies"], exact["files_that_are_copies"], exact["with_different_labels"]) == (1, 1, 0)
    assert exact["across_parts"] == {"test images with a copy in train": 1, "train images with a copy in test": 1}
    near = summary["near_duplicates"]
    assert near["different_images"] == 60
    assert near["groups_of_several"] == 3
    assert (near["brute_force"]["images"], near["brute_force"]["missed_by_search"]) == (6, 0)
    assert near["brute_force"]["pairs"] == 6 * 61 - 15
    assert near["recall_of_planted_copies"]["exact"] == "8 of 8"
    assert near["across_parts"] == {
        "test images with a near-duplicate in train": 2,
        "train images with a near-duplicate in test": 2,
    }
    (contradiction,) = near["contradictory_groups"]
    assert contradiction["labels"] == ["avulsion", "spiral"]
    assert "Spiral Fracture/Train/mirrored" in contradiction["images"]


@pytest.mark.slow
def test_a_second_run_gives_the_same_summary(planted: Path, offline: None, cache: Path, tmp_path: Path) -> None:
    first = audit(bone_break.load(planted), tmp_path, cache=cache)
    assert json.dumps(audit(bone_break.load(planted), tmp_path, cache=tmp_path)) == json.dumps(first)


@pytest.mark.slow
def test_brute_force_tells_when_the_search_misses(
    grouped_images: tuple[DataSet, list[Radiograph], Grouping],
) -> None:
    _, decoded, grouping = grouped_images
    link = grouping.links[0]
    copies = [decoded[link.first], decoded[link.second]]
    missed = {"images": 1, "against": 2, "pairs": 1, "twins": 1, "missed_by_search": 1}
    assert brute_force(copies, np.array([0, 1]), LENIENT) == missed
    assert brute_force(copies, np.array([0, 0]), LENIENT)["missed_by_search"] == 0


@pytest.mark.slow
def test_in_large_sets_a_tenth_is_held_against_itself(
    grouped_images: tuple[DataSet, list[Radiograph], Grouping], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "MOST_PAIRS", 100)
    told = brute_force(grouped_images[1], np.arange(len(grouped_images[1])), LENIENT)
    assert (told["images"], told["against"], told["pairs"]) == (6, 6, 15)


@pytest.mark.slow
def test_parts_keep_groups_together_and_test_as_it_is(
    grouped_images: tuple[DataSet, list[Radiograph], Grouping],
) -> None:
    data, _, grouping = grouped_images
    parts = part_images(data, grouping.groups)
    by_name = {film.name: part for film, part in zip(data.images, parts, strict=True)}
    assert by_name["Avulsion fracture/Train/exact"] == "leaked"
    assert by_name["Spiral Fracture/Train/turned"] == "leaked"
    assert by_name["Spiral Fracture/Test/film5"] == "test"
    assert sum(part == "test" for part in parts) == 10


@pytest.mark.parametrize("path", sorted(AUDITS.glob("pairs-*.csv")), ids=lambda path: path.stem)
def test_what_was_looked_at_is_told_and_is_about_images_of_one_group(path: Path) -> None:
    name = path.stem.removeprefix("pairs-")
    found = looked_at(name)
    assert json.loads((AUDITS / f"{name}.json").read_text())["near_duplicates"]["looked_at"] == found
    assert sum(int(share.split()[-1]) for share in found.values()) == 50
    groups = {row["image"]: row["group"] for row in csv.DictReader((FOLDER / f"{name}.csv").open(encoding="utf-8"))}
    for row in csv.DictReader(path.open(encoding="utf-8")):
        assert row["one image"] in ("yes", "no")
        assert groups[row["first"]] == groups[row["second"]]


def test_what_nobody_looked_at_is_not_told(tmp_path: Path) -> None:
    assert looked_at("drawn", tmp_path) == {}
    (tmp_path / "pairs-drawn.csv").write_text("number,measure,first,second,one image\n1,hash,a,b,yes\n2,hash,a,c,no\n")
    assert looked_at("drawn", tmp_path) == {"hash": "1 of 2"}


def test_marks_are_found_on_drawn_images() -> None:
    found = [mark_boxes(draw("oblique", seed=seed)) for seed in range(20)]
    bare = [mark_boxes(draw("oblique", seed=seed, marker=False)) for seed in range(20)]
    assert sum(any(left > 0.8 and top < 0.2 for left, top, _, _ in boxes) for boxes in found) >= 18
    assert sum(len(boxes) > 0 for boxes in bare) <= 2


def test_colour_is_told_from_grey() -> None:
    film = np.dstack([draw()] * 3)
    assert not is_tinted(film)
    film[40:80, 40:80] = (200, 40, 40)
    assert is_tinted(film)


def test_swapped_labels_are_suspected() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    probabilities = np.full((300, 3), 0.05)
    probabilities[np.arange(300), labels] = 0.9
    swapped = rng.choice(300, 15, replace=False)
    labels[swapped] = (labels[swapped] + 1) % 3
    assert set(suspects(labels, probabilities)) == set(swapped)


def test_blank_images_break_nothing() -> None:
    blank = Radiograph(np.full((64, 64), 7, np.uint8), (0, 255))
    assert brute_force([blank, blank], np.zeros(2, int), LENIENT)["missed_by_search"] == 0
