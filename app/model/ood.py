"""Whether a picture is like the films a model learnt from, by its nearest neighbours among them.

Features of the middle stages, their mean and spread over the film, tell a radiograph from a photograph better than the
last ones, which were taught to forget everything but fractures (Sun et al., 2022, "Out-of-distribution detection with
deep nearest neighbors"; the stages and the spread are ours, chosen on validation films).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from app.errors import WeightsError
from app.model.weights import ReferenceSet

__all__ = ["OODDetector", "pooled", "real_films_kept", "stage_features"]


def stage_features(body: nn.Module, stages: tuple[str, ...]) -> nn.Module:
    """A network that shares the body's weights, ends at the last of some stages and returns what each of them says.

    Raises:
        ValueError: no such stage.
    """
    return create_feature_extractor(body.eval(), list(stages))


def pooled(extractor: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation over places of every stage's features.

    Args:
        extractor: from ``stage_features``.
        pixels: normalised, float (N, 3, H, W).

    Returns:
        float (N, twice the stages' channels).
    """
    with torch.inference_mode():
        stages = extractor(pixels).values()
        parts = [part for its in stages for part in (its.mean(dim=(2, 3)), its.std(dim=(2, 3)))]
        return torch.cat(parts, dim=1)


def real_films_kept(refused: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Shares of real films that are judged, by source, those that chose the limit first; from ``training refusal``."""
    return {**refused["real_films_kept"], **refused.get("real_films_kept_elsewhere", {})}


class OODDetector:
    """The films a model knows.

    Args:
        extractor: from ``stage_features``.
        bank: features of known films, float (M, D).
        neighbours: how many of the nearest count, at most M.
        limit: mean distance from which on a picture is like none of them.
    """

    def __init__(self, extractor: nn.Module, bank: torch.Tensor, neighbours: int, limit: float) -> None:
        self.extractor = extractor
        self.centre = bank.mean(dim=0)
        self.spread = bank.std(dim=0).clamp(min=1e-6)
        self.bank = (bank - self.centre) / self.spread
        self.neighbours = neighbours
        self.limit = limit

    @classmethod
    def load(cls, body: nn.Module, films: ReferenceSet, folder: Path) -> OODDetector:
        """Raises WeightsError where the file is missing or another one than the card says."""
        path = folder / films.file
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != films.sha256:
            raise WeightsError(f"The features of known films in {folder.name} are missing or damaged.")
        bank = load_file(path)["features"].float()
        return cls(stage_features(body, films.stages), bank, films.neighbours, films.limit)

    def standardised(self, features: torch.Tensor) -> torch.Tensor:
        """Features (N, D) in units of their spread among the known films."""
        return (features - self.centre) / self.spread

    def distance(self, pixels: torch.Tensor) -> np.ndarray:
        """Mean distance to the nearest known films, in units of the features' spread.

        Args:
            pixels: normalised, float (N, 3, H, W).

        Returns:
            float (N,); above ``limit`` a picture is unlike all of them.
        """
        features = self.standardised(pooled(self.extractor, pixels))
        return torch.cdist(features, self.bank).topk(self.neighbours, largest=False).values.mean(dim=1).numpy()
