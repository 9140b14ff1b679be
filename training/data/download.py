"""Fetches data sets from their publishers, and fills ``examples/`` with images that may be shown."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable
from itertools import zip_longest
from pathlib import Path
from urllib.request import urlopen

from training.data import bone_break, fracatlas, multi_region
from training.data.all_sets import BOXED_SETS, LATER, TABLE, read_table

FIGSHARE = "https://api.figshare.com/v2/articles/22363012"

KAGGLE: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "bone-break": (bone_break.KAGGLE_HANDLE, bone_break.find),
    "multi-region": (multi_region.KAGGLE_HANDLE, multi_region.find),
}
"""Kaggle's handle of a set, and what finds its folder in what Kaggle unpacks."""


def _figshare(place: Path) -> Path:
    """The archive of the article, checked by the checksum that figshare tells and unpacked into ``place``."""
    place.mkdir(parents=True, exist_ok=True)
    archive = place / "fracatlas.zip"
    try:
        with urlopen(FIGSHARE, timeout=60) as answer:
            listed = next(file for file in json.load(answer)["files"] if file["name"].lower().endswith(".zip"))
        with urlopen(listed["download_url"], timeout=60) as answer, archive.open("wb") as file:
            shutil.copyfileobj(answer, file)
        with archive.open("rb") as file:
            checksum = hashlib.md5(usedforsecurity=False)
            while block := file.read(1 << 20):
                checksum.update(block)
            if checksum.hexdigest() != listed["computed_md5"]:
                raise ValueError("the archive is not what figshare says it is")
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(place)
        found = fracatlas.find(place)
    except (OSError, ValueError, KeyError, StopIteration, zipfile.BadZipFile) as error:
        raise ConnectionError(
            f"figshare did not hand over FracAtlas ({type(error).__name__}). Download the archive by hand "
            f"(doi:{fracatlas.DOI}, CC BY 4.0) and unpack it into {place}."
        ) from error
    archive.unlink()
    return found


BY_HAND = {
    **{name: f"Fetch it from {its.page} (YOLO layout). Terms: {its.licence}" for name, its in BOXED_SETS.items()},
    "bone-break-more": "It was picked by eye from the set that bone-break was made from; no page offers it as it is.",
    "multi-region-distinct": "It is `multi-region`, one file a group of near-duplicates; `python -m training download "
    "multi-region` fetches that, and the table of groups names the files.",
}
"""How to get a set that needs a key or an account, in a sentence.

An export names every image by its source and a hash of its content, so the names in ``training/splits/all-sets.csv``
tell whether a folder holds the images everything here was measured on.
"""


def fingerprint(names: Iterable[str]) -> str:
    """SHA-256 over a set's image names, sorted, one a line."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def check(name: str, data: Path, table: Path = TABLE) -> Path:
    """The set's folder, if it holds every image that the table lists.

    Args:
        name: one of ``BY_HAND``.
        data: folder that holds, or is to hold, the set.
        table: of groups over all sets.

    Raises:
        ConnectionError: it is not there, or not all of it; the message says how to get it and what to check it by.
    """
    listed = {row.film for row in read_table(table) if row.set == name}
    known = f"Its {len(listed):,} image names, sorted, have the SHA-256 {fingerprint(listed)}."
    try:
        there = {film.name for film in LATER[name](data).images}
    except FileNotFoundError:
        raise ConnectionError(
            f"{name} cannot be fetched from here. {BY_HAND[name]} Put it into {data / name}. {known}"
        ) from None
    if lacking := listed - there:
        raise ConnectionError(
            f"{name} under {data} lacks {len(lacking):,} of {len(listed):,} images. {BY_HAND[name]} {known}"
        )
    return data / name


def download(name: str, target: Path) -> Path:
    """Fetches a set into ``target/<name>``: FracAtlas from figshare, Kaggle's with kagglehub; checks the rest.

    Returns:
        The set's folder.

    Raises:
        ConnectionError: it could not be fetched, or cannot be from here; the message says how to get it by hand.
        ValueError: there is no such set.
    """
    if name == "fracatlas":
        return _figshare(target / name)
    if name in BY_HAND:
        return check(name, target)
    if name not in KAGGLE:
        raise ValueError(f"'{name}' is not known; known are {', '.join([*KAGGLE, 'fracatlas', *BY_HAND])}.")
    import kagglehub

    handle, find = KAGGLE[name]
    place = target / name
    try:
        fetched = Path(kagglehub.dataset_download(handle))
    except Exception as error:
        raise ConnectionError(
            f"Kaggle did not hand over '{handle}' ({type(error).__name__}). Download it by hand from its Kaggle "
            f"page and unpack it into {place}."
        ) from error
    shutil.copytree(find(fetched), place, dirs_exist_ok=True)
    return place


ATTRIBUTION = (
    "FracAtlas, Abedeen et al., Scientific Data 10, 521 (2023), doi:10.1038/s41597-023-02432-4, CC BY 4.0; "
    "scaled by the demo, otherwise unchanged"
)


def collect(data: Path, target: Path, count: int = 6) -> list[Path]:
    """Copies fractured images without hardware, taking turns over the backbone regions.

    Returns:
        The copies.

    Raises:
        FileNotFoundError: no FracAtlas under ``data``.
    """
    films = [film for film in fracatlas.load(data).images if film.label == 1 and not film.hardware]
    queues = [[film for film in films if film.region == region] for region in ("hand", "leg", "hip", "shoulder")]
    chosen = [film for turn in zip_longest(*queues) for film in turn if film is not None][:count]
    target.mkdir(parents=True, exist_ok=True)
    with (target / "sources.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "label", "source"])
        for film in chosen:
            writer.writerow([film.path.name, f"{film.region}, fractured", ATTRIBUTION])
    return [Path(shutil.copy(film.path, target / film.path.name)) for film in chosen]
