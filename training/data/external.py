"""Films of multi-region that no other set holds: what an unknown source is judged by.

One film of every group that its publisher did not turn, less those with a near-duplicate among the films of bone-break
or FracAtlas. The list is committed, for the search takes minutes; ``python -m training cross-source`` writes it where
it is missing.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from app.imaging.radiograph import read
from training.data import bone_break, fracatlas, multi_region, splits
from training.data.duplicates import LENIENT, find_links
from training.data.image import LabelledImage, readable

__all__ = ["LISTED", "search", "straight", "strangers"]

LISTED = Path(__file__).with_suffix(".csv")


def straight(data: Path) -> list[LabelledImage]:
    """One film a group that nobody turned, sorted by name.

    Raises:
        FileNotFoundError: the set is not there.
        ValueError: these are not the films of the committed groups.
    """
    whole = multi_region.load(data)
    known = splits.committed(whole)
    if known is None:
        raise ValueError("these multi-region films are not the ones of the committed split")
    return sorted((whole.films[i] for i in splits.unturned(whole, known[0])), key=lambda film: film.name)


def search(films: Sequence[LabelledImage], data: Path) -> list[LabelledImage]:
    """Those of some films that have no near-duplicate in bone-break or FracAtlas.

    The thresholds are the lenient ones in both: a film left out too many costs little.

    Raises:
        FileNotFoundError: one of the sets is not there.
    """
    pictures = [read(film.path).display() for film in films]
    twins: set[int] = set()
    for other in (bone_break.load(data), fracatlas.load(data)):
        _, decoded = readable(other)
        links = find_links([*pictures, *(film.display() for film in decoded)], LENIENT)
        twins |= {link.first for link in links if link.first < len(films) <= link.second}
    return [film for number, film in enumerate(films) if number not in twins]


def strangers(data: Path, listed: Path = LISTED) -> list[LabelledImage]:
    """The films of the committed list; where there is none, it is made.

    Raises:
        FileNotFoundError: a set is not there.
        ValueError: these are not the films of the committed groups or the list.
    """
    films = straight(data)
    if not listed.is_file():
        found = search(films, data)
        with listed.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["film", "class"])
            writer.writerows([film.name, multi_region.CLASSES[film.label]] for film in found)
        return found
    with listed.open(newline="", encoding="utf-8") as file:
        names = [row["film"] for row in csv.DictReader(file)]
    by_name = {film.name: film for film in films}
    if missing := [name for name in names if name not in by_name]:
        raise ValueError(f"{len(missing)} films of {listed.name} are not there, {missing[0]} among them")
    return [by_name[name] for name in names]
