"""Planted copies are found, strangers are not; recall is counted for each way of copying."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.conftest import varied
from training.data.duplicates import find_links, group
from training.data.similarity import hash_distances, hashes, polar_correlations, polar_spectra

ORIGINALS = 12


def detailed(seed: int) -> np.ndarray:
    """A drawn film with the fine texture of bone, which flat drawings lack: uint8 (420, 300)."""
    film = varied(seed).astype(np.float32)
    rng = np.random.default_rng(1000 + seed)
    for spread, strength in ((2.0, 60.0), (5.0, 90.0)):
        film += strength * cv2.GaussianBlur(rng.normal(0, 1, film.shape).astype(np.float32), (0, 0), spread)
    return np.clip(film, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def originals() -> list[np.ndarray]:
    return [detailed(seed) for seed in range(ORIGINALS)]


def turned(film: np.ndarray, degrees: float) -> np.ndarray:
    """Turned about its centre, corners cut to black, the size kept."""
    height, width = film.shape
    return cv2.warpAffine(film, cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0), (width, height))


def cropped(film: np.ndarray, share: float) -> np.ndarray:
    height, width = film.shape
    return film[int(height * share) :, : int(width * (1 - share))]


# Each way of copying, and how many of 12 planted copies are found.
COPIES = {
    "exact": (lambda film: film.copy(), 12),
    "mirrored": (lambda film: film[:, ::-1], 12),
    "turned by 90 degrees": (lambda film: np.rot90(film, 1), 12),
    "turned by 90 degrees and mirrored": (lambda film: np.rot90(film, 3)[:, ::-1], 12),
    "re-encoded": (lambda film: cv2.imdecode(cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 0), 12),
    "half the size": (lambda film: cv2.resize(film, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), 12),
    "brighter": (lambda film: np.clip(film.astype(float) * 1.2, 0, 255).astype(np.uint8), 12),
    "with a dark margin": (lambda film: np.pad(film, 40), 12),
    "cropped by 5 %": (lambda film: cropped(film, 0.05), 12),
    "cropped by 15 %": (lambda film: cropped(film, 0.15), 10),
    "turned by 7 degrees": (lambda film: turned(film, 7), 12),
    "turned by 38 degrees": (lambda film: turned(film, 38), 12),
    "turned by 7 degrees, mirrored, cropped by 5 %": (lambda film: cropped(turned(film, 7)[:, ::-1], 0.05), 12),
}


def test_a_white_frame_hides_no_copy_but_may_join_strangers(originals: list[np.ndarray]) -> None:
    framed = [np.pad(film, 20, constant_values=255) for film in originals]
    groups = group(2 * ORIGINALS, find_links([*originals, *framed]))
    assert all(groups[i] == groups[ORIGINALS + i] for i in range(ORIGINALS))
    assert len(set(groups)) >= ORIGINALS - 2


@pytest.mark.parametrize("kind", list(COPIES))
def test_planted_copies_are_found_and_nothing_else(kind: str, originals: list[np.ndarray]) -> None:
    copy, at_least = COPIES[kind]
    copies = [np.ascontiguousarray(copy(film)) for film in originals]
    groups = group(2 * ORIGINALS, find_links([*originals, *copies]))
    assert sum(groups[i] == groups[ORIGINALS + i] for i in range(ORIGINALS)) >= at_least
    assert len(set(groups[:ORIGINALS])) == ORIGINALS


def test_links_are_sorted_and_name_their_measure(originals: list[np.ndarray]) -> None:
    links = find_links([originals[0], originals[1], originals[0][:, ::-1].copy(), turned(originals[1], 20)])
    assert [(link.first, link.second) for link in links] == [(0, 2), (1, 3)]
    assert links[0].measure == "hash"
    assert links[1].measure in ("turned", "features")
    assert find_links([originals[0]]) == []


def test_measures_tell_a_film_from_strangers(originals: list[np.ndarray]) -> None:
    hashed = np.stack([hashes(film) for film in originals])
    bits = hash_distances(hashed, hashed)
    assert not np.diag(bits).any()
    assert (bits[~np.eye(ORIGINALS, dtype=bool)] > 84).all()
    spectra = polar_spectra(np.stack([cv2.resize(film, (128, 128)) for film in originals]))
    likeness = polar_correlations(spectra, spectra)
    assert np.allclose(likeness, likeness.T, atol=1e-4)
    assert (np.diag(likeness) > 0.95).all()
    assert (likeness[~np.eye(ORIGINALS, dtype=bool)] < 0.7).all()
