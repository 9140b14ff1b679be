"""Pairs of near-duplicates for a person to look at: ``python -m training pairs NAME --out DIR``.

As many pairs of every measure are drawn, since a measure that links few films may still chain many into one group.
``DIR/NAME.png`` shows them and stays on the user's disk; names and verdicts are committed as
``training/data/audits/pairs-NAME.csv``, where "yes" in the last column says that both are one film.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from app.radiograph import Radiograph
from training.data.duplicates import Link
from training.data.film import DataSet

__all__ = ["FOLDER", "draw_pairs", "sheet", "wilson", "write"]

FOLDER = Path(__file__).with_name("audits")
THUMBNAIL = 170
COLUMNS = 5
HEAD = ["number", "measure", "first", "second", "one film"]


def draw_pairs(links: Sequence[Link], count: int = 50, seed: int = 0) -> list[Link]:
    """Links drawn without replacement, as equally many of every measure as there are.

    Args:
        links: of one data set.
        count: how many, fewer where there are fewer links.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    by_measure: dict[str, list[Link]] = defaultdict(list)
    for link in sorted(links, key=lambda link: (link.measure, link.first, link.second)):
        by_measure[link.measure].append(link)
    waiting = [[its[i] for i in rng.permutation(len(its))] for _, its in sorted(by_measure.items())]
    drawn: list[Link] = []
    while len(drawn) < min(count, len(links)):
        for its in waiting:
            if its and len(drawn) < count:
                drawn.append(its.pop())
    return sorted(drawn, key=lambda link: (link.measure, link.first, link.second))


def _thumbnail(film: Radiograph) -> np.ndarray:
    picture = film.display()
    scale = THUMBNAIL / max(picture.shape)
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    framed = np.zeros((THUMBNAIL, THUMBNAIL), np.uint8)
    framed[: small.shape[0], : small.shape[1]] = small[:THUMBNAIL, :THUMBNAIL]
    return framed


def sheet(decoded: Sequence[Radiograph], pairs: Sequence[Link]) -> np.ndarray:
    """All pairs side by side, numbered from 1: uint8 (H, W)."""
    cells = []
    for number, link in enumerate(pairs, start=1):
        pair = np.hstack([_thumbnail(decoded[link.first]), _thumbnail(decoded[link.second])])
        cell = cv2.copyMakeBorder(pair, 22, 4, 4, 4, cv2.BORDER_CONSTANT, value=90)
        cv2.putText(cell, f"{number} {link.measure}", (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1, cv2.LINE_AA)
        cells.append(cell)
    cells += [np.zeros_like(cells[0])] * (-len(cells) % COLUMNS)
    return np.vstack([np.hstack(cells[row : row + COLUMNS]) for row in range(0, len(cells), COLUMNS)])


def write(data: DataSet, pairs: Sequence[Link], folder: Path = FOLDER) -> Path:
    """Writes the pairs' names for verdicts; verdicts on pairs that were drawn before are kept."""
    target = folder / f"pairs-{data.name}.csv"
    known = {}
    if target.is_file():
        with target.open(newline="", encoding="utf-8") as file:
            known = {(row["first"], row["second"]): row["one film"] for row in csv.DictReader(file)}
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEAD)
        for number, link in enumerate(pairs, start=1):
            names = data.films[link.first].name, data.films[link.second].name
            writer.writerow([number, link.measure, *names, known.get(names, "")])
    return target


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson, 1927)."""
    z = 1.96
    share = right / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return float(centre - half), float(centre + half)
