"""Near-duplicates: films that are one film, turned, mirrored, cropped, re-encoded or brightened, and their groups.

Links between films are found by the measures of ``similarity``; films linked directly or through others share a
group. Grouping too much costs a little data, too little leaks, so thresholds lean towards grouping.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from rich.progress import track
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from threadpoolctl import threadpool_limits

from app.imaging.letterbox import letterbox
from app.imaging.radiograph import Radiograph
from training.data import similarity

__all__ = ["Link", "Thresholds", "find_links", "group"]


@dataclass(frozen=True)
class Thresholds:
    """From where on each measure alone makes two films twins.

    Sets of standard views need stricter ones: two people's hands differ less than one film and its crop.

    Attributes:
        bits: differing bits of 256, at most.
        correlation: over all turns, at least.
        matches: places that agree on one transform, at least.
        detail_matches: the same for pairs that are alike in detail only, among which chance finds more.
    """

    bits: int = 76
    correlation: float = 0.9
    matches: int = 10
    detail_matches: int = 14

    def __str__(self) -> str:
        return (
            f"hash distance <= {self.bits} of 256 bits, correlation over all turns >= {self.correlation}, "
            f"matching features >= {self.matches} ({self.detail_matches} where films are alike in detail only), "
            f"{NEIGHBOURS} neighbours by each measure compared by features"
        )


NEIGHBOURS = 12
"""Nearest films by each cheap measure that are asked about their features."""

BLOCK = 256

LENIENT = Thresholds()


@dataclass(frozen=True)
class Link:
    """Two films that are one: their indices, ``first`` < ``second``, the measure that says so and its value."""

    first: int
    second: int
    measure: str
    value: float


def _pairs(rows: np.ndarray, columns: np.ndarray) -> set[tuple[int, int]]:
    return {(min(i, j), max(i, j)) for i, j in zip(rows.tolist(), columns.tolist(), strict=True) if i != j}


def _nearest(cost: np.ndarray, start: int, count: int) -> set[tuple[int, int]]:
    """Pairs of each row with its ``count`` cheapest columns, itself aside."""
    cost[np.arange(len(cost)), np.arange(start, start + len(cost))] = np.inf
    count = min(count, cost.shape[1] - 1)
    columns = np.argpartition(cost, count - 1, axis=1)[:, :count] if count > 0 else np.zeros((len(cost), 0), int)
    return _pairs(np.repeat(np.arange(start, start + len(cost)), columns.shape[1]), columns.ravel())


def find_links(
    films: Sequence[np.ndarray],
    thresholds: Thresholds = LENIENT,
    known: dict[bytes, similarity.Features] | None = None,
) -> list[Link]:
    """All pairs of films that are near-duplicates of each other.

    Args:
        films: uint8 (H, W) each.
        thresholds: what makes a twin.
        known: features of films that are searched again and again; gets the new ones.

    Returns:
        Links sorted by indices, at most one a pair.
    """
    cv2.setNumThreads(1)
    boxed = [np.round(letterbox(Radiograph(film, (0, 255)), 256)[0] * 255.0).astype(np.uint8) for film in films]
    hashed = np.stack([similarity.hashes(film) for film in track(films, "Hashing")])
    small = np.stack([cv2.resize(square, (128, 128), interpolation=cv2.INTER_AREA) for square in boxed])
    spectra = similarity.polar_spectra(small)
    found: dict[tuple[int, int], Link] = {}
    candidates: set[tuple[int, int]] = set()
    for start in track(range(0, len(films), BLOCK), "Comparing"):
        bits = similarity.hash_distances(hashed[start : start + BLOCK], hashed)
        likeness = similarity.polar_correlations(spectra[:, start : start + BLOCK], spectra)
        for measure, value, close in (
            ("hash", bits, bits <= thresholds.bits),
            ("turned", likeness, likeness >= thresholds.correlation),
        ):
            rows, columns = np.nonzero(close)
            for i, j in _pairs(rows + start, columns):
                a, b = (i, j) if start <= i < start + len(bits) else (j, i)
                found.setdefault((i, j), Link(i, j, measure, round(float(value[a - start, b]), 3)))
        candidates |= _nearest(bits, start, NEIGHBOURS) | _nearest(-likeness, start, NEIGHBOURS)
    described = similarity.describe(boxed, known)
    in_detail = _nearest(-similarity.detail_likeness(described), 0, NEIGHBOURS)
    open_pairs = sorted((candidates | in_detail) - found.keys())
    with ThreadPoolExecutor() as pool, threadpool_limits(1):

        def compare(pair: tuple[int, int]) -> int:
            return similarity.matches(described[pair[0]], described[pair[1]])

        # One pair at a time is too little work for a thread's overhead.
        counts = list(track(pool.map(compare, open_pairs, chunksize=64), "Matching", total=len(open_pairs)))
    for (i, j), count in zip(open_pairs, counts, strict=True):
        if count >= (thresholds.matches if (i, j) in candidates else thresholds.detail_matches):
            found[i, j] = Link(i, j, "features", float(count))
    return [found[pair] for pair in sorted(found)]


def group(count: int, links: Sequence[Link]) -> np.ndarray:
    """Group number of each of ``count`` films, int (N,); linked films, directly or through others, share one."""
    rows = [link.first for link in links]
    columns = [link.second for link in links]
    graph = coo_matrix((np.ones(len(links), bool), (rows, columns)), shape=(count, count))
    return connected_components(graph, directed=False)[1]
