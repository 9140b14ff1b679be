"""What heatmaps cost beside the packages people use: ``make bench`` prints one table, of one run, on one thread.

All calls of a network take turns, so that drift of the machine meets them alike, and stand as ratios of torchvision's
bare forward of the same layers. The floor is what the forward's multiplications take at the rate that this machine
multiplies matrices at. How cost grows is drawn as ``docs/cost.png``, with clients as ``make bench-load`` found them.
What a processor without bfloat16 takes is kept apart, so that neither kind hides what the other does.
"""

from __future__ import annotations

import copy
import io
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import httpx
import matplotlib
import torch
from captum.attr import LayerGradCam
from pytorch_grad_cam import AblationCAM, GradCAM, LayerCAM, ScoreCAM
from pytorch_grad_cam.ablation_layer import AblationLayer
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchcam.methods import GradCAM as TorchCAM
from torchvision import models

from app.batch import explain_batch, gather
from app.cluster import explain_store
from app.errors import Progress
from app.explain import DEFAULT, cam, perturbation
from app.imaging.examples import draw
from app.model.classifier import Classifier
from app.model.engines import PIXELS, OnnxNetwork, OpenVinoNetwork, computes_bfloat16, like, processors
from app.model.network import FractureNetwork, Logits, build_network, channels_last
from app.model.precision import ReducedNetwork
from app.model.to_onnx import graph
from app.model.weights import ranked
from app.pipeline import explain_image, heatmap_png, open_image, png
from app.result_folders import ResultFolders
from benchmarks.load import serving
from benchmarks.record import RESULTS, keep

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SIDE, CLASSES, TARGET = 224, 10, 3
ROUNDS = 11
NETWORKS = ("resnet18", "resnet50", "vgg16-bn")
SIZES, BATCHES = (128, 192, 256, 384, 512), (1, 2, 4, 8, 16)
FOLDER = 32
"""Drawn X-rays a size."""
PLOT = Path("docs/cost.png")

TEN = "torchvision + pytorch-grad-cam, ten maps"

Calls = dict[str, Callable[[], object]]


def side_by_side(calls: Calls, rounds: int = ROUNDS, few: Sequence[str] = ()) -> dict[str, float]:
    """Median seconds of each call, taking turns; calls named in ``few`` take part in three rounds only."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            if name in few and turn > 3:
                continue
            start = time.perf_counter()
            call()
            # The first round warms up.
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def plain(architecture: str) -> nn.Module:
    """Torchvision's network as it comes, with as many outputs; VGG with a pooled head."""
    if architecture.startswith("vgg"):
        body = getattr(models, architecture.replace("-", "_"))(weights=None).features
        return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES)).eval()
    return getattr(models, architecture)(weights=None, num_classes=CLASSES).eval()


def last_layer(bare: nn.Module) -> nn.Module:
    """Where packages draw, and what gives the features."""
    return bare[0] if isinstance(bare, nn.Sequential) else bare.get_submodule("layer4")


def of_packages(bare: nn.Module, pixels: torch.Tensor) -> Calls:
    """The others' ways to one map of torchvision's network, and pytorch-grad-cam's to all ten."""
    layer, torchcam, captum = last_layer(bare), TorchCAM(bare, last_layer(bare)), LayerGradCam(bare, last_layer(bare))

    def torch_cam() -> object:
        return torchcam(TARGET, bare(pixels))

    def packaged(targets: range) -> None:
        with GradCAM(bare, [layer]) as drawn:
            for target in targets:
                drawn(pixels, [ClassifierOutputTarget(target)])

    return {
        "torchvision + torch-cam, one map": torch_cam,
        "torchvision + captum, one map": lambda: captum.attribute(pixels, TARGET),
        "torchvision + pytorch-grad-cam, one map": lambda: packaged(range(1)),
        TEN: lambda: packaged(range(CLASSES)),
    }


def of_network(architecture: str, rates: dict[str, float]) -> dict[str, float]:
    """Ratios of one network's bare forward."""
    bare, ours = plain(architecture), channels_last(build_network(architecture, CLASSES).eval().requires_grad_(False))
    pixels = torch.randn(1, 3, SIDE, SIDE)
    laid_out = pixels.contiguous(memory_format=torch.channels_last)
    # Torch-cam leaves hooks in the network, which the bare forward must not pay for.
    hooked = copy.deepcopy(bare)

    def forward(network: Callable[[torch.Tensor], object], given: torch.Tensor) -> Callable[[], object]:
        def call() -> object:
            with torch.inference_mode():
                return network(given)

        return call

    reduced: Calls = {}
    if "bfloat16" in rates:
        reduced["ours, prediction and ten maps in bfloat16"] = forward(ReducedNetwork(ours), laid_out)
    engines: Calls = {}
    logits = graph(Logits(ours).eval(), laid_out, PIXELS, ["logits"])
    for name, kind in (("ONNX Runtime", OnnxNetwork), ("OpenVINO", OpenVinoNetwork)):
        engines[f"ours, bare forward in float32 by {name}"] = partial(kind(logits).outputs, laid_out)
        made = like(kind.engine, "float32", ours, [laid_out], 1.0)
        assert made
        engines[f"ours, prediction and ten maps in float32 by {name}"] = forward(made, laid_out)
    seconds = side_by_side(
        {
            "torchvision, bare forward": forward(bare, pixels),
            "ours, bare forward in float32": forward(ours.body, laid_out),
            "ours, prediction and ten maps in float32": forward(ours, laid_out),
            **reduced,
            **engines,
            **of_packages(hooked, pixels),
        },
        few=[TEN],
    )
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        bare(pixels)
    seconds |= {f"floor in {name}": counted.get_total_flops() / rate for name, rate in rates.items()}
    return relative(f"{architecture}, {SIDE} px, one image", seconds)


def relative(title: str, seconds: dict[str, float]) -> dict[str, float]:
    """Prints what each call costs relative to the first, and returns that."""
    base = next(iter(seconds.values()))
    print(f"\n{title}")
    for name, value in seconds.items():
        print(f"  {value / base:7.2f} x  {value * 1000:9.1f} ms  {name}")
    return {name: round(value / base, 3) for name, value in seconds.items()}


def multiplied(dtype: torch.dtype) -> float:
    """Floating-point operations a second of this machine's matrix product, at its fastest of many."""
    side = 2048
    left, right = (torch.randn(side, side).to(dtype) for _ in range(2))
    fastest = min(side_by_side({"product": lambda: left @ right}, rounds=1)["product"] for _ in range(12))
    return 2.0 * side**3 / fastest


def of_methods(ours: FractureNetwork, bare: nn.Module) -> dict[str, float]:
    """Other methods, ours beside pytorch-grad-cam's, as multiples of the bare forward; ResNet-18."""
    pixels = torch.randn(1, 3, SIDE, SIDE)
    laid_out = pixels.contiguous(memory_format=torch.channels_last)
    layer = last_layer(bare)

    def last() -> torch.Tensor:
        with torch.inference_mode():
            return ours.features(laid_out)[0]

    def package(made: Callable[[], BaseCAM]) -> Callable[[], object]:
        def call() -> object:
            with made() as drawn, redirect_stderr(io.StringIO()):
                return drawn(pixels, [ClassifierOutputTarget(TARGET)])

        return call

    def forward() -> object:
        with torch.inference_mode():
            return bare(pixels)

    calls: Calls = {
        "torchvision, bare forward": forward,
        "LayerCAM, ours": lambda: cam.last_layer_map(ours.head, last(), TARGET, "layercam"),
        "LayerCAM, pytorch-grad-cam": package(lambda: LayerCAM(bare, [layer])),
        "Ablation-CAM, ours": lambda: cam.ablation_cam(ours.head, last(), TARGET),
        "Ablation-CAM, pytorch-grad-cam": package(lambda: AblationCAM(bare, [layer], ablation_layer=AblationLayer())),
        "Score-CAM, ours": lambda: perturbation.score_cam(ours, laid_out, TARGET, Progress()),
        "Score-CAM, pytorch-grad-cam": package(lambda: ScoreCAM(bare, [layer])),
    }
    return relative(f"methods, resnet18, {SIDE} px", side_by_side(calls, rounds=1))


def growth(network: FractureNetwork) -> dict[str, dict[str, float]]:
    """How an image's cost grows with its size, and falls or grows with the batch: seconds, prediction and ten maps."""

    def call(count: int, side: int) -> Callable[[], object]:
        pixels = torch.randn(count, 3, side, side).contiguous(memory_format=torch.channels_last)

        def run() -> object:
            with torch.inference_mode():
                return network(pixels)

        return run

    by_size = side_by_side({str(side): call(1, side) for side in SIZES}, rounds=5)
    by_batch = side_by_side({str(count): call(count, SIDE) for count in BATCHES}, rounds=5)
    return {"size": by_size, "batch": {count: each / int(count) for count, each in by_batch.items()}}


def of_folder(shipped: Classifier, side: int) -> dict[str, float]:
    """Images a second of ``python -m app batch``, beside the network's own in batches of 4 on as many processors."""
    workers = processors()
    pixels = torch.randn(4, 3, shipped.card.size, shipped.card.size).contiguous(memory_format=torch.channels_last)
    network = shipped.prepared or shipped.network

    def alone(_worker: int) -> None:
        with torch.inference_mode():
            for _ in range(FOLDER // 4 // workers):
                network(pixels)

    def rate() -> float:
        began = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(alone, range(workers)))
        return FOLDER // 4 // workers * workers * 4 / (time.perf_counter() - began)

    before = rate()
    with tempfile.TemporaryDirectory() as place:
        for number in range(FOLDER):
            cv2.imwrite(f"{place}/{number}.png", draw("oblique", seed=number, height=side, width=side * 4 // 5))
        with gather([place]) as items, tempfile.TemporaryDirectory() as out:
            began = time.perf_counter()
            for _ in explain_batch(items, model=shipped, folders=ResultFolders(Path(out)), workers=workers):
                pass
            folder = FOLDER / (time.perf_counter() - began)
    # The machine may be slower meanwhile.
    best = (before + rate()) / 2
    return {"folder": folder, "network": best, "share": folder / best}


def of_image(shipped: Classifier, side: int) -> dict[str, float]:
    """Shares of the time that one image of a folder takes on one thread, by what is done with it."""
    data = cv2.imencode(".png", draw("oblique", seed=1, height=side, width=side * 4 // 5))[1].tobytes()
    took: dict[str, list[float]] = {}
    kept: dict[str, Any] = {}

    def timed(part: str, work: Callable[[], Any]) -> None:
        began = time.perf_counter()
        kept[part] = work()
        took.setdefault(part, []).append(time.perf_counter() - began)

    for _ in range(ROUNDS):
        timed("decoding", lambda: open_image(data).radiograph)
        timed("detector", lambda: shipped.check(kept["decoding"], anyway=True))
        timed("network", lambda: shipped.explain([kept["decoding"]]))
        result = explain_image(kept["decoding"], model=shipped, anyway=True)
        timed("drawing", lambda result=result: result.overlay())
        timed("PNG", lambda result=result: (png(kept["drawing"]), heatmap_png(result.heat)))
    medians = {part: statistics.median(times) for part, times in took.items()}
    return {part: round(each / sum(medians.values()), 3) for part, each in medians.items()}


def of_ray(workers: int) -> float:
    """Images a second through Ray on this machine, once its workers have begun."""
    times: list[float] = []
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as out:
        for number in range(FOLDER):
            cv2.imwrite(f"{place}/{number}.png", draw("oblique", seed=number, height=480, width=384))
        how: dict[str, Any] = {"method": DEFAULT, "workers": workers}
        explain_store(place, out, tell=lambda _done, _count: times.append(time.perf_counter()), **how)
    return (len(times) - workers) / (times[-1] - times[workers - 1])


def start_up() -> dict[str, float]:
    """Seconds until the help, the page and its first explanation are there, and MiB of the served page."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "app", "--help"], check=True, stdout=subprocess.DEVNULL)
    told = {"help": time.perf_counter() - began}
    began = time.perf_counter()
    with serving() as server:
        told["page"] = time.perf_counter() - began
        png = cv2.imencode(".png", draw("oblique", seed=1, height=900, width=700))[1].tobytes()
        path = httpx.post(f"{server.api}/upload", files={"files": ("xray.png", png)}, timeout=60).json()[0]
        data = {"data": [{"path": path}, "gradcam", None, "", None, True]}
        event = httpx.post(f"{server.api}/call/explain", json=data, timeout=60).json()["event_id"]
        answer = httpx.get(f"{server.api}/call/explain/{event}", timeout=60).text
        if not re.search(r"^event: complete", answer, re.M):
            raise RuntimeError("the page answered with an error")
        told["first explanation"] = time.perf_counter() - began
        told["MiB"] = server.memory("VmHWM")
    return {name: round(value, 2) for name, value in told.items()}


def plot(figures: dict[str, Any]) -> None:
    """Cost by size, by batch, by method and by clients: four small pictures."""
    figure, axes = plt.subplots(1, 4, figsize=(13, 3), layout="constrained")
    for axis, (name, unit) in zip(axes, (("size", "px"), ("batch", "images in a forward")), strict=False):
        its = figures["growth"][name]
        axis.plot([int(key) for key in its], [1000 * value for value in its.values()], "o-", color="#0b6e99")
        axis.set(xlabel=unit, ylabel="ms an image", ylim=0)
    methods = {name: value for name, value in figures["methods"].items() if "," in name and "forward" not in name}
    axes[2].barh(list(methods), list(methods.values()), color=["#0b6e99", "#b9b9b9"] * 3)
    axes[2].set(xscale="log", xlabel="bare forwards")
    axes[2].invert_yaxis()
    clients = figures["clients"]
    axes[3].plot([int(key) for key in clients], list(clients.values()), "o-", color="#0b6e99")
    axes[3].set(xlabel="clients at once", ylabel="median seconds", ylim=0)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(PLOT, dpi=110)
    plt.close(figure)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rates = {"float32": multiplied(torch.float32)}
    # Where bfloat16 is emulated, one large product takes minutes.
    if computes_bfloat16():
        rates["bfloat16"] = multiplied(torch.bfloat16)
    print(", ".join(f"{rate / 1e9:.0f} GFLOP/s in {name}" for name, rate in rates.items()))
    figures: dict[str, Any] = {"networks": {name: of_network(name, rates) for name in NETWORKS}}
    ours = channels_last(build_network("resnet18", CLASSES).eval().requires_grad_(False))
    figures["methods"] = of_methods(ours, plain("resnet18"))
    figures["growth"] = growth(ours)
    shipped = Classifier.load(ranked()[0], engine="auto")
    figures["model"] = shipped.card.name
    figures["engine"], figures["precision"] = shipped.computed_by
    figures["folder"] = {str(side): of_folder(shipped, side) for side in (480, 2400)}
    figures["image"] = {str(side): of_image(shipped, side) for side in (480, 2400)}
    print(f"\nshares of an image's time: {figures['image']}")
    for side, its in figures["folder"].items():
        told = f"{its['folder']:.1f} images/s, {its['share']:.0%} of the network's {its['network']:.1f}"
        print(f"\na folder of {side} px: {told}")
    figures["ray"] = {str(workers): round(of_ray(workers), 2) for workers in (1, 2)}
    print(f"\nimages/s through Ray by workers: {figures['ray']}")
    figures["mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    figures["start"] = start_up()
    print(f"\nseconds from the start, and MiB: {figures['start']}")
    load = json.loads((RESULTS / "load.json").read_text(encoding="utf-8"))["figures"]["clients"]
    figures["clients"] = {count: its["p50_s"] for count, its in load.items()}
    if "bfloat16" in rates:
        plot(figures)
        keep("cost", figures)
    else:
        keep("cost-float32", figures)


if __name__ == "__main__":
    main()
