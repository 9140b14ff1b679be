"""Films decoded and letterboxed once, kept as one uint8 array on disk: decoding costs more than a training step."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.progress import track

from app.preprocess import letterbox
from app.radiograph import read
from training.data import duplicates

__all__ = ["CACHE", "film_groups", "squares"]

CACHE = Path(".cache/films")


def _key(paths: Sequence[Path], *settings: object) -> str:
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(json.dumps([stats, [str(s) for s in settings]]).encode()).hexdigest()[:16]


def _store(target: Path, values: np.ndarray) -> np.ndarray:
    """Written under another name first, so that an interrupted run leaves no half file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}.npy")
    np.save(partial, values)
    partial.replace(target)
    return values


def squares(paths: Sequence[Path], size: int, cache: Path = CACHE) -> np.ndarray:
    """Every film letterboxed: uint8 (N, size, size), from the cache when the files have not changed.

    Raises:
        FilmError: a film cannot be read.
    """
    target = cache / f"squares-{size}-{_key(paths, size)}.npy"
    if target.exists():
        return np.load(target)
    boxed = [letterbox(read(path), size)[0] for path in track(paths, f"Letterboxing to {size} px")]
    return _store(target, (np.stack(boxed) * 255.0 + 0.5).astype(np.uint8))


def film_groups(paths: Sequence[Path], cache: Path = CACHE) -> np.ndarray:
    """Near-duplicate group of every film: int (N,), from the cache when the files have not changed."""
    target = cache / f"groups-{_key(paths, duplicates.MAX_DISTANCE, duplicates.HASH_SIDE)}.npy"
    if target.exists():
        return np.load(target)
    films = [read(path).display() for path in track(paths, "Looking for near-duplicates")]
    return _store(target, duplicates.group(films))
