"""Data sets from where their authors published them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from training.data import bone_break, fracatlas, multi_region

__all__ = ["KAGGLE", "download"]

KAGGLE: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "bone-break": (bone_break.KAGGLE_HANDLE, bone_break.find),
    "multi-region": (multi_region.KAGGLE_HANDLE, multi_region.find),
}
"""Kaggle's handle of a set, and what finds its folder in what Kaggle unpacks."""


def download(name: str, target: Path) -> Path:
    """Fetches a Kaggle set with kagglehub into ``target/<name>``; FracAtlas has to be fetched by hand.

    Returns:
        The set's folder.

    Raises:
        RuntimeError: it could not be fetched, or cannot be from here; the message says how to get it by hand.
        ValueError: there is no such set.
    """
    if name == "fracatlas":
        raise RuntimeError(
            f"FracAtlas lies on figshare (doi:{fracatlas.DOI}, CC BY 4.0). Download the archive there and unpack it "
            f"into {target / 'fracatlas'}."
        )
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
