"""Pairs for a person to look at: drawn by measure, and verdicts kept."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from app.hand_check import precision
from app.phantom import draw
from app.radiograph import Radiograph
from training.data.duplicates import Link
from training.data.film import DataSet, Film
from training.data.hand_check import FOLDER, draw_pairs, sheet, wilson, write

LINKS = [Link(i, i + 1, "hash", 0) for i in range(60)] + [Link(i, i + 2, "features", 0) for i in range(4)]


def test_rare_measures_are_looked_at_as_well() -> None:
    drawn = draw_pairs(LINKS, 20)
    assert Counter(link.measure for link in drawn) == {"hash": 16, "features": 4}
    assert draw_pairs(LINKS, 20) == drawn
    assert len(set(drawn)) == 20
    assert draw_pairs(LINKS, 20, seed=1) != drawn
    assert len(draw_pairs(LINKS, 500)) == len(LINKS)


def test_verdicts_are_kept_and_missing_ones_are_no_precision(tmp_path: Path) -> None:
    films = tuple(Film(f"film{i}", Path(), 0, "train") for i in range(62))
    data = DataSet("drawn", "", ("a",), films, ())
    assert precision("drawn", tmp_path) is None
    target = write(data, draw_pairs(LINKS, 4), tmp_path)
    assert precision("drawn", tmp_path) is None
    target.write_text(
        "\n".join(line + "yes" if line.endswith(",") else line for line in target.read_text().split("\n"))
    )
    assert precision("drawn", tmp_path) == {"features": (2, 2), "hash": (2, 2)}
    write(data, draw_pairs(LINKS, 6), tmp_path)
    rows = list(csv.DictReader(target.open()))
    assert sorted(row["one film"] for row in rows) == ["", ""] + ["yes"] * 4


def test_every_pair_is_on_the_sheet() -> None:
    decoded = [Radiograph(draw("jagged", seed=i, height=90 + i, width=60), (0, 255)) for i in range(8)]
    picture = sheet(decoded, [Link(i, i + 1, "hash", 0) for i in range(7)])
    assert picture.dtype == np.uint8
    cells = [cell for row in np.vsplit(picture, 2) for cell in np.hsplit(row, 5)]
    assert [cell[30:].std() > 20 for cell in cells] == [True] * 7 + [False] * 3


def test_the_score_interval_by_hand() -> None:
    assert wilson(22, 23) == pytest.approx((0.790, 0.992), abs=0.001)
    assert wilson(0, 10)[0] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("pairs-*.csv")), ids=lambda path: path.stem)
def test_committed_verdicts_are_complete_and_about_films_of_one_group(path: Path) -> None:
    name = path.stem.removeprefix("pairs-")
    found = precision(name, FOLDER)
    assert found is not None
    assert sum(count for _, count in found.values()) == 50
    listed = Path("training/splits") / f"{name}.csv"
    groups = {row["film"]: row["group"] for row in csv.DictReader(listed.open(encoding="utf-8"))}
    for row in csv.DictReader(path.open(encoding="utf-8")):
        assert groups[row["first"]] == groups[row["second"]]
