from __future__ import annotations

import numpy as np
import pytest

from app.imaging.phantom import BREAKS, draw


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
