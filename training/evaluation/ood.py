"""Is it a radiograph like those the model knows: ``python -m training refusal MODEL --data FOLDER``.

The limit is the lowest that keeps 95 % of the real films of either source, FracAtlas' validation films and the
bone-break films, of which each is compared with films of other cases only. Pictures that are no radiographs have no
part in choosing it; they judge it, and so do films that were tampered with and real films that chose nothing. Where a
model's own features fail on them, another's may be asked instead (``checked_by``), and the model card says so.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import save
from scipy.special import logsumexp
from sklearn.metrics import roc_auc_score

from app.errors import ImageError
from app.imaging.letterbox import letterbox
from app.imaging.radiograph import Radiograph, read
from app.model.backbones import ARCHITECTURES
from app.model.classifier import Classifier
from app.model.ood import OODDetector, pooled, stage_features
from app.model.weights import ReferenceSet, load_card, write_card
from training.data.datamodule import BoneBreakData, BoxedImages
from training.data.image import CACHE
from training.data.image import squares as cached_squares
from training.data.multi_region import external_set as strangers
from training.evaluation.metrics import bootstrap
from training.recipe import Recipe

__all__ = ["KEPT", "checked_by", "refusal", "tampered"]

log = logging.getLogger(__name__)

KEPT = 0.95
NEIGHBOURS = 5
MOST = 1200
"""FracAtlas films in the bank; the bone-break films all are."""
TAMPERED = 200
"""Validation films that are tampered with."""
OF_FILMS = ("inverted", "upside down", "cropped to the middle ninth")
FILE = "typical.safetensors"


def tampered(films: Sequence[Radiograph], size: int, equalise: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
    """What people may drop in that no camera took so, made from films and from nothing: float (M, S, S) in 0..1 each.

    Films are changed before they are letterboxed, as they would come: a negative with a white border gives itself away.

    Args:
        films: of any sizes.
        size: side of the model's square.
        equalise: whether the model's films are.
        seed: of the noise.
    """

    def changed(how: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        shown = (np.ascontiguousarray(how(film.display())) for film in films)
        return np.stack([letterbox(Radiograph(pixels, (0, 255)), size, equalise)[0] for pixels in shown])

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


def _features(extractor: torch.nn.Module, classifier: Classifier, squares: np.ndarray) -> torch.Tensor:
    parts = [
        pooled(extractor, classifier.pixels(list(squares[start : start + 64].astype(np.float32))))
        for start in range(0, len(squares), 64)
    ]
    return torch.cat(parts)


def _energy(classifier: Classifier, squares: np.ndarray) -> np.ndarray:
    found = []
    with torch.inference_mode():
        for start in range(0, len(squares), 64):
            pixels = classifier.pixels(list(squares[start : start + 64].astype(np.float32)))
            found.append(-logsumexp(classifier.network(pixels).logits.numpy(), axis=1))
    return np.concatenate(found)


def _others(folder: Path, size: int, equalise: bool) -> tuple[np.ndarray, str]:
    """Pictures that are no films, float (N, size, size), and one hash over their names and bytes."""
    squares, digest = [], hashlib.sha256()
    for path in sorted(folder.glob("*")):
        try:
            squares.append(letterbox(read(path), size, equalise)[0])
        except ImageError:
            continue
        digest.update(path.name.encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    if not squares:
        raise FileNotFoundError(f"no pictures under {folder}; put some there that are no radiographs")
    return np.stack(squares), digest.hexdigest()


def _elsewhere(typed: BoneBreakData, data: Path, cache: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Real films that neither are known nor chose the limit: squares, uint8 (N, size, size), and groups, int (N,)."""
    size, equalise = typed.recipe.size, typed.recipe.equalise
    test = BoxedImages(data, "test", size, cache, equalise)
    found = {
        "bone-break, test": (typed.squares[typed.split.test], typed.groups[typed.split.test]),
        "FracAtlas, test": (test.squares, test.groups),
    }
    try:
        unknown = strangers(data)
    except FileNotFoundError:
        log.warning("there are no multi-region films under %s, so they judge nothing", data)
    else:
        pixels = cached_squares([film.path for film in unknown], size, cache, equalise)
        found["multi-region, films no other set holds"] = (pixels, np.arange(len(unknown)))
    return found


def checked_by(name: str, other: str, weights: Path) -> dict[str, Any]:
    """Has a model's pictures checked by another one, whose features tell films better; its figures are taken over.

    Returns:
        What the model's ``refusal.json`` then holds.

    Raises:
        WeightsError: no such model.
        FileNotFoundError: the other one's refusal was not measured.
    """
    card, theirs = load_card(name, weights), load_card(other, weights)
    measured = weights / other / "refusal.json"
    if theirs.typical is None or not measured.is_file():
        raise FileNotFoundError(f"run `python -m training refusal {other}` first")
    found = {**json.loads(measured.read_text(encoding="utf-8")), "by": other}
    (weights / name / "refusal.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (weights / name / FILE).unlink(missing_ok=True)
    metrics = {**card.metrics, "refusal": theirs.metrics["refusal"]}
    write_card(card.model_copy(update={"typical": None, "checked_by": other, "metrics": metrics}), weights / name)
    return found


def refusal(name: str, data: Path, weights: Path, cache: Path = CACHE) -> dict[str, Any]:
    """Gathers the features of known films, chooses the limit, judges it, and writes all into the model's folder.

    Args:
        name: folder under ``weights``; ``typical.safetensors`` and ``refusal.json`` are written, the limit into its
            card.
        data: folder with FracAtlas, bone-break and ``not-xray``.
        weights: folder of models.
        cache: where decoded films are kept.

    Returns:
        What ``refusal.json`` holds.

    Raises:
        FileNotFoundError: films are not there.
        WeightsError: no such model.
    """
    classifier = Classifier.load(name, weights)
    card = classifier.card
    recipe = Recipe.model_validate(card.recipe)
    stages = ARCHITECTURES[card.architecture].middle
    extractor = stage_features(classifier.network.body, stages)
    typed = BoneBreakData(recipe, data, cache)
    atlas = BoxedImages(data, "train", card.size, cache, card.equalise)
    judging = BoxedImages(data, "validation", card.size, cache, card.equalise)
    validation = judging.squares / 255.0
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.permutation(len(atlas.films))[:MOST])
    own, groups = typed.squares[typed.split.train] / 255.0, typed.groups[typed.split.train]
    bank = torch.cat(
        [_features(extractor, classifier, own), _features(extractor, classifier, atlas.squares[chosen] / 255.0)]
    ).half()
    blob = save({"features": bank})
    (weights / name / FILE).write_bytes(blob)
    known = OODDetector(extractor, bank.float(), min(NEIGHBOURS, len(bank)), float("inf"))

    def distances(squares: np.ndarray) -> np.ndarray:
        pixels = (classifier.pixels(list(squares[i : i + 64].astype(np.float32))) for i in range(0, len(squares), 64))
        return np.concatenate([known.distance(some) for some in pixels])

    apart = torch.cdist(known.bank[: len(own)], known.bank)
    apart[:, : len(own)][torch.from_numpy(groups[:, None] == groups[None])] = float("inf")
    within = apart.topk(known.neighbours, largest=False).values.mean(dim=1).numpy()
    real = {"FracAtlas, validation": distances(validation), "bone-break, other cases": within}
    limit = max(float(np.quantile(each, KEPT, method="higher")) for each in real.values())
    others, digest = _others(data / "not-xray", card.size, card.equalise)
    far = distances(others)
    calm = _energy(classifier, validation)
    found: dict[str, Any] = {
        "neighbours": known.neighbours,
        "stages": list(stages),
        "known_films": len(bank),
        "limit": limit,
        "real_films_kept": {
            key: bootstrap(each <= limit, groups if key.startswith("bone") else judging.groups)
            for key, each in real.items()
        },
        "real_films_kept_elsewhere": {
            key: bootstrap(distances(squares / 255.0) <= limit, its)
            for key, (squares, its) in _elsewhere(typed, data, cache).items()
        },
        "others_sha256": digest,
        "others_refused": bootstrap(far > limit),
        "auroc": {
            key: float(roc_auc_score(np.r_[np.zeros(len(each)), np.ones(len(far))], np.r_[each, far]))
            for key, each in real.items()
        },
        "auroc_of_energy": float(
            roc_auc_score(np.r_[np.zeros(len(calm)), np.ones(len(far))], np.r_[calm, _energy(classifier, others)])
        ),
        "tampered_refused": {
            key: bootstrap(distances(squares) > limit, judging.groups[:TAMPERED] if key in OF_FILMS else None)
            for key, squares in tampered(
                [read(film.path) for film in judging.films[:TAMPERED]], card.size, card.equalise
            ).items()
        },
    }
    (weights / name / "refusal.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    typical = ReferenceSet(
        file=FILE,
        sha256=hashlib.sha256(blob).hexdigest(),
        stages=stages,
        neighbours=known.neighbours,
        limit=limit,
    )
    told = ("real_films_kept", "real_films_kept_elsewhere", "others_refused", "tampered_refused")
    kept = {key: found[key] for key in told}
    write_card(
        card.model_copy(update={"typical": typical, "checked_by": None, "metrics": {**card.metrics, "refusal": kept}}),
        weights / name,
    )
    return found
