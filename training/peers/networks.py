"""The peers' networks, as far as their descriptions tell; random unless initial layers are loaded into them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torchvision import models

__all__ = ["NETWORKS", "AttentionFusion", "CustomCNN", "load_initial"]


class CustomCNN(nn.Sequential):
    """Three blocks of convolution, batch norm, leaky ReLU and dropout, then pooling and one linear layer."""

    def __init__(self, classes: int, dropout: float) -> None:
        layers: list[nn.Module] = []
        for before, after in ((3, 32), (32, 64), (64, 128)):
            layers += [
                nn.Conv2d(before, after, 3, padding=1),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(),
                nn.MaxPool2d(2),
                nn.Dropout2d(dropout),
            ]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128 * 16, classes))


class AttentionFusion(nn.Module):
    """EfficientNet-B3 beside two attention blocks over 16 px patches with stride 8; their features are joined."""

    WIDTH = 128

    def __init__(self, classes: int, dropout: float) -> None:
        super().__init__()
        self.body = models.efficientnet_b3(weights=None).features
        self.patches = nn.Conv2d(3, self.WIDTH, 16, stride=8)
        block = nn.TransformerEncoderLayer(self.WIDTH, 4, 2 * self.WIDTH, dropout, batch_first=True)
        self.attention = nn.TransformerEncoder(block, 2)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(1536 + self.WIDTH, classes))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised pixels (N, 3, H, W) to logits (N, C)."""
        seen = self.body(pixels).mean(dim=(2, 3))
        attended = self.attention(self.patches(pixels).flatten(2).transpose(1, 2)).mean(dim=1)
        return self.head(torch.cat([seen, attended], dim=1))


def _resnet(build: Callable[..., models.ResNet], classes: int, dropout: float) -> models.ResNet:
    network = build(weights=None)
    network.fc = nn.Sequential(nn.Dropout(dropout), nn.Linear(network.fc.in_features, classes))
    return network


NETWORKS: dict[str, Callable[[int, float], nn.Module]] = {
    "custom-cnn": CustomCNN,
    "resnet18": partial(_resnet, models.resnet18),
    "resnet50": partial(_resnet, models.resnet50),
    "mobilenet-v2": lambda classes, dropout: models.mobilenet_v2(weights=None, num_classes=classes, dropout=dropout),
    "convnext-tiny": lambda classes, dropout: models.convnext_tiny(
        weights=None, num_classes=classes, stochastic_depth_prob=dropout
    ),
    "efficientnet-b3-attention": AttentionFusion,
}


def load_initial(network: nn.Module, file: Path | None) -> str:
    """Fills a network with what a file of pretrained layers has for it.

    Args:
        network: changed in place.
        file: safetensors with torchvision's names; random weights where absent.

    Returns:
        What training starts from, in words.

    Raises:
        ValueError: the file holds nothing for this network.
    """
    if file is None:
        return "from scratch"
    own = network.state_dict()
    state = load_file(file)
    # Files of MobileNet's features may hold the names inside `features`.
    named = {name if name in own else f"features.{name}": tensor for name, tensor in state.items()}
    usable = {k: v.to(own[k].dtype) for k, v in named.items() if k in own and v.shape == own[k].shape}
    if not usable:
        raise ValueError(f"{file.name} holds nothing for this network")
    network.load_state_dict(usable, strict=False)
    return f"{file.stem}"
