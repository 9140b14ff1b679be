"""Classifiers that were trained elsewhere: of torchvision, timm or an ONNX file, cut where the last feature map is.

Tracing (torch.fx) turns the network into a graph of its operations. One forward of noise then tells where to cut:

- Where the logits are affine in a vector that *is* the mean over cells of a feature map, as the numbers show, the head
  is this project's own, and class maps are exact (``app.model.network``). So it is in ResNets, DenseNets,
  EfficientNets, MobileNetV2 and Swin Transformers.
- Elsewhere the map is Grad-CAM's (Selvaraju et al., 2017) at the last feature map that all else goes through:
  M_c = sum_k (sum_cells dy_c / dA_k) A_k, hw times the package's map before its ReLU. Its mean is what the score's
  tangent says of the features, not the score.
- Where cells become tokens that look at each other, as in Vision Transformers, no feature map is left to draw on, and
  the network is refused.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torchvision import models
from torchvision.models.feature_extraction import NodePathTracer

from app.errors import WeightsError
from app.model.network import Evidence, FractureNetwork

__all__ = ["ONNX", "GradientHead", "TracedNetwork", "cut", "is_imported", "plain", "state_of"]

SOURCES = ("torchvision", "timm")
ONNX = "onnx"
"""The architecture of a model whose file holds the network too."""
WITHOUT_AUXILIARY = {"googlenet": "aux", "inception_v3": "AuxLogits"}
"""Networks with outputs that only training needs, and how the names of those begin."""
CLOSE = 1e-4
"""Relative difference up to which two results of float32 are the same number."""
STAGES = 5


def is_imported(architecture: str) -> bool:
    """Whether an architecture came from elsewhere, such as "torchvision:resnet50", "timm:resnet26" or "onnx"."""
    source, colon, name = architecture.partition(":")
    return architecture == ONNX or (bool(colon and name) and source in SOURCES)


def plain(architecture: str, classes: int) -> nn.Module:
    """The package's own network, randomly initialised, in evaluation mode.

    Raises:
        WeightsError: the package lacks it, or is not installed.
    """
    source, _, name = architecture.partition(":")
    if source == "torchvision":
        if name not in models.list_models(module=models):
            raise WeightsError(f"torchvision has no classifier '{name}'.")
        more = {"aux_logits": False, "init_weights": False} if name in WITHOUT_AUXILIARY else {}
        return models.get_model(name, weights=None, num_classes=classes, **more).eval()
    try:
        import timm
    except ModuleNotFoundError:
        raise WeightsError(
            f"'{architecture}' needs the package timm. In the clone: python -m pip install '.[timm]'."
        ) from None
    if not timm.is_model(name):
        raise WeightsError(f"timm has no model '{name}'.")
    return timm.create_model(name, pretrained=False, num_classes=classes).eval()


def state_of(found: Any, network: nn.Module, architecture: str) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint under the network's own names.

    Frameworks put a state dict inside another one, and a prefix before all names; both are taken away.

    Raises:
        WeightsError: it holds no state dict, or one of another network; the message names what does not fit.
    """
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise WeightsError("The file holds no state_dict. Save model.state_dict(), and nothing else.")
    own = network.state_dict()
    state = {str(name): value for name, value in found.items()}
    for prefix in ("module.", "model.", "_orig_mod.", "net.", "backbone."):
        if not own.keys() & state.keys() and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    auxiliary = WITHOUT_AUXILIARY.get(architecture.partition(":")[2])
    if auxiliary:
        state = {name: value for name, value in state.items() if not name.startswith(auxiliary)}
    misfits = [
        *(f"{name} is missing" for name in own if name not in state),
        *(f"{name} is unknown" for name in state if name not in own),
        *(
            f"{name} has shape {tuple(state[name].shape)}, not {tuple(value.shape)}"
            for name, value in own.items()
            if name in state and state[name].shape != value.shape
        ),
    ]
    if misfits:
        more = f", and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise WeightsError(f"These weights are not those of {architecture}: {'; '.join(misfits[:3])}{more}.")
    return {name: state[name].detach().cpu().contiguous().clone() for name in own}


class GradientHead(nn.Module):
    """Whatever follows the last feature map (N, K, h, w), to logits (N, C)."""

    bias = None

    def __init__(self, tail: nn.Module, classes: int) -> None:
        super().__init__()
        self.tail = tail
        self.classes = classes

    def forward(self, last: torch.Tensor) -> torch.Tensor:
        return self.tail(last)

    def maps(self, last: torch.Tensor) -> torch.Tensor:
        """Every class's map (N, C, h, w): features weighted by the gradient of its logit, summed over cells."""
        # A tensor made under inference mode cannot be differentiated; a clone outside can.
        with torch.inference_mode(False), torch.enable_grad():
            leaf = last.clone().requires_grad_(True)
            logits = self.tail(leaf)
            gradients = [
                torch.autograd.grad(logits[:, index].sum(), leaf, retain_graph=True)[0].sum(dim=(2, 3))
                for index in range(self.classes)
            ]
        return torch.einsum("cnk,nkhw->nchw", torch.stack(gradients), leaf.detach())


class TracedNetwork(FractureNetwork):
    """A network whose end is no linear layer on averaged features; its maps are Grad-CAM's."""

    def __init__(self, body: nn.Module, channels: int, num_classes: int, tail: nn.Module) -> None:
        super().__init__(body, channels, num_classes)
        self.head = GradientHead(tail, num_classes)

    def forward(self, pixels: torch.Tensor) -> Evidence:
        last, _ = self.features(pixels)
        return Evidence(self.head(last), self.head.maps(last))


@dataclass(frozen=True)
class _Seen:
    """What a node of the graph gave for one forward of noise.

    Attributes:
        shape: of its output.
        means: over cells of a feature map, by layout: "NCHW" or "NHWC", float (N, channels).
        vector: its output where that is one vector an image, float (N, D).
    """

    shape: tuple[int, ...]
    means: dict[str, torch.Tensor]
    vector: torch.Tensor | None


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.seen: dict[fx.Node, _Seen] = {}

    def run_node(self, n: fx.Node) -> Any:
        found = super().run_node(n)
        if isinstance(found, torch.Tensor):
            square = found.ndim == 4 and found.shape[2] == found.shape[3] > 1
            last = found.ndim == 4 and found.shape[1] == found.shape[2] > 1
            means = {"NCHW": found.mean(dim=(2, 3))} if square else {}
            means |= {"NHWC": found.mean(dim=(1, 2))} if last else {}
            # A copy, since what comes later may write into it.
            self.seen[n] = _Seen(tuple(found.shape), means, found.clone() if found.ndim == 2 else None)
        return found


def _traced(network: nn.Module, architecture: str) -> tuple[fx.GraphModule, dict[fx.Node, str]]:
    if isinstance(network, fx.GraphModule):
        return network, {node: str(node.target).replace("/", ".") for node in network.graph.nodes}
    leaves: dict[str, Any] = {"leaf_modules": [], "autowrap_functions": ()}
    if architecture.startswith("timm:"):
        from timm.models import _features_fx as known

        leaves = {
            "leaf_modules": known.get_notrace_modules(),
            "autowrap_functions": tuple(known.get_notrace_functions()),
        }
    for module in network.modules():
        # Written into, a feature map would no longer be what the head or a gradient is asked about.
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010 - no type of module has it
    tracer = NodePathTracer(**leaves)
    try:
        graph = tracer.trace(network)
    except Exception as error:  # noqa: BLE001 - what a network does while it is traced is its own affair
        raise WeightsError(
            f"{architecture} cannot be cut into features and head: it decides while it runs what to do "
            f"({type(error).__name__})."
        ) from None
    for node in graph.nodes:
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
    return fx.GraphModule(network, graph), dict(tracer.node_to_qualname)


def _before(node: fx.Node) -> set[fx.Node]:
    """The node and everything it is made of."""
    found, waiting = set(), [node]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += each.all_input_nodes
    return found


def _bottlenecks(graph: fx.Graph, output: fx.Node) -> list[fx.Node]:
    """The nodes that everything from input to output goes through, in order."""
    needed = _before(output)
    order = {node: place for place, node in enumerate(each for each in graph.nodes if each in needed)}
    constant = {node for node in order if not any(each.op == "placeholder" for each in _before(node))}
    covered = [0] * (len(order) + 1)
    for node, place in order.items():
        if node not in constant:
            for user in node.users:
                if user in order and order[user] > place + 1:
                    covered[place + 1] += 1
                    covered[order[user]] -= 1
    depth = itertools.accumulate(covered)
    return [node for node, over in zip(order, depth, strict=False) if over == 0 and node not in constant]


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() <= CLOSE * other.abs().max().clamp(min=1e-6))


def _graph(module: fx.GraphModule, end: fx.Node, start: fx.Node | None, marks: dict[fx.Node, str], layout: str) -> Any:
    """The part of a graph up to ``end``, from ``start`` on where that is given."""
    graph = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}
    if start is not None:
        made[start] = graph.placeholder("last")
        if layout == "NHWC":
            made[start] = graph.call_method("permute", (made[start], 0, 2, 3, 1))
    waiting, needed = [end], set()
    while waiting:
        node = waiting.pop()
        if node not in needed and node is not start:
            needed.add(node)
            waiting += node.all_input_nodes
    for node in module.graph.nodes:
        if node in needed:
            made[node] = graph.node_copy(node, lambda each: made[each])
            if node in marks:
                made[node] = graph.call_module(marks[node], (made[node],))
    last = made[end]
    if start is None and layout == "NHWC":
        last = graph.call_method("permute", (last, 0, 3, 1, 2))
    graph.output(last)
    return fx.GraphModule(module, graph).eval()


def _stage_names(paths: list[str]) -> list[str]:
    """What to call stages: the shortest starts of their paths that tell them apart."""
    for depth in range(1, 8):
        names = [".".join(path.split(".")[:depth]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return paths


def cut(network: nn.Module, architecture: str, classes: int, size: int) -> FractureNetwork:
    """A classifier as a backbone and a head.

    Args:
        network: in evaluation mode, with the weights it is to be served with; it is taken apart.
        architecture: as of ``is_imported``, for messages and for what is known of its package.
        classes: C.
        size: side of the square that it sees, in pixels.

    Raises:
        WeightsError: it keeps no feature map to draw on, cannot be traced, or does not take three channels.
    """
    module, paths = _traced(network, architecture)
    recorder = _Recorder(module)
    noise = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            logits = recorder.run(noise)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:120]
        raise WeightsError(f"{architecture} takes no three channels of {size} x {size} pixels: {reason}.") from None
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, classes):
        raise WeightsError(f"{architecture} does not give one score a class.")
    (output,) = next(node for node in module.graph.nodes if node.op == "output").all_input_nodes
    through = _bottlenecks(module.graph, output)
    seen = recorder.seen
    features, layout, layer = _last_map(module, seen, through, architecture)
    channels = seen[features].means[layout].shape[1]
    marks, names = _marked(module, seen, [node for node in through if node in _before(features)], paths, features)
    body = _graph(module, features, None, marks, layout)
    if layer is None:
        tail = _graph(module, output, features, {}, layout)
        found: FractureNetwork = TracedNetwork(body, channels, classes, tail)
    else:
        found = FractureNetwork(body, channels, classes)
        weight, bias = layer
        with torch.no_grad():
            found.head.weight.copy_(weight)
            found.head.bias.copy_(bias)
    found.stages, found.marks = tuple(names), dict(zip(names, marks.values(), strict=True))
    return found.eval().requires_grad_(False)


def _affine(module: fx.GraphModule, pooled: fx.Node, width: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Weight (C, D) and bias (C,) of what follows a vector of so many values; None where that is not affine.

    Whatever the layers are called: a function is affine if its values at zero and at the unit vectors tell all others.
    """
    (output,) = next(node for node in module.graph.nodes if node.op == "output").all_input_nodes
    # In doubles, so that the difference of two scores is the weight to the last digit of a float.
    tail = copy.deepcopy(_graph(module, output, pooled, {}, "NCHW")).double()
    probe = 3.0 * torch.randn(8, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    points = (torch.zeros_like(probe[:1]), torch.eye(width, dtype=torch.float64), probe)
    try:
        with torch.inference_mode():
            bias, units, found = (tail(each) for each in points)
    except (RuntimeError, TypeError, AttributeError):
        return None
    weight = units - bias
    if not _same(found, probe @ weight + bias):
        return None
    return weight.T.float(), bias[0].float()


def _last_map(
    module: fx.GraphModule, seen: dict[fx.Node, _Seen], through: list[fx.Node], architecture: str
) -> tuple[fx.Node, str, tuple[torch.Tensor, torch.Tensor] | None]:
    """The feature map to cut at, its layout, and weight and bias of the head where that is linear on its average."""
    for place, pooled in reversed(list(enumerate(through))):
        vector = seen[pooled].vector if pooled in seen else None
        if vector is None:
            continue
        for node in reversed(through[:place]):
            for layout, mean in seen[node].means.items() if node in seen else ():
                if _same(mean, vector) and (layer := _affine(module, pooled, vector.shape[1])):
                    return node, layout, layer
    after: list[fx.Node] = []
    for node in reversed(through):
        its = seen.get(node)
        if its is not None and "NCHW" in its.means:
            last = list(module.graph.nodes).index(node)
            after = [each for each in list(module.graph.nodes)[last + 1 :] if each in seen]
            if not any(len(seen[each].shape) == 3 for each in after):
                return node, "NCHW", None
            break
    raise WeightsError(
        f"{architecture} keeps no feature map up to its end, so that no class activation map can be drawn: its cells "
        "become tokens that look at each other. Import a convolutional network."
    )


def _marked(
    module: fx.GraphModule,
    seen: dict[fx.Node, _Seen],
    through: list[fx.Node],
    paths: dict[fx.Node, str],
    features: fx.Node,
) -> tuple[dict[fx.Node, str], list[str]]:
    """Places that maps of earlier layers are drawn at: the last feature map of every size, first to last."""
    by_side = {
        seen[node].shape[2]: node
        for node in through
        if node in seen and "NCHW" in seen[node].means and node.op != "placeholder"
    }
    chosen = [*by_side.values()][-STAGES:] or [features]
    marks = {node: f"mark{number}" for number, node in enumerate(chosen)}
    for mark in marks.values():
        module.add_submodule(mark, nn.Identity())
    return marks, _stage_names([paths.get(node, node.name) for node in chosen])
