"""What a data set is to the rest of ``training``: films with labels, and what was found wrong while listing them."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rich.progress import track

from app.errors import ImageError
from app.imaging.radiograph import Radiograph, read
from training.data.duplicates import LENIENT, Thresholds

__all__ = [
    "PICTURES",
    "DataSet",
    "LabelledImage",
    "Problem",
    "missing",
    "once",
    "pictures_in",
    "published_digests",
    "readable",
]

LEFT_BEHIND = {"desktop.ini", "thumbs.db", ".ds_store"}
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}


@dataclass(frozen=True)
class LabelledImage:
    """One labelled film.

    Attributes:
        name: the same wherever the set lies and whatever the pictures were re-encoded to.
        path: of the picture.
        label: index into the set's classes.
        part: of the publisher's own split: "train", "validation", "test", or "" where there is none.
        sha256: of the file as published, where a list of originals says it; empty where not.
        boxes: fractures as (centre x, centre y, width, height), shares of the film's width and height.
        region: body region, where known.
        view: projections, where known.
        turned: a copy turned by the publisher, as far as its name tells.
        hardware: plates, screws or a cast are on the film, where known.
    """

    name: str
    path: Path
    label: int
    part: str
    sha256: str = ""
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    region: str = ""
    view: str = ""
    hardware: bool = False
    turned: bool = False

    def digest(self) -> str:
        """SHA-256 of the file as published, else of the file at hand."""
        return self.sha256 or hashlib.sha256(self.path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Problem:
    """Something wrong with one film, by name, in a sentence."""

    image: str
    what: str


@dataclass(frozen=True)
class DataSet:
    """Films of one publisher, sorted by name, and what is wrong with them.

    Attributes:
        thresholds: what makes two films twins.
        kin: names of films that come from one picture or one case without being twins, as far as names tell.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    films: tuple[LabelledImage, ...]
    problems: tuple[Problem, ...]
    thresholds: Thresholds = LENIENT
    kin: tuple[tuple[str, str], ...] = ()


def published_digests(root: Path, name_of: Callable[[dict[str, str]], str]) -> dict[str, str]:
    """SHA-256 of originals by film name, where ``root/originals.csv`` lists them; ``name_of`` names a row's film."""
    table = root / "originals.csv"
    if not table.is_file():
        return {}
    with table.open(newline="", encoding="utf-8-sig") as file:
        return {name_of(row): row["sha256"] for row in csv.DictReader(file)}


def pictures_in(folder: Path, problems: list[Problem]) -> list[Path]:
    """The pictures of a folder, sorted; other files join the problems, but for what file managers leave behind."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in PICTURES:
            found.append(path)
        elif path.name.lower() not in LEFT_BEHIND and not path.name.startswith("._"):
            problems.append(Problem(f"{folder.name}/{path.name}", "Not a picture of a kind that is read, so left out."))
    return found


def once(films: Iterable[LabelledImage], problems: list[Problem]) -> list[LabelledImage]:
    """The films by name, sorted; of two with one name the second joins the problems."""
    kept: dict[str, LabelledImage] = {}
    for film in films:
        if film.name in kept:
            problems.append(Problem(film.name, f"There twice, with another ending; {film.path.name} is left out."))
        else:
            kept[film.name] = film
    return sorted(kept.values(), key=lambda film: film.name)


def missing(published: Mapping[str, str], films: Iterable[LabelledImage]) -> list[Problem]:
    """A problem for each published film that is not among ``films``, sorted by name."""
    names = published.keys() - {film.name for film in films}
    return [Problem(name, "Listed by the publisher, but the file is missing.") for name in sorted(names)]


def readable(data: DataSet) -> tuple[DataSet, list[Radiograph]]:
    """The films that can be decoded, with their pixels; the others join the problems, by name and reason."""
    films, decoded, problems = [], [], list(data.problems)
    for film in track(data.films, f"Reading {data.name}"):
        try:
            decoded.append(read(film.path))
        except ImageError as error:
            problems.append(Problem(film.name, str(error)))
            continue
        films.append(film)
    return replace(data, films=tuple(films), problems=tuple(problems)), decoded
