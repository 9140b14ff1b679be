"""Networks as body + head, so that every prediction comes apart into exact evidence per place.

The body turns pixels into features F (N, K, h, w); the head is global average pooling, dropout and one linear
layer with weights W (C, K) and bias b (C). Pooling and the linear layer commute, so the class map
M = W F (N, C, h, w) satisfies mean(M) + b == logit: the class activation map of Zhou et al., 2016 ("Learning deep
features for discriminative localization"), which at the last layer is Grad-CAM (Selvaraju et al., 2017) before its
ReLU and up to the factor 1 / (h w).

A new architecture is one entry in ``ARCHITECTURES``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import nn
from torch.nn import functional
from torchvision import models

__all__ = ["ARCHITECTURES", "Architecture", "Evidence", "FractureNetwork", "build_network", "channels_last"]


Network = TypeVar("Network", bound=nn.Module)


class Evidence(NamedTuple):
    """What one forward gives: ``logits`` (N, C) and the class ``maps`` (N, C, h, w) that average to them."""

    logits: torch.Tensor
    maps: torch.Tensor


@dataclass(frozen=True)
class Architecture:
    """How a torchvision network becomes a body.

    Attributes:
        body: takes the stride of the feature map (16 or 32 pixels) and returns the module; its parameter names are
            torchvision's, so that torchvision's weights load into it.
        channels: K, the number of feature maps the body returns.
        published: name of torchvision's weights for it.
    """

    body: Callable[[int], nn.Sequential]
    channels: int
    published: str


def _resnet_body(build: Callable[..., models.ResNet], stride: int) -> nn.Sequential:
    network = build(weights=None)
    if stride == 16:
        for module in network.layer4.modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
    return nn.Sequential(OrderedDict((n, m) for n, m in network.named_children() if n not in ("avgpool", "fc")))


def _vgg_body(build: Callable[..., models.VGG], stride: int) -> nn.Sequential:
    layers = list(build(weights=None).features.children())
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    # The last pooling layer is all that separates stride 16 from 32.
    return nn.Sequential(OrderedDict(features=nn.Sequential(*layers[: -1 if stride == 16 else None])))


ARCHITECTURES: dict[str, Architecture] = {
    "resnet18": Architecture(lambda s: _resnet_body(models.resnet18, s), 512, "ResNet18_Weights.IMAGENET1K_V1"),
    "resnet50": Architecture(lambda s: _resnet_body(models.resnet50, s), 2048, "ResNet50_Weights.IMAGENET1K_V2"),
    "vgg16": Architecture(lambda s: _vgg_body(models.vgg16, s), 512, "VGG16_Weights.IMAGENET1K_V1"),
}


class FractureNetwork(nn.Module):
    """A body and a linear head whose logits are sums of places.

    Args:
        body: pixels (N, 3, H, W) to features (N, K, h, w).
        channels: K.
        num_classes: C.
        dropout: probability of dropping a feature channel while training, 0 to 1.
    """

    def __init__(self, body: nn.Module, channels: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(channels, num_classes)
        self.dropout = dropout

    def forward(self, pixels: torch.Tensor) -> Evidence:
        """Logits and every class's map in one pass.

        Args:
            pixels: float (N, 3, H, W), normalised as the weights expect.

        Returns:
            Evidence with logits (N, C) and maps (N, C, h, w), both float32, mean(maps) + bias == logits.
        """
        return self.judge(self.body(pixels))

    def judge(self, features: torch.Tensor) -> Evidence:
        """The head alone, for methods that need no more than the last layer: features (N, K, h, w) to Evidence."""
        # Dropping a whole channel is the same as dropping its pooled value, and keeps the maps exact in training too.
        features = functional.dropout2d(features, self.dropout, self.training)
        maps = functional.conv2d(features, self.head.weight.to(features.dtype)[:, :, None, None]).float()
        return Evidence(maps.mean(dim=(2, 3)) + self.head.bias, maps)


def build_network(architecture: str, num_classes: int, *, stride: int = 32, dropout: float = 0.0) -> FractureNetwork:
    """A randomly initialised network by name.

    Args:
        architecture: a key of ``ARCHITECTURES``.
        num_classes: C, at least 1.
        stride: pixels per place of the class maps, 32 or 16; 16 gives maps of twice the side.
        dropout: probability of dropping a feature channel while training, 0 to 1.

    Raises:
        ValueError: unknown architecture, or a stride other than 16 and 32.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}; known are {', '.join(ARCHITECTURES)}")
    if stride not in (16, 32):
        raise ValueError(f"stride is 16 or 32, not {stride}")
    entry = ARCHITECTURES[architecture]
    return FractureNetwork(entry.body(stride), entry.channels, num_classes, dropout)


def channels_last(network: Network) -> Network:
    """The same network with its weights laid out channels last, which convolutions on CPUs and GPUs prefer."""
    return network.to(memory_format=torch.channels_last)  # ty: ignore[no-matching-overload]
