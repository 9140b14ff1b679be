"""How a peer splits its films, and the same without the leak: who trains, who judges."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedShuffleSplit

from training.data.film import DataSet

__all__ = ["Protocol", "Sides", "leak_free", "published"]

Protocol = Literal["official", "random", "overlapping"]
SEEDS = (1, 2)


class Sides(NamedTuple):
    """Indices of films: int arrays ``train`` and ``judge``."""

    train: np.ndarray
    judge: np.ndarray


def _labels(data: DataSet) -> np.ndarray:
    return np.array([film.label for film in data.films])


def _official(data: DataSet) -> Sides:
    parts = np.array([film.part for film in data.films])
    return Sides(np.flatnonzero(parts == "train"), np.flatnonzero(parts == "test"))


def _shuffled(labels: np.ndarray, share: float, seed: int) -> Sides:
    splitter = StratifiedShuffleSplit(1, test_size=share, random_state=seed)
    return Sides(*next(splitter.split(labels, labels)))


def published(data: DataSet, protocol: Protocol, share: float) -> Sides:
    """The peer's own split: the publisher's, a random one, or training and judging films drawn with different seeds.

    ``share`` of the films judge, unless the publisher decided which.
    """
    if protocol == "official":
        return _official(data)
    labels = _labels(data)
    if protocol == "random":
        return _shuffled(labels, share, SEEDS[0])
    return Sides(_shuffled(labels, share, SEEDS[0]).train, _shuffled(labels, share, SEEDS[1]).judge)


def _one_a_group(labels: np.ndarray, groups: np.ndarray, share: float) -> Sides:
    _, first = np.unique(groups, return_index=True)
    rng = np.random.default_rng(SEEDS[0])
    by_label = [rng.permutation(first[labels[first] == label]) for label in np.unique(labels)]
    count = round(share * min(map(len, by_label)))
    judge = np.sort(np.concatenate([films[:count] for films in by_label]))
    return Sides(np.flatnonzero(~np.isin(groups, groups[judge])), judge)


def leak_free(data: DataSet, protocol: Protocol, groups: np.ndarray, share: float) -> Sides:
    """The nearest split to the peer's in which no group of near-duplicates is on both sides.

    With the publisher's split the judging films stay and their twins leave training, unless that would leave too few
    to train on; then a share of the groups judges, with one film each and as many of every label, since a film that is
    there hundreds of times would otherwise decide alone. Where the split is our draw, groups are dealt out anew.
    """
    labels = _labels(data)
    if protocol == "official":
        train, judge = _official(data)
        clean = train[~np.isin(groups[train], groups[judge])]
        if len(clean) > len(train) / 2:
            return Sides(clean, judge)
        return _one_a_group(labels, groups, share)
    folds = StratifiedGroupKFold(max(2, round(1 / share)), shuffle=True, random_state=SEEDS[0])
    return Sides(*next(folds.split(labels, labels, groups)))
