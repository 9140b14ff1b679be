"""What commands of ``training`` measured of a model, read alike by the page and the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.explain.faithfulness import HEAD as HEAD_PART
from app.explain.faithfulness import REST
from app.explain.methods import METHODS
from app.model.weights import DEFAULT_FOLDER

__all__ = [
    "HEAD",
    "SAME_FOR_ANY_TYPE",
    "UNCHANGED",
    "beats_random",
    "depends_on_model",
    "depends_on_type",
    "load",
    "lost_to_random",
    "objection",
    "percent",
    "rows",
    "unmeasured",
    "with_interval",
]

SAME_FOR_ANY_TYPE = 0.9
"""Mean absolute rank correlation, before and after shuffling the head, from which a map is the same for any type.

Far above ``UNCHANGED``, since maps of other types of one film are rightly alike: there is one bone to look at."""

UNCHANGED = 0.3
"""Mean absolute rank correlation, before and after shuffling all weights, from which a map counts as unchanged."""

MEASURES = ("deletion", "insertion", "ROAD")
HEAD = ["Method", "Films", "Deletion", "Insertion", "ROAD", "Peak in / near a box", "Stability", "Shuffled", "Seconds"]


def load(name: str, folder: Path = DEFAULT_FOLDER) -> dict[str, Any] | None:
    """How every method did before a model (``training faithfulness``); None where nobody measured it."""
    path = folder / name / "faithfulness.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def unmeasured(found: dict[str, Any]) -> str:
    """Which methods have no figures in ``load``, a sentence; empty where all have."""
    missing = [method.title for name, method in METHODS.items() if name not in found["methods"]]
    return f"Not measured yet: {', '.join(missing)}." if missing else ""


def depends_on_model(row: dict[str, Any]) -> bool | None:
    """Whether a method's map changes once all weights mean nothing; None where that was not measured."""
    last = row.get("scrambled", {}).get(REST)
    return last["value"] < UNCHANGED if last else None


def depends_on_type(row: dict[str, Any]) -> bool | None:
    """Whether a method's map changes once the head's weights mean nothing; None where that was not measured."""
    first = row.get("scrambled", {}).get(HEAD_PART)
    return first["value"] < SAME_FOR_ANY_TYPE if first else None


def beats_random(row: dict[str, Any]) -> dict[str, bool]:
    """By measure, whether the interval of the margin over random maps lies above zero."""
    return {key: row["margins"][key]["low"] > 0.0 for key in MEASURES}


def lost_to_random(row: dict[str, Any]) -> list[str]:
    """The measures by which a method is not shown to beat random maps."""
    return [key for key, better in beats_random(row).items() if not better]


def objection(row: dict[str, Any]) -> str:
    """The worst that was measured of a method, a sentence; empty where nothing speaks against it."""
    if depends_on_model(row) is False:
        return "Does not depend on the model: it stays when all weights are shuffled."
    if depends_on_type(row) is False:
        return "Does not depend on the type: it stays when the head's weights are shuffled."
    lost = lost_to_random(row)
    return f"No better than random maps by {', '.join(lost)}." if lost else ""


def _margin(share: dict[str, float]) -> str:
    return f"{share['value']:+.3f} ({share['low']:+.3f} to {share['high']:+.3f})"


def _mean(share: dict[str, float]) -> str:
    return f"{share['value']:.2f} ({share['low']:.2f} to {share['high']:.2f}, {share['n']} films)"


def _percent(share: dict[str, float]) -> str:
    return f"{share['value']:.1%} ({share['low']:.1%} to {share['high']:.1%})"


def _shuffled(row: dict[str, Any]) -> str:
    depends = depends_on_model(row)
    if depends is None:
        return "-"
    words = "" if depends else ", does not depend on the model"
    if depends and depends_on_type(row) is False:
        words = ", does not depend on the type asked about"
    return _mean(row["scrambled"][REST]) + words


def rows(found: dict[str, Any]) -> list[list[str]]:
    """The figures of ``load`` in words, a method a row, under ``HEAD``."""
    return [
        [
            METHODS[name].title,
            str(row["margins"]["deletion"]["n"]),
            *(_margin(row["margins"][key]) for key in MEASURES),
            f"{_percent(row['inside'])} / {_percent(row['near'])}",
            _mean(row["stability"]) if "stability" in row else "-",
            _shuffled(row),
            f"{row['seconds']:.2f}",
        ]
        for name, row in found["methods"].items()
    ]


def percent(share: float, digits: int = 0) -> str:
    """A share, 0 to 1, as ``19 %``."""
    return f"{100.0 * share:.{digits}f} %"


def with_interval(share: dict[str, Any]) -> str:
    """A share with its interval and number of images, as ``58.9 % (95 % CI 50.9 to 66.9, n = 168)``.

    Args:
        share: "value", "low" and "high", 0 to 1, and "n".
    """
    low, high = 100.0 * share["low"], 100.0 * share["high"]
    return f"{percent(share['value'], 1)} (95 % CI {low:.1f} to {high:.1f}, n = {share['n']:,})"
