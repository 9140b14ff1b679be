from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax

from training.fitting.views import VIEWS, View, averaged_views, seen_as


def test_views_show_the_same_film() -> None:
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
