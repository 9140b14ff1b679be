"""Random changes stay in range, and views show the same image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from scipy.special import softmax

from app.imaging.examples import draw
from training.data.augmentation import (
    VIEWS,
    View,
    _coarse,
    _compressed,
    augment,
    augment_with_masks,
    averaged_views,
    random_affine,
    seen_as,
    take_away,
)
from training.recipe import Augment, Signature

STILL = Augment(rotation=0, zoom=0, shift=0, shear=0, flip=False, brightness=0, contrast=0)


def blob(y: int, x: int, count: int = 1) -> torch.Tensor:
    films = torch.full((count, 1, 64, 64), 0.2)
    films[:, :, y - 3 : y + 4, x - 3 : x + 4] = 1.0
    return films


def centre(film: torch.Tensor) -> tuple[float, float]:
    weight = (film[0] > 0.6).float()
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    return float((rows * weight).sum() / weight.sum()), float((columns * weight).sum() / weight.sum())


def test_without_changes_nothing_changes() -> None:
    films = torch.rand(3, 1, 32, 32)
    torch.testing.assert_close(augment(films, STILL), films, rtol=0, atol=1e-5)


def test_each_image_is_changed_differently_and_stays_in_range() -> None:
    torch.manual_seed(0)
    changed = augment(blob(20, 40, 8), Augment(rotation=30, zoom=0.3, shift=0.1, brightness=0.3, contrast=0.5))
    assert changed.shape == (8, 1, 64, 64)
    assert changed.min() >= 0.0
    assert changed.max() <= 1.0
    assert len({film.numpy().tobytes() for film in changed}) == 8


def test_mirrors_about_half() -> None:
    torch.manual_seed(1)
    changed = augment(blob(20, 40, 200), STILL.model_copy(update={"flip": True}))
    mirrored = sum(centre(film)[1] < 32 for film in changed)
    assert 70 < mirrored < 130
    assert {round(centre(film)[0]) for film in changed} == {20}


def test_rotation_keeps_size_and_distance_from_the_middle() -> None:
    torch.manual_seed(2)
    for film in augment(blob(20, 40, 20), STILL.model_copy(update={"rotation": 40.0})):
        y, x = centre(film)
        assert abs(((y - 31.5) ** 2 + (x - 31.5) ** 2) ** 0.5 - (11.5**2 + 8.5**2) ** 0.5) < 1.0


def test_rotation_without_shear_is_orthogonal_up_to_zoom() -> None:
    torch.manual_seed(3)
    matrix = random_affine(50, STILL.model_copy(update={"rotation": 90.0, "flip": True}), torch.device("cpu"))[:, :, :2]
    identity = torch.eye(2).expand(50, 2, 2)
    torch.testing.assert_close(matrix @ matrix.transpose(1, 2), identity, rtol=0, atol=1e-5)


def test_shift_is_a_share_of_the_side() -> None:
    torch.manual_seed(4)
    moved = [centre(film) for film in augment(blob(32, 32, 100), STILL.model_copy(update={"shift": 0.1}))]
    farthest = max(max(abs(y - 32), abs(x - 32)) for y, x in moved)
    assert 4.5 < farthest < 7.0


def test_the_padding_stays_black() -> None:
    torch.manual_seed(5)
    films = blob(32, 32, 30)
    films[:, :, :, :10] = 0.0
    changed = augment(films, STILL.model_copy(update={"brightness": 0.3, "contrast": 0.3}))
    assert changed[:, :, :, :10].max() < 1e-5


def test_masks_move_with_their_images() -> None:
    torch.manual_seed(6)
    films = blob(20, 40, 10)
    how = STILL.model_copy(update={"rotation": 30.0, "shift": 0.1, "flip": True})
    changed, masks = augment_with_masks(films, (films > 0.6).float(), how)
    for film, mask in zip(changed, masks, strict=True):
        (y, x), (v, u) = centre(film), centre(mask)
        assert abs(y - v) < 0.5
        assert abs(x - u) < 0.5


def test_views_show_the_same_image() -> None:
    """The first view changes nothing; turns undo each other; sizes and mirrors are what they say."""
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    film = torch.exp(-(((rows - 26) / 9) ** 2) - ((columns - 36) / 4) ** 2)[None, None]
    assert VIEWS[0] == View()
    assert torch.equal(seen_as(film, View()), film)
    assert torch.equal(seen_as(film, View(mirrored=True)), film.flip(3))
    there = seen_as(film, View(degrees=12.0))
    assert (there - film).abs().max() > 0.2
    back = seen_as(there, View(degrees=-12.0))
    assert (back - film).abs().mean() < 0.3 * (there - film).abs().mean()
    for scale in (0.87, 1.15):
        assert float(seen_as(film, View(scale=scale)).sum()) == pytest.approx(float(film.sum()) * scale**2, rel=0.05)
    assert len(set(VIEWS)) == len(VIEWS)


def test_averaged_views_are_probabilities() -> None:
    views = np.random.default_rng(0).normal(size=(4, 6, 3))
    expected = softmax(views, axis=2).mean(axis=0)
    np.testing.assert_allclose(np.exp(averaged_views(views)), expected, rtol=1e-9)
    np.testing.assert_allclose(averaged_views(views[:1], 2.0), np.log(softmax(views[0] / 2.0, axis=1)), rtol=1e-9)


OFF = dict.fromkeys(Signature.model_fields, 0.0)


@pytest.mark.parametrize("switch", list(Signature.model_fields))
def test_every_switch_changes_the_image_and_stays_in_range(switch: str) -> None:
    torch.manual_seed(1)
    images = torch.stack(
        [torch.from_numpy(draw("oblique", seed=seed, height=96, width=96)).float()[None] / 255.0 for seed in range(6)]
    )
    masks = torch.zeros_like(images)
    masks[:, :, 40:56, 40:56] = 1
    changed = take_away(images, Signature(**{**OFF, switch: 1.0}), masks)
    assert changed.shape == images.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert ((changed - images).abs().flatten(1).max(dim=1).values > 0).sum() >= 4
    assert torch.equal(take_away(images, Signature(**OFF), masks), images)


@pytest.mark.parametrize("switch", ["border", "letters", "collimation"])
def test_what_is_painted_spares_the_boxes(switch: str) -> None:
    torch.manual_seed(2)
    images = torch.full((24, 1, 96, 96), 0.5)
    masks = torch.zeros_like(images)
    masks[:, :, 4:92, 4:92] = 1
    changed = take_away(images, Signature(**{**OFF, switch: 1.0}), masks)
    assert torch.equal(changed[masks > 0], images[masks > 0])


def test_compression_is_that_of_jpeg() -> None:
    image = torch.from_numpy(draw("oblique", seed=3, height=93, width=93)).float()[None, None] / 255.0
    torch.manual_seed(0)
    ours = _compressed(image)
    torch.manual_seed(0)
    quality = int(torch.randint(15, 81, (1, 1, 1, 1, 1)))
    levels = (image[0, 0].numpy() * 255.0 + 0.5).astype(np.uint8)
    _, coded = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    theirs = cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE).astype(float)
    missed = np.abs(ours[0, 0].numpy() * 255.0 - theirs)
    assert (missed <= 1.0).mean() > 0.95
    assert missed.max() <= 6.0
    assert np.abs(theirs - levels).max() > 4.0


def test_less_resolution_takes_detail_and_leaves_brightness() -> None:
    torch.manual_seed(0)
    fine = (torch.rand(4, 1, 96, 96) > 0.5).float()
    coarse = _coarse(fine)
    assert (coarse.std(dim=(2, 3)) < 0.7 * fine.std(dim=(2, 3))).all()
    torch.testing.assert_close(coarse.mean(dim=(2, 3)), fine.mean(dim=(2, 3)), atol=0.02, rtol=0)
    flat = torch.full((2, 1, 96, 96), 0.3)
    torch.testing.assert_close(_coarse(flat), flat)
