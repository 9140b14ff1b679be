"""Who may be trained on, who judges: grouped, stratified and seeded, so that no film is on two sides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

__all__ = ["Split", "split_films"]


@dataclass(frozen=True)
class Split:
    """Indices of films, int arrays; the four parts cover every film once.

    Attributes:
        train: films the weights are fitted on.
        validation: films that choose the epoch, the temperature and everything else.
        test: the official test films, for the final figure only.
        leaked: official training films left out because a twin of theirs is a test film.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    leaked: np.ndarray


def split_films(
    labels: np.ndarray, official_test: np.ndarray, groups: np.ndarray, *, folds: int, fold: int, seed: int
) -> Split:
    """Splits the official training films into training and validation, group by group.

    Args:
        labels: class index per film, int (N,).
        official_test: bool (N,).
        groups: group number per film, int (N,); films of one group are near-duplicates.
        folds: one over the share of validation films; 5 gives 20 %.
        fold: which of them validates, 0 to folds - 1.
        seed: of the shuffle.

    Raises:
        ValueError: fold outside 0 to folds - 1.
    """
    if not 0 <= fold < folds:
        raise ValueError(f"fold {fold} is not one of {folds}")
    twin_of_test = np.isin(groups, groups[official_test])
    usable = np.flatnonzero(~twin_of_test)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    train, validation = list(splitter.split(usable, labels[usable], groups[usable]))[fold]
    return Split(
        train=usable[train],
        validation=usable[validation],
        test=np.flatnonzero(official_test),
        leaked=np.flatnonzero(twin_of_test & ~official_test),
    )
