"""Makes and judges the detector of what is no radiograph: ``python -m training ood --data FOLDER --init FOLDER``.

Radiographs are the training images of bone-break and FracAtlas and those of multi-region that neither holds, each
source weighing alike. The thresholds are the lowest at which, out of fold, no source loses more images than it may.
Pictures that are no radiographs train the detector but choose no threshold; a third of them, and all of ``not-xray``,
only judge it. What a hospital it never saw would lose is told by sets that train nothing, and by leaving out each
source in turn.
"""

from __future__ import annotations

import csv
import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from safetensors.torch import save
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from app.errors import ImageError
from app.imaging.imagenet import MEAN, STD
from app.imaging.letterbox import letterbox
from app.imaging.pixels import IN_COLOUR
from app.imaging.radiograph import Radiograph, read
from app.model.network import build_network
from app.model.ood import FOLDER, DetectorCard, backbone, stage_features
from training import write_json
from training.data import bone_break, fracatlas
from training.data.image import CACHE
from training.data.image import squares as cached_squares
from training.data.multi_region import external_set
from training.data.splits import dealt
from training.evaluation.metrics import bootstrap
from training.fitting.fit import load_initial, local_layers
from training.fitting.probe import pooled_features

__all__ = ["measure", "tampered"]

log = logging.getLogger(__name__)

SIZE = 128
REJECTED, WARNED = 0.01, 0.02
"""Shares of a source's images that the two thresholds may cost, out of fold."""
PENALTY = 0.03
"""Inverse strength of the squared coefficients' penalty; of three tried, it rejects most of the training pictures out
of fold where the radiographs' loss is the same."""
FOLDS = 4
FILE = "detector.safetensors"
TAMPERED = 100
"""Test images that are tampered with."""
MOST = 600
"""Images of one source and part, so that the features take minutes."""
ELSEWHERE = ("bone-break-more", "ca1len", "hbfmid", "veda")

Key = tuple[str, str]
_pooled = partial(pooled_features, mean=MEAN, std=STD)


class Images(NamedTuple):
    """One source: features, float32 (N, D), near-duplicate groups, int (N,), names, what is in colour, bool (N,)."""

    features: np.ndarray
    groups: np.ndarray
    names: tuple[str, ...]
    coloured: np.ndarray


@dataclass(frozen=True)
class Fitted:
    """A weighted sum of features that is the log odds of being no radiograph."""

    weight: np.ndarray
    bias: float

    def scores(self, features: np.ndarray) -> np.ndarray:
        return features @ self.weight + self.bias


def tampered(films: Sequence[Radiograph], size: int, seed: int = 0) -> dict[str, np.ndarray]:
    """What people may drop in that no detector took so, made from X-rays and from nothing: by name, float32 (M, S, S).

    Values are in 0..1. X-rays are changed before they are letterboxed, as they would come: a negative with a white
    border gives itself away.
    """

    def changed(how: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        shown = (np.ascontiguousarray(how(film.display())) for film in films)
        return np.stack([letterbox(Radiograph(pixels, (0, 255)), size)[0] for pixels in shown])

    def middle(pixels: np.ndarray) -> np.ndarray:
        height, width = pixels.shape
        return pixels[height // 3 : height - height // 3, width // 3 : width - width // 3]

    rng = np.random.default_rng(seed)
    noise = rng.random((50, size, size), dtype=np.float32)
    clouds = np.stack([cv2.GaussianBlur(each, (0, 0), size / 24) for each in noise])
    spread = np.abs(clouds - 0.5).max(axis=(1, 2), keepdims=True)
    return {
        "noise": noise,
        "smooth noise": 0.5 + (clouds - 0.5) / (2.0 * spread),
        "blank": np.linspace(0.0, 1.0, 21, dtype=np.float32)[:, None, None].repeat(size, 1).repeat(size, 2),
        "inverted": changed(lambda pixels: 255 - pixels),
        "upside down": changed(lambda pixels: pixels[::-1]),
        "cropped to the middle ninth": changed(middle),
    }


def _extractor(init: Path | None) -> tuple[torch.nn.Sequential, dict[str, object]]:
    """The backbone with pretrained layers, and where they came from."""
    network = build_network("resnet18", 2)
    initial = load_initial(network, "resnet18", local_layers(init, "resnet18"))
    layers = backbone()
    own = network.body.state_dict()
    layers.load_state_dict({key: own[key].half().to(own[key].dtype) for key in layers.state_dict()})
    return layers.eval(), initial.as_card()


def _images(
    extractor: torch.nn.Module, cache: Path, paths: Sequence[Path], names: Iterable[str], groups: np.ndarray
) -> Images:
    features = _pooled(extractor, cached_squares(paths, SIZE, cache))
    return Images(features, groups, tuple(names), _in_colour([read(path) for path in paths]))


def _in_colour(pictures: Sequence[Radiograph]) -> np.ndarray:
    return np.array([IN_COLOUR in picture.notes for picture in pictures], dtype=bool)


def _radiographs(look: Callable[..., Images], data: Path, cache: Path) -> tuple[dict[str, Images], dict[str, Images]]:
    """The sources of the reference set, and test images of the same sources that have no near-duplicate in it."""
    reference, test = {}, {}
    for title, whole in (("bone-break", bone_break.load(data)), ("FracAtlas", fracatlas.load(data))):
        whole, groups, parts = dealt(whole, cache, unlisted=0.2)
        for part, into in (("train", reference), ("test", test)):
            chosen = np.sort(np.random.default_rng(0).permutation(np.flatnonzero(parts == part))[:MOST])
            films = [whole.images[i] for i in chosen]
            if films:
                into[title] = look([film.path for film in films], [film.name for film in films], groups[chosen])
    try:
        films = external_set(data)
    except FileNotFoundError:
        log.warning("there are no multi-region images under %s, so the reference set has two sources", data)
    else:
        names = [film.name for film in films]
        reference["multi-region"] = look([film.path for film in films], names, np.arange(len(films)))
    return reference, test


def _key(source: str, name: str) -> Key:
    """One name for an image in the list of images and in its own set."""
    path = Path(name.removesuffix(".webp"))
    if not source.startswith("multi-region"):
        return source.lower(), path.name
    # Turned copies and re-encoded ones keep the stem; only classes use a stem twice.
    return "multi-region", f"{path.parts[-2]}/{path.stem if source == 'multi-region' else path.name}"


def _elsewhere(look: Callable[..., Images], data: Path) -> dict[str, tuple[Images, set[Key]]]:
    """Sets that train nothing, one file an image, and the images of other sets that they show too."""
    listed = data / "films.csv"
    if not listed.is_file():
        log.warning("there is no %s, so no further sets judge the detector", listed)
        return {}
    with listed.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = {}
    for name in ELSEWHERE:
        first = {int(row["film"]): row["file"] for row in reversed(rows) if row["set"] == name}
        chosen = np.sort(np.random.default_rng(0).permutation(sorted(first))[:MOST]).astype(int).tolist()
        folders = (data / name / "train" / "images", data / name / "train", data / name)
        there = {n: path for n in chosen for folder in folders if (path := folder / first[n]).is_file()}
        if there:
            images = look(list(there.values()), [first[n] for n in there], np.array(list(there)))
            shared = {_key(row["set"], row["file"]) for row in rows if row["set"] != name and int(row["film"]) in first}
            found[name] = images, shared
    return found


def _pictures(folder: Path) -> tuple[list[Radiograph], str]:
    """Pictures that are no radiographs, each content once, in the order of their hashes, and one hash over these."""
    found: dict[str, Radiograph] = {}
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        try:
            found.setdefault(digest, read(path))
        except ImageError:
            continue
    if not found:
        raise FileNotFoundError(f"no pictures under {folder}; put some there that are no radiographs")
    order = sorted(found)
    return [found[digest] for digest in order], hashlib.sha256("".join(order).encode()).hexdigest()


def _parts_of(picture: Radiograph, rng: np.random.Generator) -> list[np.ndarray]:
    """A picture letterboxed, and two random crops of it, of which one is turned and of another brightness."""
    shown = picture.scaled(2 * SIZE).display()
    squares = [letterbox(picture, SIZE)[0]]
    for turned in (False, True):
        height, width = (max(1, int(side * rng.uniform(0.4, 0.8))) for side in shown.shape)
        top, left = rng.integers(0, shown.shape[0] - height + 1), rng.integers(0, shown.shape[1] - width + 1)
        crop = shown[top : top + height, left : left + width]
        if turned:
            lit = np.rot90(crop, int(rng.integers(4))) * rng.uniform(0.5, 1.1) + rng.uniform(-30, 30)
            crop = np.clip(lit, 0, 255).astype(np.uint8)
        squares.append(letterbox(Radiograph(np.ascontiguousarray(crop), (0, 255)), SIZE)[0])
    return squares


def _fit(sources: Sequence[np.ndarray], others: np.ndarray) -> Fitted:
    """Logistic regression in which radiographs and other pictures weigh alike, and so do all sources."""
    features = np.concatenate([*sources, others])
    shares = [(len(its), 0.5 / len(sources) / len(its)) for its in sources] + [(len(others), 0.5 / len(others))]
    weights = np.concatenate([np.full(count, share) for count, share in shares])
    scaler = StandardScaler().fit(features)
    labels = np.r_[np.zeros(len(features) - len(others)), np.ones(len(others))]
    model = LogisticRegression(C=PENALTY, max_iter=3000)
    model.fit(scaler.transform(features), labels, sample_weight=weights * len(features))
    weight = model.coef_[0] / scaler.scale_
    return Fitted(weight.astype(np.float32), float(model.intercept_[0] - scaler.mean_ @ weight))


def _out_of_fold(reference: dict[str, Images], others: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of the reference images, each by a detector that saw nothing of its group: float (N,) by source."""
    found = {name: np.zeros(len(its.names)) for name, its in reference.items()}
    for fold in range(FOLDS):
        kept = [its.features[its.groups % FOLDS != fold] for its in reference.values()]
        fitted = _fit([its for its in kept if len(its)], others)
        for name, its in reference.items():
            inside = its.groups % FOLDS == fold
            found[name][inside] = fitted.scores(its.features[inside])
    return found


def _without(reference: dict[str, Images], others: np.ndarray, left_out: set[Key]) -> Fitted | None:
    """The detector without some of the reference images; None where none is left."""
    sources = []
    for name, its in reference.items():
        kept = np.array([_key(name, film) not in left_out for film in its.names])
        if kept.any():
            sources.append(its.features[kept])
    return _fit(sources, others) if sources else None


@dataclass(frozen=True)
class _Judge:
    """The detector at its two thresholds."""

    fitted: Fitted
    warning: float
    rejection: float

    def _rejected(self, scores: np.ndarray, coloured: np.ndarray) -> np.ndarray:
        return scores > np.where(coloured, self.warning, self.rejection)

    def _kept(self, scores: np.ndarray, its: Images, how: str) -> dict[str, Any]:
        return {
            "how": how,
            "kept": bootstrap(~self._rejected(scores, its.coloured), its.groups),
            "without_warning": bootstrap(scores <= self.warning, its.groups),
        }

    def radiographs(
        self,
        reference: dict[str, Images],
        test: dict[str, Images],
        inside: dict[str, np.ndarray],
        elsewhere: dict[str, tuple[Images, set[Key]]],
        others: np.ndarray,
    ) -> dict[str, Any]:
        """Shares of real images that are kept, by set, and by source with that source left out."""
        found, left_out = {}, {}
        for name, its in reference.items():
            row = self._kept(inside[name], its, "chose the thresholds")
            found[f"{name}, training images out of fold"] = row
        for name, its in test.items():
            scores = self.fitted.scores(its.features)
            found[f"{name}, test"] = self._kept(scores, its, "unseen images of a known source")
        for name, (its, shared) in elsewhere.items():
            if alone := _without(reference, others, shared):
                how = "a set that did not teach the detector; the images it shares were left out of the reference set"
                found[name] = self._kept(alone.scores(its.features), its, how)
        for name, its in reference.items():
            if alone := _without(reference, others, {_key(name, film) for film in its.names}):
                left_out[name] = self._kept(alone.scores(its.features), its, "left out of the reference set")
        return {"radiographs": found, "source_left_out": left_out}

    def others(
        self,
        strange: dict[str, tuple[np.ndarray, np.ndarray]],
        changed: dict[str, np.ndarray],
        inside: dict[str, np.ndarray],
    ) -> dict[str, Any]:
        """Shares of what is no radiograph that are rejected, and how well it is told from each source in grey."""
        scores = {name: self.fitted.scores(its) for name, (its, _) in strange.items()}
        gone = {name: self._rejected(scores[name], coloured) for name, (_, coloured) in strange.items()}
        every = np.concatenate(list(scores.values()))
        return {
            "others": {
                "rejected": bootstrap(np.concatenate(list(gone.values()))),
                "rejected_or_warned": bootstrap(every > self.warning),
                **{name: bootstrap(its) for name, its in gone.items()},
                **{f"{name}, in grey": bootstrap(its > self.rejection) for name, its in scores.items()},
            },
            "auroc": {
                name: float(roc_auc_score(np.r_[np.zeros(len(each)), np.ones(len(every))], np.r_[each, every]))
                for name, each in inside.items()
            },
            "tampered": {name: bootstrap(self.fitted.scores(its) > self.rejection) for name, its in changed.items()},
        }


def measure(data: Path, weights: Path, init: Path | None = None, cache: Path = CACHE) -> DetectorCard:
    """Trains the detector, chooses its thresholds, judges it, and writes it beside the models.

    Args:
        data: folder with bone-break, FracAtlas, ``other-pictures`` to train on and ``not-xray`` to judge by, and
            further sets if they are at hand.
        weights: folder of models; ``ood/detector.safetensors`` and ``ood/detector.json`` are written.
        init: file or folder of ResNet-18's ImageNet layers; torchvision's where not given.
        cache: where decoded images are kept.

    Raises:
        FileNotFoundError: images are not there.
    """
    pictures, digest = _pictures(data / "other-pictures")
    judging, judging_digest = _pictures(data / "not-xray")
    layers, initial = _extractor(init)
    extractor = stage_features(layers, ("layer3",))
    rng = np.random.default_rng(0)
    every = [_pooled(extractor, np.stack(_parts_of(picture, rng))) for picture in pictures]
    third = np.arange(len(every)) % 3 == 2
    others = np.concatenate([its for its, judged in zip(every, third, strict=True) if not judged])
    held_out = np.concatenate([its[:1] for its, judged in zip(every, third, strict=True) if judged])
    foreign = _pooled(extractor, np.stack([letterbox(picture, SIZE)[0] for picture in judging]))
    strange = {
        "not-xray": (foreign, _in_colour(judging)),
        "held out of other-pictures": (held_out, _in_colour(pictures)[third]),
    }
    look = partial(_images, extractor, cache)
    reference, test = _radiographs(look, data, cache)
    inside = _out_of_fold(reference, others)
    rejection, warning = (
        max(float(np.quantile(each, 1.0 - share, method="higher")) for each in inside.values())
        for share in (REJECTED, WARNED)
    )
    fitted = _fit([its.features for its in reference.values()], others)
    known = {film.name: film.path for film in fracatlas.load(data).images}
    shown = [read(known[name]) for name in test["FracAtlas"].names[:TAMPERED]]
    changed = {name: _pooled(extractor, squares) for name, squares in tampered(shown, SIZE).items()}
    judge = _Judge(fitted, warning, rejection)
    metrics: dict[str, Any] = {
        "reference": {name: len(its.names) for name, its in reference.items()},
        "initial": initial,
        "others_trained_on": {"pictures": int((~third).sum()), "sha256": digest},
        "others_sha256": judging_digest,
        **judge.radiographs(reference, test, inside, _elsewhere(look, data), others),
        **judge.others(strange, changed, inside),
    }
    state = {key: its.half() if its.is_floating_point() else its for key, its in layers.state_dict().items()}
    blob = save({**state, "weight": torch.from_numpy(fitted.weight), "bias": torch.tensor(fitted.bias)})
    folder, sha256 = weights / FOLDER, hashlib.sha256(blob).hexdigest()
    card = DetectorCard(file=FILE, sha256=sha256, size=SIZE, warning=warning, rejection=rejection, metrics=metrics)
    write_json(folder / "detector.json", card.model_dump())
    (folder / FILE).write_bytes(blob)
    return card
