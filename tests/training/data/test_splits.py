"""No group is on two sides of a split, whoever dealt it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from training.data import SETS
from training.data.bone_break import same_case
from training.data.image import DataSet, LabelledImage
from training.data.splits import FOLDER, committed, leak_free, published, split_images


@pytest.fixture
def films() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, official test marks and groups of 600 films; every tenth has a twin, some across the official split."""
    rng = np.random.default_rng(1)
    groups = np.arange(600)
    groups[5::10] = groups[0::10]
    return rng.integers(0, 10, 600), rng.random(600) < 0.15, groups


@pytest.mark.parametrize("fold", range(5))
def test_no_group_is_on_two_sides(films: tuple[np.ndarray, np.ndarray, np.ndarray], fold: int) -> None:
    labels, official, groups = films
    split = split_images(labels, official, groups, folds=5, fold=fold, seed=0)
    sides = [set(groups[part]) for part in (split.train, split.validation, split.test)]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]
    everything = np.concatenate([split.train, split.validation, split.test, split.leaked])
    assert sorted(everything) == list(range(600))
    assert len(split.leaked) > 0
    assert 0.12 < len(split.validation) / (len(split.train) + len(split.validation)) < 0.28


def test_folds_validate_every_image_once(films: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, official, groups = films
    parts = [split_images(labels, official, groups, folds=5, fold=f, seed=3).validation for f in range(5)]
    together = np.concatenate(parts)
    assert len(together) == len(set(together))


def test_the_seed_decides(films: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, official, groups = films
    first, again, other = (
        split_images(labels, official, groups, folds=5, fold=0, seed=seed).validation for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_fold_that_does_not_exist_is_refused(films: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="fold 5"):
        split_images(*films, folds=5, fold=5, seed=0)


def test_images_of_one_case_are_in_one_committed_group() -> None:
    with (FOLDER / "bone-break.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    pairs = same_case(list(rows))
    assert len(pairs) > 300
    for one, other in pairs:
        assert rows[one]["group"] == rows[other]["group"]
    for name in ("bone-break", "fracatlas", "multi-region"):
        assert (FOLDER / f"{name}.csv").is_file()


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.csv") if path.stem in SETS))
def test_no_committed_split_has_a_group_on_two_sides(name: str) -> None:
    sides: dict[str, set[str]] = {}
    counts: dict[str, int] = {}
    with (FOLDER / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            counts[row["part"]] = counts.get(row["part"], 0) + 1
            if row["part"] in ("train", "validation", "test"):
                sides.setdefault(row["group"], set()).add(row["part"])
    assert counts["train"] > counts["test"] > 0
    assert all(len(parts) == 1 for parts in sides.values())


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.csv") if path.stem in SETS))
def test_committed_splits_cover_the_real_images(name: str, real_films: Path) -> None:
    data = SETS[name].load(real_films)
    known = committed(data)
    assert known is not None
    if name == "fracatlas":
        theirs = {part for film, part in zip(data.images, known[1], strict=True) if film.part == "validation"}
        assert "train" not in theirs


@pytest.mark.parametrize("protocol", ["official", "random", "overlapping"])
def test_the_published_split_leaks_and_ours_does_not(protocol: str, dealt: tuple[DataSet, np.ndarray]) -> None:
    data, groups = dealt
    theirs, ours = published(data, protocol, groups, 0.2), leak_free(data, protocol, groups, 0.2)
    assert np.isin(groups[theirs.judge], groups[theirs.train]).mean() > 0.5
    assert not np.isin(groups[ours.judge], groups[ours.train]).any()
    assert len(ours.judge) == pytest.approx(len(theirs.judge), rel=0.3)
    if protocol == "overlapping":
        assert np.isin(theirs.judge, theirs.train).any()
    else:
        assert not np.isin(theirs.judge, theirs.train).any()


def test_images_there_many_times_do_not_judge_alone() -> None:
    """Of groups so large that the publisher's test images leave nothing to train on, each judges with one image."""
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 40, 100)
    groups = np.repeat(np.arange(100), sizes)
    labels = np.repeat(np.arange(100) % 4 == 0, sizes).astype(int)
    parts = np.where(rng.random(len(groups)) < 0.3, "test", "train")
    listed = tuple(LabelledImage(f"f{i}", Path(), int(labels[i]), str(parts[i])) for i in range(len(groups)))
    sides = leak_free(DataSet("multi-region", "", ("a", "b"), listed, ()), "official", groups, 0.4)
    assert np.bincount(labels[sides.judge]).tolist() == [10, 10]
    assert len(np.unique(groups[sides.judge])) == 20
    assert set(groups[sides.train]) == set(range(100)) - set(groups[sides.judge])


def test_with_and_without_near_duplicates_the_same_images_judge_and_as_many_train() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(60), 6)
    labels = (groups % 3 == 0).astype(int)
    turned = np.tile([True, True, True, False, True, True], 60)
    turned[:12] = True
    listed = tuple(
        LabelledImage(f"f{i}", Path(), int(labels[i]), "train", turned=bool(turned[i])) for i in rng.permutation(360)
    )
    order = np.array([int(film.name[1:]) for film in listed])
    data, of = DataSet("multi-region", "", ("a", "b"), listed, ()), groups[order]
    leaky, clean = published(data, "twins", of, 0.5), leak_free(data, "twins", of, 0.5)
    assert np.array_equal(leaky.judge, clean.judge)
    assert len(leaky.train) == len(clean.train)
    assert not np.isin(of[clean.judge], of[clean.train]).any()
    assert np.isin(of[leaky.judge], of[leaky.train]).all()
    assert not np.isin(leaky.judge, leaky.train).any()
    assert not any(listed[i].turned for i in clean.judge)
    assert not np.isin(of[clean.judge], [0, 1]).any()
    assert leaky.digest(data) != clean.digest(data)
    assert clean.digest(data) == leak_free(data, "twins", of, 0.5).digest(data)
