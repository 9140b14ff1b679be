from __future__ import annotations

import csv

import numpy as np
import pytest

from training.data.bone_break import same_case
from training.data.splits import FOLDER, split_images


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


def test_folds_validate_every_film_once(films: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
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


def test_films_of_one_case_are_in_one_committed_group() -> None:
    with (FOLDER / "bone-break.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["film"]: row for row in csv.DictReader(file)}
    pairs = same_case(list(rows))
    assert len(pairs) > 300
    for one, other in pairs:
        assert rows[one]["group"] == rows[other]["group"]
    for name in ("bone-break", "fracatlas", "multi-region"):
        assert (FOLDER / f"{name}.csv").is_file()
