"""Films decoded and letterboxed once, kept as one uint8 array on disk: decoding costs more than a training step."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image
from rich.progress import track

from app.errors import ImageError
from app.imaging.letterbox import Placement, letterbox
from app.imaging.radiograph import read

__all__ = ["CACHE", "key_of", "placements", "squares"]

CACHE = Path(".cache/films")


def key_of(paths: Sequence[Path], *settings: object) -> str:
    """A name that changes when a file or a setting does."""
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(json.dumps([stats, [str(s) for s in settings]]).encode()).hexdigest()[:16]


def squares(paths: Sequence[Path], size: int, cache: Path = CACHE, equalise: bool = False) -> np.ndarray:
    """Every film letterboxed: uint8 (N, size, size), from the cache when neither files nor settings have changed.

    Raises:
        ValueError: a film cannot be read; it is named.
    """
    settings = (size, "equalised") if equalise else (size,)
    target = cache / f"squares-{size}-{key_of(paths, *settings)}.npy"
    if target.exists():
        return np.load(target)
    boxed = []
    for path in track(paths, f"Letterboxing to {size} px"):
        try:
            boxed.append(letterbox(read(path), size, equalise)[0])
        except ImageError as error:
            raise ValueError(f"{path}: {error} Mend it or take it away.") from None
    values = (np.stack(boxed) * 255.0 + 0.5).astype(np.uint8)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Written under another name first, so that an interrupted run leaves no half file.
    partial = target.with_suffix(f".{os.getpid()}.npy")
    np.save(partial, values)
    partial.replace(target)
    return values


def placements(paths: Sequence[Path], size: int) -> tuple[Placement, ...]:
    """Where each film lies in its square; read from the files' headers."""
    found = []
    for path in paths:
        with Image.open(path) as picture:
            width, height = picture.size
            if picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5:
                width, height = height, width
        found.append(Placement.fit(height, width, size))
    return tuple(found)
