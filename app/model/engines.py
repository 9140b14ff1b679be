"""What computes a network's answers: torch, or another program that is faster on this machine and answers the same.

Which one is faster depends on the processor, so it is measured at the start and not looked up. ONNX Runtime and
OpenVINO are packages that nobody has to install. Only predictions and exact maps come from them: whatever needs
gradients or asks many times asks the network itself.
"""

from __future__ import annotations

import io
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Literal, Protocol

import numpy as np
import torch

from app.errors import WeightsError
from app.model.network import Evidence, FractureNetwork
from app.model.precision import Precision, ReducedNetwork

__all__ = [
    "LARGEST_CHANGE",
    "LEAST_CORRELATION",
    "PIXELS",
    "Choice",
    "Engine",
    "OnnxNetwork",
    "OpenVinoNetwork",
    "Prepared",
    "changes",
    "chosen",
    "computes_bfloat16",
    "like",
    "processors",
]

log = logging.getLogger(__name__)

Engine = Literal["torch", "onnx", "openvino"]
Choice = Literal["auto", "torch", "onnx", "openvino"]

EXTRAS: dict[Engine, tuple[str, ...]] = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}
"""Packages an engine needs; an extra of its name installs them."""

LARGEST_CHANGE = 0.005
"""Of a probability."""
LEAST_CORRELATION = 0.995
"""Between two maps, over cells (Pearson)."""
PIXELS = "pixels"
"""The input of the graph that engines read."""
FASTER = 0.95
"""Share of the time of what is used otherwise that another engine may take at most; less is no difference."""
EMULATED = 3.0
"""How many times as long as in float32 a product may take in bfloat16 where that is not emulated."""
ROUNDS = 3
"""Measurements of an engine on each image; the fastest counts, since whatever else runs only slows one down."""


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Prepared(Protocol):
    """A network made ready for an engine; any number of threads may call it at once."""

    @property
    def engine(self) -> Engine: ...

    @property
    def precision(self) -> Precision: ...

    def __call__(self, pixels: torch.Tensor) -> Evidence:
        """As of ``FractureNetwork``, in float32."""
        ...


class _Graph:
    """A network's graph in another program, whose ``outputs`` are what it gives, in its order."""

    precision: Precision = "float32"

    def outputs(self, pixels: torch.Tensor) -> list[np.ndarray]:
        raise NotImplementedError

    def __call__(self, pixels: torch.Tensor) -> Evidence:
        logits, maps, *fracture = (torch.from_numpy(np.array(each)) for each in self.outputs(pixels))
        return Evidence(logits, maps, *fracture)


class OnnxNetwork(_Graph):
    """A network as ONNX Runtime computes it, with as many threads a call as torch has now.

    Args:
        written: of ``_written``.
    """

    engine: Engine = "onnx"

    def __init__(self, written: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Threads that wait by spinning take the processor from those that decode and draw.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(written, options, providers=["CPUExecutionProvider"])

    def outputs(self, pixels: torch.Tensor) -> list[np.ndarray]:
        found = self._session.run(None, {PIXELS: pixels.contiguous().numpy()})
        return [np.asarray(each) for each in found]


class OpenVinoNetwork(_Graph):
    """A network as OpenVINO computes it, with as many threads a call as torch has now, and as many calls at once as
    there are processors for.

    It stays in float32: in its own bfloat16 probabilities of X-rays move by up to 8 points.

    Args:
        written: of ``_written``.
    """

    engine: Engine = "openvino"

    def __init__(self, written: bytes) -> None:
        import openvino

        threads = torch.get_num_threads()
        streams = max(1, processors() // threads)
        how = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads * streams,
            "NUM_STREAMS": streams,
        }
        # Its converter of torch's networks would tell its makers that it was used.
        core = openvino.Core()
        self._compiled = core.compile_model(core.read_model(io.BytesIO(written)), "CPU", how)
        self._own = threading.local()

    def outputs(self, pixels: torch.Tensor) -> list[np.ndarray]:
        # A request holds its answer until it is asked again, so that two threads must not share one.
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        found = self._own.request.infer([pixels.contiguous().numpy()])
        return [found[output] for output in self._compiled.outputs]


def _written(network: FractureNetwork, example: torch.Tensor) -> bytes:
    """The graph of a network that takes and gives what it does, as ONNX."""
    from app.model.to_onnx import graph

    return graph(network, example, PIXELS, list(Evidence._fields[: 3 if network.places else 2]))


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


def chosen(
    network: FractureNetwork, tried: Sequence[torch.Tensor], temperature: float, wanted: Choice
) -> Prepared | None:
    """The engine to ask instead of the network; None where that is the network itself.

    Args:
        network: in evaluation mode, with exact maps.
        tried: images to compare on, each as the network takes it, (1, 3, S, S).
        temperature: of the model, for its probabilities.
        wanted: "auto" for the fastest, of those installed, that changes next to nothing, torch in bfloat16 among them;
            "torch" for the network itself; else that engine, however fast.

    Raises:
        WeightsError: the engine wanted cannot compute this network, or answers something else.
        ModuleNotFoundError: the engine wanted is not installed.
    """
    if wanted == "torch":
        return None
    if wanted != "auto":
        for package in EXTRAS[wanted]:
            if find_spec(package) is None:
                raise ModuleNotFoundError(f"{wanted} needs {package}", name=package)
        made = like(wanted, "float32", network, tried, temperature)
        if made is None:
            raise WeightsError(f"The engine {wanted} cannot compute this network, or says something else than torch.")
        return made
    best, least = None, FASTER * _seconds(network, tried)
    for engine, precision in _worth_trying():
        made = like(engine, precision, network, tried, temperature)
        if made and (took := _seconds(made, tried)) < least:
            best, least = made, took
    return best


def like(
    engine: Engine,
    precision: Precision,
    network: FractureNetwork,
    tried: Sequence[torch.Tensor],
    temperature: float,
) -> Prepared | None:
    """A network ready for an engine other than torch in float32; None where it cannot be, or answers something else.

    To export or trace a network, torch changes things that all threads share: nobody may ask one meanwhile.

    Args:
        network, tried, temperature: as of ``chosen``.
    """
    try:
        made = _made(engine, precision, network, tried[0])
        with torch.inference_mode():
            apart = [changes(network(pixels), made(pixels), temperature) for pixels in tried]
    except Exception as error:  # noqa: BLE001 - exporters and engines raise all kinds for layers they do not know
        log.info("%s cannot compute this network (%s)", engine, type(error).__name__)
        return None
    same = all(moved.max() <= LARGEST_CHANGE and alike.min() >= LEAST_CORRELATION for moved, alike in apart)
    return made if same else None


def _made(engine: Engine, precision: Precision, network: FractureNetwork, example: torch.Tensor) -> Prepared:
    if precision == "bfloat16":
        return ReducedNetwork(network)
    kinds = {"onnx": OnnxNetwork, "openvino": OpenVinoNetwork}
    return kinds[engine](_written(network, example))


def _worth_trying() -> list[tuple[Engine, Precision]]:
    """What may be faster than torch in float32 here."""
    pairs: list[tuple[Engine, Precision]] = [("torch", "bfloat16")] if computes_bfloat16() else []
    for engine, packages in EXTRAS.items():
        if all(find_spec(package) for package in packages):
            pairs.append((engine, "float32"))
    return pairs


def computes_bfloat16() -> bool:
    """Whether this processor computes bfloat16 at all: one that emulates it takes ten times as long for a product."""
    whole = torch.ones(256, 256)
    halves = whole.bfloat16()
    usual, other = (min(_timed(each.matmul, each) for _ in range(5)) for each in (whole, halves))
    return other < EMULATED * usual


def _seconds(network: Callable[[torch.Tensor], Evidence], tried: Sequence[torch.Tensor]) -> float:
    with torch.inference_mode():
        return min(_timed(network, pixels) for pixels in [*tried] * ROUNDS)


def _timed(call: Callable[[torch.Tensor], object], given: torch.Tensor) -> float:
    began = time.perf_counter()
    call(given)
    return time.perf_counter() - began
