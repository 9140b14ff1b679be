"""FracAtlas films with their fracture boxes as masks: what teaches and judges where a network looks."""

from __future__ import annotations

import hashlib
import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.imaging.letterbox import Placement
from training.data import fracatlas, splits
from training.data.cache import CACHE, placements, squares
from training.data.grouping import find_groups
from training.data.image import LabelledImage, readable

__all__ = ["BoxedImages", "box_mask"]

log = logging.getLogger(__name__)


def box_mask(film: LabelledImage, placement: Placement) -> np.ndarray:
    """A film's fracture boxes, painted on the model's square: uint8 (size, size), 1 inside a box.

    Each box covers at least one pixel, however small it is.
    """
    mask = np.zeros((placement.size, placement.size), np.uint8)
    for x, y, width, height in film.boxes:
        left = placement.left + int((x - width / 2) * placement.width)
        top = placement.top + int((y - height / 2) * placement.height)
        right = placement.left + int(np.ceil((x + width / 2) * placement.width))
        bottom = placement.top + int(np.ceil((y + height / 2) * placement.height))
        mask[max(0, top) : max(bottom, top + 1), max(0, left) : max(right, left + 1)] = 1
    return mask


class BoxedImages:
    """One part of FracAtlas, letterboxed.

    Args:
        data: folder that holds the set.
        part: "train", "validation" or "test" of the committed split.
        size: side of the square in pixels.
        cache: where decoded films are kept.
        equalise: whether the films' contrast is equalised.

    Attributes:
        films: of the part.
        groups: int (N,), near-duplicates share a number.

    Raises:
        FileNotFoundError: the set is not there.
    """

    def __init__(self, data: Path, part: str, size: int, cache: Path = CACHE, equalise: bool = False) -> None:
        whole = fracatlas.load(data)
        known = splits.committed(whole, unlisted=0.2)
        if known is not None and (spare := known[1].count("unlisted")):
            log.warning(
                "%d films are not in the committed split and are left out, so that no twin is on two sides", spare
            )
        if known is None:
            log.warning("these films are not the ones of the committed split; looking for near-duplicates anew")
            whole, decoded = readable(whole)
            families = find_groups(whole, decoded, cache).families
            known = families, splits.part_images(whole, families)
        self.part = part
        chosen = [index for index, its in enumerate(known[1]) if its == part]
        self.films = tuple(whole.films[index] for index in chosen)
        self.groups = np.asarray(known[0])[chosen]
        self.size = size
        self.cache = cache
        self.equalise = equalise

    @cached_property
    def squares(self) -> np.ndarray:
        """uint8 (N, size, size)."""
        return squares([film.path for film in self.films], self.size, self.cache, self.equalise)

    @cached_property
    def placements(self) -> tuple[Placement, ...]:
        return placements([film.path for film in self.films], self.size)

    @cached_property
    def masks(self) -> np.ndarray:
        """uint8 (N, size, size), 1 inside a fracture box."""
        pairs = zip(self.films, self.placements, strict=True)
        return np.stack([box_mask(film, placement) for film, placement in pairs])

    @cached_property
    def fractured(self) -> np.ndarray:
        """bool (N,)."""
        return np.array([film.label == 1 for film in self.films])

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Films and masks, uint8 (N, 1, size, size), and whether fractured, float (N,)."""
        return (
            torch.from_numpy(self.squares)[:, None],
            torch.from_numpy(self.masks)[:, None],
            torch.from_numpy(self.fractured).float(),
        )

    def as_card(self) -> dict[str, Any]:
        """Number of films and one hash over their names and bytes."""
        digest = hashlib.sha256()
        for film in self.films:
            digest.update(film.name.encode())
            digest.update(hashlib.sha256(film.path.read_bytes()).digest())
        return {
            "set": "fracatlas",
            "part": self.part,
            "films": len(self.films),
            "fractured": int(self.fractured.sum()),
            "sha256": digest.hexdigest(),
        }
