"""Where a model looks, and which method's heatmaps deserve belief, on FracAtlas' boxed validation images.

``python -m training localise MODEL`` judges the instant maps and trivial baselines by three measures, each with its
interval over images:

- pointing game (Zhang et al., 2018, "Top-down neural attention by excitation backprop"): the map's peak lies in a box;
- the same, or no farther from one than 5 % of the image's diagonal;
- energy in box (Wang et al., 2020, "Score-CAM"): share of the map's positive sum that lies in boxes.

``python -m training faithfulness MODEL`` judges every method by what ``app.explain.faithfulness`` measures: deletion,
insertion and ROAD against the same map moved elsewhere, boxes hit, stability, dependence on the weights (mean absolute
rank correlation), and seconds. Images are judged one by one and each is kept, so an interrupted run goes on. No model
was trained on these images.
"""

from __future__ import annotations

import functools
import hashlib
import json
import operator
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import torch
from rich.progress import track

from app.explain.faithfulness import SHARES, Faithfulness, measure_faithfulness
from app.explain.methods import DEFAULT, METHODS, MapRequest, draw, map_request, with_square
from app.explain.sanity import CHANGES, FEW, randomise_weights, stability
from app.imaging.letterbox import Placement, letterbox
from app.imaging.radiograph import read
from app.model.classifier import Classifier, Explanation
from training import read_json, write_json
from training.data.datamodule import BoxedImages
from training.data.image import CACHE, LabelledImage
from training.evaluation.metrics import Hit, bootstrap, hit

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ASKED = "evidence for the predicted type"
"""The map the page draws at first."""


def _centre(square: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    rows, columns = (np.linspace(-1.0, 1.0, side) for side in shape)
    return np.exp(-2.0 * (rows[:, None] ** 2 + columns[None] ** 2)).astype(np.float32)


BASELINES: dict[str, Callable[[np.ndarray, tuple[int, int], np.random.Generator], np.ndarray]] = {
    "random": lambda _, shape, rng: cv2.GaussianBlur(rng.random(shape).astype(np.float32), (0, 0), 1.0),
    "centred Gaussian": _centre,
    "the image's brightness": lambda square, shape, _: cv2.resize(
        square.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA
    ),
}
"""Maps that know nothing of fractures: the model's square (size, size), the map's shape and a generator to a map."""


def best_baseline(maps: dict[str, Any]) -> str:
    """The baseline whose peak lies in a box most often, of the maps in ``localisation.json``."""
    return max(BASELINES, key=lambda name: maps[name]["inside"]["value"])


def _summary(hits: Sequence[Hit], groups: np.ndarray) -> dict[str, Any]:
    values = np.array(hits, float)
    return {name: bootstrap(values[:, column], groups) for column, name in enumerate(Hit._fields)}


def _fractured(data: Path, size: int, cache: Path) -> tuple[list[LabelledImage], np.ndarray]:
    """The boxed validation images, which have a box each, and their groups of near-duplicates, int (N,)."""
    boxed = BoxedImages(data, "validation", size, cache)
    chosen = [index for index, film in enumerate(boxed.images) if film.boxes]
    return [boxed.images[index] for index in chosen], boxed.groups[chosen]


def _sizes(films: Sequence[LabelledImage]) -> list[str]:
    """Each image's third by the share of it that boxes cover."""
    covered = np.array([sum(width * height for _, _, width, height in film.boxes) for film in films])
    low, high = np.quantile(covered, [1 / 3, 2 / 3])
    names = (f"up to {low:.2%} of the image", f"{low:.2%} to {high:.2%}", f"over {high:.2%}")
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


def localise(name: str, data: Path, weights: Path, seed: int = 0, cache: Path = CACHE) -> dict[str, Any]:
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
    films, groups = _fractured(data, classifier.card.size, cache)
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
    kinds = {"by_region": [film.region or "unknown" for film in films], "by_size": _sizes(films)}
    found: dict[str, Any] = {"part": "validation", "images": len(films), "maps": {}}
    for key, of_map in hits.items():
        row: dict[str, Any] = _summary(of_map, groups)
        for kind, values in kinds.items():
            row[kind] = {}
            for value in sorted(set(values)):
                chosen = [index for index, its in enumerate(values) if its == value]
                row[kind][value] = _summary([of_map[index] for index in chosen], groups[chosen])
        found["maps"][key] = row
    write_json(weights / name / "localisation.json", found)
    return found


TRIED = {"instant": 15, "seconds": 12, "slow": 8}
"""Images that judge a method of each cost; the default method is judged on all."""

CHECKED = {"instant": 10, "seconds": 5, "slow": 2}
"""Images on which weights are randomised and the image is shaken as well, by a method's cost."""

RANDOM = 2
"""Random maps an image and method."""

VERSION = 4
"""Of what is measured: figures kept of single images by another one are not mixed with these."""


def judge_image(
    question: MapRequest, film: LabelledImage, placement: Placement, method: str, *, checked: bool
) -> dict[str, Any]:
    """What is measured of one method on one image.

    Args:
        question: about the image.
        image: with at least one box.
        placement: of the image in the model's square.
        method: a key of ``METHODS``.
        checked: randomise the weights and shake the image as well.

    Returns:
        Plain numbers: "seconds" of a processor from the image in the model's square to the map, areas, margins over
        random maps, curves, boxes hit and, where checked, mean stability and absolute rank correlation by the part down
        to which weights were shuffled, None where that left no heat.
    """
    began = time.process_time()
    found = draw(with_square(question, question.square), method)
    row: dict[str, Any] = {"seconds": time.process_time() - began}
    tried = measure_faithfulness(question, found, placement, random=RANDOM)
    its = hit(found, film, placement)
    row |= {
        "deletion": tried.real.deletion_area,
        "insertion": tried.real.insertion_area,
        "road": tried.real.road,
        "margins": tried.margins(),
        "curves": _curves(tried),
        "inside": bool(its.inside),
        "near": bool(its.near),
    }
    if checked:
        slow = METHODS[method].cost == "slow"
        shaken = stability(question, method, found, CHANGES[:FEW] if slow else CHANGES)
        row["stability"] = float(np.mean([each.correlation for each in shaken]))
        row["scrambled"] = {step.down_to: step.correlation for step in randomise_weights(question, method, found)}
    return row


def _curves(tried: Faithfulness) -> dict[str, list[float]]:
    """Curves of the map, and those of the random maps averaged, at ``SHARES``."""
    curves = {}
    for measure in ("deletion", "insertion"):
        random = np.mean([getattr(each, measure) for each in tried.random], axis=0)
        curves[measure] = getattr(tried.real, measure).astype(float).round(5).tolist()
        curves[f"{measure}, random"] = random.astype(float).round(5).tolist()
    return curves


def _by_method(films: Sequence[dict[str, dict[str, Any]]], groups: np.ndarray) -> dict[str, Any]:
    """By method, means over images with intervals.

    Args:
        images: by method what ``judge_image`` found of an image.
        groups: int (N,), near-duplicates share a number.
    """

    def mean(rows: list[dict[str, Any]], *path: str) -> dict[str, float]:
        values = np.array([functools.reduce(operator.getitem, path, row) for row in rows], float)
        known = np.isfinite(values)
        return bootstrap(values[known], np.array([row["group"] for row in rows])[known])

    rows: dict[str, Any] = {}
    for method in sorted({name for film in films for name in film}, key=list(METHODS).index):
        its: list[dict[str, Any]] = [
            {**film[method], "group": group} for film, group in zip(films, groups, strict=True) if method in film
        ]
        checked = [row for row in its if "stability" in row]
        row: dict[str, Any] = {
            "seconds": float(np.median([row["seconds"] for row in its])),
            **{key: mean(its, key) for key in ("deletion", "insertion", "road", "inside", "near")},
            "margins": {key: mean(its, "margins", key) for key in ("deletion", "insertion", "ROAD")},
            "curves": {
                key: np.mean([row["curves"][key] for row in its], axis=0).round(5).tolist() for key in its[0]["curves"]
            },
        }
        if checked:
            row["stability"] = mean(checked, "stability")
            row["scrambled"] = {
                part: mean(checked, "scrambled", part)
                for part in checked[0]["scrambled"]
                if any(each["scrambled"][part] is not None for each in checked)
            }
        rows[method] = row
    return rows


def faithfulness(
    name: str,
    data: Path,
    weights: Path,
    *,
    images: int = 120,
    methods: Sequence[str] = (),
    runs: Path,
    cache: Path = CACHE,
) -> dict[str, Any]:
    """Judges every method on a model and writes ``faithfulness.json`` beside its weights.

    What stands there of other methods stays, if it was measured of these weights on as many images.

    Args:
        images: how many, drawn once among the fractured validation images; costlier methods are judged on the first of
            them (``TRIED``).
        methods: keys of ``METHODS``; all where none is named.
        runs: folder where what was measured of each image is kept, by the weights' checksum, the temperature and
            ``VERSION``.

    Raises:
        WeightsError: no such model.
        FileNotFoundError: the images are not there.
    """
    methods = methods or list(METHODS)
    classifier = Classifier.load(name, weights)
    films, groups = _fractured(data, classifier.card.size, cache)
    order = np.random.default_rng(0).permutation(len(films))[:images]
    checksum = hashlib.sha256((weights / name / "model.safetensors").read_bytes()).hexdigest()
    # Temperature decides probabilities, and with them every area.
    kept = runs / f"{name}-{checksum[:12]}-{classifier.card.temperature:.4f}-{VERSION}.json"
    known: dict[str, dict[str, Any]] = read_json(kept) or {}
    for number, index in enumerate(track(order, "On trial")):
        film = films[index]
        rows = known.setdefault(film.name, {})
        missing = [
            method
            for method in methods
            if method not in rows and (method == DEFAULT or number < TRIED[METHODS[method].cost])
        ]
        if not missing:
            continue
        picture = read(film.path)
        question = map_request(classifier, picture)
        placement = Placement.fit(picture.height, picture.width, classifier.card.size)
        for method in missing:
            checked = number < CHECKED[METHODS[method].cost]
            rows[method] = judge_image(question, film, placement, method, checked=checked)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(known), encoding="utf-8")
    chosen = [known[films[index].name] for index in order]
    found = {
        "part": "validation",
        "images": len(chosen),
        "random_maps": RANDOM,
        "threads": torch.get_num_threads(),
        "shares": SHARES.tolist(),
        "weights_sha256": checksum,
        "methods": _by_method(chosen, groups[order]),
    }
    target = weights / name / "faithfulness.json"
    before = read_json(target) or {}
    if all(before.get(key) == found[key] for key in ("part", "images", "random_maps", "weights_sha256")):
        rows = {**before["methods"], **found["methods"]}
        found["methods"] = {method: rows[method] for method in METHODS if method in rows}
    write_json(target, found)
    _plot(found, weights / name / "faithfulness.png")
    return found


def _plot(found: dict[str, Any], target: Path) -> None:
    """The default method's curves beside random maps', and every method's margins with their intervals."""
    figure, (curves, margins) = plt.subplots(1, 2, figsize=(10.5, 5.5), layout="constrained", width_ratios=(1, 1.35))
    shown = found["methods"].get(DEFAULT)
    if shown:
        for measure, colour in (("deletion", "tab:red"), ("insertion", "tab:blue")):
            curves.plot(found["shares"], shown["curves"][measure], color=colour, label=measure)
            curves.plot(
                found["shares"], shown["curves"][f"{measure}, random"], "--", color=colour, label=f"{measure}, random"
            )
        curves.set_title(f"{METHODS[DEFAULT].title}, mean of {shown['deletion']['n']} images")
        curves.legend()
    curves.set_xlabel("share of the image blurred or uncovered, hottest first")
    curves.set_ylabel("probability of the predicted type")
    names = list(found["methods"])
    for offset, (measure, colour) in enumerate(
        (("deletion", "tab:red"), ("insertion", "tab:blue"), ("ROAD", "tab:green"))
    ):
        its = [found["methods"][name]["margins"][measure] for name in names]
        values = np.array([each["value"] for each in its])
        spread = [values - [each["low"] for each in its], [each["high"] for each in its] - values]
        margins.errorbar(
            values, np.arange(len(names)) + 0.22 * (offset - 1), xerr=spread, fmt="o", ms=3, color=colour, label=measure
        )
    margins.axvline(0.0, color="grey", lw=0.8)
    margins.set_yticks(range(len(names)), [METHODS[name].title for name in names], fontsize=8)
    margins.invert_yaxis()
    margins.set_xlabel("margin over random maps, in probability; right of 0 is better")
    margins.legend()
    figure.savefig(target, dpi=110)
    plt.close(figure)
