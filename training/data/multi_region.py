"""Kaggle "Fracture Multi-Region X-ray Data" by bmadushanirodrigo: 10,580 pictures of many regions, fractured or not.

Most files are copies of a few hundred radiographs turned by some degrees, again and again
(``84-rotated1-rotated3 - Copy.jpg``), and the copies lie on all sides of the published split. Some films are
FracAtlas's. No reading protocol is published. Licence by a third party's word ODC-By, unconfirmed; see the Kaggle page
``bmadushanirodrigo/fracture-multi-region-x-ray-data``.

Layout: ``{train,val,test}/{fractured,not fractured}/<picture>``, in the folder itself, in a ``multi-region`` folder
inside it, or up to two levels deeper as Kaggle's archive unpacks.
"""

from __future__ import annotations

from pathlib import Path

from training.data.duplicates import Thresholds
from training.data.image import PICTURES, DataSet, LabelledImage, Problem, missing, once, pictures_in, published_digests

__all__ = ["CLASSES", "KAGGLE_HANDLE", "find", "load"]

KAGGLE_HANDLE = "bmadushanirodrigo/fracture-multi-region-x-ray-data"
CLASSES = ("not fractured", "fractured")
TURNED = Thresholds(bits=36, correlation=0.8, matches=20, detail_matches=24)
"""Copies here are turned about their centre and little else, which the correlation over all turns sees at once."""

PARTS = {"train": "train", "val": "validation", "test": "test"}


def find(data: Path) -> Path:
    """The folder that holds ``train``, ``val`` and ``test``.

    Raises:
        FileNotFoundError: none within three levels of ``data``.
    """
    for depth in ("", "*/", "*/*/", "*/*/*/"):
        for hit in sorted(data.glob(f"{depth}train/not fractured")):
            return hit.parent.parent
    raise FileNotFoundError(
        f"no multi-region films under {data}: expected folders such as 'train/not fractured'. "
        "`python -m training download multi-region` fetches them."
    )


def load(data: Path) -> DataSet:
    """Every film of the set; a film's name is ``<part>/<label>/<file name as published>``.

    Raises:
        FileNotFoundError: the set is not there.
    """
    root = find(data)
    published = published_digests(root, lambda row: f"{row['split']}/{row['label']}/{row['file']}")
    films: list[LabelledImage] = []
    problems: list[Problem] = []
    for folder, part in PARTS.items():
        for label, kind in enumerate(CLASSES):
            place = root / folder / kind
            if not place.is_dir():
                problems.append(Problem(f"{folder}/{kind}", "The folder is missing."))
                continue
            for path in pictures_in(place, problems):
                # Re-encoded copies of the set keep the whole published name before their own ending.
                original = path.stem if Path(path.stem).suffix.lower() in PICTURES else path.name
                name = f"{folder}/{kind}/{original}"
                turned = "rotated" in original
                films.append(LabelledImage(name, path, label, part, published.get(name, ""), turned=turned))
    films = once(films, problems)
    problems += missing(published, films)
    return DataSet("multi-region", "Fracture Multi-Region X-ray Data", CLASSES, tuple(films), tuple(problems), TURNED)
