"""The sets beside bone-break and FracAtlas, and one table that groups the images of all.

**veda** (Roboflow "bone-fracture-detection-daoon", version 4): upper limbs, classes by region that all mean "fractured
here". Its ``data.yaml`` says CC BY 4.0; the images look like Stanford's MURA, whose research terms would then bind.
Three copies an image, turned by up to 15 degrees and re-lit. Boxes are loose, and often lie on plated or old
fractures: metal and casts go with the label. Images without a mark look unbroken.

**hbfmid** (Human Bone Fractures Multi-modal Image Dataset, Mendeley Data xwfs6xbk47, version 1): boxes with fracture
types, tight ones, on images stretched to a square. A ``Healthy`` box is drawn round the whole limb, and most images
that carry one are marked as fractured elsewhere: it marks no fracture, and does not make the bone whole.

**ca1len** (Roboflow "Science Research 2022: Bone Fracture Detection", version 7, CC BY 4.0 by its ``data.yaml``):
hands, forearms and children's legs with small, tight boxes; nearly all images are fractured.

**bone-break-more**: 128 more images of the ten types, from the set that bone-break was made from; none of them is in
it. They were picked by eye; no licence is stated. About a third have panels, arrows or text. Nothing is trained on
them: they judge types, and calibrate models that learnt from all bone-break training images. A folder a type.

**multi-region-distinct**: the distinct radiographs of multi-region, scaled down, one file a group of near-duplicates; a
few exist only as turned copies. A folder a label.

Layout of the first three: a ``data.yaml`` with the classes' names, ``<part>/images/<image>`` and
``<part>/labels/<image>.txt`` with its marks. A mark is one line, ``class x y width height`` (a box) or
``class x1 y1 x2 y2 x3 y3 ...`` (a polygon), in shares of the image's width and height; a polygon becomes the box round
it.

**The table** ``training/splits/all-sets.csv`` is written by ``python -m training groups``. Images of one
radiograph, or of one case as far as names tell, share a group whatever set they stand in, and a group lies on one side
of every split. The bone-break and FracAtlas splits stay as they are and pull the others along: what
shares a group with one of their judging images is in no other set's training, what shares one with their training
images judges nothing. Every other group is dealt out afresh, stratified by the sets it stands in and its label.

Which images show one radiograph is read from ``films.csv`` and ``near-duplicates.csv`` beside the sets (embedding and
perceptual hash in eight turns, then SIFT inliers and correlation after alignment); the committed table holds what
that gave.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import yaml

from training.data import bone_break, multi_region
from training.data.image import DataSet, LabelledImage, Problem, load_folders, once, pictures_in
from training.data.splits import FOLDER, deal

CLASSES = ("not fractured", "fractured")
PARTS = {"train": "train", "valid": "validation", "val": "validation", "test": "test"}
EXCESS = 0.02
"""Share of the side that a mark may reach past the image before it is a problem."""


@dataclass(frozen=True)
class BoxedSet:
    """One set in YOLO layout.

    Attributes:
        title: as people know it.
        page: where it can be fetched by hand.
        licence: under which terms it came, in a sentence.
        healthy: classes that mark no fracture.
    """

    title: str
    page: str
    licence: str
    healthy: tuple[str, ...] = ()


BOXED_SETS = {
    "veda": BoxedSet(
        "Bone Fracture Detection (veda)",
        "https://universe.roboflow.com/veda/bone-fracture-detection-daoon",
        "CC BY 4.0 by its data.yaml; the images look like Stanford's MURA, whose research terms would then bind.",
    ),
    "hbfmid": BoxedSet(
        "Human Bone Fractures Multi-modal Image Dataset",
        "https://data.mendeley.com/datasets/xwfs6xbk47",
        "CC BY 4.0 by a third party's word; its data.yaml says private.",
        ("Healthy",),
    ),
    "ca1len": BoxedSet(
        "Science Research 2022: Bone Fracture Detection",
        "https://universe.roboflow.com/science-research/science-research-2022:-bone-fracture-detection",
        "CC BY 4.0 by its data.yaml.",
    ),
}


def find(name: str, data: Path) -> Path:
    """The folder of a set, which holds its ``data.yaml``.

    Raises:
        FileNotFoundError: it is not under ``data``; the message says where to get it.
    """
    root = data if data.name == name else data / name
    if not (root / "data.yaml").is_file():
        raise FileNotFoundError(
            f"no {name} under {data}: expected {name}/data.yaml. It can be fetched from {BOXED_SETS[name].page}; "
            f"`python -m training download {name}` says what to check it by."
        )
    return root


@dataclass(frozen=True)
class Mark:
    """One marked place.

    Attributes:
        kind: name of its class.
        box: centre x, centre y, width, height, shares of the image's width and height, within the image.
    """

    kind: str
    box: tuple[float, float, float, float]


def class_names(root: Path) -> tuple[str, ...]:
    """Names of the classes, in the order of their numbers.

    Raises:
        FileNotFoundError: there is no ``data.yaml``.
        ValueError: it is not YAML, or names no classes.
    """
    try:
        described = yaml.safe_load((root / "data.yaml").read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ValueError(f"{root / 'data.yaml'} is not YAML.") from None
    names = described.get("names") if isinstance(described, dict) else None
    if isinstance(names, dict):
        names = [names[number] for number in sorted(names, key=int)]
    if not names or not isinstance(names, list):
        raise ValueError(f"{root / 'data.yaml'} names no classes.")
    return tuple(str(name) for name in names)


def _box(values: list[float]) -> tuple[float, float, float, float]:
    if len(values) == 4:
        x, y, width, height = values
        left, right, top, bottom = x - width / 2, x + width / 2, y - height / 2, y + height / 2
    elif len(values) >= 6 and len(values) % 2 == 0:
        left, right, top, bottom = min(values[::2]), max(values[::2]), min(values[1::2]), max(values[1::2])
    else:
        raise ValueError("neither a box nor a polygon")
    if not min(left, top) >= -EXCESS or not max(right, bottom) <= 1 + EXCESS:
        raise ValueError("outside the image")
    left, right, top, bottom = max(left, 0.0), min(right, 1.0), max(top, 0.0), min(bottom, 1.0)
    if right <= left or bottom <= top:
        raise ValueError("without an extent")
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def marks(path: Path, names: tuple[str, ...], film: str, problems: list[Problem]) -> tuple[Mark, ...]:
    """The marks of one image; lines that cannot be used join the problems.

    Args:
        path: of the text file; no file and an empty one both mean that nothing is marked.
        names: of the classes.
        film: the image's name, for the problems.
        problems: to add to.
    """
    if not path.is_file():
        problems.append(Problem(film, "There is no file of marks, so it is left open whether anything is to be seen."))
        return ()
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            kind, *values = line.split()
            found.append(Mark(names[int(kind)], _box([float(value) for value in values])))
        except (ValueError, IndexError) as error:
            problems.append(Problem(film, f"Mark {number} cannot be used: {error}."))
    return tuple(found)


def load(name: str, data: Path) -> DataSet:
    """Every image of one of the sets; an image's name is its path under the set's folder without the ending.

    An image is fractured where anything but a ``healthy`` class is marked; its boxes are those marks.

    Raises:
        FileNotFoundError: the set is not there.
        KeyError: there is no such set.
    """
    root, its = find(name, data), BOXED_SETS[name]
    names = class_names(root)
    films: list[LabelledImage] = []
    problems: list[Problem] = []
    for folder, part in PARTS.items():
        if not (root / folder / "images").is_dir():
            continue
        for path in pictures_in(root / folder / "images", problems):
            film = f"{folder}/images/{path.stem}"
            found = marks(root / folder / "labels" / f"{path.stem}.txt", names, film, problems)
            boxes = tuple(mark.box for mark in found if mark.kind not in its.healthy)
            films.append(LabelledImage(film, path, int(bool(boxes)), part, boxes=boxes))
    if not films:
        raise FileNotFoundError(f"no images under {root}: expected folders such as train/images beside data.yaml")
    return DataSet(name, its.title, CLASSES, tuple(once(films, problems)), tuple(problems))


def kinds(name: str, data: Path) -> dict[str, set[str]]:
    """The classes marked on every image of a set, by the image's name.

    Raises:
        FileNotFoundError: the set is not there.
    """
    root = find(name, data)
    names = class_names(root)
    problems: list[Problem] = []
    found = {}
    for path in sorted(root.glob("*/labels/*.txt")):
        film = f"{path.parent.parent.name}/images/{path.stem}"
        found[film] = {mark.kind for mark in marks(path, names, film, problems)}
    return found


TABLE = FOLDER / "all-sets.csv"
OLD = ("bone-break", "fracatlas")
MARKED = ("veda", "ca1len", "hbfmid")
"""Sets whose marks tell the label, image by image."""
BELIEVED = ("fracatlas", "veda", "multi-region-distinct")
"""Sets whose unmarked images are whole bones; in the other two an image without a mark is one nobody marked."""
LATER: dict[str, Callable[[Path], DataSet]] = {
    **{name: partial(load, name) for name in BOXED_SETS},
    "bone-break-more": partial(
        load_folders, "bone-break-more", "Bone Break Classification, more of its source", bone_break.CLASSES
    ),
    "multi-region-distinct": partial(
        load_folders,
        "multi-region-distinct",
        "Fracture Multi-Region X-ray Data, distinct",
        {kind: kind for kind in multi_region.CLASSES},
    ),
}
"""Loader of every set that the table deals out and that has no split of its own, from the folder that holds it."""
SOURCES = ("fracatlas", "veda", "ca1len", "hbfmid", "multi-region-distinct")
"""Sources by preference: an image that stands in several is drawn from the first, whose boxes are the better ones."""
BRIGHT = 200.0
"""The 95th percentile of brightness, 0 to 255, of a plain copy; exports also hold nearly black and washed-out ones."""
EXPORT = re.compile(r"\.rf\.[0-9a-f]{32}$")


@dataclass(frozen=True)
class Row:
    """One image of one set.

    Attributes:
        set, film: the set's name and the image's name in it.
        image: number of the radiograph it shows, over all sets; "" where no other image shows it.
        group: number of its group, over all sets.
        label: as the set has it: a type, "fractured" or "not fractured".
        part: "train", "validation", "test" or "out".
        kept: whether it is the copy that stands for its radiograph within the set.
        contested: whether a believed set calls it whole and another marks or calls it fractured.
    """

    set: str
    film: str
    image: str
    group: int
    label: str
    part: str
    kept: bool
    contested: bool


def _name(source: str, file: str) -> str:
    path = PurePosixPath(file)
    return path.stem if source == "fracatlas" else str(path.parent / path.stem)


def _rows(path: Path, *needed: str) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file)
        if lacking := set(needed) - set(table.fieldnames or ()):
            raise ValueError(f"{path} lacks the column '{min(lacking)}'.")
        return list(table)


def _label(row: dict[str, str]) -> str:
    if row["set"] not in MARKED:
        return row["label"]
    return "not fractured" if row["label"] in ("nothing marked", "Healthy") else "fractured"


def _groups(listed: Sequence[dict[str, str]], pairs: Iterable[dict[str, str]], old: dict[str, list]) -> dict:
    """Group number of every (set, name)."""
    # Here, since it brings torch, which nobody needs who only reads the table.
    from training.data.duplicates import Link, group

    numbers: dict[tuple[str, str], int] = {}
    links: list[Link] = []

    def join(one: tuple[str, str], other: tuple[str, str]) -> None:
        ends = (numbers.setdefault(key, len(numbers)) for key in (one, other))
        links.append(Link(*ends, "name", 0))

    for row in listed:
        join((row["set"], _name(row["set"], row["file"])), ("image", row["film"]))
    for pair in pairs:
        if "multi-region" not in (pair["set_a"], pair["set_b"]):
            ends = ((pair[f"set_{side}"], _name(pair[f"set_{side}"], pair[f"file_{side}"])) for side in "ab")
            join(*ends)
    for source in OLD:
        for row in old[source]:
            join((source, row["image"]), (f"{source} group", row["group"]))
    by_name: dict[str, tuple[str, str]] = {}
    for key in numbers:
        if key[0] in ("bone-break", "bone-break-more", "multi-region-distinct"):
            by_name[f"{key[0]}/{EXPORT.sub('', key[1])}"] = key
    for one, other in bone_break.same_case(sorted(by_name)):
        join(by_name[one], by_name[other])
    return dict(zip(numbers, group(len(numbers), links), strict=True))


def _kept(listed: Sequence[dict[str, str]]) -> set[tuple[str, str]]:
    """One copy an image and set: with marks, unturned, of plain brightness, the first by name."""
    copies = defaultdict(list)
    for row in listed:
        copies[row["set"], row["film"]].append(row)

    def preference(row: dict[str, str]) -> tuple:
        brightness = float(row["brightness_p95"] or BRIGHT)
        return _label(row) != "fractured", row["turned"] == "1", abs(brightness - BRIGHT), row["file"]

    best = (min(rows, key=preference) for rows in copies.values())
    return {(row["set"], _name(row["set"], row["file"])) for row in best}


def _contested(listed: Sequence[dict[str, str]]) -> set[str]:
    """Numbers of radiographs that a believed set calls whole while another set, or a copy there, is fractured.

    A copy that lost its mark by being turned contradicts nothing: in the marked sets one marked copy is enough.
    """
    labels = defaultdict(set)
    for row in listed:
        labels[row["film"], row["set"]].add(_label(row))
    whole, fractured = set(), set()
    for (image, source), found in labels.items():
        if found != {"not fractured"}:
            fractured.add(image)
        if source in BELIEVED and "not fractured" in found and (source not in MARKED or "fractured" not in found):
            whole.add(image)
    return whole & fractured


def build(data: Path, seed: int = 0) -> list[Row]:
    """Groups, parts and chosen copies of all sets under ``data``.

    Raises:
        FileNotFoundError: ``films.csv``, ``near-duplicates.csv`` or a committed split is not there.
        ValueError: one of the first two lacks a column.
    """
    listed = _rows(data / "films.csv", "set", "file", "film", "label", "brightness_p95", "turned")
    listed = [row for row in listed if row["set"] != "multi-region"]
    pairs = _rows(data / "near-duplicates.csv", "set_a", "file_a", "set_b", "file_b")
    old = {source: _rows(FOLDER / f"{source}.csv") for source in OLD}
    of = _groups(listed, pairs, old)
    parts = {(source, row["image"]): row["part"] for source in OLD for row in old[source]}
    judged = {of[key] for key, part in parts.items() if part in ("validation", "test")}
    trained = {of[key] for key, part in parts.items() if part == "train"} - judged
    held = {of[key] for key in of if key[0] == "bone-break-more"} - judged - trained
    kept = _kept(listed)
    contested = _contested(listed)
    new = [row for row in listed if row["set"] not in OLD]
    keys = [(row["set"], _name(row["set"], row["file"])) for row in new]
    fresh = sorted({of[key] for key in keys} - judged - trained - held)
    dealt = _deal(fresh, keys, [_label(row) for row in new], of, seed)
    dealt |= dict.fromkeys(judged, "out") | dict.fromkeys(trained, "train") | dict.fromkeys(held, "validation")
    number = {(row["set"], _name(row["set"], row["file"])): row["film"] for row in listed}
    table = [
        Row(key[0], key[1], row["film"], of[key], _label(row), dealt[of[key]], key in kept, row["film"] in contested)
        for key, row in zip(keys, new, strict=True)
    ]
    for source in OLD:
        for row in old[source]:
            key = (source, row["image"])
            part = "out" if row["part"] == "train" and of[key] in judged else row["part"]
            its = number.get(key, "")
            table.append(Row(source, row["image"], its, of[key], row["class"], part, True, its in contested))
    return sorted(table, key=lambda row: (row.set, row.film))


def _deal(fresh: list[int], keys: Sequence, labels: Sequence[str], of: dict, seed: int) -> dict[int, str]:
    sets, fractured = defaultdict(set), defaultdict(bool)
    for key, label in zip(keys, labels, strict=True):
        sets[of[key]].add(key[0])
        fractured[of[key]] |= label == "fractured"
    strata = [f"{sorted(sets[number])} {fractured[number]}" for number in fresh]
    return dict(zip(fresh, deal(strata, fresh, seed), strict=True))


def write_table(rows: Sequence[Row], path: Path = TABLE) -> Path:
    """Writes the table, one line an image."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["set", "film", "image", "group", "label", "part", "kept", "contested"])
        for row in rows:
            flags = int(row.kept), int(row.contested)
            writer.writerow([row.set, row.film, row.image, row.group, row.label, row.part, *flags])
    return path


def read_table(path: Path = TABLE) -> list[Row]:
    """The committed table.

    Raises:
        FileNotFoundError: it is not there.
    """
    return [
        Row(
            **{key: row[key] for key in ("set", "film", "image", "label", "part")},
            group=int(row["group"]),
            kept=row["kept"] == "1",
            contested=row["contested"] == "1",
        )
        for row in _rows(path)
    ]
