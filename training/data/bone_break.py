"""Kaggle "Bone Break Classification" by pkdarabi: 1,129 pictures of fractured bones, sorted into ten fracture types.

The pictures come from papers, web pages and teaching sites: some carry arrows, letters, tints or watermarks, a few
are CT slices, and many are the same film again, rotated, mirrored or re-encoded, on both sides of the official split.
Every film is fractured, so the set can teach which type, never whether. Labels were given by the uploader; no
reading protocol is published. For the licence see the Kaggle page ``pkdarabi/bone-break-classification-image-dataset``.

Layout: ``<Type>/<Train or Test>/<picture>``, found in the folder itself, in a ``bone-break`` folder inside it, or one
level deeper as Kaggle's archive unpacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["CLASSES", "KAGGLE_HANDLE", "Film", "find", "list_films"]

KAGGLE_HANDLE = "pkdarabi/bone-break-classification-image-dataset"

CLASSES: dict[str, str] = {
    "avulsion": "Avulsion fracture",
    "comminuted": "Comminuted fracture",
    "fracture-dislocation": "Fracture Dislocation",
    "greenstick": "Greenstick fracture",
    "hairline": "Hairline Fracture",
    "impacted": "Impacted fracture",
    "longitudinal": "Longitudinal fracture",
    "oblique": "Oblique fracture",
    "pathological": "Pathological fracture",
    "spiral": "Spiral Fracture",
}
"""Class name, in the order of the network's outputs, to folder name."""

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Film:
    """One labelled film: where it is, its class index, whether the official split calls it a test film."""

    path: Path
    label: int
    official_test: bool
    name: str
    """Path relative to the data set's folder, with forward slashes."""


def find(data: Path) -> Path:
    """The folder that holds the type folders.

    Args:
        data: the data set's folder, or a folder that holds it.

    Raises:
        FileNotFoundError: no type folder within two levels of it.
    """
    marker = CLASSES["avulsion"]
    for pattern in (marker, f"bone-break/{marker}", f"*/{marker}", f"*/*/{marker}"):
        for hit in sorted(data.glob(pattern)):
            return hit.parent
    raise FileNotFoundError(
        f"no bone-break films under {data}: expected folders such as '{marker}/Train'. "
        "`python -m training download bone-break` fetches them."
    )


def list_films(data: Path) -> list[Film]:
    """Every film of the set, sorted by name; the same order on every machine.

    Raises:
        FileNotFoundError: the set is not there, or a type folder is missing.
    """
    root = find(data)
    films = []
    for label, folder in enumerate(CLASSES.values()):
        for split in ("Train", "Test"):
            place = root / folder / split
            if not place.is_dir():
                raise FileNotFoundError(f"{place} is missing")
            films += [
                Film(path, label, split == "Test", f"{folder}/{split}/{path.name}")
                for path in place.iterdir()
                if path.suffix.lower() in PICTURES
            ]
    return sorted(films, key=lambda film: film.name)
