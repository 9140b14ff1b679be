"""Data sets from where their authors published them."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

from training.data import bone_break, fracatlas, multi_region

__all__ = ["KAGGLE", "download"]

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
        raise RuntimeError(
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
        RuntimeError: it could not be fetched, or cannot be from here; the message says how to get it by hand.
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
        raise RuntimeError(
            f"Kaggle did not hand over '{handle}' ({type(error).__name__}). Download it by hand from its Kaggle "
            f"page and unpack it into {place}."
        ) from error
    shutil.copytree(find(fetched), place, dirs_exist_ok=True)
    return place
