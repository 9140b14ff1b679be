"""A network's backbone in bfloat16, where the processor computes that faster and the answers stay what they are.

Convolutions round weights and features to 8 significant bits (Kalamkar et al., 2019, "A study of bfloat16 for deep
learning training"). Those that read pixels do not, since brightness has more levels than that: rounding it moved
probabilities of X-rays by up to 8 points, rounding all else by up to 0.6. Where a backbone's first stage is a part of
its own, that is not rounded either, and half of what is left goes. The head and its sums stay in float32, so that a
class map still adds up to its logit.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse

from app.model.network import Evidence, FractureNetwork, channels_last

__all__ = ["LARGEST_CHANGE", "LEAST_CORRELATION", "Precision", "ReducedNetwork", "changes", "fused", "reduced"]

Precision = Literal["float32", "bfloat16"]

LARGEST_CHANGE = 0.005
"""Of a probability."""
LEAST_CORRELATION = 0.995
"""Between a map in float32 and in bfloat16, over cells (Pearson)."""


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


def changes(before: Evidence, after: Evidence, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """How far two networks' answers are apart.

    Returns:
        Of each image the largest change of a probability, float (N,), and the correlation of the map of the type that
        was likeliest before, float (N,), 1 where either map is the same in every cell.
    """
    likely, now = ((each.logits / temperature).softmax(dim=1) for each in (before, after))
    moved = (likely - now).abs().amax(dim=1)
    best = likely.argmax(dim=1)
    alike = []
    for number, kind in enumerate(best.tolist()):
        pair = np.stack([each.maps[number, kind].flatten().numpy() for each in (before, after)])
        alike.append(float(np.corrcoef(pair)[0, 1]) if pair.std(axis=1).min() > 0.0 else 1.0)
    return moved.numpy(), np.array(alike)


def reduced(network: FractureNetwork, tried: Sequence[torch.Tensor], temperature: float) -> ReducedNetwork | None:
    """The network in bfloat16; None where that is no faster here, or where answers change by more than next to nothing.

    Both are measured and not looked up: processors without bfloat16 compute it too, only slower.

    Args:
        network: in evaluation mode, with exact maps.
        tried: images to compare both on, each as the network takes it, (1, 3, S, S).
        temperature: of the model, for its probabilities.
    """
    faster = ReducedNetwork(network)
    took: list[tuple[float, float]] = []
    with torch.inference_mode():
        for pixels in tried:
            before, usual = _timed(network, pixels)
            after, less = _timed(faster, pixels)
            moved, alike = changes(before, after, temperature)
            if moved.max() > LARGEST_CHANGE or alike.min() < LEAST_CORRELATION:
                return None
            took.append((usual, less))
    usual, less = np.min(took, axis=0)
    return faster if less < usual else None


def _timed(network: Callable[[torch.Tensor], Evidence], pixels: torch.Tensor) -> tuple[Evidence, float]:
    began = time.perf_counter()
    found = network(pixels)
    return found, time.perf_counter() - began
