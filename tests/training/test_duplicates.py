from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.conftest import varied
from training.data.duplicates import distances, group, hashes


@pytest.fixture(scope="module")
def originals() -> list[np.ndarray]:
    return [varied(seed) for seed in range(12)]


COPIES = {
    "mirrored": lambda film: film[:, ::-1],
    "turned by 90": lambda film: np.rot90(film, 1),
    "turned by 180": lambda film: np.rot90(film, 2),
    "turned and mirrored": lambda film: np.rot90(film, 3)[:, ::-1],
    "re-encoded": lambda film: cv2.imdecode(cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 0),
    "smaller": lambda film: cv2.resize(film, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "brighter": lambda film: np.clip(film.astype(float) * 1.2, 0, 255).astype(np.uint8),
    "with a dark margin": lambda film: np.pad(film, 40),
}


@pytest.mark.parametrize("kind", list(COPIES))
def test_finds_planted_copies_and_nothing_else(kind: str, originals: list[np.ndarray]) -> None:
    copies = [np.ascontiguousarray(COPIES[kind](film)) for film in originals]
    groups = group([*originals, *copies])
    half = len(originals)
    assert list(groups[:half]) == list(groups[half:])
    assert len(set(groups)) == half


def test_distance_is_symmetric_and_zero_to_itself(originals: list[np.ndarray]) -> None:
    table = distances(np.stack([hashes(film) for film in originals]))
    assert np.array_equal(table, table.T)
    assert not np.diag(table).any()
