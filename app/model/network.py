"""Networks as backbone + head: pixels to a last feature map, and one linear layer on its average.

The last feature map A (N, L, h, w) is the backbone's features F (N, K, h, w) themselves or, where the network attends,
what a gate makes of them: F beside hw w F, L = 2K channels. Here w is the softmax over cells of the fracture map,
itself one more linear read-out of F, and hw the number of cells, so that averaging the second half over cells is
attention pooling (Ilse et al., 2018, "Attention-based deep multiple instance learning").

Whatever A is, the head averages it over cells and applies one linear layer with weights W (C, L) and bias b (C). The
class map M = W A (N, C, h, w) therefore satisfies mean(M) + b == logit: it is the class activation map of Zhou et al.,
2016 ("Learning deep features for discriminative localization"). Gradients of a logit at the gate are W / hw in every
cell, so that Grad-CAM there (Selvaraju et al., 2017) is this map after its ReLU and up to the factor 1 / hw.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeVar

import torch
from torch import nn
from torch.nn import functional

from app.model.backbones import ARCHITECTURES

__all__ = ["Evidence", "FractureNetwork", "Gate", "Head", "Logits", "Pooling", "build_network", "channels_last"]

Network = TypeVar("Network", bound=nn.Module)
Pooling = Literal["mean", "attended"]


class Evidence(NamedTuple):
    """What one forward gives.

    Attributes:
        logits: (N, C).
        maps: (N, C, h, w), which average to the logits less the bias.
        fracture: (N, h, w), logits of a fracture lying in each cell; None from networks without a fracture map.
    """

    logits: torch.Tensor
    maps: torch.Tensor
    fracture: torch.Tensor | None = None


class Gate(nn.Module):
    """The layer that ends the backbone; its output is where class activation maps are drawn.

    While training it drops whole channels of the features. A dropped channel is missing from both halves of the output;
    the fracture map, and with it the attention, was read off the features before.

    Args:
        attends: whether the features weighted by attention are put beside the features.
        dropout: probability of dropping a channel of the features while training, 0 to 1.
    """

    def __init__(self, attends: bool, dropout: float = 0.0) -> None:
        super().__init__()
        self.attends = attends
        self.dropout = dropout

    def forward(self, features: torch.Tensor, fracture: torch.Tensor | None) -> torch.Tensor:
        """Features (N, K, h, w) and the fracture map (N, h, w), which attention needs, to (N, K or 2K, h, w)."""
        features = functional.dropout2d(features, self.dropout, self.training)
        if not self.attends or fracture is None:
            return features
        cells = fracture.shape[1] * fracture.shape[2]
        weight = fracture.flatten(1).softmax(dim=1).view_as(fracture) * cells
        return torch.cat([features, weight[:, None] * features], dim=1)


class Head(nn.Linear):
    """Global average pooling and one linear layer, from the last feature map (N, L, h, w) to logits (N, C)."""

    def maps(self, last: torch.Tensor) -> torch.Tensor:
        """Every class's map (N, C, h, w): the layer's weights applied in each cell."""
        return _per_cell(last, self)

    def pool(self, maps: torch.Tensor) -> torch.Tensor:
        """The logits (N, C) that class maps add up to; averaging and weighing commute."""
        return maps.mean(dim=(2, 3)) + self.bias

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.pool(self.maps(input))


class FractureNetwork(nn.Module):
    """A backbone that ends in a gate, and a head whose logits are sums over cells.

    Weights written when the two halves of an attending head were two matrices, ``head`` and ``attended``, load too.

    Attributes:
        stages: names of the parts of the backbone at whose ends maps can be drawn, first to last.
        marks: the modules at those ends, by stage, where they are not called as the stage is.

    Args:
        body: pixels (N, 3, H, W) to features (N, K, h, w).
        channels: K.
        num_classes: C.
        dropout: probability of dropping a feature channel while training, 0 to 1.
        head: "mean" pools the features themselves, "attended" those that leave the gate with attention.
        places: whether to read a fracture map off the features; "attended" needs it.

    Raises:
        ValueError: attention without a fracture map.
    """

    def __init__(
        self,
        body: nn.Module,
        channels: int,
        num_classes: int,
        dropout: float = 0.0,
        head: Pooling = "mean",
        places: bool = False,
    ) -> None:
        super().__init__()
        attends = head == "attended"
        if attends and not places:
            raise ValueError("an attended head needs a fracture map to attend to")
        self.body = body
        self.gate = Gate(attends, dropout)
        self.head = Head(channels * (2 if attends else 1), num_classes)
        if attends:
            # Each half starts as a layer of its own K channels would.
            nn.init.uniform_(self.head.weight, -(channels**-0.5), channels**-0.5)
        self.places = nn.Linear(channels, 1) if places else None
        self.stages: tuple[str, ...] = ()
        self.marks: dict[str, str] = {}
        self.register_load_state_dict_pre_hook(_join_halves)

    def forward(self, pixels: torch.Tensor) -> Evidence:
        """Logits and every class's map in one pass.

        Args:
            pixels: float (N, 3, H, W), normalised as the weights expect.

        Returns:
            Evidence in float32 (float64 from a network of doubles), mean(maps) + bias == logits.
        """
        return self.evidence(self.body(pixels))

    def evidence(self, features: torch.Tensor) -> Evidence:
        """What the head makes of the backbone's features (N, K, h, w)."""
        last, fracture = self._gated(features)
        maps = self.head.maps(last)
        return Evidence(self.head.pool(maps), maps, fracture)

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits (N, C) alone, where nobody looks at maps."""
        return self.head(self.features(pixels)[0])

    def stage(self, name: str) -> nn.Module:
        """The part of the backbone that ends one of ``stages``; raises AttributeError for another name."""
        return self.body.get_submodule(self.marks.get(name, name))

    def features(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the head reads: pixels (N, 3, H, W) to the gate's output (N, L, h, w), and the fracture map."""
        return self._gated(self.body(pixels))

    def _gated(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        fracture = None if self.places is None else _per_cell(features, self.places)[:, 0] + self.places.bias
        return self.gate(features, fracture), fracture


class Logits(nn.Module):
    """A network as packages expect one: pixels (N, 3, H, W) to logits (N, C)."""

    def __init__(self, network: FractureNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.network.logits(pixels)


def _join_halves(_: nn.Module, state: dict[str, torch.Tensor], prefix: str, *rest: object) -> None:
    head, attended = f"{prefix}head.weight", f"{prefix}attended.weight"
    if head in state and attended in state:
        state[head] = torch.cat([state[head], state.pop(attended)], dim=1)


def _per_cell(features: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
    mapped = functional.conv2d(features, layer.weight.to(features.dtype)[:, :, None, None])
    return mapped.to(torch.promote_types(mapped.dtype, torch.float32))


def build_network(
    architecture: str,
    num_classes: int,
    *,
    stride: int = 32,
    dropout: float = 0.0,
    head: Pooling = "mean",
    places: bool = False,
) -> FractureNetwork:
    """A randomly initialised network by name.

    Args:
        architecture: a key of ``ARCHITECTURES``.
        num_classes: C, at least 1.
        stride: pixels per cell of the class maps; 16 gives maps of twice the side of 32.
        dropout: probability of dropping a feature channel while training, 0 to 1.
        head: what is pooled, as of ``FractureNetwork``.
        places: whether to read a fracture map off the features.

    Raises:
        ValueError: unknown architecture, a stride it cannot have, or attention without a fracture map.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}; known are {', '.join(ARCHITECTURES)}")
    entry = ARCHITECTURES[architecture]
    if stride not in entry.strides:
        raise ValueError(f"stride of {architecture} is {' or '.join(map(str, entry.strides))}, not {stride}")
    network = FractureNetwork(entry.backbone(stride), entry.channels, num_classes, dropout, head, places)
    network.stages = entry.stages
    return network


def channels_last(network: Network) -> Network:
    """The same network with its weights laid out channels last, which convolutions on CPUs and GPUs prefer."""
    return network.to(memory_format=torch.channels_last)  # ty: ignore[no-matching-overload]
