"""FracAtlas: musculoskeletal radiographs from three hospitals in Bangladesh, fractured or not, fractures boxed.

Abedeen et al., "FracAtlas: A Dataset for Fracture Classification, Localization and Segmentation of Musculoskeletal
Radiographs", Scientific Data 10, 521 (2023), CC BY 4.0, on figshare (doi:10.6084/m9.figshare.22363012): 4,083 images,
717 of them fractured, with body region, view and hardware. Labels were given by two radiologists and checked by an
orthopaedist. Boxes are small: most cover well under a hundredth of the image. The authors split only the fractured
images, into training, validation and test.

Layout: ``dataset.csv``, ``images/Fractured`` and ``images/Non_fractured``, ``Annotations/YOLO/<image>.txt`` (class,
centre x, centre y, width, height as shares), ``Utilities/Fracture Split/{train,valid,test}.csv``; in the folder
itself, in a ``fracatlas`` or ``FracAtlas`` folder inside it, or one level deeper as the archive unpacks.
"""

from __future__ import annotations

import csv
from pathlib import Path

from training.data.image import DataSet, LabelledImage, Problem, Thresholds, pictures_of

DOI = "10.6084/m9.figshare.22363012"
CLASSES = ("not fractured", "fractured")
REGIONS = ("hand", "leg", "hip", "shoulder", "mixed")
VIEWS = ("frontal", "lateral", "oblique")
STRICT = Thresholds(bits=36, matches=25, detail_matches=30)
"""Looser ones chain hundreds of different patients' hands, all laid on the plate alike, into one group."""

ROUNDING = 0.005
"""Share of the side that a box may reach past the image before it is a problem."""

FOLDERS = {"images/Non_fractured": 0, "images/Fractured": 1}


def find(data: Path) -> Path:
    """The folder that holds ``dataset.csv`` and ``images``.

    Raises:
        FileNotFoundError: none within two levels of ``data``.
    """
    for pattern in ("dataset.csv", "*/dataset.csv", "*/*/dataset.csv"):
        for table in sorted(data.glob(pattern)):
            if (table.parent / "images").is_dir():
                return table.parent
    raise FileNotFoundError(
        f"no FracAtlas under {data}: expected its dataset.csv and images folder. It can be downloaded from figshare, "
        f"doi:{DOI}, under CC BY 4.0; `python -m training download fracatlas` says how."
    )


def load(data: Path) -> DataSet:
    """Every image of the set; an image's name is its image id without its ending, such as ``IMG0000019``.

    An image counts as fractured when table or boxes say so; where folder, table and boxes disagree, that is a problem.

    Raises:
        FileNotFoundError: the set is not there.
    """
    root = find(data)
    with (root / "dataset.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = {Path(row["image_id"]).stem: row for row in csv.DictReader(file)}
    pictures: dict[str, tuple[Path, int]] = {}
    problems: list[Problem] = []
    for folder, path in pictures_of(root, FOLDERS, problems):
        kept, _ = pictures.setdefault(path.stem, (path, FOLDERS[folder]))
        if kept != path:
            words = f"There twice; {kept.parent.name}/{kept.name} is used, {path.parent.name}/{path.name} left out."
            problems.append(Problem(path.stem, words))
    authors = _authors_split(root)
    films = []
    for name in sorted(rows.keys() | pictures.keys()):
        if name not in pictures:
            problems.append(Problem(name, "Listed in dataset.csv, but the file is missing."))
            continue
        if name not in rows:
            problems.append(Problem(name, "Not listed in dataset.csv, so it is left out."))
            continue
        path, folder_label = pictures[name]
        row = rows[name]
        boxes = _boxes(root / "Annotations" / "YOLO" / f"{name}.txt", name, problems)
        table_label = int(row["fractured"] == "1")
        label = max(table_label, int(bool(boxes)))
        if table_label != folder_label:
            problems.append(
                Problem(name, f"In the folder {CLASSES[folder_label]}, in the table {CLASSES[table_label]}.")
            )
        if boxes and not table_label:
            problems.append(Problem(name, "Has a fracture box, but the table says not fractured."))
        if table_label and not boxes:
            problems.append(Problem(name, "The table says fractured, but there is no box."))
        films.append(
            LabelledImage(
                name,
                path,
                label,
                authors.get(name, ""),
                boxes=boxes,
                region="+".join(region for region in REGIONS if row[region] == "1"),
                view="+".join(view for view in VIEWS if row[view] == "1"),
                hardware=row["hardware"] == "1",
            )
        )
    for path in sorted((root / "Annotations" / "YOLO").glob("*.txt")):
        if path.stem not in pictures and path.stem not in rows and path.stem != "classes":
            problems.append(Problem(path.stem, "Has a box file, but there is no such image."))
    return DataSet("fracatlas", "FracAtlas", CLASSES, tuple(films), tuple(problems), STRICT)


def _authors_split(root: Path) -> dict[str, str]:
    parts = {}
    for part, file_name in (("train", "train.csv"), ("validation", "valid.csv"), ("test", "test.csv")):
        table = root / "Utilities" / "Fracture Split" / file_name
        if table.is_file():
            with table.open(newline="", encoding="utf-8-sig") as file:
                parts.update({Path(row["image_id"]).stem: part for row in csv.DictReader(file)})
    return parts


def _boxes(path: Path, name: str, problems: list[Problem]) -> tuple[tuple[float, float, float, float], ...]:
    if not path.is_file():
        return ()
    boxes = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.strip():
            continue
        try:
            x, y, width, height = (float(value) for value in line.split()[1:5])
        except ValueError:
            problems.append(Problem(name, "A line of its box file cannot be read."))
            continue
        if not (0 < width <= 1 and 0 < height <= 1 and 0 <= x <= 1 and 0 <= y <= 1):
            problems.append(Problem(name, "A box lies outside the image."))
            continue
        beyond = max(width / 2 - x, x + width / 2 - 1, height / 2 - y, y + height / 2 - 1)
        if beyond > ROUNDING:
            problems.append(Problem(name, f"A box reaches {beyond:.0%} of the image's side past its edge."))
        boxes.append((x, y, width, height))
    return tuple(boxes)
