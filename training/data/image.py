"""What a data set is to the rest of ``training``: labelled images, their squares, and what is wrong with them.

Squares are decoded and letterboxed once and kept as one uint8 array: decoding costs more than a training step.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image
from rich.progress import track

from app.errors import ImageError
from app.imaging.radiograph import Radiograph, read
from training import aside

if TYPE_CHECKING:
    from app.imaging.letterbox import Placement


LEFT_BEHIND = {"desktop.ini", "thumbs.db", ".ds_store"}
NEIGHBOURS = 12
"""Nearest images by each cheap measure whose features are compared."""

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Thresholds:
    """From where on each measure alone makes two images near-duplicates.

    Sets of standard views need stricter ones: two people's hands differ less than one image and its crop.

    Attributes:
        bits: differing bits of 256, at most.
        correlation: over all turns, at least.
        matches: places that agree on one transform, at least.
        detail_matches: the same for pairs that are alike in detail only, among which chance finds more.
    """

    bits: int = 76
    correlation: float = 0.9
    matches: int = 10
    detail_matches: int = 14

    def __str__(self) -> str:
        return (
            f"hash distance <= {self.bits} of 256 bits, correlation over all turns >= {self.correlation}, "
            f"matching features >= {self.matches} ({self.detail_matches} where images are alike in detail only), "
            f"{NEIGHBOURS} neighbours by each measure compared by features"
        )


LENIENT = Thresholds()


@dataclass(frozen=True)
class LabelledImage:
    """One labelled image.

    Attributes:
        name: the same wherever the set lies and whatever the pictures were re-encoded to.
        path: of the picture.
        label: index into the set's classes.
        part: of the publisher's own split: "train", "validation", "test", or "" where there is none.
        sha256: of the file as published, where a list of originals says it; empty where not.
        boxes: fractures as (centre x, centre y, width, height), shares of the image's width and height.
        region: body region, where known.
        view: projections, where known.
        turned: a copy turned by the publisher, as far as its name tells.
        hardware: plates, screws or a cast are on the image, where known.
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
    """Something wrong with one image, by name, in a sentence."""

    image: str
    what: str


@dataclass(frozen=True)
class DataSet:
    """Images of one publisher, sorted by name, and what is wrong with them.

    Attributes:
        thresholds: what makes two images near-duplicates.
        same_case: names of images of one picture or one case that are no near-duplicates, as far as names tell.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    images: tuple[LabelledImage, ...]
    problems: tuple[Problem, ...]
    thresholds: Thresholds = LENIENT
    same_case: tuple[tuple[str, str], ...] = ()

    @property
    def labels(self) -> np.ndarray:
        """int (N,)."""
        return np.array([film.label for film in self.images])


def published_digests(root: Path, name_of: Callable[[dict[str, str]], str]) -> dict[str, str]:
    """SHA-256 of originals by image name, where ``root/originals.csv`` lists them; ``name_of`` names a row's image."""
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


def pictures_of(root: Path, folders: Iterable[str], problems: list[Problem]) -> Iterator[tuple[str, Path]]:
    """Each folder's pictures, with the folder's name; folders that are missing join the problems."""
    for folder in folders:
        if (root / folder).is_dir():
            yield from ((folder, path) for path in pictures_in(root / folder, problems))
        else:
            problems.append(Problem(folder, "The folder is missing."))


def once(films: Iterable[LabelledImage], problems: list[Problem]) -> list[LabelledImage]:
    """The images by name, sorted; of two with one name the second joins the problems."""
    kept: dict[str, LabelledImage] = {}
    for film in films:
        if film.name in kept:
            problems.append(Problem(film.name, f"There twice, with another ending; {film.path.name} is left out."))
        else:
            kept[film.name] = film
    return sorted(kept.values(), key=lambda film: film.name)


def load_folders(name: str, title: str, classes: Mapping[str, str], data: Path) -> DataSet:
    """A set that is a folder a class, ``<name>/<folder>/<picture>``; an image's name is ``<folder>/<picture>``.

    Args:
        name: of the set and of its folder.
        title: as people know it.
        classes: folder by class, in the order of the labels.
        data: the set's folder or the one that holds it.

    Raises:
        FileNotFoundError: the set is not there.
    """
    root = data if data.name == name else data / name
    problems: list[Problem] = []
    labels = {folder: label for label, folder in enumerate(classes.values())}
    pictures = pictures_of(root, labels, problems)
    films = [LabelledImage(f"{folder}/{path.stem}", path, labels[folder], "") for folder, path in pictures]
    if not films:
        raise FileNotFoundError(
            f"no images under {root}: expected folders such as '{next(iter(labels))}'. "
            f"`python -m training download {name}` says how to get them."
        )
    return DataSet(name, title, tuple(classes), tuple(once(films, problems)), tuple(problems))


def missing(published: Mapping[str, str], films: Iterable[LabelledImage]) -> list[Problem]:
    """A problem for each published image that is not among ``images``, sorted by name."""
    names = published.keys() - {film.name for film in films}
    return [Problem(name, "Listed by the publisher, but the file is missing.") for name in sorted(names)]


def readable(data: DataSet) -> tuple[DataSet, list[Radiograph]]:
    """The images that can be decoded, with their pixels; the others join the problems, by name and reason."""
    films, decoded, problems = [], [], list(data.problems)
    for film in track(data.images, f"Reading {data.name}"):
        try:
            decoded.append(read(film.path))
        except ImageError as error:
            problems.append(Problem(film.name, str(error)))
            continue
        films.append(film)
    return replace(data, images=tuple(films), problems=tuple(problems)), decoded


CACHE = Path(".cache/films")


def key_of(paths: Sequence[Path], *settings: object) -> str:
    """A name that changes when a file or a setting does."""
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(json.dumps([stats, [str(s) for s in settings]]).encode()).hexdigest()[:16]


def squares(
    paths: Sequence[Path], size: int, cache: Path = CACHE, equalise: bool = False, colour: bool = False
) -> np.ndarray:
    """Every image letterboxed: uint8 (N, size, size), in colour (N, size, size, 3).

    They come from the cache when neither files nor settings have changed.

    Raises:
        ValueError: an image cannot be read; it is named.
    """
    # Here, since it brings torch, which nobody needs who only lists images.
    from app.imaging.letterbox import letterbox

    settings = (size, *["equalised"] * equalise, *["colour"] * colour)
    target = cache / f"squares-{size}-{key_of(paths, *settings)}.npy"
    if target.exists():
        return np.load(target)

    def boxed(path: Path) -> np.ndarray:
        try:
            square = letterbox(read(path), size, equalise, colour)[0]
        except ImageError as error:
            raise ValueError(f"{path}: {error} Mend it or take it away.") from None
        return (square * 255.0 + 0.5).astype(np.uint8)

    # Decoding lets go of the interpreter's lock, so threads share the work.
    with ThreadPoolExecutor() as pool:
        told = track(pool.map(boxed, paths), f"Letterboxing to {size} px", total=len(paths))
        values = np.stack(list(told))
    with aside(target) as partial:
        np.save(partial, values)
    return values


def placements(paths: Sequence[Path], size: int) -> tuple[Placement, ...]:
    """Where each image lies in its square; read from the files' headers."""
    from app.imaging.letterbox import Placement

    found = []
    for path in paths:
        with Image.open(path) as picture:
            width, height = picture.size
            if picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5:
                width, height = height, width
        found.append(Placement.fit(height, width, size))
    return tuple(found)
