"""Whether an image is out of distribution: no radiograph, or one unlike those of the reference set.

A logistic regression on what the third stage of an ImageNet network sees, its mean and spread over the image, tells
radiographs of several sources from photographs, drawings and screenshots. It belongs to no model, so that a model may
be trained anew without measuring its rejections again. Pictures that are no radiographs help to train it (Hendrycks et
al., 2019, "Deep anomaly detection with outlier exposure").

Where nobody has such pictures, as for images of one's own, the score is the Mahalanobis distance of the same features
from those of the reference set (Lee et al., 2018, "A simple unified framework for detecting out-of-distribution
samples").
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load
from torch import nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from app.errors import WeightsError
from app.imaging.imagenet import MEAN, STD
from app.imaging.letterbox import letterbox, normalise
from app.imaging.pixels import IN_COLOUR
from app.imaging.radiograph import Radiograph
from app.model.network import channels_last
from app.model.precision import fused

__all__ = [
    "FOLDER",
    "Detector",
    "DetectorCard",
    "Likeness",
    "backbone",
    "distances",
    "pooled",
    "real_images_kept",
    "stage_features",
]

Likeness = Literal["in-distribution", "unusual", "out-of-distribution"]
FOLDER = "ood"
"""Of the detector, beside the folders of the models."""


class DetectorCard(BaseModel):
    """What travels with the detector.

    Attributes:
        file, sha256: of the weights beside the card.
        size: side of the letterboxed square, in pixels.
        colour: whether it looks at colours.
        warning: score above which people are warned.
        rejection: score above which an image is rejected, at least ``warning``; one in colour is from ``warning`` on,
            unless the score is a distance.
        metrics: for people; shown, never computed with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(pattern=r"^[\w.-]+\.safetensors$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=32, le=1024)
    colour: bool = False
    warning: float
    rejection: float
    metrics: dict[str, Any] = {}


def stage_features(body: nn.Module, stages: tuple[str, ...]) -> nn.Module:
    """A network that shares the body's weights, ends at the last of some stages and returns what each of them says.

    Raises:
        ValueError: no such stage.
    """
    return create_feature_extractor(body.eval(), list(stages))


def pooled(extractor: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation over cells of every stage's features.

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


def backbone() -> nn.Sequential:
    """ResNet-18 up to its third stage, under torchvision's names."""
    layers = list(models.resnet18(weights=None).named_children())
    return nn.Sequential(OrderedDict(layers[: [name for name, _ in layers].index("layer3") + 1]))


def real_images_kept(metrics: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Shares of real radiographs that are not rejected, by source; from ``training ood``."""
    return {name: its["kept"] for name, its in metrics["radiographs"].items()}


def distances(features: torch.Tensor, mean: torch.Tensor, precision: torch.Tensor) -> torch.Tensor:
    """Mahalanobis distance of features, float (N, D), from a set with this mean, (D,), and precision, (D, D): (N,)."""
    apart = features - mean
    return ((apart @ precision) * apart).sum(dim=1).clamp(min=0.0).sqrt()


class Detector:
    """Tells what is out of distribution.

    Args:
        network: from ``backbone``.
        weight: of the pooled features of its third stage, float (D,); their mean where there is a precision.
        bias: of their weighted sum.
        card: thresholds of the score, and figures.
        precision: inverse covariance of the features, float (D, D), where the score is a distance.
    """

    def __init__(
        self,
        network: nn.Module,
        weight: torch.Tensor,
        bias: float,
        card: DetectorCard,
        precision: torch.Tensor | None = None,
    ) -> None:
        self.extractor = stage_features(network.requires_grad_(False), ("layer3",))
        # The same, with the normalisation in the convolutions: a fifth faster.
        self._quick = stage_features(channels_last(fused(network.eval())), ("layer3",))
        self.weight = weight
        self.bias = bias
        self.card = card
        self.precision = precision

    @classmethod
    def load(cls, folder: Path) -> Detector | None:
        """The detector under a folder, of all models or of one; None where there is none, and then nothing is rejected.

        Raises:
            WeightsError: the card cannot be used, or the weights are missing or others than it says.
        """
        path = folder / FOLDER / "detector.json"
        if not path.is_file():
            return None
        try:
            card = DetectorCard.model_validate_json(path.read_text(encoding="utf-8"))
        except (ValidationError, UnicodeDecodeError) as error:
            raise WeightsError(
                f"The card of the out-of-distribution detector ({path}) cannot be used: {error}"
            ) from None
        file = path.with_name(card.file)
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != card.sha256:
            raise WeightsError(f"The out-of-distribution detector ({file}) is missing or damaged. Download it again.")
        state = {key: its.float() if its.is_floating_point() else its for key, its in load(file.read_bytes()).items()}
        weight, bias, precision = state.pop("weight"), float(state.pop("bias")), state.pop("precision", None)
        network = backbone()
        network.load_state_dict(state)
        return cls(network, weight, bias, card, precision)

    def scores(self, squares: np.ndarray) -> np.ndarray:
        """Log odds, with reference set and other pictures weighing alike, of being no radiograph; or the distance.

        Args:
            squares: letterboxed to the card's size, float32 (N, S, S), in colour (N, S, S, 3), in 0..1.

        Returns:
            float32 (N,).
        """
        features = torch.from_numpy(self.features(squares))
        if self.precision is None:
            return (features @ self.weight + self.bias).numpy()
        return distances(features, self.weight, self.precision).numpy()

    def features(self, squares: np.ndarray) -> np.ndarray:
        """What is scored of squares, as of ``scores``: float32 (N, D)."""
        pixels = torch.from_numpy(squares)
        pixels = pixels.permute(0, 3, 1, 2) if pixels.ndim == 4 else pixels[:, None]
        return pooled(self._quick, normalise(pixels, MEAN, STD)).numpy()

    def likeness(self, radiograph: Radiograph) -> Likeness:
        """Whether an image is like those of the reference set; one in colour, as few are, on the stricter bound."""
        square = letterbox(radiograph, self.card.size, colour=self.card.colour)[0]
        score = float(self.scores(square[None])[0])
        tinted = IN_COLOUR in radiograph.notes and self.precision is None
        if score > (self.card.warning if tinted else self.card.rejection):
            return "out-of-distribution"
        return "unusual" if score > self.card.warning else "in-distribution"
