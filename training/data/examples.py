"""Fills ``examples/`` with a few FracAtlas films (CC BY 4.0) and ``sources.csv``, which the demo then offers to try."""

from __future__ import annotations

import csv
import shutil
from itertools import zip_longest
from pathlib import Path

from training.data import fracatlas

__all__ = ["ATTRIBUTION", "collect"]

ATTRIBUTION = (
    "FracAtlas, Abedeen et al., Scientific Data 10, 521 (2023), doi:10.1038/s41597-023-02432-4, CC BY 4.0; "
    "scaled by the demo, otherwise unchanged"
)


def collect(data: Path, target: Path, count: int = 6) -> list[Path]:
    """Copies fractured films without hardware, taking turns over the body regions.

    Args:
        data: folder with FracAtlas, or one that holds it.
        target: folder to fill.
        count: films wanted.

    Returns:
        The copies.

    Raises:
        FileNotFoundError: no FracAtlas under ``data``.
    """
    films = [film for film in fracatlas.load(data).films if film.label == 1 and not film.hardware]
    queues = [[film for film in films if film.region == region] for region in ("hand", "leg", "hip", "shoulder")]
    chosen = [film for turn in zip_longest(*queues) for film in turn if film is not None][:count]
    target.mkdir(parents=True, exist_ok=True)
    with (target / "sources.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "label", "source"])
        for film in chosen:
            writer.writerow([film.path.name, f"{film.region}, fractured", ATTRIBUTION])
    return [Path(shutil.copy(film.path, target / film.path.name)) for film in chosen]
