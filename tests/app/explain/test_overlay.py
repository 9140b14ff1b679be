from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from app.explain.overlay import COLOUR_MAPS, colour_bar, gradient, heatmap, overlay, panel
from app.imaging.phantom import draw
from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier

FILM = draw("oblique", seed=1, height=120, width=90)


def hill(peak: float = 1.0) -> np.ndarray:
    heat = np.zeros(FILM.shape, np.float32)
    heat[40:60, 30:50] = peak
    return cv2.GaussianBlur(heat, (0, 0), 4) * (cv2.GaussianBlur(heat, (0, 0), 4) > 0.02)


@pytest.mark.parametrize("colour_map", list(COLOUR_MAPS))
def test_no_heat_no_paint(colour_map: str) -> None:
    heat = hill()
    painted = overlay(FILM, heat, colour_map=colour_map, contour=False)
    bare = heat == 0
    assert np.array_equal(painted[bare], np.dstack([FILM] * 3)[bare])
    assert not np.array_equal(painted[~bare], np.dstack([FILM] * 3)[~bare])


def test_all_zero_heat_leaves_the_film_alone() -> None:
    assert np.array_equal(overlay(FILM, np.zeros_like(FILM, np.float32)), np.dstack([FILM] * 3))


def test_more_heat_more_paint() -> None:
    film = np.zeros((1, 5), np.uint8)
    heat = np.linspace(0, 1, 5, dtype=np.float32)[None]
    brightness = overlay(film, heat, contour=False).sum(axis=2)[0].astype(int)
    assert (np.diff(brightness) > 0).all()


def test_the_contour_rounds_the_hottest_region_only_where_it_can_be_seen() -> None:
    heat = hill()
    lined, plain = overlay(FILM, heat), overlay(FILM, heat, contour=False)
    changed = (lined != plain).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert rows.min() >= 30
    assert rows.max() <= 70
    assert columns.min() >= 20
    assert columns.max() <= 60
    faint = hill(0.1)
    assert np.array_equal(overlay(FILM, faint), overlay(FILM, faint, contour=False))


def test_refuses_other_shapes_and_unknown_colours() -> None:
    with pytest.raises(ValueError, match="shape"):
        overlay(FILM, np.zeros((3, 3), np.float32))
    with pytest.raises(ValueError, match="inferno"):
        overlay(FILM, hill(), colour_map="mauve")


def test_the_heatmap_alone_is_transparent_without_heat() -> None:
    heat = hill()
    picture = heatmap(heat)
    assert picture.shape == (*FILM.shape, 4)
    assert (picture[heat == 0][:, 3] == 0).all()
    assert picture[50, 40, 3] > 200


def test_the_colour_bar_carries_its_scale() -> None:
    assert colour_bar(200, 12.3).shape[0] == 200
    assert not np.array_equal(colour_bar(200, 12.3), colour_bar(200, 45.6))
    assert gradient("inferno", 0.6)[0] == (96, 96, 96)


def test_the_panel_says_when_there_is_no_evidence(classifier: Classifier, film: Radiograph) -> None:
    explanation = classifier.explain([film])[0]
    faint = replace(explanation, typical_evidence=1000.0 * explanation.full_colour)
    name = explanation.prediction.best
    silent = panel(faint, name)[:, : film.width]
    assert silent.shape[:2] == film.pixels.shape
    changed = (silent != np.dstack([film.display()] * 3)).any(axis=2)
    assert changed.any()
    assert not changed[film.height // 4 :].any()
