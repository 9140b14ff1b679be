"""An overlay as the page shows it: with its rings and scale, and dimmed where no fracture is seen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from app.explain.overlay import fracture_outline, overlay, scale_bar
from app.explain.regions import Region, hot_regions
from app.model.classifier import Explanation, presence
from app.model.weights import ModelCard

__all__ = ["DIMMED", "Painted", "paint"]

DIMMED = 0.5
"""Of the opacity, where no fracture is seen: bright heat would be taken for one."""


class Painted(NamedTuple):
    """An overlay, RGB uint8 (H, W, 3), its hot regions, what is outlined on it, and how opaque heat is."""

    picture: np.ndarray
    regions: tuple[Region, ...]
    outlines: tuple[str, ...]
    opacity: float


def paint(
    explanation: Explanation,
    card: ModelCard,
    heat: np.ndarray,
    *,
    colours: str = "inferno",
    opacity: float = 0.6,
    contour: bool = True,
    fracture: bool = True,
) -> Painted:
    """Lays heat over an image.

    Args:
        explanation: of the image.
        card: of the model.
        heat: float32 (H, W) in 0..1.
        colours: a key of ``COLOUR_MAPS``.
        opacity: of the strongest heat, 0 to 1.
        contour: whether to ring the hottest regions.
        fracture: whether to outline the fracture that is seen.

    Returns:
        With outlines as of ``app.ui.text.legend``.
    """
    seen, odds = presence(explanation, card.presence), explanation.fracture_odds()
    outlines = ["none"] if seen == "none" else []
    if seen == "none":
        # Rings would mark what the verdict says is not there.
        opacity, contour = DIMMED * opacity, False
    picture = overlay(explanation.radiograph.shown(), heat, colour_map=colours, opacity=opacity, contour=contour)
    regions = hot_regions(heat)
    if contour and regions:
        outlines.append("hottest")
    if fracture and odds is not None and seen in ("suspicious", "definite"):
        picture = fracture_outline(picture, odds, dashed=seen == "suspicious")
        outlines.append(seen)
    if explanation.radiograph.spacing is not None:
        picture = scale_bar(picture, explanation.radiograph.spacing)
    return Painted(picture, regions, tuple(outlines), opacity)
