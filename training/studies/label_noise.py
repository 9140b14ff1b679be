"""Whether types are learnt better from softer labels, or from fewer of them: ``python -m training label-noise``.

Labels of types hardly travel between people, so some of those learnt from are noise. Two remedies are tried with linear
probes, whose folds cost seconds. Each asks what the probes together say of a training image that they did not learn
from, out of inner folds, and never looks at an image that judges:

- a share of the label goes over to what they say (Reed et al., 2015, "Training deep neural networks on noisy labels
  with bootstrapping");
- the images whose labels surprise them most are left out ("small loss": Han et al., 2018, "Co-teaching").
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.model_selection import StratifiedGroupKFold

from training import write_json
from training.data.augmentation import averaged_views
from training.data.datamodule import TypedData
from training.data.image import CACHE
from training.evaluation.metrics import bootstrap, fit_temperature
from training.fitting.cross_validation import RESULTS, summarise_types
from training.fitting.probe import linear_probe, probe_features
from training.recipe import Recipe, fold_of

INNER = 4
"""Folds in which training images are asked by probes that did not learn from them."""


class Remedy(NamedTuple):
    """What is done to the labels that teach.

    Attributes:
        says: what, for people.
        softened: share of a label that goes over to what the probes say of its image.
        left_out: share of images, of those whose labels surprise most.
    """

    says: str
    softened: float = 0.0
    left_out: float = 0.0


REMEDIES = {
    "as-given": Remedy("labels as given"),
    "soft-30": Remedy("30 % of a label goes over to what the probes say", softened=0.3),
    "soft-50": Remedy("50 % of a label goes over to what the probes say", softened=0.5),
    "small-loss-10": Remedy("the 10 % of labels that surprise most are left out", left_out=0.1),
    "small-loss-20": Remedy("the 20 % of labels that surprise most are left out", left_out=0.2),
    "small-loss-30": Remedy("the 30 % of labels that surprise most are left out", left_out=0.3),
}


def taught(shares: np.ndarray, said: np.ndarray, remedy: Remedy) -> tuple[np.ndarray, np.ndarray]:
    """What a remedy makes of labels.

    Args:
        shares: float (N, C), labels as shares of types.
        said: float (N, C), probabilities by probes that did not learn from the image.

    Returns:
        Indices of images to learn from, int (M,), and their labels, float (M, C). Of every type the image that
        surprises least stays.
    """
    labels = shares.argmax(axis=1)
    likely = said[np.arange(len(said)), labels]
    kept = np.ones(len(labels), bool)
    kept[np.argsort(likely, kind="stable")[: round(remedy.left_out * len(labels))]] = False
    for kind in np.unique(labels):
        of = np.flatnonzero(labels == kind)
        kept[of[likely[of].argmax()]] = True
    return np.flatnonzero(kept), ((1.0 - remedy.softened) * shares + remedy.softened * said)[kept]


def _said(
    members: Sequence[np.ndarray], shares: np.ndarray, judged: Sequence[np.ndarray], decays: Sequence[float]
) -> np.ndarray:
    """What every probe says of images: averaged over views, float (members, M, C)."""
    return np.stack(
        [
            averaged_views(linear_probe(features, shares, others, decay))
            for features, others, decay in zip(members, judged, decays, strict=True)
        ]
    )


def _together(said: np.ndarray, temperatures: Sequence[float]) -> np.ndarray:
    """Mean probabilities of the members, each at its own temperature, (M, C)."""
    return np.mean([softmax(each / degree, axis=1) for each, degree in zip(said, temperatures, strict=True)], axis=0)


def label_noise(
    recipes: Sequence[Recipe],
    data: Path,
    runs: Path,
    init: Path | None,
    *,
    results: Path = RESULTS / "label_noise.json",
    cache: Path = CACHE,
) -> dict[str, Any]:
    """Judges every remedy by the recipes' probes together, over all folds, and writes the table.

    Args:
        recipes: linear probes that deal out the same folds.
        runs: folder of their cross-validations, for the features.
        init: folder of initial layers.

    Returns:
        Rows by name: top-1 and top-3 accuracy and confusion out of fold, and the difference in top-1 accuracy from
        labels as given, paired by image.

    Raises:
        ValueError: a recipe is no linear probe.
        FileNotFoundError: images or initial layers are not there.
    """
    every = [TypedData(each, data, cache) for each in recipes]
    films = every[0]
    members = [probe_features(its, runs / its.recipe.name, init=init) for its in every]
    decays = [recipe.frozen.decay for recipe in recipes if recipe.frozen]
    kinds = len(films.set.classes)
    judged: list[np.ndarray] = []
    logits: dict[str, list[np.ndarray]] = {name: [] for name in REMEDIES}
    for fold in range(recipes[0].folds):
        split = TypedData(fold_of(recipes[0], fold), data, cache).split
        known, asked = split.train, split.validation
        labels, shares = films.labels[known], np.eye(kinds)[films.labels[known]]
        inner = np.zeros((len(members), len(known), kinds))
        parts = StratifiedGroupKFold(INNER, shuffle=True, random_state=0).split(known, labels, films.groups[known])
        for learning, rest in parts:
            own, others = known[learning], known[rest]
            inner[:, rest] = _said(
                [its[:, own] for its in members], shares[learning], [its[:, others] for its in members], decays
            )
        temperatures = [fit_temperature(each, labels) for each in inner]
        said = _together(inner, temperatures)
        for name, remedy in REMEDIES.items():
            kept, theirs = taught(shares, said, remedy)
            found = _said([its[:, known[kept]] for its in members], theirs, [its[:, asked] for its in members], decays)
            logits[name].append(np.log(_together(found, temperatures)))
        judged.append(asked)
    images = np.concatenate(judged)
    labels, groups = films.labels[images], films.groups[images]
    joined = {name: log_softmax(np.concatenate(parts), axis=1) for name, parts in logits.items()}
    before = joined["as-given"].argmax(axis=1) == labels
    rows = {
        name: {
            "says": REMEDIES[name].says,
            "types": summarise_types(its, labels, groups, films.set.classes)["types"],
            "difference": bootstrap((its.argmax(axis=1) == labels).astype(float) - before, groups),
        }
        for name, its in joined.items()
    }
    write_json(results, {"members": [recipe.name for recipe in recipes], "rows": rows})
    return rows
