from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from app.imaging import examples as library
from app.imaging.examples import BREAKS, draw
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


@pytest.mark.parametrize("kind", list(BREAKS))
def test_draws_the_same_film_twice_and_another_for_another_seed(kind: str) -> None:
    one = draw(kind, seed=1, height=200, width=150)
    assert one.dtype == np.uint8
    assert one.shape == (200, 150)
    assert np.array_equal(one, draw(kind, seed=1, height=200, width=150))
    assert not np.array_equal(one, draw(kind, seed=2, height=200, width=150))


def test_looks_like_a_film() -> None:
    film = draw("intact", marker=False).astype(float)
    bone, flesh, air = film[256, 150:158].mean(), film[256, 60:70].mean(), film[256, 2:8].mean()
    assert bone > flesh + 40
    assert flesh > air + 30
    assert air < 20


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="oblique"):
        draw("bent")
