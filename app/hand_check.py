"""What a person said of pairs that the search for near-duplicates links, from ``pairs-NAME.csv``."""

from __future__ import annotations

import csv
from pathlib import Path

__all__ = ["precision"]


def precision(name: str, folder: Path) -> dict[str, tuple[int, int]] | None:
    """By measure, how many pairs are one film and how many were looked at; None where a verdict is missing.

    Args:
        name: of the data set.
        folder: of the CSV files.
    """
    target = folder / f"pairs-{name}.csv"
    if not target.is_file():
        return None
    found: dict[str, tuple[int, int]] = {}
    with target.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["one film"] not in ("yes", "no"):
                return None
            right, count = found.get(row["measure"], (0, 0))
            found[row["measure"]] = right + (row["one film"] == "yes"), count + 1
    return found
