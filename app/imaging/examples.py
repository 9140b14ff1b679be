"""X-rays to try: a folder of examples with their sources, labelled ones that trained no model, and drawings.

A drawing needs nobody's X-ray. A forearm is projected the way X-rays do it: soft tissue and two bones are tubes, and
brightness grows with the thickness of matter on the ray (Beer-Lambert). A break moves one part of a bone away from the
other along a line. Drawings look like X-rays to a person; what a model says of them says nothing about its accuracy.
"""

from __future__ import annotations

import atexit
import csv
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from app.model.weights import FractureType

__all__ = ["BREAKS", "Example", "draw", "examples", "held_out_images", "random_image"]

EXAMPLES = Path("examples")
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Example:
    """An X-ray to try: the file, its label, and where it is from."""

    path: Path
    label: str
    source: str


def examples(folder: Path = EXAMPLES, *, drawn: bool = True) -> list[Example]:
    """The images listed in ``folder/sources.csv`` (columns file, label, source), else drawings made on the spot.

    Without ``drawn`` nothing takes the place of images that are not there.
    """
    table = folder / "sources.csv"
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        listed = [Example(folder / row["file"], row["label"], row["source"]) for row in rows]
        found = [example for example in listed if example.path.is_file()]
        if found:
            return found
    if not drawn:
        return []
    place = Path(tempfile.mkdtemp(prefix="drawn-x-rays-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    made = []
    for seed, kind in enumerate(BREAKS):
        path = place / f"drawing-{kind}.png"
        cv2.imwrite(str(path), draw(kind, seed=seed))
        made.append(Example(path, f"drawn: {kind}", "drawings by code, no patients; answers on them may be wrong"))
    return made


def held_out_images(classes: Sequence[FractureType], data: Path | None = None) -> list[tuple[Path, FractureType]]:
    """Labelled X-rays of the bone-break set's official test part, which no model here was trained on.

    Args:
        classes: of the model; their titles name the folders, whatever the case.
        data: folder with the set, or one that holds it; FRACTURE_DATA, else ``data``, where absent.

    Returns:
        Pairs of file and type, sorted; empty where the set is not at hand.
    """
    root = data or Path(os.environ.get("FRACTURE_DATA") or "data")
    kinds = {kind.title.casefold(): kind for kind in classes}
    found = []
    for folder in sorted(root.glob("bone-break/*/Test")) or sorted(root.glob("*/Test")):
        kind = kinds.get(folder.parent.name.casefold())
        if kind is not None:
            found += [(path, kind) for path in sorted(folder.iterdir()) if path.suffix.lower() in PICTURES]
    return found


def random_image(images: Sequence[tuple[Path, FractureType]]) -> tuple[Path, FractureType]:
    """One of them at random."""
    return random.choice(images)


SOFT, BONE, MARROW = 0.55, 7.0, 2.2
"""Attenuation per unit of thickness, in arbitrary units that give an X-ray's contrast."""

BREAKS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "intact": lambda across, rng: np.full_like(across, 9.0),
    "transverse": lambda across, rng: 0.01 * np.sin(across * 9.0),
    "oblique": lambda across, rng: 1.1 * across,
    "spiral": lambda across, rng: 1.3 * across + 0.09 * np.sin(across * 26.0),
    "jagged": lambda across, rng: 0.5 * across + 0.06 * np.abs(np.sin(across * 60.0 + rng.uniform(0, 3))),
}
"""Where a break crosses the bone: height along it by the distance from its axis, both in widths of the picture."""


def _tube(across: np.ndarray, radius: np.ndarray | float) -> np.ndarray:
    """Thickness of a cylinder on the ray at a distance from its axis."""
    return 2.0 * np.sqrt(np.clip(np.square(radius) - np.square(across), 0.0, None))


def _bone(x: np.ndarray, y: np.ndarray, centre: float, radius: float) -> np.ndarray:
    """Attenuation of a long bone along y: a dense shell round marrow, flared towards its ends."""
    outer = radius * (1.0 + 0.9 * np.abs(2.0 * y - 1.0) ** 4)
    across = x - centre - 0.02 * np.sin(np.pi * y)
    inner = outer * 0.66
    return BONE * (_tube(across, outer) - _tube(across, inner)) + MARROW * _tube(across, inner)


def draw(
    kind: str = "oblique", *, seed: int = 0, height: int = 512, width: int = 384, marker: bool = True
) -> np.ndarray:
    """A drawn X-ray of a forearm.

    Args:
        kind: a key of ``BREAKS``.
        seed: of noise, position and displacement; the same seed gives the same picture.
        height, width: in pixels, each at least 32.
        marker: draw a side letter in a corner, as technicians do.

    Returns:
        uint8 (height, width), high is bright.

    Raises:
        ValueError: unknown kind.
    """
    if kind not in BREAKS:
        raise ValueError(f"unknown kind {kind!r}; known are {', '.join(BREAKS)}")
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = (columns + 0.5) / width, (rows + 0.5) / height
    level = rng.uniform(0.42, 0.62)
    gap, slide, tilt = rng.uniform(0.008, 0.02), rng.uniform(0.015, 0.04), rng.uniform(-0.06, 0.06)

    density = SOFT * _tube(x - 0.5, 0.40 - 0.08 * y)
    for centre, radius, broken in ((0.40, 0.062, True), (0.62, 0.05, False)):
        edge = level + BREAKS[kind](x - centre, rng) if broken else np.full_like(x, 9.0)
        upper = _bone(x, y, centre, radius) * (y < edge)
        moved_x = x - slide - tilt * (y - level)
        lower = _bone(moved_x, y - gap, centre, radius) * (y - gap > edge - slide * 0.3)
        density += np.maximum(upper, lower)

    film = 1.0 - np.exp(-1.3 * density)
    film = cv2.GaussianBlur(film.astype(np.float32), (0, 0), max(0.6, width / 400.0))
    film += rng.normal(0.0, 0.012, film.shape).astype(np.float32)
    picture = np.clip(film * 215.0 + 6.0, 0.0, 255.0).astype(np.uint8)
    if marker:
        size = width / 420.0
        place = (round(width * 0.88), round(height * 0.09))
        cv2.putText(picture, "R", place, cv2.FONT_HERSHEY_SIMPLEX, size, 235, max(1, round(size * 2)), cv2.LINE_AA)
    return picture
