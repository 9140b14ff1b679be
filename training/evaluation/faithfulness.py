"""Which method's heatmaps deserve belief: ``python -m training faithfulness MODEL``.

Every method explains the same fractured FracAtlas validation images, which no model was trained on, and is judged by
what ``app.explain.faithfulness`` measures: deletion, insertion and ROAD against the same map moved elsewhere, boxes
hit, stability, dependence on the weights (mean absolute rank correlation), and seconds. Images are judged one by one
and each is kept, so an interrupted run goes on.
"""

from __future__ import annotations

import functools
import hashlib
import json
import operator
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from rich.progress import track

from app.explain.faithfulness import SHARES, Faithfulness, measure_faithfulness
from app.explain.methods import DEFAULT, METHODS, MapRequest, draw, map_request, with_square
from app.explain.sanity import CHANGES, FEW_CHANGES, randomise_weights, stability
from app.imaging.letterbox import Placement
from app.imaging.radiograph import read
from app.model.classifier import Classifier
from training import write_json
from training.data.datamodule import BoxedImages
from training.data.image import LabelledImage
from training.evaluation.metrics import bootstrap, hit

matplotlib.use("Agg")
from matplotlib import pyplot as plt

TRIED = {"instant": 24, "seconds": 12, "slow": 8}
"""Images that judge a method of each cost; the default method is judged on all."""

CHECKED = {"instant": 10, "seconds": 5, "slow": 2}
"""Images on which a method of each cost is scrambled and shaken as well."""

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
        checked: randomise_weights the weights and shake the image as well.

    Returns:
        Plain numbers: "seconds" from the image in the model's square to the map, areas, margins over random maps,
        curves, boxes hit and, where checked, mean stability and absolute rank correlation by the part down to which
        weights were shuffled, None where that left no heat.
    """
    began = time.perf_counter()
    found = draw(with_square(question, question.square), method)
    row: dict[str, Any] = {"seconds": time.perf_counter() - began}
    tried = measure_faithfulness(question, found, placement, random=RANDOM)
    row["deletion"], row["insertion"], row["road"] = (
        tried.real.deletion_area,
        tried.real.insertion_area,
        tried.real.road,
    )
    row["margins"] = tried.margins()
    row["curves"] = _curves(tried)
    its = hit(found, film, placement)
    row["inside"], row["near"] = bool(its.inside), bool(its.near)
    if checked:
        slow = METHODS[method].cost == "slow"
        shaken = stability(question, method, found, FEW_CHANGES if slow else CHANGES)
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


def summarise(films: Sequence[dict[str, dict[str, Any]]], twins: Sequence[int]) -> dict[str, Any]:
    """By method, means over images with intervals.

    Args:
        images: by method what ``judge_image`` found.
        near-duplicates: (N,), near-duplicates share a number.
    """

    def mean(rows: list[dict[str, Any]], *path: str) -> dict[str, float]:
        values = np.array([functools.reduce(operator.getitem, path, row) for row in rows], float)
        groups = np.array([row["twins"] for row in rows])
        known = np.isfinite(values)
        return bootstrap(values[known], groups[known])

    rows: dict[str, Any] = {}
    for method in sorted({name for film in films for name in film}, key=list(METHODS).index):
        its: list[dict[str, Any]] = [
            {**film[method], "twins": twin} for film, twin in zip(films, twins, strict=True) if method in film
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
    name: str, data: Path, weights: Path, *, images: int = 120, methods: Sequence[str] = (), runs: Path
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
    boxed = BoxedImages(data, "validation", classifier.card.size)
    broken = [film for film in boxed.films if film.boxes]
    twins = [int(group) for film, group in zip(boxed.films, boxed.groups, strict=True) if film.boxes]
    order = np.random.default_rng(0).permutation(len(broken))[:images]
    checksum = hashlib.sha256((weights / name / "model.safetensors").read_bytes()).hexdigest()
    # Temperature decides probabilities, and with them every area.
    kept = runs / f"{name}-{checksum[:12]}-{classifier.card.temperature:.4f}-{VERSION}.json"
    known: dict[str, dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    for number, index in enumerate(track(order, "On trial")):
        film = broken[index]
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
    chosen = [known[broken[index].name] for index in order]
    found = {
        "part": "validation",
        "films": len(chosen),
        "random_maps": RANDOM,
        "threads": torch.get_num_threads(),
        "shares": SHARES.tolist(),
        "weights_sha256": checksum,
        "methods": summarise(chosen, [twins[index] for index in order]),
    }
    target = weights / name / "faithfulness.json"
    before = json.loads(target.read_text(encoding="utf-8")) if target.is_file() else {}
    if all(before.get(key) == found[key] for key in ("part", "films", "random_maps", "weights_sha256")):
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
    curves.set_xlabel("share of the film blurred or uncovered, hottest first")
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
