"""What prediction and all ten heatmaps cost relative to the bare forward of torchvision's own network.

``make bench-explain`` prints, side by side: torchvision's network with a linear layer, ours with logits and every map,
and the whole way from decoded image to the ten heatmaps at the image's own size.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional
from torchvision import models

from app.imaging.examples import draw
from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier
from app.model.network import build_network, channels_last
from app.model.weights import available
from benchmarks.record import keep

ROUNDS = 40


def side_by_side(calls: dict[str, Callable[[], object]], rounds: int = ROUNDS, warm_up: int = 3) -> dict[str, float]:
    """Median seconds of each call; calls take turns, so that drift of the machine meets all of them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + warm_up):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def table(title: str, seconds: dict[str, float]) -> dict[str, dict[str, float]]:
    """Prints what each call costs relative to the first, and returns that under the title."""
    base = next(iter(seconds.values()))
    print(f"\n{title}")
    for name, value in seconds.items():
        print(f"  {value / base:5.2f} x  {value * 1000:8.1f} ms  {name}")
    return {title: {name: round(value / base, 3) for name, value in seconds.items()}}


def plain(architecture: str, classes: int) -> nn.Module:
    """Torchvision's network as it comes, with as many outputs; VGG with the same pooled head."""
    if architecture.startswith("vgg"):
        body = getattr(models, architecture)(weights=None).features
        network = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))
    else:
        network = getattr(models, architecture)(weights=None, num_classes=classes)
    return channels_last(network.eval())


def main() -> None:
    torch.manual_seed(0)
    figures: dict[str, dict[str, float]] = {}
    for architecture in ("resnet18", "resnet50", "vgg16-bn"):
        bare = plain(architecture, 10)
        ours = channels_last(build_network(architecture, 10).eval())
        pixels = torch.randn(1, 3, 224, 224).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            calls: dict[str, Callable[[], object]] = {
                "bare forward": lambda bare=bare, pixels=pixels: bare(pixels),
                "logits and ten maps": lambda ours=ours, pixels=pixels: ours(pixels),
            }
            figures |= table(f"{architecture}, 224 px, one image", side_by_side(calls))
    image = Radiograph(draw("oblique"), (0, 255))
    for name in available():
        classifier = Classifier.load(name)
        size = classifier.card.size
        pixels = torch.randn(1, 3, size, size).contiguous(memory_format=torch.channels_last)

        def whole(classifier: Classifier = classifier) -> None:
            explanation = classifier.explain([image])[0]
            for kind in classifier.classes:
                explanation.heat(kind)

        with torch.inference_mode():
            calls = {
                "body and pooled head only": lambda c=classifier, p=pixels: functional.linear(
                    c.network.features(p)[0].mean(dim=(2, 3)), c.network.head.weight, c.network.head.bias
                ),
                "image in, prediction and ten heatmaps out": whole,
            }
            figures |= table(f"shipped {name}, {size} px, image of {image.width} x {image.height}", side_by_side(calls))
    keep("explain", figures)


if __name__ == "__main__":
    main()
