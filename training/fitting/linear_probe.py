"""Linear probes: logistic regression on what pretrained layers see of an image.

So few images teach a large body little that it does not know already (Razavian et al., 2014, "CNN features
off-the-shelf: an astounding baseline for recognition"). Nothing but the probe learns, so that folds cost seconds
once the features are there.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch.nn import functional

from app.imaging.letterbox import normalise
from app.model.ood import pooled, stage_features
from training.data.augmentation import VIEWS, View, seen_as
from training.data.bone_break import CLASSES
from training.data.datamodule import BoneBreakData
from training.data.image import CACHE
from training.fitting.fit import keep_effort, load_initial, local_layers, network_of, processor, save_whole
from training.recipe import Frozen, Recipe

SHOWN: tuple[View, ...] = tuple(view for view in VIEWS if view.degrees == 0.0 and view.scale == 1.0)
"""The image as it is and its mirror image; the probe learns from both."""
STEPS = 150
FEATURES = "features.npz"


def linear_probe(features: np.ndarray, labels: np.ndarray, judged: np.ndarray, decay: float) -> np.ndarray:
    """Logits of images by multinomial logistic regression on standardised features, every type weighing alike.

    Args:
        features: float (V, N, D) of the images to learn from, every view of them.
        labels: int (N,).
        judged: float (V, M, D), of the images to judge.
        decay: weight of the squared coefficients in the loss.

    Returns:
        float32 (V, M, C).
    """
    known = torch.from_numpy(np.concatenate(list(features))).float()
    centre, spread = known.mean(dim=0), known.std(dim=0).clamp(min=1e-6)
    known = (known - centre) / spread
    wanted = torch.from_numpy(np.tile(labels, len(features))).long()
    counts = torch.bincount(wanted, minlength=len(CLASSES)).float()
    share = len(wanted) / len(CLASSES) / counts.clamp(min=1.0)
    weights = torch.zeros(known.shape[1], len(CLASSES), requires_grad=True)
    biases = torch.zeros(len(CLASSES), requires_grad=True)
    solver = torch.optim.LBFGS([weights, biases], max_iter=STEPS, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        found = functional.cross_entropy(known @ weights + biases, wanted, weight=share)
        found = found + decay * weights.square().sum()
        found.backward()
        return found

    solver.step(loss)
    with torch.no_grad():
        return (((torch.from_numpy(judged).float() - centre) / spread) @ weights + biases).numpy()


def _features(recipe: Recipe, how: Frozen, films: BoneBreakData, run: Path, init: Path | None) -> np.ndarray:
    """Pooled features of every image and view, (V, N, D); kept beside the folds, which all read them."""
    stored = run.parent / FEATURES
    network = network_of(recipe)
    initial = load_initial(network, recipe.architecture, local_layers(init, recipe.architecture))
    if random := [name for name in initial.fresh if name.startswith(how.stages)]:
        raise ValueError(f"no pretrained layers for {random[0]}: features of random layers say nothing")
    (run / "initial.json").write_text(json.dumps(vars(initial)))
    seen = recipe.model_dump(include={"architecture", "size", "stride", "equalise", "mean", "std"}, mode="json")
    names = hashlib.sha256("\n".join(film.name for film in films.films).encode()).hexdigest()
    of = json.dumps([seen, how.stages, SHOWN, initial.source, initial.sha256, names])
    if stored.is_file():
        with np.load(stored) as known:
            if str(known["of"]) == of:
                return known["features"]
    extractor = stage_features(network.body, how.stages)
    rows = []
    for view in SHOWN:
        parts = []
        for start in track(range(0, len(films.squares), 16), "Features"):
            pixels = torch.from_numpy(films.squares[start : start + 16])[:, None].float() / 255.0
            pixels = normalise(seen_as(pixels, view), recipe.mean, recipe.std)
            parts.append(pooled(extractor, pixels.contiguous(memory_format=torch.channels_last)).numpy())
        rows.append(np.concatenate(parts))
    features = np.stack(rows)
    save_whole(stored, {"features": features, "of": np.array(of)})
    return features


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
    films = BoneBreakData(recipe, data, cache)
    run.mkdir(parents=True, exist_ok=True)
    features = _features(recipe, how, films, run, init)
    indices = getattr(films.split, part)
    known = films.split.train
    views = linear_probe(features[:, known], films.labels[known], features[:, indices], how.decay)
    (run / "recipe.json").write_text(recipe.model_dump_json(indent=2))
    (run / "split.csv").write_text(films.split_table(), encoding="utf-8")
    keep_effort(run, 0, time.monotonic() - began, "32-true", processor())
    return {
        "films": indices,
        "labels": films.labels[indices],
        "logits": views[0],
        "views": views,
        "evidence": np.full(len(indices), np.nan, np.float32),
    }
