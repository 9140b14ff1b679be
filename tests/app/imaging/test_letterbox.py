from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from app.imaging.letterbox import Placement, letterbox, normalise
from app.imaging.radiograph import Radiograph

SHAPES = [(512, 512), (512, 200), (200, 512), (37, 1000), (1000, 33), (97, 101), (3000, 2000)]


@pytest.mark.parametrize("shape", SHAPES)
def test_fills_the_square_without_distortion(shape: tuple[int, int]) -> None:
    film = Radiograph(np.full(shape, 255, np.uint8), (0, 255))
    square, placement = letterbox(film, 224)
    assert square.shape == (224, 224)
    assert max(placement.height, placement.width) == 224
    assert abs(placement.height / placement.width - shape[0] / shape[1]) <= shape[0] / shape[1] / placement.width + 0.01
    assert placement.crop(square).min() == 1.0
    outside = square.copy()
    placement.crop(outside)[:] = 0.0
    assert outside.max() == 0.0


def test_a_circle_stays_a_circle() -> None:
    pixels = np.zeros((400, 240), np.uint8)
    cv2.circle(pixels, (120, 200), 80, 255, -1)
    square, _ = letterbox(Radiograph(pixels, (0, 255)), 224)
    rows, columns = np.nonzero(square > 0.5)
    assert abs(np.ptp(rows) - np.ptp(columns)) <= 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("place", [(0.25, 0.25), (0.5, 0.5), (0.8, 0.3)])
def test_a_spot_on_the_square_lands_on_its_place_on_the_film(
    shape: tuple[int, int], place: tuple[float, float]
) -> None:
    placement = Placement.fit(*shape, size=224)
    side = 56
    heat = np.zeros((side, side), np.float32)
    y = placement.top + place[0] * placement.height
    x = placement.left + place[1] * placement.width
    heat[int(y / 224 * side), int(x / 224 * side)] = 1.0
    laid = placement.onto_image(heat)
    assert laid.shape == shape
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
    total = laid.sum()
    cell = 224 / side / min(placement.height, placement.width)
    assert abs((rows * laid).sum() / total / shape[0] - place[0]) <= cell
    assert abs((columns * laid).sum() / total / shape[1] - place[1]) <= cell


def test_heat_in_the_padding_never_reaches_the_film() -> None:
    placement = Placement.fit(100, 400, size=224)
    heat = np.zeros((14, 14), np.float32)
    heat[:4] = heat[-4:] = 1.0
    assert placement.onto_image(heat).max() < 0.05
    assert placement.padding(14, 14)[0].min() == 1.0
    assert placement.padding(14, 14)[7].max() == 0.0


def test_equalising_lifts_faint_contrast_and_leaves_the_padding_black() -> None:
    pixels = np.full((100, 50), 100, np.uint8)
    pixels[::2, ::2] = 110
    film = Radiograph(pixels, (0, 255))
    plain, placement = letterbox(film, 100)
    square, _ = letterbox(film, 100, equalise=True)
    assert placement.crop(square).std() > 1.5 * placement.crop(plain).std()
    assert square.min() >= 0.0
    assert square.max() <= 1.0
    square[:, placement.left : placement.left + placement.width] = 0.0
    assert not square.any()


def test_a_peak_between_two_places_is_drawn_between_them() -> None:
    placement = Placement.fit(200, 200, size=200)
    heat = np.zeros((10, 10), np.float32)
    heat[4, 4:6] = 1.0
    row, column = np.unravel_index(placement.onto_image(heat).argmax(), (200, 200))
    assert abs(row - 90) <= 1
    assert abs(column - 100) <= 1


def test_padding_measures_shares_of_places() -> None:
    share = Placement.fit(100, 200, size=224).padding(7, 7)
    assert share.shape == (7, 7)
    assert share.mean() == pytest.approx(0.5, abs=1e-6)


def test_normalises_grey_to_three_channels() -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.1, 0.5)
    out = normalise(torch.full((2, 1, 3, 3), 0.7), mean, std)
    assert out.shape == (2, 3, 3, 3)
    for channel in range(3):
        torch.testing.assert_close(out[:, channel], torch.full((2, 3, 3), (0.7 - mean[channel]) / std[channel]))


def test_deep_films_are_windowed_after_resampling() -> None:
    pixels = np.tile(np.linspace(1000, 3000, 400).astype(np.uint16), (300, 1))
    square, placement = letterbox(Radiograph(pixels, (1000.0, 3000.0)), 224)
    row = placement.crop(square)[100]
    assert row[0] < 0.01
    assert row[-1] > 0.99
    assert len(np.unique(row)) > 200


def test_colours_are_kept_where_a_model_sees_them() -> None:
    colours = np.zeros((40, 80, 3), np.uint8)
    colours[:, :40] = (200, 20, 40)
    film = Radiograph(colours.max(axis=2), (0, 255), colours=colours)
    square, placement = letterbox(film, 64, colour=True)
    assert square.shape == (64, 64, 3)
    assert np.allclose(square[32, 8], np.array([200, 20, 40]) / 255.0, atol=1e-6)
    assert (placement.top, placement.height) == (16, 32)
    grey, _ = letterbox(film.seen_in(False), 64, colour=True)
    assert np.array_equal(grey[..., 0], grey[..., 2])
    assert letterbox(film, 64)[0].shape == (64, 64)
