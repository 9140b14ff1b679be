"""Who trains, who judges: grouped, stratified and seeded, so that no image is on two sides.

The groups and parts in use are committed under ``training/splits`` as one CSV a data set (image, class, group, part),
so that everybody trains and judges on the same images; ``python -m training split NAME`` writes them. ``published`` and
``leak_free`` are the splits of results published by others, and the same without their leak.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedShuffleSplit

from training.data.image import CACHE, DataSet, readable
from training.recipe import Protocol

log = logging.getLogger(__name__)

FOLDER = Path(__file__).resolve().parent.parent / "splits"

TWENTIETHS = 20
"""Folds a set is cut into before they are dealt out: 3 of 20 to test, 3 to validation, the rest to training."""


PARTS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""Parts of a split by the names that people give them, in lower case."""


@dataclass(frozen=True)
class Split:
    """Indices of images, int arrays; the four parts cover every image once.

    Attributes:
        train: images the weights are fitted on.
        validation: images that judge every choice and fit the temperature.
        test: the official test images, for the final figure only.
        leaked: images left out of training because a near-duplicate of theirs is a test image, or a given validation
            one.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    leaked: np.ndarray


def split_images(
    labels: np.ndarray,
    official_test: np.ndarray,
    groups: np.ndarray,
    *,
    folds: int,
    fold: int | None,
    seed: int,
    given: np.ndarray | None = None,
) -> Split:
    """Splits the official training images into training and validation, group by group.

    Args:
        labels: class index per image, int (N,).
        official_test: bool (N,).
        groups: group number per image, int (N,); images of one group are near-duplicates.
        folds: one over the share of validation images; 5 gives 20 %.
        fold: which of them validates, 0 to folds - 1; none if None, and all usable images train.
        given: where there is no fold, the images that validate, bool (N,); near-duplicates of theirs are left out.

    Raises:
        ValueError: fold outside 0 to folds - 1.
    """
    if fold is not None and not 0 <= fold < folds:
        raise ValueError(f"fold {fold} is not one of {folds}")
    twin_of_test = np.isin(groups, groups[official_test])
    usable = np.flatnonzero(~twin_of_test)
    train, validation = np.arange(len(usable)), np.arange(0)
    if fold is None and given is not None and given.any():
        validation = np.flatnonzero(given[usable])
        beside = np.isin(groups[usable], groups[usable[validation]])
        train = np.flatnonzero(~beside)
    if fold is not None:
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        train, validation = list(splitter.split(usable, labels[usable], groups[usable]))[fold]
    return Split(
        train=usable[train],
        validation=usable[validation],
        test=np.flatnonzero(official_test),
        leaked=np.setdiff1d(
            np.arange(len(labels)), np.concatenate([usable[train], usable[validation], np.flatnonzero(official_test)])
        ),
    )


def deal(strata: Sequence[str], groups: Sequence[int] | np.ndarray, seed: int) -> np.ndarray:
    """Parts of images, str (N,): whole groups, alike in every stratum as far as that goes."""
    kinds = np.unique(strata, return_inverse=True)[1]
    parts = np.full(len(kinds), "train", dtype=object)
    folds = StratifiedGroupKFold(TWENTIETHS, shuffle=True, random_state=seed).split(kinds, kinds, groups)
    for number, (_, dealt) in enumerate(folds):
        parts[dealt] = "test" if number < 3 else "validation" if number < 6 else "train"
    return parts


def part_images(data: DataSet, groups: np.ndarray, seed: int = 0) -> list[str]:
    """The part of every image of a set: "train", "validation", "test", or why it is in none.

    Bone-break keeps its official test images, and training images with a near-duplicate among them are "leaked".
    FracAtlas and multi-region are dealt out anew, stratified by class and region; of FracAtlas, images that its authors
    judge by never train; of multi-region, one image a group stays and the others are "copy". A group whose images carry
    different labels is "contradictory" in multi-region, where labels are all there is to learn.
    """
    labels = data.labels
    if data.name == "bone-break":
        official = np.array([film.part == "test" for film in data.images])
        twin = np.isin(groups, groups[official])
        return ["test" if test else "leaked" if near else "train" for test, near in zip(official, twin, strict=True)]
    strata = [f"{film.label} {film.region}" for film in data.images]
    parts = np.full(len(labels), "train", dtype=object)
    usable = np.ones(len(labels), bool)
    if data.name == "multi-region":
        for number in np.unique(groups):
            members = np.flatnonzero(groups == number)
            if len(set(labels[members])) > 1:
                parts[members], usable[members] = "contradictory", False
            else:
                # The shortest name is the least often turned one.
                keep = min(members, key=lambda index: (len(data.images[index].path.name), data.images[index].name))
                copies = members[members != keep]
                parts[copies], usable[copies] = "copy", False
    index = np.flatnonzero(usable)
    parts[index] = deal([strata[i] for i in index], groups[index], seed)
    if data.name == "fracatlas":
        theirs = np.array([film.part in ("validation", "test") for film in data.images])
        moved = np.isin(groups, groups[theirs]) & (parts == "train")
        parts[moved] = "validation"
    return parts.tolist()


def unturned(data: DataSet, groups: np.ndarray) -> np.ndarray:
    """Indices of one image a group that nobody turned, int (M,), in the order of groups; ``groups`` is int (N,)."""
    straight = np.flatnonzero([not film.turned for film in data.images])
    return straight[np.unique(groups[straight], return_index=True)[1]]


def write(data: DataSet, groups: np.ndarray, parts: list[str], folder: Path = FOLDER) -> Path:
    """Writes a set's groups and parts, one row an image, in the order of names."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{data.name}.csv"
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "class", "group", "part"])
        for film, number, part in zip(data.images, groups, parts, strict=True):
            writer.writerow([film.name, data.classes[film.label], number, part])
    return target


def committed(data: DataSet, folder: Path = FOLDER, *, unlisted: float = 0.0) -> tuple[np.ndarray, list[str]] | None:
    """Committed groups and parts of a set's images.

    Args:
        unlisted: share of the images that need not be listed, or not under this label; their part is "unlisted" and
            their group their own.

    Returns:
        Groups, int (N,), and parts; None where more images are not listed.
    """
    target = folder / f"{data.name}.csv"
    if not target.is_file():
        return None
    with target.open(newline="", encoding="utf-8") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    found = [rows.get(film.name) for film in data.images]
    groups, parts = [], []
    for index, (film, row) in enumerate(zip(data.images, found, strict=True)):
        listed = row is not None and row["class"] == data.classes[film.label]
        groups.append(int(row["group"]) if listed else -1 - index)
        parts.append(row["part"] if listed else "unlisted")
    if parts.count("unlisted") > unlisted * len(parts):
        return None
    return np.array(groups), parts


def dealt(data: DataSet, cache: Path = CACHE, *, unlisted: float = 0.0) -> tuple[DataSet, np.ndarray, np.ndarray]:
    """A set with its groups, int (N,), and parts, str (N,): as committed, else searched for and dealt out anew.

    Args:
        unlisted: as of ``committed``.

    Returns:
        Of a set that was searched, the images that can be read.
    """
    known = committed(data, unlisted=unlisted)
    if known is None:
        log.warning("these images are not the ones of the committed split; looking for near-duplicates anew")
        # Here, since it brings torch, which nobody needs who only reads a committed split.
        from training.data.duplicates import find_groups

        data, decoded = readable(data)
        groups = find_groups(data, decoded, cache).cases
        known = groups, part_images(data, groups)
    return data, known[0], np.array(known[1])


SEEDS = (1, 2)


class Sides(NamedTuple):
    """Indices of images: int arrays ``train`` and ``judge``."""

    train: np.ndarray
    judge: np.ndarray

    def digest(self, data: DataSet) -> str:
        """SHA-256 of the names of the images on both sides, so that figures made with others are recognised."""
        sides = [sorted(data.images[i].name for i in side) for side in self]
        return hashlib.sha256(json.dumps(sides).encode()).hexdigest()


def _official(data: DataSet) -> Sides:
    parts = np.array([film.part for film in data.images])
    return Sides(np.flatnonzero(parts == "train"), np.flatnonzero(parts == "test"))


def _shuffled(labels: np.ndarray, share: float, seed: int) -> Sides:
    splitter = StratifiedShuffleSplit(1, test_size=share, random_state=seed)
    return Sides(*next(splitter.split(labels, labels)))


def published(data: DataSet, protocol: Protocol, groups: np.ndarray, share: float) -> Sides:
    """The published split: the publisher's, a random one, or training and judging images drawn with different seeds.

    With "twins", which nobody published, the images that judge without the leak judge here too, and as many train, but
    near-duplicates of those that judge are among them: the leak is all that differs. ``share`` of the images judge,
    unless the publisher decided which.
    """
    if protocol == "twins":
        train, judge = leak_free(data, protocol, groups, share)
        others = np.setdiff1d(np.arange(len(groups)), judge)
        return Sides(np.sort(np.random.default_rng(SEEDS[1]).choice(others, len(train), replace=False)), judge)
    if protocol == "official":
        return _official(data)
    labels = data.labels
    if protocol == "random":
        return _shuffled(labels, share, SEEDS[0])
    return Sides(_shuffled(labels, share, SEEDS[0]).train, _shuffled(labels, share, SEEDS[1]).judge)


def _one_a_group(data: DataSet, groups: np.ndarray, share: float) -> Sides:
    """Only images that nobody turned judge: in multi-region most whole bones were turned and hardly any broken one."""
    labels = data.labels
    first = unturned(data, groups)
    rng = np.random.default_rng(SEEDS[0])
    by_label = [rng.permutation(first[labels[first] == label]) for label in np.unique(labels)]
    count = round(share * min(map(len, by_label)))
    judge = np.sort(np.concatenate([films[:count] for films in by_label]))
    return Sides(np.flatnonzero(~np.isin(groups, groups[judge])), judge)


def leak_free(data: DataSet, protocol: Protocol, groups: np.ndarray, share: float) -> Sides:
    """The nearest split to the published one in which no group of near-duplicates is on both sides.

    With the publisher's split the judging images stay and their near-duplicates leave training, unless that would leave
    too few to train on; then, as with "twins", a share of the groups judges, with one image each and as many
    of every label, since an image that is there hundreds of times would otherwise decide alone. Where the split is our
    draw, groups are dealt out anew.
    """
    labels = data.labels
    if protocol == "twins":
        return _one_a_group(data, groups, share)
    if protocol == "official":
        train, judge = _official(data)
        clean = train[~np.isin(groups[train], groups[judge])]
        if len(clean) > len(train) / 2:
            return Sides(clean, judge)
        return _one_a_group(data, groups, share)
    folds = StratifiedGroupKFold(max(2, round(1 / share)), shuffle=True, random_state=SEEDS[0])
    return Sides(*next(folds.split(labels, labels, groups)))
