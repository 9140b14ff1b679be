"""Fetches data sets from their publishers, and fills ``examples/`` with images that may be shown."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from urllib.request import urlopen

from training.data import bone_break, fracatlas, multi_region

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


def download(name: str, target: Path) -> Path:
    """Fetches a set into ``target/<name>``: FracAtlas from figshare, the others with kagglehub.

    Returns:
        The set's folder.

    Raises:
        ConnectionError: it could not be fetched, or cannot be from here; the message says how to get it by hand.
        ValueError: there is no such set.
    """
    if name == "fracatlas":
        return _figshare(target / name)
    if name not in KAGGLE:
        raise ValueError(f"'{name}' is not known; known are {', '.join([*KAGGLE, 'fracatlas'])}.")
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
