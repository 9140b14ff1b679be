"""Whether a model looks where the fracture is, on boxed images: ``python -m training localise MODEL --data FOLDER``.

Three measures a map, each with its interval over images:

- pointing game (Zhang et al., 2018, "Top-down neural attention by excitation backprop"): the map's peak lies in a box;
- the same, or no farther from one than 5 % of the image's diagonal;
- energy in box (Wang et al., 2020, "Score-CAM"): share of the map's positive sum that lies in boxes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.progress import track

from app.explain.methods import DEFAULT, METHODS, draw, map_request
from app.imaging.letterbox import letterbox
from app.imaging.radiograph import read
from app.model.classifier import Classifier, Explanation
from training import write_json
from training.data.datamodule import BoxedImages
from training.data.image import LabelledImage
from training.evaluation.metrics import Hit, bootstrap, hit

ASKED = "evidence for the predicted type"
"""The map the page draws at first."""


def _random(square: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(rng.random(shape).astype(np.float32), (0, 0), 1.0)


def _centre(square: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    rows, columns = (np.linspace(-1.0, 1.0, side) for side in shape)
    return np.exp(-2.0 * (rows[:, None] ** 2 + columns[None] ** 2)).astype(np.float32)


def _brightness(square: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    return cv2.resize(square.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)


BASELINES: dict[str, Callable[[np.ndarray, tuple[int, int], np.random.Generator], np.ndarray]] = {
    "random": _random,
    "centred Gaussian": _centre,
    "the film's brightness": _brightness,
}
"""Maps that know nothing of fractures: the model's square (size, size), the map's shape and a generator to a map."""


def best_baseline(maps: dict[str, Any]) -> str:
    """The baseline whose peak lies in a box most often, of the maps in ``localisation.json``."""
    return max(BASELINES, key=lambda name: maps[name]["inside"]["value"])


def _summary(hits: Sequence[Hit], twins: np.ndarray) -> dict[str, Any]:
    values = np.array(hits, float)
    return {name: bootstrap(values[:, column], twins) for column, name in enumerate(Hit._fields)}


def _sizes(films: Sequence[LabelledImage]) -> list[str]:
    """Each image's third by the share of it that boxes cover."""
    covered = np.array([sum(width * height for _, _, width, height in film.boxes) for film in films])
    low, high = np.quantile(covered, [1 / 3, 2 / 3])
    names = (f"up to {low:.2%} of the film", f"{low:.2%} to {high:.2%}", f"over {high:.2%}")
    return [names[int(share > low) + int(share > high)] for share in covered]


def with_mirrored(explained: Explanation, mirrored: Explanation) -> dict[str, np.ndarray]:
    """Maps of an image averaged with those of its mirror image: test-time augmentation, which the page does not do.

    The evidence still adds up: with the bias, to the mean of the two scores.
    """
    both = (explained.maps + mirrored.maps[:, :, ::-1]) / 2.0
    best = int((both.mean(axis=(1, 2)) + explained.biases).argmax())
    maps = {f"{ASKED}, mirror image asked too": both[best]}
    if explained.fracture is not None and mirrored.fracture is not None:
        odds = np.exp(explained.fracture) + np.exp(mirrored.fracture[:, ::-1])
        maps["fracture map, mirror image asked too"] = odds
    return maps


def localise(name: str, data: Path, weights: Path, seed: int = 0) -> dict[str, Any]:
    """Judges a model's maps and those of the baselines on FracAtlas' fractured validation images.

    Args:
        name: folder under ``weights``; ``localisation.json`` is written into it.

    Returns:
        Images, and by map the three measures with intervals, over all images, by region and by size of the boxes.

    Raises:
        WeightsError: no such model.
        FileNotFoundError: the images are not there.
    """
    classifier = Classifier.load(name, weights)
    boxed = BoxedImages(data, "validation", classifier.card.size)
    films = [film for film in boxed.films if film.boxes]
    twins = np.array([group for film, group in zip(boxed.films, boxed.groups, strict=True) if film.boxes])
    instant = [name for name, how in METHODS.items() if how.cost == "instant" and name != DEFAULT]
    rng = np.random.default_rng(seed)
    hits: dict[str, list[Hit]] = defaultdict(list)
    for start in track(range(0, len(films), 16), "Localising"):
        some = films[start : start + 16]
        decoded = [read(film.path) for film in some]
        mirror = [replace(film, pixels=np.ascontiguousarray(film.pixels[:, ::-1])) for film in decoded]
        for film, explained, mirrored in zip(
            some, classifier.explain(decoded), classifier.explain(mirror), strict=True
        ):
            maps = {ASKED: explained.evidence(explained.prediction.best)}
            if explained.fracture is not None:
                maps["fracture map"] = np.exp(explained.fracture)
            maps.update(with_mirrored(explained, mirrored))
            question = map_request(classifier, explained.radiograph)
            maps.update({METHODS[name].title: draw(question, name) for name in instant})
            square = letterbox(explained.radiograph, explained.placement.size)[0]
            shape = explained.maps.shape[1:]
            maps.update({baseline: make(square, shape, rng) for baseline, make in BASELINES.items()})
            for key, class_map in maps.items():
                hits[key].append(hit(class_map, film, explained.placement))
    groups = {"by_region": [film.region or "unknown" for film in films], "by_size": _sizes(films)}
    found: dict[str, Any] = {"part": "validation", "films": len(films), "maps": {}}
    for key, of_map in hits.items():
        row: dict[str, Any] = _summary(of_map, twins)
        for kind, values in groups.items():
            row[kind] = {}
            for value in sorted(set(values)):
                chosen = [index for index, its in enumerate(values) if its == value]
                row[kind][value] = _summary([of_map[index] for index in chosen], twins[chosen])
        found["maps"][key] = row
    write_json(weights / name / "localisation.json", found)
    return found
