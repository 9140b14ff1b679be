"""FracAtlas with everything that can be wrong in it: reported by name."""

from __future__ import annotations

from pathlib import Path

from training.data import fracatlas


def test_fracatlas_is_read_and_its_faults_are_named(atlas: Path) -> None:
    data = fracatlas.load(atlas)
    films = {film.name: film for film in data.images}
    assert sorted(films) == ["IMG1", "IMG2", "IMG3", "IMG5", "IMG6"]
    assert films["IMG1"].boxes == ((0.5, 0.25, 0.1, 0.2),)
    assert (films["IMG1"].region, films["IMG1"].view, films["IMG1"].part) == ("hand", "frontal", "train")
    assert (films["IMG5"].part, films["IMG5"].hardware) == ("validation", True)
    said = {(problem.image, problem.what.split(",")[0]) for problem in data.problems}
    assert ("IMG2", "Has a fracture box") in said
    assert films["IMG2"].label == 1
    assert ("IMG3", "In the folder fractured") in said
    assert films["IMG3"].label == 0
    assert ("IMG4", "Listed in dataset.csv") in said
    assert ("IMG5", "The table says fractured") in said
    assert ("IMG6", "A line of its box file cannot be read.") in said
    assert ("IMG6", "A box lies outside the image.") in said
    assert ("IMG7", "Not listed in dataset.csv") in said
