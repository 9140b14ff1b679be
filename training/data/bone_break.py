"""Kaggle "Bone Break Classification" by pkdarabi: 1,129 pictures of fractured bones, sorted into ten fracture types.

The pictures come from papers, web pages and teaching sites: some carry arrows, letters, tints or watermarks, a few
are CT slices, and many are the same image again, rotated, mirrored or re-encoded, on both sides of the official split.
Every image is fractured, so the set can teach which type, never whether. Labels were given by the uploader; no
reading protocol is published. For the licence see the Kaggle page ``pkdarabi/bone-break-classification-image-dataset``.

Layout: ``<Type>/<Train or Test>/<picture>``, found in the folder itself, in a ``bone-break`` folder inside it, or one
level deeper as Kaggle's archive unpacks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from training.data.image import DataSet, LabelledImage, Problem, missing, once, pictures_of, published_digests

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


SHARED = 8
"""Hexadecimal digits in a row that two names share only where the images come from one place."""

LIMITS = [
    "Every image it learnt types from shows a fracture, so it names a type even for a whole bone.",
    "Labels are the uploader's, never checked by a panel of readers; some near-duplicates carry two different ones.",
]
"""What whoever learns from this set cannot do, for the model's card."""


def find(data: Path) -> Path:
    """The folder that holds the type folders.

    Raises:
        FileNotFoundError: no type folder within two levels of it.
    """
    marker = CLASSES["avulsion"]
    for pattern in (marker, f"bone-break/{marker}", f"*/{marker}", f"*/*/{marker}"):
        for hit in sorted(data.glob(pattern)):
            return hit.parent
    raise FileNotFoundError(
        f"no bone-break images under {data}: expected folders such as '{marker}/Train'. "
        "`python -m training download bone-break` fetches them."
    )


def same_case(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Images cut from one picture, or out of one article: their names share eight hexadecimal digits in a row.

    Views of one bone side by side were cut apart and saved under the picture's name and checksum with characters
    dropped, so that the checksums agree in part; figures of one article carry its number. By chance two checksums share
    as much in one of ten such sets. Images of one case are no near-duplicates, but a network that was trained on one of
    them knows the patient of the other.

    Returns:
        Pairs of names; who is not named directly may be so through others.
    """
    first: dict[str, str] = {}
    pairs = set()
    for name in names:
        for run in re.findall(rf"[0-9a-f]{{{SHARED},}}", Path(name).name):
            for start in range(len(run) - SHARED + 1):
                other = first.setdefault(run[start : start + SHARED], name)
                if other != name:
                    pairs.add((other, name))
    return tuple(sorted(pairs))


def load(data: Path) -> DataSet:
    """Every image of the set; an image's name is ``<Type>/<Train or Test>/<file name without its ending>``.

    Raises:
        FileNotFoundError: the set is not there.
    """
    root = find(data)
    published = published_digests(root, lambda row: f"{row['class']}/{row['split']}/{Path(row['file']).stem}")
    films: list[LabelledImage] = []
    problems: list[Problem] = []
    labels = {f"{kind}/{part}": label for label, kind in enumerate(CLASSES.values()) for part in ("Train", "Test")}
    for folder, path in pictures_of(root, labels, problems):
        name = f"{folder}/{path.stem}"
        part = Path(folder).name.lower()
        films.append(LabelledImage(name, path, labels[folder], part, published.get(name, "")))
    films = once(films, problems)
    problems += missing(published, films)
    return DataSet(
        "bone-break",
        "Bone Break Classification",
        tuple(CLASSES),
        tuple(films),
        tuple(problems),
        same_case=same_case([film.name for film in films]),
    )
