"""Fills ``examples/`` with a few FracAtlas films (CC BY 4.0) and ``sources.csv``, which the demo then offers to try."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

__all__ = ["ATTRIBUTION", "collect"]

ATTRIBUTION = (
    "FracAtlas, Abedeen et al., Scientific Data 10, 521 (2023), doi:10.1038/s41597-023-02432-4, CC BY 4.0; "
    "scaled by the demo, otherwise unchanged"
)


def collect(data: Path, target: Path, count: int = 6) -> list[Path]:
    """Copies films, the most widely spread over body regions first.

    Args:
        data: folder with FracAtlas, or one that holds a ``fracatlas`` or ``FracAtlas`` folder.
        target: folder to fill.
        count: films wanted.

    Returns:
        The copies.

    Raises:
        FileNotFoundError: no FracAtlas under ``data``.
    """
    tables = [t for p in ("dataset.csv", "*/dataset.csv", "*/*/dataset.csv") for t in sorted(data.glob(p))]
    if not tables:
        raise FileNotFoundError(
            f"no FracAtlas under {data}: expected its dataset.csv and images folder. It can be downloaded from "
            "figshare, doi:10.6084/m9.figshare.22363012, under CC BY 4.0."
        )
    root = tables[0].parent
    with tables[0].open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["fractured"] == "1" and row["hardware"] == "0"]
    regions = ("hand", "leg", "hip", "shoulder")
    queues = {region: [row for row in rows if row[region] == "1"] for region in regions}
    target.mkdir(parents=True, exist_ok=True)
    copies: list[Path] = []
    with (target / "sources.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "label", "source"])
        turn = 0
        while len(copies) < count and any(queues.values()):
            region = regions[turn % len(regions)]
            turn += 1
            if not queues[region]:
                continue
            stem = Path(queues[region].pop(0)["image_id"]).stem
            for film in sorted((root / "images" / "Fractured").glob(f"{stem}.*")):
                copies.append(Path(shutil.copy(film, target / film.name)))
                writer.writerow([film.name, f"{region}, fractured", ATTRIBUTION])
    return copies
