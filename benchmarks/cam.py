"""What a heatmap costs relative to the bare forward: ours beside pytorch-grad-cam on the whole network.

``make bench-cam`` prints one table a method; the bare forward is torchvision's own network on the same film.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr

import torch
from pytorch_grad_cam import AblationCAM, GradCAM, HiResCAM, LayerCAM, ScoreCAM
from pytorch_grad_cam.ablation_layer import AblationLayer
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from app import attribution, cam
from app.network import build_network, channels_last
from app.watch import Watch
from benchmarks.explain import plain, side_by_side, table
from benchmarks.record import keep

SIDE = 224
CLASSES = 10
TARGET = 3


def main() -> None:
    torch.manual_seed(0)
    bare = plain("resnet18", CLASSES)
    ours = channels_last(build_network("resnet18", CLASSES).eval())
    ours.requires_grad_(False)
    pixels = torch.randn(1, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    layers = [bare.get_submodule("layer4")]

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            return bare(pixels)

    def last_layer(method: str) -> object:
        with torch.inference_mode():
            features = ours.body(pixels)
        return cam.last_layer_map(ours, features, TARGET, method)

    def ablation() -> object:
        with torch.inference_mode():
            features = ours.body(pixels)
        return cam.ablation_cam(ours, features, TARGET)

    def score() -> object:
        with torch.inference_mode():
            features = ours.body(pixels)
        return attribution.score_cam(ours, pixels, features, TARGET, Watch())

    def package(draw: Callable[[], BaseCAM]) -> object:
        with draw() as drawn, redirect_stderr(io.StringIO()):
            return drawn(pixels, [ClassifierOutputTarget(TARGET)])

    figures: dict[str, dict[str, float]] = {}
    for name, method in (("gradcam", GradCAM), ("hirescam", HiResCAM), ("layercam", LayerCAM)):
        figures |= table(
            f"{name}, ResNet-18, {SIDE} px",
            side_by_side(
                {
                    "bare forward": forward,
                    "ours, forward included": lambda name=name: last_layer(name),
                    "pytorch-grad-cam on the whole network": lambda method=method: package(
                        lambda: method(bare, layers)
                    ),
                }
            ),
        )
    figures |= table(
        f"ablationcam, ResNet-18, {SIDE} px",
        side_by_side(
            {
                "bare forward": forward,
                "ours, forward included": ablation,
                "pytorch-grad-cam on the whole network": lambda: package(
                    lambda: AblationCAM(bare, layers, ablation_layer=AblationLayer())
                ),
            },
            rounds=2,
            warm_up=1,
        ),
    )
    figures |= table(
        f"scorecam, ResNet-18, {SIDE} px",
        side_by_side(
            {
                "bare forward": forward,
                "ours, forward included": score,
                "pytorch-grad-cam on the whole network": lambda: package(lambda: ScoreCAM(bare, layers)),
            },
            rounds=2,
            warm_up=1,
        ),
    )
    keep("cam", figures)


if __name__ == "__main__":
    main()
