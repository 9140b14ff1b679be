"""What a heatmap costs relative to the bare forward: ours beside pytorch-grad-cam on the whole network.

``make bench-cam`` prints one table a method, for torchvision's ResNet-18 with plain pooling and for the first of the
shipped models; the bare forward is that of the network the package is given, on the same picture.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from contextlib import redirect_stderr
from typing import Any

import torch
from pytorch_grad_cam import AblationCAM, GradCAM, HiResCAM, LayerCAM, ScoreCAM
from pytorch_grad_cam.ablation_layer import AblationLayer
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from app.errors import Progress
from app.explain import cam, perturbation
from app.model.backbones import ARCHITECTURES
from app.model.classifier import Classifier
from app.model.network import FractureNetwork, Logits, build_network, channels_last
from app.model.weights import ranked
from benchmarks.explain import plain, side_by_side, table
from benchmarks.record import keep

SIDE = 224
CLASSES = 10
TARGET = 3


def measure(
    title: str, bare: nn.Module, layer: nn.Module, backbone: nn.Module, ours: FractureNetwork, side: int
) -> dict[str, Any]:
    """Cost of five methods relative to the bare forward of one network.

    Args:
        title: of the network.
        bare: pixels to logits, as pytorch-grad-cam wants it.
        layer: of ``bare``, the one whose maps are drawn.
        backbone: of ``bare``, what gives the features that Score-CAM shows the picture through.
        ours: the network as the app has it.
        side: of the picture in pixels.
    """
    pixels = torch.randn(1, 3, side, side).contiguous(memory_format=torch.channels_last)

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            return bare(pixels)

    def last() -> torch.Tensor:
        with torch.inference_mode():
            return ours.features(pixels)[0]

    def class_map() -> torch.Tensor:
        with torch.inference_mode():
            return ours(pixels).maps[0, TARGET].clamp(min=0)

    def package(method: Callable[[], BaseCAM]) -> object:
        with method() as drawn, redirect_stderr(io.StringIO()):
            return drawn(pixels, [ClassifierOutputTarget(TARGET)])

    def compared(
        name: str, draw: Callable[[], object], method: Callable[[], BaseCAM], **rounds: int
    ) -> dict[str, dict[str, float]]:
        calls = {
            "bare forward": forward,
            "ours, forward included": draw,
            "pytorch-grad-cam on the whole network": lambda: package(method),
        }
        return table(f"{name}, {title}, {side} px", side_by_side(calls, **rounds))

    few = {"rounds": 2, "warm_up": 1}
    figures: dict[str, Any] = {}
    figures |= compared("gradcam", class_map, lambda: GradCAM(bare, [layer]))
    for name, method in (("hirescam", HiResCAM), ("layercam", LayerCAM)):
        figures |= compared(
            name,
            lambda name=name: cam.last_layer_map(ours.head, last(), TARGET, name),
            lambda method=method: method(bare, [layer]),
        )
    figures |= compared(
        "ablationcam",
        lambda: cam.ablation_cam(ours.head, last(), TARGET),
        lambda: AblationCAM(bare, [layer], ablation_layer=AblationLayer()),
        **few,
    )
    figures |= compared(
        "scorecam",
        lambda: perturbation.score_cam(ours, pixels, TARGET, Progress()),
        lambda: ScoreCAM(bare, [backbone]),
        **few,
    )
    return figures


def main() -> None:
    torch.manual_seed(0)
    bare = plain("resnet18", CLASSES)
    ours = channels_last(build_network("resnet18", CLASSES).eval()).requires_grad_(False)
    last = bare.get_submodule("layer4")
    figures = measure("ResNet-18", bare, last, last, ours, SIDE)
    shipped = Classifier.load(ranked()[0])
    network = shipped.network
    # The package wants gradients of weights that the app has frozen.
    whole = Logits(copy.deepcopy(network)).eval().requires_grad_(True)
    title = ARCHITECTURES[shipped.card.architecture].title
    figures |= measure(title, whole, whole.network.gate, whole.network.body, network, shipped.card.size)
    keep("cam", figures)


if __name__ == "__main__":
    main()
