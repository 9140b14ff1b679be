"""Normalisation that most published networks were trained with, here since commands read it before torch is loaded."""

from __future__ import annotations

__all__ = ["MEAN", "STD"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's images, per channel, in units of brightness (0..1)."""
