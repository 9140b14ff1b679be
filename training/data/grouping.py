"""Groups of films that are one film: exact copies by their hash, near-duplicates by ``duplicates``."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from app.imaging.radiograph import Radiograph
from training.data import cache, duplicates, similarity
from training.data.duplicates import Link
from training.data.image import DataSet

__all__ = ["Grouping", "find_groups"]


@dataclass(frozen=True)
class Grouping:
    """Who is whose copy in a data set.

    Attributes:
        groups: group number of every film, int (N,); films of one group are twins.
        families: the same with the set's kin joined, int (N,); films of one family never stand on two sides.
        copies: lists of indices of films whose files are the same to the byte.
        links: near-duplicates between films that are not byte-identical; indices into the films.
    """

    groups: np.ndarray
    families: np.ndarray
    copies: tuple[tuple[int, ...], ...]
    links: tuple[Link, ...]


def find_groups(data: DataSet, decoded: Sequence[Radiograph], folder: Path = cache.CACHE) -> Grouping:
    """Groups a data set's films; the search is kept in the cache and repeated only when a film has changed.

    Args:
        data: the set; all its films can be decoded.
        decoded: its films, in order.
        folder: the cache.
    """
    by_digest: dict[str, list[int]] = defaultdict(list)
    for index, film in enumerate(data.films):
        by_digest[film.digest()].append(index)
    copies = tuple(tuple(indices) for indices in by_digest.values())
    first = [indices[0] for indices in copies]
    method = [
        hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest() for module in (duplicates, similarity)
    ]
    key = cache.key_of([data.films[i].path for i in first], data.thresholds, *method)
    target = folder / f"links-{key}.json"
    if target.exists():
        links = [Link(**row) for row in json.loads(target.read_text())]
    else:
        links = duplicates.find_links([decoded[i].display() for i in first], data.thresholds)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps([asdict(link) for link in links]))
        partial.replace(target)
    of_unique = duplicates.group(len(first), links)
    groups = np.zeros(len(data.films), int)
    for number, indices in zip(of_unique, copies, strict=True):
        groups[list(indices)] = number
    named = tuple(Link(first[link.first], first[link.second], link.measure, link.value) for link in links)
    index = {film.name: number for number, film in enumerate(data.films)}
    joined = [
        Link(groups[index[one]], groups[index[other]], "name", 0)
        for one, other in data.kin
        if one in index and other in index
    ]
    families = duplicates.group(int(groups.max()) + 1, joined)[groups]
    return Grouping(groups, families, tuple(c for c in copies if len(c) > 1), named)
