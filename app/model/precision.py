"""A network's backbone in bfloat16, where the processor computes that faster and the answers stay what they are.

Convolutions round weights and features to 8 significant bits (Kalamkar et al., 2019, "A study of bfloat16 for deep
learning training"). Those that read pixels do not, since brightness has more levels than that: rounding it moved
probabilities of X-rays by up to 8 points, rounding all else by up to 0.6. Where a backbone's first stage is a part of
its own, that is not rounded either, and half of what is left goes. The head and its sums stay in float32, so that a
class map still adds up to its logit.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse

from app.model.network import Evidence, FractureNetwork, channels_last

__all__ = ["Precision", "ReducedNetwork", "fused"]

Precision = Literal["float32", "bfloat16"]


class _Unrounded(nn.Module):
    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return self.convolution(features)


class ReducedNetwork(nn.Module):
    """A network that answers as another one does, with the backbone in bfloat16; it has no gradients.

    Args:
        network: in evaluation mode; it is left as it is and shares its head.
    """

    engine: Literal["torch"] = "torch"
    precision: Precision = "bfloat16"

    def __init__(self, network: FractureNetwork) -> None:
        super().__init__()
        self.network = network
        self.body = channels_last(fused(network.body))
        first = tuple(f"{name}." for name in network.stages[:1])
        for name, module in list(self.body.named_modules()):
            if isinstance(module, nn.Conv2d) and (module.in_channels == 3 or name.startswith(first)):
                owner, _, own = name.rpartition(".")
                setattr(self.body.get_submodule(owner), own, _Unrounded(module))

    def forward(self, pixels: torch.Tensor) -> Evidence:
        """As of ``FractureNetwork``, in float32."""
        with torch.autocast("cpu", torch.bfloat16):
            features = self.body(pixels)
        return self.network.evidence(features.float())


def fused(body: nn.Module) -> nn.Module:
    """A copy in which convolutions do the work of the normalisation behind them, where the graph can be traced."""
    try:
        return fuse(body)
    except fx.proxy.TraceError:
        return copy.deepcopy(body)
