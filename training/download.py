"""Data sets from where their authors published them."""

from __future__ import annotations

import shutil
from pathlib import Path

from training.data import bone_break

__all__ = ["download_bone_break"]


def download_bone_break(target: Path) -> Path:
    """Fetches the bone-break set with kagglehub into ``target/bone-break``.

    Returns:
        The folder that holds the type folders.

    Raises:
        RuntimeError: it could not be fetched; the message says how to get it by hand.
    """
    import kagglehub

    try:
        fetched = Path(kagglehub.dataset_download(bone_break.KAGGLE_HANDLE))
    except Exception as error:
        raise RuntimeError(
            f"Kaggle did not hand over '{bone_break.KAGGLE_HANDLE}' ({type(error).__name__}). Download it by hand "
            f"from its Kaggle page and unpack it into {target / 'bone-break'}."
        ) from error
    place = target / "bone-break"
    shutil.copytree(bone_break.find(fetched), place, dirs_exist_ok=True)
    return place
