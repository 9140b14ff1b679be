"""Planted copies are found, other images are not; recall is counted for each way of copying."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from app.imaging.radiograph import Radiograph
from tests.training.toys import detailed
from training.data.duplicates import (
    LENIENT,
    Features,
    Thresholds,
    find_links,
    group,
    hash_distances,
    hashes,
    polar_correlations,
    polar_spectra,
)
from training.studies import audit
from training.studies.audit import COPIES, recall_of_planted

ORIGINALS = 8
QUICK = {"exact", "mirrored", "turned by 38 degrees", "cropped by 15 %"}
"""One way of copying for each measure that finds some."""


@pytest.fixture(scope="module")
def originals() -> list[np.ndarray]:
    return [detailed(seed) for seed in range(ORIGINALS)]


@pytest.fixture(scope="module")
def known() -> dict[bytes, Features]:
    """Features of images that are searched again and again."""
    return {}


@pytest.mark.slow
def test_a_white_frame_hides_no_copy_but_may_join_others(
    originals: list[np.ndarray], known: dict[bytes, Features]
) -> None:
    framed = [np.pad(film, 20, constant_values=255) for film in originals]
    groups = group(2 * ORIGINALS, find_links([*originals, *framed], known=known))
    assert all(groups[i] == groups[ORIGINALS + i] for i in range(ORIGINALS))
    assert len(set(groups)) >= ORIGINALS - 2


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in COPIES]
)
def test_planted_copies_are_found_and_nothing_else(
    kind: str, originals: list[np.ndarray], known: dict[bytes, Features]
) -> None:
    copies = [np.ascontiguousarray(COPIES[kind](film)) for film in originals]
    groups = group(2 * ORIGINALS, find_links([*originals, *copies], known=known))
    assert sum(groups[i] == groups[ORIGINALS + i] for i in range(ORIGINALS)) == ORIGINALS
    assert len(set(groups[:ORIGINALS])) == ORIGINALS


def test_links_are_sorted_and_name_their_measure(originals: list[np.ndarray]) -> None:
    links = find_links(
        [originals[0], originals[1], originals[0][:, ::-1].copy(), COPIES["turned by 38 degrees"](originals[1])]
    )
    assert [(link.first, link.second) for link in links] == [(0, 2), (1, 3)]
    assert links[0].measure == "hash"
    assert links[1].measure in ("turned", "features")
    assert find_links([originals[0]]) == []


def test_measures_tell_a_image_from_others(originals: list[np.ndarray]) -> None:
    hashed = np.stack([hashes(film) for film in originals])
    bits = hash_distances(hashed, hashed)
    assert not np.diag(bits).any()
    assert (bits[~np.eye(ORIGINALS, dtype=bool)] > 84).all()
    spectra = polar_spectra(np.stack([cv2.resize(film, (128, 128)) for film in originals]))
    likeness = polar_correlations(spectra, spectra)
    assert np.allclose(likeness, likeness.T, atol=1e-4)
    assert (np.diag(likeness) > 0.95).all()
    assert (likeness[~np.eye(ORIGINALS, dtype=bool)] < 0.7).all()


@pytest.mark.slow
def test_recall_counts_what_the_search_finds(originals: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ("mirrored", "turned by 7 degrees")
    monkeypatch.setattr(audit, "COPIES", {kind: COPIES[kind] for kind in kinds})
    films = [Radiograph(film, (0, 255)) for film in originals[:4]]
    recall = recall_of_planted(films, LENIENT)
    assert recall == dict.fromkeys(kinds, "4 of 4")
    blind = Thresholds(bits=-1, correlation=2.0, matches=10_000, detail_matches=10_000)
    assert set(recall_of_planted(films, blind).values()) == {"0 of 4"}
