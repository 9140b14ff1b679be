"""Networks as body + head, so that every prediction comes apart into exact evidence per place.

The body turns pixels into features F (N, K, h, w). Two heads are linear in what they pool, so that logits are sums of
places in both:

- "mean": one linear layer with weights W (C, K) and bias b (C) on globally averaged features. The class map M = W F
  (N, C, h, w) satisfies mean(M) + b == logit: the class activation map of Zhou et al., 2016 ("Learning deep features
  for discriminative localization"), which at the last layer is Grad-CAM (Selvaraju et al., 2017) before its ReLU and
  up to the factor 1 / (h w).
- "attended": beside the mean, the mean weighted by where a fracture seems to be: w = softmax over places of the
  fracture map, logit = sum_p (w_p F_p W_a + F_p W_g / hw) + b, as in attention pooling (Ilse et al., 2018,
  "Attention-based deep multiple instance learning"). The map M_p = hw w_p F_p W_a + F_p W_g satisfies
  mean(M) + b == logit too, w taken as given; Grad-CAM, which differentiates through w, is no longer the same map.

The fracture map itself is one more linear read-out a place, in logits; only networks that were taught places have it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeVar

import torch
from torch import nn
from torch.nn import functional

from app.model.backbones import ARCHITECTURES

__all__ = ["Evidence", "FractureNetwork", "Head", "build_network", "channels_last"]

Network = TypeVar("Network", bound=nn.Module)
Head = Literal["mean", "attended"]


class Evidence(NamedTuple):
    """What one forward gives.

    Attributes:
        logits: (N, C).
        maps: (N, C, h, w), which average to the logits less the bias.
        fracture: (N, h, w), logits of a fracture lying at each place; None from networks that were not taught places.
    """

    logits: torch.Tensor
    maps: torch.Tensor
    fracture: torch.Tensor | None = None


class FractureNetwork(nn.Module):
    """A body and a head whose logits are sums of places.

    Args:
        body: pixels (N, 3, H, W) to features (N, K, h, w).
        channels: K.
        num_classes: C.
        dropout: probability of dropping a feature channel while training, 0 to 1.
        head: how places are pooled.
        places: whether to read a fracture map off the features; "attended" needs it.

    Raises:
        ValueError: an attended head without places.
    """

    def __init__(
        self,
        body: nn.Module,
        channels: int,
        num_classes: int,
        dropout: float = 0.0,
        head: Head = "mean",
        places: bool = False,
    ) -> None:
        super().__init__()
        if head == "attended" and not places:
            raise ValueError("an attended head needs a fracture map to attend to")
        self.body = body
        self.head = nn.Linear(channels, num_classes)
        self.attended = nn.Linear(channels, num_classes, bias=False) if head == "attended" else None
        self.places = nn.Linear(channels, 1) if places else None
        self.dropout = dropout

    def forward(self, pixels: torch.Tensor) -> Evidence:
        """Logits and every class's map in one pass.

        Args:
            pixels: float (N, 3, H, W), normalised as the weights expect.

        Returns:
            Evidence in float32 (float64 from a network of doubles), mean(maps) + bias == logits.
        """
        return self.judge(self.body(pixels))

    def judge(self, features: torch.Tensor) -> Evidence:
        """The head alone, for methods that need no more than the last layer: features (N, K, h, w) to Evidence."""
        fracture = None if self.places is None else _per_place(features, self.places)[:, 0] + self.places.bias
        # Dropping a whole channel is the same as dropping its pooled value, and keeps the maps exact in training too.
        features = functional.dropout2d(features, self.dropout, self.training)
        maps = _per_place(features, self.head)
        if self.attended is not None and fracture is not None:
            weight = fracture.flatten(1).softmax(dim=1).view_as(fracture) * fracture[0].numel()
            maps = maps + weight[:, None] * _per_place(features, self.attended)
        return Evidence(maps.mean(dim=(2, 3)) + self.head.bias, maps, fracture)


def _per_place(features: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
    mapped = functional.conv2d(features, layer.weight.to(features.dtype)[:, :, None, None])
    return mapped.to(torch.promote_types(mapped.dtype, torch.float32))


def build_network(
    architecture: str,
    num_classes: int,
    *,
    stride: int = 32,
    dropout: float = 0.0,
    head: Head = "mean",
    places: bool = False,
) -> FractureNetwork:
    """A randomly initialised network by name.

    Args:
        architecture: a key of ``ARCHITECTURES``.
        num_classes: C, at least 1.
        stride: pixels per place of the class maps; 16 gives maps of twice the side of 32.
        dropout: probability of dropping a feature channel while training, 0 to 1.
        head: how places are pooled.
        places: whether to read a fracture map off the features.

    Raises:
        ValueError: unknown architecture, a stride it cannot have, or an attended head without places.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}; known are {', '.join(ARCHITECTURES)}")
    entry = ARCHITECTURES[architecture]
    if stride not in entry.strides:
        raise ValueError(f"stride of {architecture} is {' or '.join(map(str, entry.strides))}, not {stride}")
    return FractureNetwork(entry.body(stride), entry.channels, num_classes, dropout, head, places)


def channels_last(network: Network) -> Network:
    """The same network with its weights laid out channels last, which convolutions on CPUs and GPUs prefer."""
    return network.to(memory_format=torch.channels_last)  # ty: ignore[no-matching-overload]
