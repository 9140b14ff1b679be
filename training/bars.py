"""What was asked of the models and what was reached, in one table that every page shows.

The bars are figures others publish on the same films, and what a map and a stated probability should reach. Rows come
from what other commands committed; ``python -m training report`` writes them to ``weights/bars.json``, where the page
finds them too.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from app.bars import FILE, HEAD, Bar, Bars
from app.weights import ModelCard, load_card, ranked
from training.ensemble import WHOLE
from training.localise import ASKED, BASELINES
from training.tables import grid, percent, read, with_interval

__all__ = ["bars", "chance_error", "markdown", "recipe_file", "verdict", "write"]

SINGLE = 0.416
"""Accuracy published for a single ResNet-50 on these films."""
BEST = 0.513
"""Accuracy published for ConvNeXt-Tiny with test-time augmentation, on 114 of these films."""
TOP3 = 0.8
PEAK = 0.6
TIMES = 3.0
"""By how much a map's peaks are to beat those of the best map that knows nothing of fractures."""
ERROR = 0.06
OTHER_PLANS = ("ablation", "cross-source", "peers")
"""Folders under the recipes whose files are no recipes of models."""


def verdict(share: dict[str, float], bar: float) -> str:
    """Whether a measured share clears a bar, and whether its interval leaves another answer open."""
    if share["value"] >= bar:
        return "reached" if share["low"] >= bar else "reached; the interval does not exclude less"
    if share["high"] < bar:
        return "not reached"
    return "not reached; the interval does not exclude it"


def chance_error(bins: list[dict[str, Any]], draws: int = 2000) -> float:
    """Expected calibration error that a perfectly calibrated model would show on as many films, by chance alone.

    Args:
        bins: "films" and mean "confidence" of each, as ``training.metrics.expected_calibration_error`` gives them.
        draws: of binomial numbers of right answers, from a generator with seed 0.
    """
    filled = [row for row in bins if row["films"]]
    films = np.array([row["films"] for row in filled])
    confidence = np.array([row["confidence"] for row in filled])
    right = np.random.default_rng(0).binomial(films, confidence, (draws, len(films)))
    return float((np.abs(right / films - confidence) * films).sum(axis=1).mean() / films.sum())


def _single(cards: list[ModelCard], results: Path) -> Iterator[Bar]:
    for card in cards:
        seeds = read(results / "seeds" / f"{card.name}.json")
        if not seeds or seeds["spread"] is None or not card.architecture.startswith("resnet"):
            continue
        judged = [its["accuracy"] for its in seeds["seeds"].values()]
        widest = {key: pick(its[key] for its in judged) for key, pick in (("low", min), ("high", max))}
        yield Bar(
            asked=f"{card.title}: types named on the {judged[0]['n']} test films, mean of {len(judged)} trainings",
            bar=f"{percent(SINGLE)} (published, ResNet-50)",
            reached=f"{percent(seeds['mean'])} ± {100 * seeds['spread']:.1f}, intervals of the single ones "
            f"{100 * widest['low']:.1f} to {100 * widest['high']:.1f}",
            verdict=verdict({"value": seeds["mean"], **widest}, SINGLE),
            command=f"seeds training/recipes/{card.name}.yaml",
        )
        yield Bar(
            asked=f"{card.title}: types named on {card.metrics['cross_validation']['films']} training films, out of "
            "fold",
            bar=f"{percent(SINGLE)} (published, ResNet-50)",
            reached=with_interval(card.metrics["cross_validation"]["accuracy"]),
            verdict=verdict(card.metrics["cross_validation"]["accuracy"], SINGLE),
            command=f"cross-validate training/recipes/{card.name}.yaml",
        )


def _whole(results: Path) -> Iterator[Bar]:
    for path in sorted((results / "whole").glob("*.json")):
        found = read(path) or {}
        for key, words, bar in (
            ("accuracy", "types named", SINGLE),
            ("top3", "type among the first three", TOP3),
        ):
            share = found["types"][key]
            yield Bar(
                asked=f"{found['title']}: {words}, {len(found['folds'])} folds over all {share['n']:,} films",
                bar=f"{percent(bar)}{' (published, ResNet-50)' if bar == SINGLE else ''}",
                reached=with_interval(share),
                verdict=verdict(share, bar),
                command=f"cross-validate training/recipes/{path.name.removesuffix('.json')}.yaml --whole",
            )


def recipe_file(root: Path, name: str) -> str:
    """A recipe's path in the repository, wherever under the recipes it lies."""
    folder = root / "training" / "recipes"
    found = [path for path in sorted(folder.rglob(f"{name}.yaml")) if path.parent.name not in OTHER_PLANS]
    return (found[0] if found else folder / f"{name}.yaml").relative_to(root).as_posix()


def _together(root: Path) -> Iterator[Bar]:
    results = root / "training" / "results"
    rows = read(results / "ensembles.json") or {}
    judged = [read(path) or {} for part in ("whole", "folds") for path in sorted((results / part).glob("*.json"))]
    titles = {its["recipe"]: its["title"] for its in judged}
    most = max((len(row["folds"]) for row in rows.values()), default=0)
    for key, row in rows.items():
        name = " and ".join(titles.get(member, member) for member in row["members"])
        whole = key.endswith(WHOLE)
        command = " ".join(
            ["ensemble", *(recipe_file(root, member) for member in row["members"]), *(["--whole"] if whole else [])]
        )
        # Fewer folds than others have would be a figure on easier or harder films.
        folds = row["cross_validation"]["types"] if len(row["folds"]) == most else None
        where = f"{most} folds over all films" if whole else "training films, out of fold"
        yield from _one_together(name, where, folds, list(row["test"].values()), command)


def _one_together(
    name: str, where: str, folds: dict[str, Any] | None, tests: list[dict[str, Any]], command: str
) -> Iterator[Bar]:
    for key, words, bar, told in (
        ("accuracy", "types named", BEST, f"{percent(BEST)} (published, ConvNeXt-Tiny)"),
        ("top3", "type among the first three", TOP3, percent(TOP3)),
    ):
        asked = f"{name}, asked together about several views: {words}"
        if len(tests) > 1:
            values = [its[key]["value"] for its in tests]
            span = {"low": min(its[key]["low"] for its in tests), "high": max(its[key]["high"] for its in tests)}
            yield Bar(
                asked=f"{asked}, test films, mean of {len(tests)} trainings",
                bar=told,
                reached=f"{percent(statistics.mean(values))} ± {100 * statistics.stdev(values):.1f}, intervals of the "
                f"single ones {100 * span['low']:.1f} to {100 * span['high']:.1f}",
                verdict=verdict({"value": statistics.mean(values), **span}, bar),
                command=command,
            )
        if folds:
            yield Bar(
                asked=f"{asked}, {where} ({folds['films']:,})",
                bar=told,
                reached=with_interval(folds[key]),
                verdict=verdict(folds[key], bar),
                command=command,
            )


def _places(card: ModelCard, weights: Path) -> Iterator[Bar]:
    found = read(weights / card.name / "localisation.json")
    if not found:
        return
    maps = found["maps"]
    for name in (ASKED, "fracture map"):
        if name in maps:
            yield Bar(
                asked=f"{card.title}: {name} peaks in a box, {found['films']} FracAtlas validation films",
                bar=percent(PEAK),
                reached=with_interval(maps[name]["inside"]),
                verdict=verdict(maps[name]["inside"], PEAK),
                command=f"localise {card.name}",
            )
    best = max(BASELINES, key=lambda name: maps[name]["inside"]["value"])
    times = maps[ASKED]["inside"]["value"] / max(maps[best]["inside"]["value"], 1e-9)
    yield Bar(
        asked=f"the same of {ASKED}, against the best map that knows nothing ({best}, "
        f"{percent(maps[best]['inside']['value'])})",
        bar=f"{TIMES:.0f} times",
        reached=f"{times:.1f} times",
        verdict="reached" if times >= TIMES else "not reached",
        command=f"localise {card.name}",
    )


def _calibration(cards: list[ModelCard]) -> Iterator[Bar]:
    for card in cards:
        folds, error = card.metrics["cross_validation"], card.calibration["error_after"]
        chance = chance_error(folds["expected_calibration_error"]["bins"])
        yield Bar(
            asked=f"{card.title}: expected calibration error, {folds['films']} films out of fold",
            bar=f"at most {ERROR:.2f}",
            reached=f"{error:.3f}; a perfectly calibrated model would show {chance:.3f} on so few films by chance",
            verdict="reached" if error <= ERROR else "not reached",
            command="export",
        )


def _why(root: Path) -> list[str]:
    told = [
        "Accuracies of 41.6 % (ResNet-50) and 51.3 % (ConvNeXt-Tiny, test-time augmentation, 114 films) are published "
        "on these films. Neither was reached."
    ]
    audit = read(root / "training" / "data" / "audits" / "bone-break.json")
    peers = read(root / "training" / "recipes" / "peers" / "results.json") or {}
    if audit:
        near = audit["near_duplicates"]
        crossing = near["across_parts"].get("test films with a near-duplicate in train", 0)
        told.append(
            f"Both were measured with copies on both sides: up to {crossing} of the {audit['by_part']['test']} "
            "official test films have a near-duplicate in training."
        )
    leak = peers.get("leak-resnet18-random", {})
    if leak.get("published") and leak.get("leak_free"):
        told.append(
            f"A ResNet-18 of ours names {with_interval(leak['published']['accuracy'])} on a random split and "
            f"{with_interval(leak['leak_free']['accuracy'])} once copies and films of one case stay together, so we "
            "believe that the leak explains most of the gap. It is not shown for their networks: layers of ResNet-50 "
            "and ConvNeXt-Tiny trained on ImageNet were not at hand."
        )
    if audit:
        told.append(
            f"What else holds accuracy down: {audit['by_part']['train']} training pictures, and up to "
            f"{len(audit['near_duplicates']['contradictory_groups'])} groups of one film under different labels."
        )
    told.append(
        "The FracAtlas films on which peaks are counted also chose the feature pyramid, its size and its loss over "
        "places, so its shares there are somewhat flattered."
    )
    return told


def bars(root: Path) -> Bars:
    """Every bar with what was reached, from the figures committed under ``root``; what was not measured has no row."""
    weights, results = root / "weights", root / "training" / "results"
    cards = [load_card(name, weights) for name in ranked(weights)]
    rows = [
        *_single(cards, results),
        *_whole(results),
        *_together(root),
        *(row for card in cards[:1] for row in _places(card, weights)),
        *_calibration(cards),
    ]
    return Bars(rows=tuple(rows), why=tuple(_why(root)))


def markdown(found: Bars) -> str:
    """The sentences, and folded away under them the table, each row with its command."""
    rows = [[row.asked, row.reached, row.bar, row.verdict, f"`{row.command}`"] for row in found.rows]
    table = grid([*HEAD, "`python -m training ...`"], rows)
    summary = "<summary>Every bar, and what was measured</summary>"
    return f"{' '.join(found.why)}\n\n<details>{summary}\n\n{table}\n\n</details>"


def write(found: Bars, weights: Path) -> None:
    """Writes the table where the page reads it."""
    (weights / FILE).write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
