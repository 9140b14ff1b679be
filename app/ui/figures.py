"""What was measured of a model as figures to look at: SVG, drawn from its card and the JSON beside it.

Each figure says its finding in a line above it, and with its numbers again to those who cannot see it.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from app.model.weights import ModelCard, percent, with_interval

__all__ = ["SIDE", "Share", "confusion", "figure", "figures", "key", "label", "pointing", "reliability", "shares"]

SIDE = 320.0
"""Width of a figure in its own units: about as many pixels as a phone gives it, so that letters are read there."""


TAUGHT = {"test": "A source that taught it", "unseen": "A source it never saw"}
"""What a source is to a model, by the part of it that judged; validation images also chose the model, and say less."""


class Share(NamedTuple):
    """A row of ``shares``: what was measured, of what, one line each, and the share with its interval."""

    what: str
    of: Sequence[str]
    share: dict[str, Any]


def figures(card: ModelCard, folder: Path) -> str:
    """The figures of a model, as far as they were measured, as HTML; ``folder`` holds its card."""
    found, sources = (_read(folder / f"{name}.json") for name in ("localisation", "sources"))
    drawn = [confusion(card), reliability(card), pointing(found["maps"], sources or ()) if found else ""]
    return f"<div class='figures'>{''.join(drawn)}</div>"


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def figure(question: str, finding: str, told: Iterable[str], parts: Iterable[str], height: float) -> str:
    """A figure as HTML.

    Args:
        question: that it answers, in a few words.
        finding: its answer, in a sentence.
        told: its numbers in words, for those who cannot see them.
        parts: of the SVG.
        height: in units of ``SIDE``.
    """
    alternative = html.escape(f"{finding} {'; '.join(told)}.")
    caption = f"<strong>{html.escape(question)}</strong> {html.escape(finding)}"
    return (
        f"<figure><figcaption>{caption}</figcaption><svg viewBox='0 0 {SIDE:.0f} {height:.0f}' role='img' "
        f"aria-label='{alternative}'>{''.join(parts)}</svg></figure>"
    )


def label(x: float, y: float, words: str, *, kind: str = "", anchor: str = "start") -> str:
    """Words in a figure, from ``x`` on, around it ("middle") or up to it ("end")."""
    return f"<text class='{kind}' x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'>{html.escape(words)}</text>"


def key(entries: Sequence[tuple[str, str]], y: float = 11) -> Iterable[str]:
    """What the marks of a figure stand for: their CSS class and a word or two each, in one row."""
    for number, (kind, words) in enumerate(entries):
        x = number * SIDE / len(entries)
        yield f"<rect class='{kind}' x='{x + 1:.1f}' y='{y - 10:.1f}' width='11' height='11'/>"
        yield label(x + 17, y, words)


def confusion(card: ModelCard) -> str:
    """Labels by predictions on the test X-rays, each row shaded by its shares; nothing of an untested model."""
    test = card.metrics.get("test")
    if not test:
        return ""
    names = [kind.title.removesuffix(" fracture") for kind in card.classes]
    left, top = 130.0, 36.0
    cell = (SIDE - left) / len(names)
    parts = [label(left - 5, top - 5, "labelled", kind="soft", anchor="end"), label(left, 12, "predicted", kind="soft")]
    told = []
    for row, (name, counts) in enumerate(zip(names, test["confusion"], strict=True)):
        y = top + row * cell
        told.append(f"{name} {counts[row]} of {sum(counts)}")
        parts.append(label(left - 5, y + 0.72 * cell, name, anchor="end"))
        parts.append(label(left + (row + 0.5) * cell, top - 5, name[:2], kind="soft", anchor="middle"))
        for column, count in enumerate(counts):
            x, share = left + column * cell, count / max(1, sum(counts))
            kind = "cell right" if row == column else "cell"
            parts.append(
                f"<rect class='{kind}' x='{x:.1f}' y='{y:.1f}' width='{cell - 1:.1f}' height='{cell - 1:.1f}' "
                f"style='--share:{share:.3f}'/>"
            )
            if count or row == column:
                parts.append(label(x + cell / 2, y + 0.72 * cell, str(count), anchor="middle"))
    finding = card.subject.retell(f"In {with_interval(test['accuracy'])} of test X-rays: the outlined diagonal.")
    return figure("Is the type right?", finding, told, parts, top + len(names) * cell + 2)


def reliability(card: ModelCard) -> str:
    """Claimed against true share of right types, out of fold; nothing where it was not measured."""
    found = card.metrics.get("cross_validation", {}).get("expected_calibration_error")
    bins = [each for each in found["bins"] if each["images"]] if found else []
    if not bins:
        return ""
    low, high, height = 44.0, SIDE - 13, 0.86 * SIDE

    def place(claimed: float, true: float) -> tuple[float, float]:
        return low + claimed * (high - low), height - 38 - true * (height - 62)

    (x, y), (right, top) = place(0, 0), place(1, 1)
    parts = [f"<path class='even' d='M{x} {y}L{right} {top}'/>", f"<path class='axis' d='M{x} {top}V{y}H{right}'/>"]
    for tick in (0.0, 0.5, 1.0):
        across, up = place(tick, tick)
        parts.append(label(across, y + 15, percent(tick), kind="soft", anchor="middle" if tick < 1 else "end"))
        parts.append(label(x - 6, up + 4, percent(tick), kind="soft", anchor="end"))
    parts += [label((x + right) / 2, y + 33, "confidence", anchor="middle"), label(0, 11, "share that is right")]
    most = max(each["images"] for each in bins)
    for each in bins:
        across, up = place(each["confidence"], each["accuracy"])
        size = 3 + 9 * (each["images"] / most) ** 0.5
        parts.append(f"<circle class='dot' cx='{across:.1f}' cy='{up:.1f}' r='{size:.1f}'/>")
    count = sum(each["images"] for each in bins)
    where = "held-out images" if card.metrics["cross_validation"].get("held_out") else "out of fold"
    finding = card.subject.retell(
        f"Off by {100 * found['value']:.1f} points on average, {where}, n = {count:,}. "
        "Perfect is the dashed line; larger dots are more X-rays."
    )
    told = [
        f"at {percent(each['confidence'])} right in {percent(each['accuracy'])} of {each['images']}" for each in bins
    ]
    return figure("Is the confidence honest?", finding, told, parts, height)


def pointing(maps: dict[str, Any], sources: Sequence[dict[str, Any]]) -> str:
    """How often the heatmap peaks in a fracture box, by source, and how often the middle of the image is in one.

    Args:
        maps: of ``localisation.json``.
        sources: of ``sources.json``; empty where no other source judged.
    """
    first = maps["evidence for the predicted type"]["inside"]
    rows = [Share(TAUGHT["test"], ["FracAtlas, validation images"], first)]
    rows += [Share(TAUGHT[its["part"]], [its["source"]], its["inside"]) for its in sources if its["part"] in TAUGHT]
    rows.append(Share("Always the middle", ["FracAtlas, validation images"], maps["centred Gaussian"]["inside"]))
    finding = f"It peaks in a fracture box in {with_interval(first)} of fractured X-rays; these also chose the model."
    if unseen := [its["inside"]["value"] for its in sources if its["part"] == "unseen"]:
        finding += f" On sources it never saw: {percent(min(unseen))} to {percent(max(unseen))}."
    return shares("Does the heatmap hit?", finding, rows)


def shares(question: str, finding: str, rows: Sequence[Share]) -> str:
    """Shares between nothing and all, a dot each with its interval as a line; what several are of is said once."""
    low, high = 8.0, SIDE - 8
    width, y, above = high - low, 0.0, ""
    parts, told = [], []
    for row in rows:
        words = f"{percent(row.share['value'])} of {row.share['n']:,}"
        told.append(f"{row.what}, {', '.join(row.of)}: {with_interval(row.share)}")
        parts.append(label(SIDE, y + 13, words, anchor="end"))
        lines = [*([(row.what, "strong")] if row.what != above else []), *((line, "soft") for line in row.of)]
        for number, (line, kind) in enumerate(lines):
            y += 15 * (number > 0)
            parts.append(label(0, y + 13, line, kind=kind))
        above = row.what
        y += 24
        start, end, dot = (low + row.share[each] * width for each in ("low", "high", "value"))
        parts += [
            f"<path class='track' d='M{low} {y}H{high}'/>",
            f"<path class='interval' d='M{start:.1f} {y}H{end:.1f}'/>",
            f"<circle class='dot' cx='{dot:.1f}' cy='{y}' r='5'/>",
        ]
        y += 12
    parts += [label(0, y + 8, "0 %", kind="soft"), label(SIDE, y + 8, "100 %", kind="soft", anchor="end")]
    return figure(question, finding, told, parts, y + 12)
