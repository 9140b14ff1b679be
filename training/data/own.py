"""Images of one's own: a folder of class folders, or a table of paths and labels, as a data set like any other.

Layouts, each with any names and any number of classes:

- ``<class>/<picture>``: classes alone.
- ``<part>/<class>/<picture>``: with the split already made; parts are named train, val, valid or validation, and test.
- a CSV file with the columns ``path`` and ``label``, and, where a split is made, ``split``; paths are relative to it.

A picture may have boxes in YOLO's form, a line each of class, centre and size as shares of the picture, in a ``.txt``
file beside it or in a folder ``labels`` in place of ``images``. Boxes judge where heatmaps peak.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.progress import track

from app.errors import ImageError
from app.imaging.radiograph import Radiograph, read
from training import aside, read_json, write_json
from training.data.fracatlas import STRICT
from training.data.image import CACHE, LENIENT, PICTURES, DataSet, LabelledImage, Problem, key_of, once, pictures_in
from training.data.splits import PARTS
from training.recipe import Duplicates, OwnData

__all__ = ["MOST_CLASSES", "grouped", "listed", "load", "read_boxes", "type_titles"]

MOST_CLASSES = 100
TABLE = {".csv"}


class _Row(NamedTuple):
    path: Path
    label: str
    part: str


def _folders(root: Path) -> list[Path]:
    return [each for each in sorted(root.iterdir()) if each.is_dir() and not each.name.startswith(".")]


def _parts(root: Path) -> dict[Path, str]:
    """The folders that hold class folders, and the part each stands for; the root itself where there are none."""
    named = {each: PARTS[each.name.casefold()] for each in _folders(root) if each.name.casefold() in PARTS}
    return named or {root: ""}


def _in_folders(root: Path, problems: list[Problem]) -> Iterator[_Row]:
    parts = _parts(root)
    if root not in parts:
        for each in _folders(root):
            if each not in parts:
                problems.append(Problem(each.name, "A folder beside those of the split, so left out."))
    for place, part in parts.items():
        for kind in _folders(place):
            within: list[Problem] = []
            pictures = pictures_in(kind, within)
            problems += [problem for problem in within if not problem.image.endswith(".txt")]
            if not pictures:
                problems.append(Problem(_name(kind, root), "A folder without pictures, so no class."))
            yield from (_Row(path, kind.name, part) for path in pictures)


def _in_table(table: Path, problems: list[Problem]) -> Iterator[_Row]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not {"path", "label"} <= set(reader.fieldnames or ()):
                raise ValueError(f"{table} needs the columns path and label; split is optional.")
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error):
        raise ValueError(f"{table} is no table in UTF-8.") from None
    for number, row in enumerate(rows, start=2):
        name, label, part = (str(row.get(column) or "").strip() for column in ("path", "label", "split"))
        path = table.parent / name
        if not name or not label:
            problems.append(Problem(f"line {number}", "It lacks a path or a label, so it is left out."))
        elif part and part.casefold() not in PARTS:
            raise ValueError(f"{table}, line {number}: there is no part '{part}'; known are {', '.join(PARTS)}.")
        elif path.suffix.lower() not in PICTURES:
            problems.append(Problem(name, "Not a picture of a kind that is read, so left out."))
        elif not path.is_file():
            problems.append(Problem(name, "The file is missing."))
        else:
            yield _Row(path, label, PARTS[part.casefold()] if part else "")


def read_boxes(path: Path, problems: list[Problem], name: str) -> tuple[tuple[float, float, float, float], ...]:
    """The boxes of a picture, as centre x and y, width and height, shares of its own; lines that are none are told."""
    beside = path.with_suffix(".txt")
    swapped = [part if part != "images" else "labels" for part in beside.parts]
    file = next((each for each in (beside, Path(*swapped)) if each.is_file()), None)
    if file is None:
        return ()
    boxes = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.strip():
            continue
        try:
            _, x, y, width, height = (float(value) for value in line.split())
        except ValueError:
            problems.append(Problem(name, f"'{line[:40]}' is no box, so it is left out."))
            continue
        if 0 <= x <= 1 and 0 <= y <= 1 and 0 < width <= 1 and 0 < height <= 1:
            boxes.append((x, y, width, height))
        else:
            problems.append(Problem(name, f"The box '{line[:40]}' does not lie on the picture, so it is left out."))
    return tuple(boxes)


def _classes(rows: list[_Row], root: Path) -> tuple[str, ...]:
    """In the order of a person: numbers in names count as numbers."""

    def key(name: str) -> list[tuple[bool, int, str]]:
        return [(not each.isdigit(), int(each) if each.isdigit() else 0, each) for each in re.split(r"(\d+)", name)]

    labels = sorted({row.label for row in rows}, key=key)
    if not 2 <= len(labels) <= MOST_CLASSES:
        loose = pictures_in(root, []) if root.is_dir() else ()
        own = f" {len(loose)} pictures lie in it itself, in no class: is it a class's folder?" if loose else ""
        raise ValueError(
            f"{root} holds {len(labels)} class{'es' * (len(labels) != 1)} with pictures; 2 to {MOST_CLASSES} can be "
            f"learnt. A class is a folder of pictures, or a label in a CSV file with the columns path and label.{own}"
        )
    return tuple(labels)


def _rows(root: Path, problems: list[Problem]) -> list[_Row]:
    if root.is_dir():
        return list(_in_folders(root, problems))
    if root.suffix.lower() in TABLE and root.is_file():
        return list(_in_table(root, problems))
    raise FileNotFoundError(f"There are no images at {root}: neither a folder of class folders nor a CSV file.")


def listed(root: Path, title: str = "") -> DataSet:
    """Every image of a folder or table with its label, part and boxes; nothing is decoded.

    An image's name is its path from the folder or the table.

    Raises:
        FileNotFoundError: there is no such folder or table.
        ValueError: the table cannot be read, or there are fewer than two classes, or too many.
    """
    problems: list[Problem] = []
    rows = _rows(root, problems)
    classes = _classes(rows, root)
    labels = {name: index for index, name in enumerate(classes)}
    base = root if root.is_dir() else root.parent
    films = []
    for row in rows:
        name = _name(row.path, base)
        boxes = read_boxes(row.path, problems, name)
        films.append(LabelledImage(name, row.path, labels[row.label], row.part, boxes=boxes))
    return DataSet("own", title, classes, tuple(once(films, problems)), tuple(problems))


def load(data: OwnData, beside: Path = Path()) -> DataSet:
    """``listed``, with the classes in the recipe's order; raises ValueError, too, where they are others.

    A model's card keeps the folder's name alone, which is then looked for in the folder ``beside``.
    """
    found = listed(beside / data.root, data.title)
    if set(data.classes) != set(found.classes):
        raise ValueError(
            f"{data.root} holds the classes {', '.join(found.classes)}; the recipe names {', '.join(data.classes)}."
        )
    order = [data.classes.index(name) for name in found.classes]
    films = tuple(replace(film, label=order[film.label]) for film in found.images)
    return replace(found, classes=data.classes, images=films)


def _name(path: Path, base: Path) -> str:
    inside = path.relative_to(base) if path.is_relative_to(base) else path
    return inside.as_posix()


LOOKED_AT = 512
"""Longest side, in pixels, at which near-duplicates are searched: more than the search itself looks at."""
MOST_SEARCHED = 6000
"""Images among which near-duplicates are searched in minutes; of more, only copies are found."""
THRESHOLDS = {"lenient": LENIENT, "strict": STRICT}
LARGEST = 0.05
"""Share of the images in one group from which on a search is not believed: it takes what is alike for what is one."""


def _readable(data: DataSet) -> tuple[DataSet, list[Radiograph]]:
    films, decoded, problems = [], [], list(data.problems)
    for film in track(data.images, "Reading"):
        try:
            picture = read(film.path)
        except ImageError as error:
            problems.append(Problem(film.name, str(error)))
            continue
        longest = max(picture.height, picture.width)
        decoded.append(picture if longest <= LOOKED_AT else picture.scaled(LOOKED_AT))
        films.append(film)
    return replace(data, images=tuple(films), problems=tuple(problems)), decoded


def _copies(decoded: list[Radiograph]) -> np.ndarray:
    shown = (each.pixels if each.colours is None else each.colours for each in decoded)
    digests = [hashlib.sha256(f"{each.shape}".encode() + each.tobytes()).hexdigest() for each in shown]
    return np.unique(digests, return_inverse=True)[1]


def grouped(
    data: DataSet, duplicates: Duplicates | None, cache: Path = CACHE
) -> tuple[DataSet, np.ndarray, Duplicates]:
    """The images that can be read, and which of them are near-duplicates; kept in the cache.

    Args:
        duplicates: what counts as one; where not given, the most lenient search that does not take more than
            ``LARGEST`` of all images for one.

    Returns:
        The set without unreadable images, which join its problems, groups, int (N,), and what counted.
    """
    paths = [film.path for film in data.images]
    target = cache / f"own-{key_of(paths, duplicates, Path(__file__).read_text(encoding='utf-8'))}.json"
    if not target.is_file():
        readable, decoded = _readable(data)
        groups, how = _search(readable, decoded, duplicates, cache)
        kept = [film.name for film in readable.images]
        problems = [[each.image, each.what] for each in readable.problems[len(data.problems) :]]
        with aside(target) as partial:
            write_json(partial, {"kept": kept, "problems": problems, "groups": groups.tolist(), "duplicates": how})
    found = read_json(target)
    kept = set(found["kept"])
    films = tuple(film for film in data.images if film.name in kept)
    problems = (*data.problems, *(Problem(*each) for each in found["problems"]))
    return replace(data, images=films, problems=problems), np.array(found["groups"]), found["duplicates"]


def _search(
    data: DataSet, decoded: list[Radiograph], duplicates: Duplicates | None, cache: Path
) -> tuple[np.ndarray, Duplicates]:
    # Here, since it brings torch, which nobody needs who only lists images.
    from training.data.duplicates import find_groups

    tried = ("lenient", "strict") if duplicates is None else (duplicates,)
    if len(decoded) > MOST_SEARCHED and duplicates is None:
        tried = ()
    for how in tried:
        if how in THRESHOLDS:
            groups = find_groups(replace(data, thresholds=THRESHOLDS[how]), decoded, cache).groups
            if duplicates or np.bincount(groups).max() <= max(2, LARGEST * len(groups)):
                return groups, how
    return _copies(decoded), "exact"


def type_titles(data: OwnData) -> dict[str, str]:
    """Classes as people read them, by name."""
    words = {name: name.replace("_", " ").strip() or name for name in data.classes}
    return {name: title[0].upper() + title[1:] for name, title in words.items()}
