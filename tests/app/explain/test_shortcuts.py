"""The detector of what is no bone, on drawn films where one knows what lies where."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from app.explain.shortcuts import KINDS, WARNING, shortcut_regions, shortcut_shares
from app.imaging.examples import BREAKS, draw
from app.imaging.letterbox import Placement


def spot(height: int, width: int, row: float, column: float) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    distance = ((rows + 0.5) / height - row) ** 2 + ((columns + 0.5) / width - column) ** 2
    return np.exp(-distance / 0.002).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", list(BREAKS))
def test_the_side_letter_is_found_and_the_bone_is_not(kind: str, seed: int) -> None:
    with_letter = shortcut_regions(draw(kind, seed=seed))["marks"]
    assert with_letter.any()
    rows, columns = np.nonzero(with_letter)
    assert rows.max() < 0.14 * with_letter.shape[0]
    assert columns.min() > 0.8 * with_letter.shape[1]
    assert not shortcut_regions(draw(kind, seed=seed, marker=False))["marks"].any()


@pytest.mark.parametrize("seed", range(5))
def test_an_arrow_is_found(seed: int) -> None:
    film = draw("oblique", seed=seed, marker=False)
    start, end = (20, 300 + 5 * seed), (60, 300 + 5 * seed)
    cv2.arrowedLine(film, start, end, 255, 3, tipLength=0.4)
    marks = shortcut_regions(film)["marks"]
    assert marks[300 + 5 * seed, 40]


@pytest.mark.parametrize("seed", range(5))
def test_a_collimated_field_has_an_edge_and_a_full_one_has_none(seed: int) -> None:
    film = draw("spiral", seed=seed, marker=False, height=400, width=400)
    film = np.maximum(film, 40)
    assert not shortcut_regions(film)["edge"].any()
    narrowed = film.copy()
    narrowed[:, :60] = 3
    narrowed[:, 350:] = 3
    narrowed[:30] = 3
    edge = shortcut_regions(narrowed)["edge"]
    assert edge[200, 60]
    assert edge[200, 350]
    assert edge[30, 200]
    assert not edge[370:, 100:300].any()
    assert not edge[200, 150:250].any()


@pytest.mark.parametrize("seed", range(5))
def test_air_is_background_and_flesh_and_bone_are_not(seed: int) -> None:
    film = draw("jagged", seed=seed, marker=False)
    background = shortcut_regions(film)["background"]
    height, width = film.shape
    assert background[height // 2, 3]
    assert background[height // 2, width - 4]
    assert not background[height // 2, int(0.4 * width)]
    assert background[film > 60].mean() < 0.01
    assert background[film < 12].mean() > 0.9


def test_masks_do_not_overlap_and_fit_any_film() -> None:
    for height, width in ((512, 384), (90, 700), (33, 40)):
        masks = shortcut_regions(draw("oblique", height=height, width=width))
        assert set(masks) == set(KINDS) - {"padding"}
        assert all(mask.shape == (height, width) for mask in masks.values())
        assert np.sum([mask.astype(int) for mask in masks.values()], axis=0).max() <= 1


def test_heat_is_shared_out() -> None:
    film = draw("oblique", seed=1, height=384, width=384)
    placement = Placement.fit(384, 384, 192)
    on_letter = shortcut_shares(film, spot(24, 24, 0.075, 0.9), placement)
    assert on_letter.shares["marks"] > 0.5
    assert on_letter.warns
    on_bone = shortcut_shares(film, spot(24, 24, 0.5, 0.45), placement)
    assert on_bone.total < 0.05
    assert not on_bone.warns
    assert shortcut_shares(film, np.zeros((24, 24)), placement).total == 0.0
    assert shortcut_shares(film, np.full((24, 24), -1.0), placement).total == 0.0


def test_heat_that_spills_over_a_limbs_rim_is_not_held_against_it() -> None:
    film = np.pad(draw("oblique", seed=1, height=384, width=192, marker=False), ((0, 0), (96, 96)), constant_values=6)
    placement = Placement.fit(384, 384, 192)
    rim = float(np.flatnonzero(~shortcut_regions(film)["background"][192])[0]) / 384
    at_rim, far = np.zeros((2, 12, 12), np.float32)
    at_rim[6, int(rim * 12)] = 1.0
    far[6, 0] = 1.0
    assert shortcut_shares(film, at_rim, placement).shares["background"] < 0.1
    assert shortcut_shares(film, far, placement).shares["background"] > 0.8


def test_heat_beside_the_film_is_counted() -> None:
    film = draw("oblique", height=400, width=200, marker=False)
    placement = Placement.fit(400, 200, 192)
    found = shortcut_shares(film, spot(24, 24, 0.5, 0.05), placement)
    assert found.shares["padding"] > 0.9
    assert found.total == pytest.approx(1.0, abs=0.1)
    even = shortcut_shares(film, np.ones((24, 24)), placement)
    assert even.shares["padding"] == pytest.approx(0.5, abs=0.02)
    assert even.total <= 1.0 + 1e-6
    assert even.warns == (even.total >= WARNING)
