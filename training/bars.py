"""What was asked of the models and what was reached, in one table that every page shows.

The bars are figures others publish on the same films, and what a map and a stated probability should reach. Rows come
from what other commands committed; ``python -m training report`` writes them to ``weights/bars.json``, where the page
finds them too.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.bars import FILE, HEAD, Bar, Bars
from app.weights import ModelCard, load_card, ranked
from training.ensemble import WHOLE
from training.localise import ASKED, best_baseline
from training.tables import grid, percent, read, with_interval

__all__ = ["bars", "chance_error", "markdown", "over_trainings", "recipe_file", "verdict", "why", "write"]

SINGLE = 0.416
"""Accuracy published for a single ResNet-50 on these films."""
BEST = 0.513
"""Accuracy published for ConvNeXt-Tiny with test-time augmentation, on 114 of these films."""
TOP3 = 0.8
PEAK = 0.6
TIMES = 3.0
"""By how much a map's peaks are to beat those of the best map that knows nothing of fractures."""
ERROR = 0.06
NAMED = "labelled type named"
AMONG = "labelled type among the first three"
LEGEND = (
    "In brackets stand 95 % intervals over films, for means of several trainings the widest of theirs; after ± the "
    "standard deviation between trainings. Out of fold: each film judged by a network that had not seen it, nor a film "
    "like it. Expected calibration error: mean gap between how sure the model is and how often it is right."
)
OTHER_PLANS = ("ablation", "cross-source", "peers")
"""Folders under the recipes whose files are no recipes of models."""


def verdict(share: dict[str, float], bar: float) -> str:
    """Whether a measured share clears a bar, and whether its interval leaves another answer open."""
    if share["value"] >= bar:
        return "reached" if share["low"] >= bar else "reached; the true figure may be lower"
    return "not reached" if share["high"] < bar else "not reached; the true figure may be higher"


def over_trainings(shares: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of several trainings' shares of the same films, with the widest of their intervals moved to it.

    The films are the same each time, so more trainings do not tell more about other films.
    """
    mean = statistics.mean(its["value"] for its in shares)
    return {
        "value": mean,
        "low": mean - max(its["value"] - its["low"] for its in shares),
        "high": mean + max(its["high"] - its["value"] for its in shares),
    }


def chance_error(bins: list[dict[str, Any]], draws: int = 2000) -> dict[str, float]:
    """Expected calibration error that a perfectly calibrated model would show on as many films, by chance alone.

    Near-duplicates are taken for films of their own, so chance is understated a little.

    Args:
        bins: "films" and mean "confidence" of each, as ``training.metrics.expected_calibration_error`` gives them.
        draws: of binomial numbers of right answers, from a generator with seed 0.

    Returns:
        "value", the mean, and the middle 95 % of draws, "low" to "high".
    """
    filled = [row for row in bins if row["films"]]
    films = np.array([row["films"] for row in filled])
    confidence = np.array([row["confidence"] for row in filled])
    right = np.random.default_rng(0).binomial(films, confidence, (draws, len(films)))
    errors = (np.abs(right / films - confidence) * films).sum(axis=1) / films.sum()
    low, high = np.quantile(errors, [0.025, 0.975])
    return {"value": float(errors.mean()), "low": float(low), "high": float(high)}


def recipe_file(root: Path, name: str) -> str:
    """A recipe's path in the repository, wherever under the recipes it lies."""
    folder = root / "training" / "recipes"
    found = [path for path in sorted(folder.rglob(f"{name}.yaml")) if path.parent.name not in OTHER_PLANS]
    return (found[0] if found else folder / f"{name}.yaml").relative_to(root).as_posix()


def _share(asked: str, share: dict[str, float], bar: float, published: str, command: str, spread: float = 0.0) -> Bar:
    reached = with_interval(share)
    if spread:
        reached = reached.replace(" (", f" ± {100 * spread:.1f} (", 1)
    told = percent(bar) + (f" (published, {published})" if published else "")
    return Bar(asked=asked, bar=told, reached=reached, verdict=verdict(share, bar), command=command)


def _single(cards: list[ModelCard], root: Path) -> Iterator[Bar]:
    results = root / "training" / "results"
    for card in cards:
        seeds = read(results / "seeds" / f"{card.name}.json")
        if not seeds or seeds["spread"] is None or not card.architecture.startswith("resnet"):
            continue
        file, folds = recipe_file(root, card.name), card.metrics["cross_validation"]
        for key, words, bar, published in (("accuracy", NAMED, SINGLE, "ResNet-50"), ("top3", AMONG, TOP3, "")):
            each = [its[key] for its in seeds["seeds"].values()]
            asked = f"{card.title}: {words}, {each[0]['n']} test films, mean of {len(each)} trainings"
            spread = statistics.stdev(its["value"] for its in each)
            yield _share(asked, over_trainings(each), bar, published, f"seeds {file}", spread)
            asked = f"{card.title}: {words}, {folds['films']} training films, out of fold"
            yield _share(asked, folds[key], bar, published, f"cross-validate {file}")


def _whole(root: Path) -> Iterator[Bar]:
    for path in sorted((root / "training" / "results" / "whole").glob("*.json")):
        found = read(path) or {}
        for key, words, bar, published in (("accuracy", NAMED, SINGLE, "ResNet-50"), ("top3", AMONG, TOP3, "")):
            share = found["types"][key]
            asked = f"{found['title']}: {words}, {len(found['folds'])} folds over {share['n']:,} films, test included"
            yield _share(asked, share, bar, published, f"cross-validate {recipe_file(root, path.stem)} --whole")


def _together(root: Path) -> Iterator[Bar]:
    results = root / "training" / "results"
    rows = read(results / "ensembles.json") or {}
    judged = [read(path) or {} for part in ("whole", "folds") for path in sorted((results / part).glob("*.json"))]
    titles = {its["recipe"]: its["title"] for its in judged}
    most = max((len(row["folds"]) for row in rows.values()), default=0)
    for name, row in rows.items():
        whole = name.endswith(WHOLE)
        members = " + ".join(f"“{titles.get(member, member)}”" for member in row["members"])
        files = " ".join(recipe_file(root, member) for member in row["members"])
        command = f"ensemble {files}{' --whole' if whole else ''}"
        folds, tests = row["cross_validation"]["types"], list(row["test"].values())
        for key, words, bar, published in (("accuracy", NAMED, BEST, "ConvNeXt-Tiny"), ("top3", AMONG, TOP3, "")):
            if len(tests) > 1:
                each = [its[key] for its in tests]
                asked = f"{members} asked together: {words}, {each[0]['n']} test films, mean of {len(each)} trainings"
                spread = statistics.stdev(its["value"] for its in each)
                yield _share(asked, over_trainings(each), bar, published, command, spread)
            # Fewer folds than others have would be a figure on easier or harder films.
            if len(row["folds"]) == most:
                films = (
                    f"{most} folds over {folds['films']:,} films, test included"
                    if whole
                    else f"{folds['films']} training films, out of fold"
                )
                yield _share(f"{members} asked together: {words}, {films}", folds[key], bar, published, command)


def _places(cards: list[ModelCard], weights: Path) -> Iterator[Bar]:
    for card in cards:
        maps = (read(weights / card.name / "localisation.json") or {}).get("maps", {})
        command = f"localise {card.name}"
        for name in (ASKED, "fracture map"):
            if name in maps:
                share = maps[name]["inside"]
                asked = f"{card.title}: peak of the {name} in a box, {share['n']} FracAtlas validation films"
                yield _share(asked, share, PEAK, "", command)
        if maps:
            best = best_baseline(maps)
            times = maps[ASKED]["inside"]["value"] / max(maps[best]["inside"]["value"], 1e-9)
            yield Bar(
                asked=f"{card.title}: peaks of the {ASKED} in a box, beside those of the best map that knows nothing "
                f"({best}, {percent(maps[best]['inside']['value'])})",
                bar=f"{TIMES:.0f} times as many",
                reached=f"{times:.1f} times",
                verdict="reached" if times >= TIMES else "not reached",
                command=command,
            )


def _calibration(cards: list[ModelCard]) -> Iterator[Bar]:
    for card in cards:
        folds, error = card.metrics["cross_validation"], card.calibration["error_after"]
        chance = chance_error(folds["expected_calibration_error"]["bins"])
        told = "reached" if error <= ERROR else "not reached"
        if chance["high"] > ERROR:
            told += "; too few films to tell"
        yield Bar(
            asked=f"{card.title}: expected calibration error, {folds['films']} films out of fold",
            bar=f"at most {ERROR:.2f}",
            reached=f"{error:.3f} ({card.calibration['error_before']:.3f} before scaling); by chance alone a perfect "
            f"model would show {chance['low']:.3f} to {chance['high']:.3f} on so few films",
            verdict=told,
            command=f"export runs/seeds/{card.name}/seed0 --folds runs/folds/{card.name}",
        )


def _of(rows: Sequence[Bar], bar: float) -> list[Bar]:
    return [row for row in rows if row.bar.startswith(f"{percent(bar)} (published")]


def _missed(rows: Sequence[Bar], bar: float) -> bool:
    asked = _of(rows, bar)
    return bool(asked) and all(row.verdict.startswith("not reached") for row in asked)


def why(rows: Sequence[Bar], cards: Sequence[ModelCard], root: Path) -> list[str]:
    """Sentences on what is published, whether it was reached, and what may explain the gap."""
    missed = [_missed(rows, bar) for bar in (SINGLE, BEST)]
    told = [
        f"Accuracies of {percent(SINGLE)} (ResNet-50, official test films) and {percent(BEST)} (ConvNeXt-Tiny, "
        "test-time augmentation, 114 films of a random split) are published on these films. "
        + ("Neither was reached." if all(missed) else "One was not reached." if any(missed) else "See the table."),
    ]
    for words, bar in (("a single ResNet", SINGLE), ("models asked together", BEST)):
        if asked := _of(rows, bar):
            highest = max(asked, key=lambda row: float(row.reached.split(" %")[0]))
            told.append(f"The highest figure here of {words} is {highest.reached} ({highest.asked.split(': ')[1]}).")
    audit = read(root / "training" / "data" / "audits" / "bone-break.json")
    peers = read(root / "training" / "recipes" / "peers" / "results.json") or {}
    if audit:
        near = audit["near_duplicates"]
        crossing = near["across_parts"].get("test films with a near-duplicate in train", 0)
        told.append(
            f"Up to {crossing} of the {audit['by_part']['test']} official test films have a near-duplicate in "
            "training; a random split parts copies at random."
        )
    leak = peers.get("leak-resnet18-random", {})
    if leak.get("published") and leak.get("leak_free"):
        told.append(
            f"A ResNet-18 of ours names {with_interval(leak['published']['accuracy'])} on a random split and "
            f"{with_interval(leak['leak_free']['accuracy'])} once copies and films of one case stay together, so we "
            "believe that the leak explains most of the gap on random splits."
        )
    own = peers.get("resnet50-128", {})
    if own.get("published") and own.get("leak_free"):
        told.append(
            "It is not shown for their networks: first layers of theirs were not at hand, and their ResNet-50 from "
            f"scratch names {with_interval(own['published']['accuracy'])} with the leak and "
            f"{with_interval(own['leak_free']['accuracy'])} without it, too little to tell."
        )
    clean, plain = (read(root / "training" / "results" / "folds" / f"resnet18{end}.json") for end in ("-clean", ""))
    if audit and cards:
        gained = (
            f" (out of fold ResNet-18 names {percent(clean['types']['accuracy']['value'])} when contested films are "
            f"left out of training, {percent(plain['types']['accuracy']['value'])} when not)"
            if clean and plain
            else ""
        )
        told.append(
            f"What may also hold accuracy down: {cards[0].data['parts']['train']['films']} films to learn from, and up "
            f"to {len(audit['near_duplicates']['contradictory_groups'])} groups of one film under different "
            f"labels{gained}."
        )
    told.append(
        "The FracAtlas films on which peaks are counted also chose the feature pyramid, its size and its loss over "
        "places, so its shares there are somewhat flattered."
    )
    told.append(LEGEND)
    return told


def bars(root: Path) -> Bars:
    """Every bar with what was reached, from the figures committed under ``root``.

    Accuracy has rows for ResNets of several seeds, for cross-validations over all films, and for models asked together
    on the most folds; places and calibration for every shipped model. What was not measured has no row.
    """
    weights = root / "weights"
    cards = [load_card(name, weights) for name in ranked(weights)]
    rows = [
        *_single(cards, root),
        *_whole(root),
        *_together(root),
        *_places(cards, weights),
        *_calibration(cards),
    ]
    return Bars(rows=tuple(rows), why=tuple(why(rows, cards, root)))


def markdown(found: Bars) -> str:
    """The sentences, and folded away under them the table, each row with its command."""
    rows = [[row.asked, row.reached, row.bar, row.verdict, f"`{row.command}`"] for row in found.rows]
    table = grid([*HEAD, "`python -m training ...`"], rows)
    summary = "<summary>The bars, and what was measured</summary>"
    return f"{' '.join(found.why)}\n\n<details>{summary}\n\n{table}\n\n</details>"


def write(found: Bars, weights: Path) -> None:
    """Writes the table where the page reads it."""
    (weights / FILE).write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
