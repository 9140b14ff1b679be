"""The peers' networks, as far as their descriptions tell; random unless initial layers are loaded into them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from safetensors.torch import load_file
from torch import nn
from torchvision import models

from app.model.backbones import ARCHITECTURES, CustomCNN

__all__ = ["NETWORKS", "load_initial"]


def _custom_cnn(classes: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        *CustomCNN(dropout).children(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128 * 16, classes)
    )


def _attention_fusion(classes: int, dropout: float) -> nn.Sequential:
    entry = ARCHITECTURES["efficientnet-b3-attention"]
    body = entry.backbone(32)
    return nn.Sequential(
        body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(entry.channels, classes)
    )


def _resnet(build: Callable[..., models.ResNet], classes: int, dropout: float) -> models.ResNet:
    network = build(weights=None)
    head = nn.Sequential(nn.Dropout(dropout), nn.Linear(network.fc.in_features, classes))
    network.fc = head  # ty: ignore[invalid-assignment]
    return network


NETWORKS: dict[str, Callable[[int, float], nn.Module]] = {
    "custom-cnn": _custom_cnn,
    "resnet18": partial(_resnet, models.resnet18),
    "resnet50": partial(_resnet, models.resnet50),
    "mobilenet-v2": lambda classes, dropout: models.mobilenet_v2(weights=None, num_classes=classes, dropout=dropout),
    "convnext-tiny": lambda classes, dropout: models.convnext_tiny(
        weights=None, num_classes=classes, stochastic_depth_prob=dropout
    ),
    "efficientnet-b3-attention": _attention_fusion,
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
