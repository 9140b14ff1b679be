"""Films are judged in grey; a picture whose colours say something is told so."""

from __future__ import annotations

import numpy as np

__all__ = ["IN_COLOUR", "count_coloured", "is_coloured"]

IN_COLOUR = "The picture is in colour; it is judged in shades of grey, as radiographs are."

CHROMA = 40 / 255
"""Subtle chroma is compression noise: a pixel counts from this difference between its channels on."""

SHARE = 0.02


def count_coloured(colours: np.ndarray, white: float) -> int:
    """How many pixels are visibly coloured: (H, W, 3) of any type, whose brightest value is ``white``."""
    spread = colours.max(axis=2).astype(np.float32) - colours.min(axis=2)
    return int((spread > CHROMA * white).sum())


def is_coloured(count: int, pixels: int) -> bool:
    """Whether so many coloured pixels of a picture make it one in colour."""
    return count > SHARE * pixels
