"""The detector of images unlike those a model of one's own learnt from; nobody needs pictures of anything else for it.

It measures how far an image's features lie from those of the training images, as ``app.model.ood`` says, in layers that
learnt nothing from them: the model's own would know its training images too well for a threshold to hold on others.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from sklearn.covariance import LedoitWolf

from app.imaging.radiograph import Radiograph
from app.model.ood import FOLDER, Detector, DetectorCard, distances
from app.model.weights import shipped
from training import write_json
from training.data.datamodule import TypedData
from training.data.image import squares
from training.evaluation.metrics import bootstrap
from training.evaluation.ood import FILE, FOLDS, REJECTED, SIZE, WARNED, tampered

__all__ = ["write_detector"]


def _fitted(features: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and precision, the covariance shrunk as of Ledoit and Wolf (2004), since images may be few."""
    found = LedoitWolf().fit(features)
    return torch.from_numpy(found.location_).float(), torch.from_numpy(found.precision_).float()


def _out_of_fold(features: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Each image's distance from those of other groups, float (N,)."""
    numbers = np.unique(groups, return_inverse=True)[1] % FOLDS
    found = np.zeros(len(features), np.float32)
    for fold in np.unique(numbers):
        inside = numbers == fold
        found[inside] = distances(torch.from_numpy(features[inside]), *_fitted(features[~inside])).numpy()
    return found


def _features(detector: Detector, found: np.ndarray) -> np.ndarray:
    parts = [found[start : start + 32] for start in range(0, len(found), 32)]
    return np.concatenate([detector.features(part.astype(np.float32) / np.float32(255.0)) for part in parts])


def write_detector(films: TypedData, target: Path) -> DetectorCard | None:
    """Fits the detector on a model's images, chooses its thresholds out of fold, and writes it into the model's folder.

    Args:
        films: the model's images; those that train and validate are the reference set.
        target: the model's folder; ``ood/detector.safetensors`` and ``ood/detector.json`` are written.

    Returns:
        The detector's card; None where the layers it looks with, those of the shipped detector, are not there.
    """
    known = Detector.load(shipped("weights"))
    if known is None:
        return None
    recipe = films.recipe
    reference = np.sort(np.concatenate([films.split.train, films.split.validation]))
    paths = [film.path for film in films.images]
    seen = squares(paths, SIZE, films.cache, colour=recipe.colour)
    features = _features(known, seen)
    inside = _out_of_fold(features[reference], films.groups[reference])
    rejection, warning = (float(np.quantile(inside, 1.0 - share, method="higher")) for share in (REJECTED, WARNED))
    mean, precision = _fitted(features[reference])

    def rejected(seen: np.ndarray) -> np.ndarray:
        return distances(torch.from_numpy(seen), mean, precision).numpy() > rejection

    test = films.split.test
    metrics = {
        "reference": {recipe.own.title if recipe.own else films.set.title: len(reference)},
        "kept_out_of_fold": bootstrap(inside <= rejection, films.groups[reference]),
        "kept_test": bootstrap(~rejected(features[test]), films.groups[test]) if len(test) else None,
        "rejected": {
            name: bootstrap(rejected(_features(known, made * np.float32(255.0))))
            for name, made in _made(recipe.colour).items()
        },
    }
    layers = known.extractor.state_dict().items()
    state = {name: value.half() if value.is_floating_point() else value for name, value in layers}
    blob = save({**state, "weight": mean, "bias": torch.tensor(0.0), "precision": precision})
    card = DetectorCard(
        file=FILE,
        sha256=hashlib.sha256(blob).hexdigest(),
        size=SIZE,
        colour=recipe.colour,
        warning=warning,
        rejection=rejection,
        metrics=metrics,
    )
    folder = target / FOLDER
    write_json(folder / "detector.json", card.model_dump())
    (folder / FILE).write_bytes(blob)
    return card


def _made(colour: bool) -> dict[str, np.ndarray]:
    """Pictures of nothing, float (M, S, S), in colour (M, S, S, 3), in 0..1, by what they are."""
    blank = Radiograph(np.zeros((SIZE, SIZE), np.uint8), (0, 255))
    found = tampered([blank], SIZE)
    kinds = {name: found[name] for name in ("noise", "smooth noise", "blank")}
    return {name: np.repeat(made[..., None], 3, axis=3) if colour else made for name, made in kinds.items()}
