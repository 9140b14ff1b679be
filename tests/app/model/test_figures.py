from __future__ import annotations

import pytest

from app.model.weights import percent, with_interval


@pytest.mark.parametrize(("share", "digits", "words"), [(0.194, 0, "19 %"), (0.194, 1, "19.4 %"), (1.0, 0, "100 %")])
def test_a_share_is_written_in_per_cent(share: float, digits: int, words: str) -> None:
    assert percent(share, digits) == words


def test_an_interval_is_written_in_one_style() -> None:
    share = {"value": 0.589, "low": 0.509, "high": 0.669, "n": 1168}
    assert with_interval(share) == "58.9 % (95 % CI 50.9 to 66.9, n = 1,168)"
    assert with_interval(share, 2) == "0.59 (95 % CI 0.51 to 0.67, n = 1,168)"
    assert with_interval({**share, "low": -0.01}, 2, signed=True) == "+0.59 (95 % CI -0.01 to +0.67, n = 1,168)"
    assert with_interval(None) == "not measured"
