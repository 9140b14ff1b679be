"""Near-duplicates: one radiograph turned, mirrored, cropped, re-encoded or brightened; and the groups they form.

Three measures find them, each blind where another sees:

- ``hash_distances``: perceptual hash (imagehash) over eight rotations and mirrors. Finds re-encoded, brightened,
  mirrored and quarter-turned copies; blind to crops and free rotation.
- ``polar_correlations``: correlation of locally normalised images around their centre, over all angles and mirrored.
  Finds copies turned by any angle, however often; blind to crops and shifts.
- ``matches``: SIFT features (Lowe, 2004) that agree on one similarity transform (RANSAC), mirrored too. Finds crops,
  shifts, scales and collages; blind on blurred images without detail. Costs milliseconds a pair, so it only compares
  pairs that the others or ``detail_likeness`` bring up.

``detail_likeness`` compares images by the sum of their features (VLAD), which a crop or a shift hardly changes; it
cannot tell near-duplicates from two people's hands, but near-duplicates are among the nearest.

Images linked directly or through others share a group. Grouping too much costs a little data, too little leaks, so
thresholds lean towards grouping.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import imagehash
import numpy as np
import torch
from PIL import Image
from rich.progress import track
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits

from app.imaging.letterbox import letterbox
from app.imaging.radiograph import Radiograph
from training import aside, read_json, write_json
from training.data.image import CACHE, LENIENT, NEIGHBOURS, DataSet, Thresholds, key_of

HASH_SIDE = 16
THUMBNAIL = 128
DARK = 12

ANGLES, FREQUENCIES = 180, 64
INNER, OUTER = 5, 31
"""Rings used of 32: the innermost hold few pixels, the outermost the cut corners of a turned copy."""

SIFT_FEATURES = 250
RATIO = 0.85
REPROJECTION = 4.0
CELL = 6

WORDS, SAMPLE = 128, 40_000


def _trim(film: np.ndarray) -> np.ndarray:
    """Without the dark margin, which copies gain or lose: (H, W) uint8 to a smaller view."""
    lit = film > DARK
    rows = np.flatnonzero(lit.mean(axis=1) > 0.02)
    columns = np.flatnonzero(lit.mean(axis=0) > 0.02)
    if len(rows) < 16 or len(columns) < 16:
        return film
    return film[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def grey_square(image: Radiograph, size: int = 256) -> np.ndarray:
    """An image letterboxed, in whole grey levels: uint8 (size, size)."""
    return np.round(letterbox(image, size)[0] * 255.0).astype(np.uint8)


def hashes(film: np.ndarray) -> np.ndarray:
    """The eight orientations' perceptual hashes, the upright one first: uint8 (H, W) to bool (8, 256)."""
    square = cv2.resize(_trim(film), (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    orientations = [np.rot90(side, turns) for turns in range(4) for side in (square, square[:, ::-1])]
    views = [Image.fromarray(np.ascontiguousarray(view)) for view in orientations]
    return np.stack([imagehash.phash(view, hash_size=HASH_SIDE).hash.ravel() for view in views])


def hash_distances(some: np.ndarray, all_: np.ndarray) -> np.ndarray:
    """Smallest number of differing bits over orientations: bool (M, 8, 256) and (N, 8, 256) to float32 (M, N)."""
    upright = some[:, 0].astype(np.float32) * 2.0 - 1.0
    signs = all_.astype(np.float32) * 2.0 - 1.0
    bits = float(signs.shape[2])
    nearest = np.full((len(some), len(all_)), bits, np.float32)
    for orientation in range(signs.shape[1]):
        np.minimum(nearest, (bits - upright @ signs[:, orientation].T) / 2.0, out=nearest)
    return nearest


def _detail(square: np.ndarray) -> np.ndarray:
    """Local contrast, brightness and outline taken out: uint8 (S, S) to float32 (S, S)."""
    smooth = cv2.GaussianBlur(square.astype(np.float32), (0, 0), 1.2)
    detail = smooth - cv2.GaussianBlur(smooth, (0, 0), 5)
    return detail / (np.sqrt(cv2.GaussianBlur(np.square(detail), (0, 0), 9)) + 3.0)


def polar_spectra(squares: np.ndarray) -> torch.Tensor:
    """Spectra over the angle, ring by ring: uint8 (N, 128, 128) to complex64 (frequencies, N, rings)."""
    middle = (squares.shape[1] - 1) / 2.0
    flags = cv2.INTER_LINEAR | cv2.WARP_POLAR_LINEAR
    rings = np.arange(INNER, OUTER, dtype=np.float32)
    films = []
    for square in squares:
        unrolled = cv2.warpPolar(_detail(square), (32, ANGLES), (middle, middle), middle, flags).T[INNER:OUTER]
        # A ring counts as much as the area it covers.
        weighted = unrolled * np.sqrt(rings / OUTER)[:, None]
        films.append(weighted / (np.linalg.norm(weighted) + 1e-6))
    spectra = torch.fft.rfft(torch.from_numpy(np.stack(films)), dim=2)[:, :, :FREQUENCIES]
    return spectra.permute(2, 0, 1).contiguous()


def polar_correlations(some: torch.Tensor, all_: torch.Tensor) -> np.ndarray:
    """Highest correlation over all turns, mirrored or not: (F, M, R) and (F, N, R) to float32 (M, N), 1 for a copy."""
    best = torch.full((some.shape[1], all_.shape[1]), -1.0)
    for side in (some, some.conj()):
        product = torch.matmul(side.conj().resolve_conj(), all_.transpose(1, 2)).permute(1, 2, 0)
        best = torch.maximum(best, torch.fft.irfft(product, n=ANGLES, dim=2).amax(dim=2))
    return best.numpy()


class Features(NamedTuple):
    """SIFT features of an image and of its mirror image: places (K, 2) and RootSIFT descriptors (K, 128) of each."""

    places: np.ndarray
    descriptors: np.ndarray
    mirrored_places: np.ndarray
    mirrored_descriptors: np.ndarray


def _sift(square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    level = cv2.createCLAHE(3.0, (4, 4)).apply(square)
    points, descriptors = cv2.SIFT.create(nfeatures=SIFT_FEATURES, contrastThreshold=0.02).detectAndCompute(level, None)
    if descriptors is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
    # RootSIFT (Arandjelovic and Zisserman, 2012).
    rooted = np.sqrt(descriptors / (descriptors.sum(axis=1, keepdims=True) + 1e-9)).astype(np.float32)
    return np.array([point.pt for point in points], np.float32), rooted


def features(square: np.ndarray) -> Features:
    """Features of a letterboxed image: uint8 (256, 256)."""
    return Features(*_sift(square), *_sift(np.ascontiguousarray(square[:, ::-1])))


def describe(squares: Sequence[np.ndarray], known: dict[bytes, Features] | None = None) -> list[Features]:
    """Features of many images; the same pixels are looked at once.

    Args:
        squares: uint8 (256, 256) each.
        known: features by pixels, those of earlier calls; gets the new ones.
    """
    known = {} if known is None else known
    keys = [hashlib.sha256(square.tobytes()).digest() for square in squares]
    new = {key: square for key, square in zip(keys, squares, strict=True) if key not in known}
    # Products of small matrices gain nothing from BLAS's own threads, which would fight with these for the cores.
    with ThreadPoolExecutor() as pool, threadpool_limits(1):
        found = track(pool.map(features, new.values()), "Features", total=len(new))
        known.update(zip(new, found, strict=True))
    return [known[key] for key in keys]


def _summed(descriptors: np.ndarray, words: np.ndarray) -> np.ndarray:
    sums = np.zeros(words.shape, np.float32)
    if len(descriptors):
        nearest = (descriptors @ words.T - 0.5 * np.square(words).sum(axis=1)).argmax(axis=1)
        np.add.at(sums, nearest, descriptors - words[nearest])
    sums /= np.linalg.norm(sums, axis=1, keepdims=True) + 1e-9
    return (sums / (np.linalg.norm(sums) + 1e-9)).ravel()


def detail_likeness(films: Sequence[Features], seed: int = 0) -> np.ndarray:
    """How alike images are in detail wherever it lies, upright or mirrored: float32 (N, N), at most 1.

    Vectors of locally aggregated descriptors (Jegou et al., 2010, "Aggregating local descriptors into a compact image
    representation"), words from k-means on a sample of the images' own descriptors.

    Args:
        images: features of each.
    """
    pool = np.concatenate([film.descriptors for film in films])
    if len(pool) < WORDS:
        return np.zeros((len(films), len(films)), np.float32)
    sample = np.random.default_rng(seed).choice(len(pool), min(SAMPLE, len(pool)), replace=False)
    # One thread, since sums in another order could move an image across the limit from run to run.
    with threadpool_limits(1):
        words = MiniBatchKMeans(WORDS, random_state=seed, n_init=1, batch_size=4096).fit(pool[sample]).cluster_centers_
    upright = np.stack([_summed(film.descriptors, words) for film in films])
    likeness = upright @ upright.T
    mirrored = np.stack([_summed(film.mirrored_descriptors, words) for film in films])
    return np.maximum(likeness, upright @ mirrored.T)


def _agreeing(places: np.ndarray, descriptors: np.ndarray, other_places: np.ndarray, others: np.ndarray) -> int:
    if len(descriptors) < 4 or len(others) < 4:
        return 0
    likeness = descriptors @ others.T
    pair = np.argpartition(-likeness, 1, axis=1)[:, :2]
    values = np.take_along_axis(likeness, pair, axis=1)
    first = np.where(values[:, 0] >= values[:, 1], pair[:, 0], pair[:, 1])
    distance = np.sqrt(np.maximum(2.0 - 2.0 * values, 0.0))
    clear = distance.min(axis=1) < RATIO * distance.max(axis=1)
    if clear.sum() < 4:
        return 0
    transform, inliers = cv2.estimateAffinePartial2D(
        places[clear], other_places[first[clear]], method=cv2.RANSAC, ransacReprojThreshold=REPROJECTION, maxIters=300
    )
    if transform is None or not 0.5 < np.hypot(transform[0, 0], transform[1, 0]) < 2.0:
        return 0
    # Features often come in stacks at one place; such a stack is one agreement.
    return len(np.unique((places[clear][inliers.ravel() > 0] / CELL).astype(int), axis=0))


def matches(one: Features, other: Features) -> int:
    """How many distinct places of two images agree on one shift, turn and scale between 1/2 and 2, mirrored or not."""
    upright = _agreeing(one.places, one.descriptors, other.places, other.descriptors)
    mirrored = _agreeing(one.places, one.descriptors, other.mirrored_places, other.mirrored_descriptors)
    return max(upright, mirrored)


BLOCK = 256


@dataclass(frozen=True)
class Link:
    """Two images that are one: their indices, ``first`` < ``second``, the measure that says so and its value."""

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
    films: Sequence[np.ndarray], thresholds: Thresholds = LENIENT, known: dict[bytes, Features] | None = None
) -> list[Link]:
    """All pairs of images that are near-duplicates of each other.

    Args:
        images: uint8 (H, W) each.
        known: features of images that are searched again and again; gets the new ones.

    Returns:
        Links sorted by indices, at most one a pair.
    """
    cv2.setNumThreads(1)
    boxed = [grey_square(Radiograph(film, (0, 255))) for film in films]
    hashed = np.stack([hashes(film) for film in track(films, "Hashing")])
    small = np.stack([cv2.resize(square, (128, 128), interpolation=cv2.INTER_AREA) for square in boxed])
    spectra = polar_spectra(small)
    found: dict[tuple[int, int], Link] = {}
    candidates: set[tuple[int, int]] = set()
    for start in track(range(0, len(films), BLOCK), "Comparing"):
        bits = hash_distances(hashed[start : start + BLOCK], hashed)
        likeness = polar_correlations(spectra[:, start : start + BLOCK], spectra)
        for measure, value, close in (
            ("hash", bits, bits <= thresholds.bits),
            ("turned", likeness, likeness >= thresholds.correlation),
        ):
            rows, columns = np.nonzero(close)
            for i, j in _pairs(rows + start, columns):
                a, b = (i, j) if start <= i < start + len(bits) else (j, i)
                found.setdefault((i, j), Link(i, j, measure, round(float(value[a - start, b]), 3)))
        candidates |= _nearest(bits, start, NEIGHBOURS) | _nearest(-likeness, start, NEIGHBOURS)
    described = describe(boxed, known)
    in_detail = _nearest(-detail_likeness(described), 0, NEIGHBOURS)
    open_pairs = sorted((candidates | in_detail) - found.keys())
    with ThreadPoolExecutor() as pool, threadpool_limits(1):

        def compare(pair: tuple[int, int]) -> int:
            return matches(described[pair[0]], described[pair[1]])

        # One pair at a time is too little work for a thread's overhead.
        counts = list(track(pool.map(compare, open_pairs, chunksize=64), "Matching", total=len(open_pairs)))
    for (i, j), count in zip(open_pairs, counts, strict=True):
        if count >= (thresholds.matches if (i, j) in candidates else thresholds.detail_matches):
            found[i, j] = Link(i, j, "features", float(count))
    return [found[pair] for pair in sorted(found)]


def group(count: int, links: Sequence[Link]) -> np.ndarray:
    """Group number of each of ``count`` images, int (N,); linked images, directly or through others, share one."""
    rows = [link.first for link in links]
    columns = [link.second for link in links]
    graph = coo_matrix((np.ones(len(links), bool), (rows, columns)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


@dataclass(frozen=True)
class Grouping:
    """Who is whose copy in a data set.

    Attributes:
        groups: group number of every image, int (N,); images of one group are near-duplicates.
        cases: the same with the set's same-case pairs joined, int (N,); images of one case never stand on two sides.
        copies: lists of indices of images whose files are the same to the byte.
        links: near-duplicates between images that are not byte-identical; indices into the images.
    """

    groups: np.ndarray
    cases: np.ndarray
    copies: tuple[tuple[int, ...], ...]
    links: tuple[Link, ...]


def find_groups(data: DataSet, decoded: Sequence[Radiograph], folder: Path = CACHE) -> Grouping:
    """Groups a data set's images; the search is kept in the cache and repeated only when an image has changed."""
    by_digest: dict[str, list[int]] = defaultdict(list)
    for index, film in enumerate(data.images):
        by_digest[film.digest()].append(index)
    copies = tuple(tuple(indices) for indices in by_digest.values())
    first = [indices[0] for indices in copies]
    key = key_of([data.images[i].path for i in first], data.thresholds, Path(__file__).read_text(encoding="utf-8"))
    target = folder / f"links-{key}.json"
    if not target.exists():
        found = find_links([decoded[i].display() for i in first], data.thresholds)
        with aside(target) as partial:
            write_json(partial, [asdict(link) for link in found])
    links = [Link(**row) for row in read_json(target)]
    of_unique = group(len(first), links)
    groups = np.zeros(len(data.images), int)
    for number, indices in zip(of_unique, copies, strict=True):
        groups[list(indices)] = number
    named = tuple(Link(first[link.first], first[link.second], link.measure, link.value) for link in links)
    index = {film.name: number for number, film in enumerate(data.images)}
    joined = [
        Link(groups[index[one]], groups[index[other]], "name", 0)
        for one, other in data.same_case
        if one in index and other in index
    ]
    cases = group(int(groups.max()) + 1, joined)[groups]
    return Grouping(groups, cases, tuple(c for c in copies if len(c) > 1), named)
