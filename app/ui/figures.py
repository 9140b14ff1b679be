"""What was measured of a model as figures to look at: SVG, drawn from its card and the JSON beside it.

Each figure says its finding in a line above it, and again to those who cannot see it.
"""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from app.model.weights import ModelCard, percent, with_interval

__all__ = ["confusion", "figures", "pointing", "reliability"]

SIDE = 300.0
"""Width of a figure in its own units, which a page stretches."""


def figures(card: ModelCard, folder: Path) -> str:
    """The figures of a model, as far as they were measured, as HTML; ``folder`` holds its card."""
    path = folder / "localisation.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    drawn = [confusion(card), reliability(card), pointing(found["maps"]) if found else ""]
    return f"<div class='charts'>{''.join(drawn)}</div>"


def _figure(finding: str, parts: str, height: float) -> str:
    said = html.escape(finding)
    return (
        f"<figure><figcaption>{said}</figcaption><svg viewBox='0 0 {SIDE:.0f} {height:.0f}' role='img' "
        f"aria-label='{said}'>{parts}</svg></figure>"
    )


def confusion(card: ModelCard) -> str:
    """Labels by predictions on the test X-rays, each row shaded by its shares; nothing of an untested model."""
    test = card.metrics.get("test")
    if not test:
        return ""
    names = [kind.title.removesuffix(" fracture") for kind in card.classes]
    left, top = 0.36 * SIDE, 14.0
    cell = (SIDE - left - 2) / len(names)
    parts = [f"<text x='{left}' y='9'>predicted, in the same order</text>"]
    for row, (name, counts) in enumerate(zip(names, test["confusion"], strict=True)):
        y = top + row * cell
        parts.append(f"<text x='{left - 4}' y='{y + 0.7 * cell:.1f}' text-anchor='end'>{html.escape(name)}</text>")
        for column, count in enumerate(counts):
            x, share = left + column * cell, count / max(1, sum(counts))
            kind = "cell right" if row == column else "cell"
            parts.append(
                f"<rect class='{kind}' x='{x:.1f}' y='{y:.1f}' width='{cell - 1:.1f}' height='{cell - 1:.1f}' "
                f"style='--share:{share:.3f}'/>"
            )
            if count:
                parts.append(
                    f"<text x='{x + cell / 2:.1f}' y='{y + 0.7 * cell:.1f}' text-anchor='middle'>{count}</text>"
                )
    finding = f"The type is right in {with_interval(test['accuracy'])} of test X-rays: the outlined diagonal."
    return _figure(finding, "".join(parts), top + len(names) * cell + 2)


def reliability(card: ModelCard) -> str:
    """Claimed against true share of right types, out of fold; nothing where it was not measured."""
    found = card.metrics.get("cross_validation", {}).get("expected_calibration_error")
    bins = [each for each in found["bins"] if each["images"]] if found else []
    if not bins:
        return ""
    low, high, height = 30.0, SIDE - 6, 0.8 * SIDE

    def place(claimed: float, true: float) -> tuple[float, float]:
        return low + claimed * (high - low), height - 24 - true * (height - 32)

    (x, y), (right, top) = place(0, 0), place(1, 1)
    parts = [
        f"<path class='axis' d='M{x} {top}V{y}H{right}'/><path class='even' d='M{x} {y}L{right} {top}'/>",
        f"<text x='{right}' y='{y + 16}' text-anchor='end'>confidence</text>",
        f"<text x='{x}' y='{top - 1}'>share that is right</text>",
    ]
    most = max(each["images"] for each in bins)
    for each in bins:
        across, up = place(each["confidence"], each["accuracy"])
        size = 3 + 9 * (each["images"] / most) ** 0.5
        parts.append(f"<circle cx='{across:.1f}' cy='{up:.1f}' r='{size:.1f}'/>")
    count = sum(each["images"] for each in bins)
    finding = (
        f"Confidence is off by {100 * found['value']:.1f} points on average, out of fold, n = {count:,}. "
        "On the line it would be as good as it claims; larger dots stand for more X-rays."
    )
    return _figure(finding, "".join(parts), height)


def pointing(maps: dict[str, Any]) -> str:
    """How often each map peaks in a fracture box, with the interval as a line."""
    rows = {name: its["inside"] for name, its in maps.items() if "mirror" not in name}
    step = 34.0
    parts = []
    for number, (name, share) in enumerate(rows.items()):
        y = 14 + number * step
        middle = y + 11
        parts.append(
            f"<text x='0' y='{y:.1f}'>{html.escape(NAMES.get(name, name))}: {percent(share['value'])}</text>"
            f"<rect class='bar' x='0' y='{y + 4:.1f}' width='{share['value'] * SIDE:.1f}' height='14'/>"
            f"<path class='axis' d='M{share['low'] * SIDE:.1f} {middle:.1f}H{share['high'] * SIDE:.1f}'/>"
        )
    first = next(iter(rows.values()))
    finding = f"The heatmap peaks in a fracture box in {with_interval(first)} of fractured FracAtlas X-rays."
    return _figure(finding, "".join(parts), 14 + len(rows) * step)


NAMES = {
    "evidence for the predicted type": "Grad-CAM of the predicted type",
    "random": "a random place",
    "centred Gaussian": "always the middle",
}
"""Maps as people read them, by their keys in ``localisation.json``."""
