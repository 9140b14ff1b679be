"""What commands measured, read back, and put as Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["MISSING", "folds_judged", "grid", "percent", "read", "with_interval"]

MISSING = "not run"


def read(path: Path) -> dict[str, Any] | None:
    """What a command wrote; None where it has not run."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def percent(share: float) -> str:
    """0.256 as "25.6 %"."""
    return f"{100 * share:.1f} %"


def folds_judged(judged: Sequence[int], of: int) -> str:
    """Which folds of how many were judged, in words."""
    if len(judged) == of:
        return f"all {of} folds"
    return f"fold{'s' * (len(judged) > 1)} {', '.join(map(str, judged))} of {of} alone"


def with_interval(share: dict[str, float] | None) -> str:
    """A share with its 95 % interval, as ``metrics.bootstrap`` gives it; what was not measured says so."""
    if share is None:
        return MISSING
    return f"{percent(share['value'])} ({100 * share['low']:.1f} to {100 * share['high']:.1f})"


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)
