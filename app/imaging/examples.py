"""Films to try: drawings, a folder of examples with their sources, and labelled films nobody trained on."""

from __future__ import annotations

import atexit
import csv
import os
import random
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from app.imaging.phantom import BREAKS, draw
from app.model.weights import FractureType

__all__ = ["Example", "examples", "held_out_images", "random_image"]

EXAMPLES = Path("examples")
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Example:
    """A film to try: the file, what to call it, and where it is from."""

    path: Path
    label: str
    source: str


def examples(folder: Path = EXAMPLES) -> list[Example]:
    """The films listed in ``folder/sources.csv`` (columns file, label, source), else drawings made on the spot."""
    table = folder / "sources.csv"
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        listed = [Example(folder / row["file"], row["label"], row["source"]) for row in rows]
        found = [example for example in listed if example.path.is_file()]
        if found:
            return found
    place = Path(tempfile.mkdtemp(prefix="drawn-films-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    drawn = []
    for seed, kind in enumerate(BREAKS):
        path = place / f"drawing-{kind}.png"
        cv2.imwrite(str(path), draw(kind, seed=seed))
        drawn.append(Example(path, f"drawn: {kind}", "drawings by code, no patients"))
    return drawn


def held_out_images(classes: Sequence[FractureType], data: Path | None = None) -> list[tuple[Path, FractureType]]:
    """Labelled films of the bone-break set's official test part, which no model here was trained on.

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


def random_image(films: Sequence[tuple[Path, FractureType]]) -> tuple[Path, FractureType]:
    """Any one of them; a different one each time."""
    return random.choice(films)
