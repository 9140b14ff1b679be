"""How far the search for near-duplicates is to be believed, measured on the films themselves.

``brute_force`` asks what the search overlooked, ``recall_of_planted`` how many copies of a known kind it finds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from rich.progress import track
from threadpoolctl import threadpool_limits

from app.imaging.letterbox import letterbox
from app.imaging.radiograph import Radiograph
from training.data import similarity
from training.data.duplicates import Thresholds, find_links, group

__all__ = ["COPIES", "brute_force", "recall_of_planted"]

MOST_PAIRS = 250_000
"""A pair costs a millisecond, a tenth of a large set against all of it hours; there the tenth meets itself alone."""
PLANTED = 40


def _encoded(film: np.ndarray) -> np.ndarray:
    written = cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
    return np.asarray(cv2.imdecode(written, cv2.IMREAD_GRAYSCALE))


def _turned(film: np.ndarray, degrees: float) -> np.ndarray:
    height, width = film.shape
    return cv2.warpAffine(film, cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0), (width, height))


def _cropped(film: np.ndarray, share: float) -> np.ndarray:
    height, width = film.shape
    return film[int(height * share) :, : int(width * (1 - share))]


def _square(film: np.ndarray) -> np.ndarray:
    return np.round(letterbox(Radiograph(film, (0, 255)), 256)[0] * 255.0).astype(np.uint8)


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exact": np.copy,
    "mirrored": lambda film: film[:, ::-1],
    "turned by 90 degrees": lambda film: np.rot90(film, 1),
    "turned by 90 degrees and mirrored": lambda film: np.rot90(film, 3)[:, ::-1],
    "re-encoded": _encoded,
    "half the size": lambda film: cv2.resize(film, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "brighter": lambda film: np.clip(film.astype(float) * 1.2, 0, 255).astype(np.uint8),
    "with a dark margin": lambda film: np.pad(film, 40),
    "cropped by 5 %": lambda film: _cropped(film, 0.05),
    "cropped by 15 %": lambda film: _cropped(film, 0.15),
    "cropped by 40 %": lambda film: _cropped(film, 0.4),
    "turned by 7 degrees": lambda film: _turned(film, 7),
    "turned by 38 degrees": lambda film: _turned(film, 38),
    "turned by 7 degrees, mirrored, cropped by 5 %": lambda film: _cropped(_turned(film, 7)[:, ::-1], 0.05),
}
"""Ways of copying: uint8 (H, W) to uint8 (H', W')."""


def brute_force(
    decoded: Sequence[Radiograph], groups: np.ndarray, thresholds: Thresholds, seed: int = 0
) -> dict[str, int]:
    """A random tenth of the different films, compared by every measure with all of them, in large sets with each other.

    Args:
        decoded: all films.
        groups: their groups by the search, int (N,).
        thresholds: what makes a twin.
        seed: of the sample.

    Returns:
        Films in the sample, films they are held against, pairs compared, pairs that are twins by brute force, and how
        many of those the groups have apart: overlooked by the search, or strangers that only so many comparisons bring
        up; features count from ``detail_matches`` on, since far more pairs are compared than the search proposes.
    """
    films = [film.display() for film in decoded]
    first = {hashlib.sha256(repr(film.shape).encode() + film.tobytes()).digest(): i for i, film in enumerate(films)}
    different = np.sort(list(first.values()))
    size = max(1, round(len(different) / 10))
    sample = np.sort(np.random.default_rng(seed).choice(different, size, replace=False))
    others = different if size * len(different) <= MOST_PAIRS else sample
    boxed = {i: _square(films[i]) for i in others.tolist()}
    hashed = {i: similarity.hashes(films[i]) for i in others.tolist()}
    bits = similarity.hash_distances(np.stack([hashed[i] for i in sample]), np.stack([hashed[i] for i in others]))
    small = np.stack([cv2.resize(boxed[i], (128, 128), interpolation=cv2.INTER_AREA) for i in others])
    spectra = similarity.polar_spectra(small)
    likeness = similarity.polar_correlations(spectra[:, np.searchsorted(others, sample)], spectra)
    near = (bits <= thresholds.bits) | (likeness >= thresholds.correlation)
    row_of = {film: row for row, film in enumerate(sample.tolist())}
    pairs = [(i, j) for i in range(size) for j, film in enumerate(others.tolist()) if row_of.get(film, size) > i]
    described = dict(zip(boxed, similarity.describe(list(boxed.values())), strict=True))
    with ThreadPoolExecutor() as pool, threadpool_limits(1):

        def twins(pair: tuple[int, int]) -> bool:
            one, other = described[sample[pair[0]]], described[others[pair[1]]]
            return bool(near[pair]) or similarity.matches(one, other) >= thresholds.detail_matches

        found = list(track(pool.map(twins, pairs, chunksize=256), "Brute force", total=len(pairs)))
    apart = [bool(groups[sample[i]] != groups[others[j]]) for i, j in pairs]
    return {
        "films": size,
        "against": len(others),
        "pairs": len(pairs),
        "twins": sum(found),
        "missed_by_search": sum(twin and split for twin, split in zip(found, apart, strict=True)),
    }


def recall_of_planted(decoded: Sequence[Radiograph], thresholds: Thresholds, seed: int = 0) -> dict[str, str]:
    """Copies of random films, one way of copying at a time, searched for among the originals.

    Args:
        decoded: all films.
        thresholds: what makes a twin.
        seed: of the sample.

    Returns:
        By way of copying, copies found "of" copies planted.
    """
    size = min(PLANTED, len(decoded))
    sample = np.random.default_rng(seed).choice(len(decoded), size, replace=False)
    originals = [decoded[i].display() for i in sample]
    found = {}
    known: dict[bytes, similarity.Features] = {}
    for kind, copy in COPIES.items():
        copies = [np.ascontiguousarray(copy(film)) for film in originals]
        groups = group(2 * size, find_links([*originals, *copies], thresholds, known))
        found[kind] = f"{int((groups[:size] == groups[size:]).sum())} of {size}"
    return found
