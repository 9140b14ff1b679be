"""Kaggle "Fracture Multi-Region X-ray Data" by bmadushanirodrigo: 10,580 pictures of many regions, fractured or not.

Most files are copies of a few hundred radiographs turned by some degrees, again and again
(``84-rotated1-rotated3 - Copy.jpg``), and the copies lie on all sides of the published split. Some images are
FracAtlas's. No reading protocol is published. Licence by a third party's word ODC-By, unconfirmed; see the Kaggle page
``bmadushanirodrigo/fracture-multi-region-x-ray-data``.

Layout: ``{train,val,test}/{fractured,not fractured}/<picture>``, in the folder itself, in a ``multi-region`` folder
inside it, or up to two levels deeper as Kaggle's archive unpacks.

``external_set`` is what an unknown source is judged by: one image of every group that the publisher did not turn, less
those with a near-duplicate in bone-break or FracAtlas. ``external.csv`` lists it, for the search takes minutes.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from app.imaging.radiograph import read
from training.data import bone_break, fracatlas
from training.data.image import (
    LENIENT,
    PICTURES,
    DataSet,
    LabelledImage,
    Problem,
    Thresholds,
    missing,
    once,
    pictures_of,
    published_digests,
    readable,
)

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
        f"no multi-region images under {data}: expected folders such as 'train/not fractured'. "
        "`python -m training download multi-region` fetches them."
    )


def load(data: Path) -> DataSet:
    """Every image of the set; an image's name is ``<part>/<label>/<file name as published>``.

    Raises:
        FileNotFoundError: the set is not there.
    """
    root = find(data)
    published = published_digests(root, lambda row: f"{row['split']}/{row['label']}/{row['file']}")
    films: list[LabelledImage] = []
    problems: list[Problem] = []
    for folder, path in pictures_of(root, (f"{part}/{kind}" for part in PARTS for kind in CLASSES), problems):
        part, kind = folder.split("/")
        # Re-encoded copies of the set keep the whole published name before their own ending.
        original = path.stem if Path(path.stem).suffix.lower() in PICTURES else path.name
        name = f"{folder}/{original}"
        label, turned = CLASSES.index(kind), "rotated" in original
        films.append(LabelledImage(name, path, label, PARTS[part], published.get(name, ""), turned=turned))
    films = once(films, problems)
    problems += missing(published, films)
    return DataSet("multi-region", "Fracture Multi-Region X-ray Data", CLASSES, tuple(films), tuple(problems), TURNED)


LISTED = Path(__file__).with_name("external.csv")


def straight(data: Path) -> list[LabelledImage]:
    """One image a group that nobody turned, sorted by name.

    Raises:
        FileNotFoundError: the set is not there.
        ValueError: these are not the images of the committed groups.
    """
    from training.data import splits

    whole = load(data)
    known = splits.committed(whole)
    if known is None:
        raise ValueError("these multi-region images are not the ones of the committed split")
    return sorted((whole.images[i] for i in splits.unturned(whole, known[0])), key=lambda film: film.name)


def search(films: Sequence[LabelledImage], data: Path) -> list[LabelledImage]:
    """Those of some images that have no near-duplicate in bone-break or FracAtlas.

    The thresholds are the lenient ones in both: an image left out too many costs little.

    Raises:
        FileNotFoundError: one of the sets is not there.
    """
    # Here, since it brings torch, which nobody needs who only lists images.
    from training.data.duplicates import find_links

    pictures = [read(film.path).display() for film in films]
    twins: set[int] = set()
    for other in (bone_break.load(data), fracatlas.load(data)):
        _, decoded = readable(other)
        links = find_links([*pictures, *(film.display() for film in decoded)], LENIENT)
        twins |= {link.first for link in links if link.first < len(films) <= link.second}
    return [film for number, film in enumerate(films) if number not in twins]


def external_set(data: Path, listed: Path = LISTED) -> list[LabelledImage]:
    """The images of the committed list; where there is none, it is made.

    Raises:
        FileNotFoundError: a set is not there.
        ValueError: these are not the images of the committed groups or the list.
    """
    films = straight(data)
    if not listed.is_file():
        found = search(films, data)
        with listed.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["image", "class"])
            writer.writerows([film.name, CLASSES[film.label]] for film in found)
        return found
    with listed.open(newline="", encoding="utf-8") as file:
        names = [row["image"] for row in csv.DictReader(file)]
    by_name = {film.name: film for film in films}
    if missing := [name for name in names if name not in by_name]:
        raise ValueError(f"{len(missing)} images of {listed.name} are not there, {missing[0]} among them")
    return [by_name[name] for name in names]
