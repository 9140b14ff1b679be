from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from app.explain.overlay import (
    COLOUR_MAPS,
    colour_bar,
    fracture_outline,
    gradient,
    levels,
    outline_marks,
    overlay,
    palette,
    panel,
    scale_bar,
)
from app.imaging.examples import draw
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
    picture = palette()[levels(heat)]
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


@pytest.mark.parametrize(("spacing", "length"), [(0.2, 20), (1.0, 100), (0.05, 5)])
def test_the_scale_bar_is_as_long_as_it_says(spacing: float, length: float) -> None:
    black = np.zeros((400, 500, 3), np.uint8)
    drawn = scale_bar(black, (spacing, spacing))
    white = (drawn == 255).all(axis=2)
    longest = int(white.sum(axis=1).max())
    assert longest * spacing == pytest.approx(length, abs=2 * spacing)
    assert not black.any()


def test_a_scale_no_bar_fits_is_left_out() -> None:
    black = np.zeros((100, 100, 3), np.uint8)
    assert scale_bar(black, (1e-6, 1e-6)) is black


def test_a_suspicion_is_a_broken_line_round_the_same_place() -> None:
    black = np.zeros((300, 200, 3), np.uint8)
    rows, columns = np.indices((300, 200))
    places = np.exp(-((rows - 150) ** 2 + (columns - 100) ** 2) / 40.0**2)
    solid, broken = (fracture_outline(black, places, dashed=dashed).any(axis=2) for dashed in (False, True))
    assert 0.35 * solid.sum() < broken.sum() < 0.75 * solid.sum()
    assert not (broken & ~cv2.dilate(solid.astype(np.uint8), np.ones((3, 3))).astype(bool)).any()
    assert not black.any()


def test_letters_are_outlined_and_flesh_is_not() -> None:
    film = np.full((400, 300), 30, np.uint8)
    cv2.putText(film, "L", (40, 80), cv2.FONT_HERSHEY_SIMPLEX, 1.5, 255, 4)
    drawn, count = outline_marks(np.dstack([film] * 3), film)
    assert count == 1
    changed = (drawn != np.dstack([film] * 3)).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert (rows.min() > 20) & (rows.max() < 110) & (columns.max() < 100)
    assert outline_marks(np.dstack([film * 0] * 3), film * 0)[1] == 0
