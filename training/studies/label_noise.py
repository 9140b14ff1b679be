"""Whether types are learnt better from softer labels, or from fewer of them: ``python -m training label-noise``.

Labels of types hardly travel between people, so some of those learnt from are noise. Remedies are tried with linear
probes, whose folds cost seconds, and some of them with a network, alone and together with the probes. The first two ask
what the probes together say of a training image that they did not learn from, out of inner folds; none ever looks at an
image that judges:

- a share of the label goes over to what they say (Reed et al., 2015, "Training deep neural networks on noisy labels
  with bootstrapping");
- the images whose labels surprise them most are left out ("small loss": Han et al., 2018, "Co-teaching");
- other sets' images of the same types teach as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from training import write_json
from training.data.all_sets import read_table
from training.data.bone_break import CLASSES
from training.data.datamodule import Letterboxed, TypedData
from training.data.image import CACHE, LabelledImage
from training.data.lessons import images_of
from training.evaluation.metrics import bootstrap, fit_temperature
from training.fitting.cross_validation import RESULTS, judged, summarise_types
from training.fitting.probe import linear_probe, probe_features
from training.recipe import Recipe, fold_of
from training.studies.comparisons import averaged
from training.studies.sources import types_by_set

INNER = 4
"""Folds in which training images are asked by probes that did not learn from them."""


class Remedy(NamedTuple):
    """What is done to the labels that teach.

    Attributes:
        says: what, for people.
        softened: share of a label that goes over to what the probes say of its image.
        left_out: share of images, of those whose labels surprise most.
        more: whether other sets' images teach as well.
    """

    says: str
    softened: float = 0.0
    left_out: float = 0.0
    more: bool = False


REMEDIES = {
    "as-given": Remedy("labels as given"),
    "soft-30": Remedy("30 % of a label goes over to what the probes say", softened=0.3),
    "soft-50": Remedy("50 % of a label goes over to what the probes say", softened=0.5),
    "small-loss-10": Remedy("the 10 % of labels that surprise most are left out", left_out=0.1),
    "small-loss-20": Remedy("the 20 % of labels that surprise most are left out", left_out=0.2),
    "small-loss-30": Remedy("the 30 % of labels that surprise most are left out", left_out=0.3),
    "more-images": Remedy("typed images of bone-break-more and hbfmid teach as well", more=True),
}

TUNED = ("as-given", "soft-30", "small-loss-10")
"""The remedies that are worth minutes a fold: a network learns by them as well."""


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


def typed_elsewhere(data: Path) -> tuple[list[LabelledImage], np.ndarray]:
    """Images of other sets with one of bone-break's types, of groups in which bone-break has no image.

    Returns:
        The images, and their types as bone-break numbers them, int (N,).

    Raises:
        FileNotFoundError: a set is not there.
    """
    rows = read_table()
    said, _ = types_by_set(rows, data)
    known = {row.group for row in rows if row.set == "bone-break"}
    found: dict[str, tuple[LabelledImage, str]] = {}
    for source in ("bone-break-more", "hbfmid"):
        films = images_of(source, data)
        for row in rows:
            its = row.set == source and row.kept and row.group not in known and row.film in films
            if its and (kind := said[source].get(row.image)):
                found.setdefault(row.image, (films[row.film], kind))
    kinds = list(CLASSES)
    return [film for film, _ in found.values()], np.array([kinds.index(kind) for _, kind in found.values()], int)


class OtherImages(Letterboxed):
    """Images as a recipe sees them."""

    def __init__(self, recipe: Recipe, films: Sequence[LabelledImage], cache: Path = CACHE) -> None:
        self.recipe = recipe
        super().__init__(films, recipe.size, cache, recipe.equalise)


class _Fold(NamedTuple):
    """One fold: the images that judge, what they are, and what was said of them.

    Attributes:
        asked: indices of the images, int (M,).
        labels: of these, int (M,).
        temperatures: of the probes, from the images that they learn from.
        probes: by remedy, of every probe the logits of every view, float (V, M, C).
        network: by remedy, those of the network, float (V, M, C).
    """

    asked: np.ndarray
    labels: np.ndarray
    temperatures: list[float]
    probes: dict[str, list[np.ndarray]]
    network: dict[str, np.ndarray]


def _out_of_inner_folds(
    members: Sequence[np.ndarray], labels: np.ndarray, shares: np.ndarray, groups: np.ndarray, decays: Sequence[float]
) -> list[np.ndarray]:
    """What every probe says of images that it did not learn from, every view: float (V, N, C) each."""
    said = [np.zeros((*features.shape[:2], shares.shape[1]), np.float32) for features in members]
    for learning, rest in StratifiedGroupKFold(INNER, shuffle=True, random_state=0).split(labels, labels, groups):
        for its, features, decay in zip(said, members, decays, strict=True):
            its[:, rest] = linear_probe(features[:, learning], shares[learning], features[:, rest], decay)
    return said


def _together(folds: Sequence[_Fold], name: str) -> tuple[np.ndarray, np.ndarray]:
    """The network by a remedy alone, and as one more beside the probes: log probabilities, float (N, C) each.

    A fold's temperature of the network is fitted on the other folds.
    """
    alone, both = [], []
    for fold in folds:
        others = [each for each in folds if each is not fold]
        degree = fit_temperature(
            np.concatenate([each.network[name][0] for each in others]), np.concatenate([each.labels for each in others])
        )
        alone.append(averaged([fold.network[name]], [degree]))
        both.append(averaged([*fold.probes[name], fold.network[name]], [*fold.temperatures, degree]))
    return np.concatenate(alone), np.concatenate(both)


def label_noise(
    recipes: Sequence[Recipe],
    data: Path,
    runs: Path,
    init: Path | None,
    *,
    network: Recipe | None = None,
    results: Path = RESULTS / "label_noise.json",
    cache: Path = CACHE,
) -> dict[str, Any]:
    """Judges every remedy by the recipes' probes together, over all folds, and writes the tables.

    Args:
        recipes: linear probes that deal out the same folds.
        runs: folder of their cross-validations, for the features, and of the network's.
        init: folder of initial layers.
        network: recipe of a network that learns by the remedies of ``TUNED`` as well.

    Returns:
        Under "probes", and with a network under "network" and "together", rows by remedy: top-1 and top-3 accuracy and
        confusion out of fold, all views averaged, and the difference in top-1 accuracy from labels as given, paired by
        image.

    Raises:
        ValueError: a recipe is no linear probe, or the network deals out other folds or has runs of another recipe.
        FileNotFoundError: images or initial layers are not there.
    """
    every = [TypedData(each, data, cache) for each in recipes]
    films = every[0]
    members = [probe_features(its, runs / its.recipe.name, init=init) for its in every]
    more, kinds = typed_elsewhere(data)
    others = [probe_features(OtherImages(recipe, more, cache), runs / recipe.name, init=init) for recipe in recipes]
    decays = [recipe.frozen.decay for recipe in recipes if recipe.frozen]
    folds: list[_Fold] = []
    for number in range(recipes[0].folds):
        split = TypedData(fold_of(recipes[0], number), data, cache).split
        known, asked = split.train, split.validation
        labels, shares = films.labels[known], films.shares[known]
        inner = _out_of_inner_folds([its[:, known] for its in members], labels, shares, films.groups[known], decays)
        temperatures = [fit_temperature(each[0], labels) for each in inner]
        said = np.exp(averaged(inner, temperatures))
        fold = _Fold(asked, films.labels[asked], temperatures, {}, {})
        for name, remedy in REMEDIES.items():
            kept, theirs = taught(shares, said, remedy)
            teaching = [features[:, known[kept]] for features in members]
            if remedy.more:
                teaching = [np.concatenate(both, axis=1) for both in zip(teaching, others, strict=True)]
                theirs = np.concatenate([theirs, np.eye(len(films.set.classes))[kinds]])
            fold.probes[name] = [
                linear_probe(learnt, theirs, features[:, asked], decay)
                for learnt, features, decay in zip(teaching, members, decays, strict=True)
            ]
            if network and name in TUNED:
                run = runs / (network.name if name == "as-given" else f"{network.name}-{name}") / f"fold{number}"
                how: dict[str, Any] = {"init": init, "cache": cache, "taught": (known[kept], theirs)}
                found = judged(fold_of(network, number), data, run, "validation", **how)
                if not np.array_equal(found["images"], asked):
                    raise ValueError(f"{network.name} deals out other folds than {recipes[0].name}")
                fold.network[name] = found["views"]
        folds.append(fold)
    logits = {"probes": {n: np.concatenate([averaged(f.probes[n], f.temperatures) for f in folds]) for n in REMEDIES}}
    if network:
        both = {name: _together(folds, name) for name in TUNED}
        logits["network"], logits["together"] = ({n: each[i] for n, each in both.items()} for i in range(2))
    labels = np.concatenate([fold.labels for fold in folds])
    groups = films.groups[np.concatenate([fold.asked for fold in folds])]
    rows = {by: _rows(its, labels, groups, films.set.classes) for by, its in logits.items()}
    write_json(
        results,
        {
            "members": [recipe.name for recipe in recipes],
            "network": network.name if network else None,
            "more": len(more),
            "rows": rows,
        },
    )
    return rows


def _rows(
    logits: dict[str, np.ndarray], labels: np.ndarray, groups: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    """Figures of every remedy beside labels as given, of log probabilities, float (N, C)."""
    before = logits["as-given"].argmax(axis=1) == labels
    return {
        name: {
            "says": REMEDIES[name].says,
            "types": summarise_types(its, labels, groups, classes)["types"],
            "difference": bootstrap((its.argmax(axis=1) == labels).astype(float) - before, groups),
        }
        for name, its in logits.items()
    }
