"""How a peer splits its films, and the same without the leak: who trains, who judges."""

from __future__ import annotations

import hashlib
import json
from typing import Literal, NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedShuffleSplit

from training.data.image import DataSet
from training.data.splits import unturned

__all__ = ["Protocol", "Sides", "leak_free", "published"]

Protocol = Literal["official", "random", "overlapping", "twins"]
SEEDS = (1, 2)


class Sides(NamedTuple):
    """Indices of films: int arrays ``train`` and ``judge``."""

    train: np.ndarray
    judge: np.ndarray

    def digest(self, data: DataSet) -> str:
        """SHA-256 of the names of the films on both sides, so that figures made with others can be told."""
        sides = [sorted(data.films[i].name for i in side) for side in self]
        return hashlib.sha256(json.dumps(sides).encode()).hexdigest()


def _labels(data: DataSet) -> np.ndarray:
    return np.array([film.label for film in data.films])


def _official(data: DataSet) -> Sides:
    parts = np.array([film.part for film in data.films])
    return Sides(np.flatnonzero(parts == "train"), np.flatnonzero(parts == "test"))


def _shuffled(labels: np.ndarray, share: float, seed: int) -> Sides:
    splitter = StratifiedShuffleSplit(1, test_size=share, random_state=seed)
    return Sides(*next(splitter.split(labels, labels)))


def published(data: DataSet, protocol: Protocol, groups: np.ndarray, share: float) -> Sides:
    """The peer's own split: the publisher's, a random one, or training and judging films drawn with different seeds.

    With "twins", no peer's, the films that judge without the leak judge here too, and as many train, but twins of those
    that judge are among them: the leak is all that differs. ``share`` of the films judge, unless the publisher decided
    which.
    """
    if protocol == "twins":
        train, judge = leak_free(data, protocol, groups, share)
        others = np.setdiff1d(np.arange(len(groups)), judge)
        return Sides(np.sort(np.random.default_rng(SEEDS[1]).choice(others, len(train), replace=False)), judge)
    if protocol == "official":
        return _official(data)
    labels = _labels(data)
    if protocol == "random":
        return _shuffled(labels, share, SEEDS[0])
    return Sides(_shuffled(labels, share, SEEDS[0]).train, _shuffled(labels, share, SEEDS[1]).judge)


def _one_a_group(data: DataSet, groups: np.ndarray, share: float) -> Sides:
    """Only films that nobody turned judge: in multi-region most whole bones were turned and hardly any broken one."""
    labels = _labels(data)
    first = unturned(data, groups)
    rng = np.random.default_rng(SEEDS[0])
    by_label = [rng.permutation(first[labels[first] == label]) for label in np.unique(labels)]
    count = round(share * min(map(len, by_label)))
    judge = np.sort(np.concatenate([films[:count] for films in by_label]))
    return Sides(np.flatnonzero(~np.isin(groups, groups[judge])), judge)


def leak_free(data: DataSet, protocol: Protocol, groups: np.ndarray, share: float) -> Sides:
    """The nearest split to the peer's in which no group of near-duplicates is on both sides.

    With the publisher's split the judging films stay and their twins leave training, unless that would leave too few
    to train on; then, as with "twins", a share of the groups judges, with one film each and as many of every label,
    since a film that is there hundreds of times would otherwise decide alone. Where the split is our draw, groups are
    dealt out anew.
    """
    labels = _labels(data)
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
