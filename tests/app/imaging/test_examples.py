from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from app.imaging import examples as library
from app.imaging.phantom import draw
from app.imaging.radiograph import read
from app.model.classifier import Classifier


def test_drawings_are_offered_and_called_drawings(tmp_path: Path) -> None:
    offered = library.examples(tmp_path)
    assert len(offered) >= 4
    for example in offered:
        assert "drawn" in example.label
        assert "no patient" in example.source
        assert read(example.path).width > 100


def test_a_folder_with_sources_comes_first(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), draw())
    (tmp_path / "sources.csv").write_text("file,label,source\na.png,hand,Somebody CC BY 4.0\ngone.png,leg,Somebody\n")
    offered = library.examples(tmp_path)
    assert [(e.path.name, e.label, e.source) for e in offered] == [("a.png", "hand", "Somebody CC BY 4.0")]


def test_only_official_test_films_are_drawn_by_lot(classifier: Classifier, drawn_set: Path) -> None:
    films = library.held_out_images(classifier.card.classes, drawn_set)
    assert len(films) == 10
    assert all(path.parent.name == "Test" for path, _ in films)
    assert {kind.name for _, kind in films} == set(classifier.classes)
    assert library.random_image(films) in films


def test_no_films_no_lots(classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRACTURE_DATA", str(tmp_path))
    assert library.held_out_images(classifier.card.classes) == []
