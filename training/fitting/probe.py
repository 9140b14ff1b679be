"""A linear probe: logistic regression on what pretrained layers see of an image.

So few images teach a large network little that it does not know already (Razavian et al., 2014, "CNN features
off-the-shelf: an astounding baseline for recognition"). Nothing else learns, so that folds cost seconds once the
features are there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from app.imaging.letterbox import normalise
from app.model.ood import pooled, stage_features
from training import aside
from training.data.augmentation import VIEWS, View, seen_as
from training.data.datamodule import TypedData, as_channels
from training.data.image import CACHE, LabelledImage, key_of
from training.fitting.fit import keep_effort, keep_start, load_initial, local_layers, network_of
from training.recipe import Frozen, Recipe

SHOWN: tuple[View, ...] = tuple(view for view in VIEWS if view.degrees == 0.0 and view.scale == 1.0)
"""The image as it is and its mirror image; the probe learns from both."""


def linear_probe(features: np.ndarray, shares: np.ndarray, judged: np.ndarray, decay: float) -> np.ndarray:
    """Logits of images by multinomial logistic regression on standardised features, every type weighing alike.

    Args:
        features: float (V, N, D) of the images to learn from, every view of them.
        shares: float (N, C), how much of an image's label is which type, every type among them.
        judged: float (V, M, D), of the images to judge.
        decay: weight of the squared coefficients in the loss.

    Returns:
        float32 (V, M, C).
    """
    known = np.concatenate(list(features))
    scaler = StandardScaler().fit(known)
    # An image whose label is shared stands there once for every type, with the share as its weight.
    images, kinds = np.nonzero(np.tile(shares, (len(features), 1)))
    every = shares / shares.sum(axis=0) * (len(shares) / shares.shape[1])
    weights = np.tile(every, (len(features), 1))[images, kinds]
    # scikit-learn sums the loss over images and halves the penalty.
    model = LogisticRegression(C=0.5 / (decay * len(known)), max_iter=1000, tol=1e-6)
    model.fit(scaler.transform(known)[images], kinds, weights)
    return np.stack([model.decision_function(scaler.transform(view)) for view in judged]).astype(np.float32)


def pooled_features(
    extractor: nn.Module, squares: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...], view: View = VIEWS[0]
) -> np.ndarray:
    """Features of images, pooled over cells: squares uint8, or float32 in 0..1, (N, S, S) to float32 (N, D)."""
    parts = []
    for start in track(range(0, len(squares), 32), "Features", disable=len(squares) <= 32):
        pixels = as_channels(squares[start : start + 32])
        pixels = pixels.float() / 255.0 if pixels.dtype == torch.uint8 else pixels
        parts.append(pooled(extractor, normalise(seen_as(pixels, view), mean, std)).numpy())
    return np.concatenate(parts)


class Seen(Protocol):
    """Images in a recipe's square."""

    recipe: Recipe

    @property
    def images(self) -> Sequence[LabelledImage]: ...

    @property
    def squares(self) -> np.ndarray: ...


def probe_features(films: Seen, runs: Path, *, init: Path | None, run: Path | None = None) -> np.ndarray:
    """What a linear probe's pretrained layers see of all images, float32 (V, N, D), every view of ``SHOWN``.

    Args:
        films: images and the recipe, which has to be a linear probe.
        runs: folder to keep them in, where those who ask again find them.
        init: initial layers, or a folder of them.
        run: folder to write down in what the probe starts from.

    Raises:
        FileNotFoundError: images or initial layers are not there.
        ValueError: the recipe is no linear probe, or a stage has no pretrained layers.
    """
    recipe, how = films.recipe, films.recipe.frozen
    if how is None:
        raise ValueError(f"{recipe.name} is no linear probe")
    network = network_of(recipe)
    initial = load_initial(network, recipe.architecture, local_layers(init, recipe.architecture))
    if random := [name for name in initial.fresh if name.startswith(how.stages)]:
        raise ValueError(f"no pretrained layers for {random[0]}: features of random layers say nothing")
    if run and isinstance(films, TypedData):
        keep_start(run, recipe, films, initial)
    paths = [film.path for film in films.images]
    key = key_of(paths, recipe.architecture, recipe.size, recipe.stride, recipe.equalise, how.stages, initial)
    stored = runs / f"features-{key}.npy"
    if not stored.is_file():
        extractor = stage_features(network.body, how.stages)
        seen = [pooled_features(extractor, films.squares, recipe.mean, recipe.std, view) for view in SHOWN]
        with aside(stored) as partial:
            np.save(partial, np.stack(seen))
    return np.load(stored)


def judge_probe(
    recipe: Recipe, how: Frozen, data: Path, run: Path, part: str, *, init: Path | None, cache: Path = CACHE
) -> dict[str, np.ndarray]:
    """Fits the probe on a recipe's training images and judges others by it.

    Returns:
        "images", "labels", "logits" (N, C), "views" (V, N, C) and "evidence" (N,), which is not known here (nan).

    Raises:
        FileNotFoundError: images or initial layers are not there.
        ValueError: a stage has no pretrained layers.
    """
    began = time.monotonic()
    films = TypedData(recipe, data, cache)
    # Beside the folds, which all read them.
    features = probe_features(films, run.parent, init=init, run=run)
    indices = getattr(films.split, part)
    known = films.split.train
    views = linear_probe(features[:, known], films.shares[known], features[:, indices], how.decay)
    keep_effort(run, 0, time.monotonic() - began, "32-true")
    return {
        "images": indices,
        "labels": films.labels[indices],
        "logits": views[0],
        "views": views,
        "evidence": np.full(len(indices), np.nan, np.float32),
    }
