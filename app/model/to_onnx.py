"""A model as one ONNX file that stands alone, for programs that have neither torch nor this package.

The graph takes letterboxed brightness and does the rest itself: normalisation, network, temperature. What a program
must know to feed it and to name what comes out lies in the file's metadata.

For a page that has to fetch it, a file may keep in float16 every weight that is the same number there, as those that
lie in float16 on disk are.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from app import __version__
from app.errors import WeightsError
from app.imaging.imagenet import MEAN, STD
from app.imaging.letterbox import normalise
from app.model.network import FractureNetwork
from app.model.ood import Detector, DetectorCard, distances, pooled
from app.model.weights import ModelCard, load_network

__all__ = ["TOLERANCE", "detector_onnx", "export_onnx", "graph", "model_onnx"]

TOLERANCE = 1e-4
"""How far the file may be from torch: of probabilities, and of maps as a share of their largest value."""
OPSET = 17
INPUT = "brightness"


class _Standalone(nn.Module):
    """Brightness (N, 1 or 3, S, S) in 0..1 to probabilities (N, C), class maps (N, C, h, w) and the fracture map."""

    def __init__(self, network: FractureNetwork, card: ModelCard) -> None:
        super().__init__()
        self.network = network
        self.card = card

    def forward(self, brightness: torch.Tensor) -> tuple[torch.Tensor, ...]:
        evidence = self.network(normalise(brightness, self.card.mean, self.card.std))
        found = [(evidence.logits / self.card.temperature).softmax(dim=1), evidence.maps]
        return tuple(found if evidence.fracture is None else [*found, evidence.fracture])


def _metadata(card: ModelCard, network: FractureNetwork) -> dict[str, str]:
    """What the file says of itself; values that are no text are JSON."""
    values: dict[str, Any] = {
        "name": card.name,
        "title": card.title,
        "classes": [kind.name for kind in card.classes],
        "size": card.size,
        "channels": 3 if card.colour else 1,
        "input": "brightness in 0..1, the image as large as fits in the middle of a black square, area averaging",
        "temperature": card.temperature,
        "bias": [round(float(value), 6) for value in network.head.bias],
        "maps": "evidence by type and cell: their mean over cells, plus the bias, is the logit before the temperature",
        "presence": card.presence.model_dump() if card.presence else None,
        "fracture": "log odds of a fracture by cell; their logsumexp is compared with the points in presence",
        "intended_use": card.intended_use,
        "weights_sha256": card.weights.sha256,
        "written_by": f"fracture-explained {__version__}",
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


class _Score(nn.Module):
    """Brightness (N, 1 or 3, S, S) in 0..1 to the detector's score (N,)."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.extractor = detector.extractor
        self.weight = nn.Parameter(detector.weight, requires_grad=False)
        self.bias = detector.bias
        self.precision = None if detector.precision is None else nn.Parameter(detector.precision, requires_grad=False)

    def forward(self, brightness: torch.Tensor) -> torch.Tensor:
        features = pooled(self.extractor, normalise(brightness, MEAN, STD))
        if self.precision is None:
            return features @ self.weight + self.bias
        return distances(features, self.weight, self.precision)


def _halved(model: Any) -> None:
    """Keeps in float16 every weight of an ONNX model, in place, that is the same number there."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT:
            continue
        full = numpy_helper.to_array(weight)
        with np.errstate(over="ignore"):
            half = full.astype(np.float16)
        if np.array_equal(half.astype(np.float32), full):
            casts.append(helper.make_node("Cast", [f"{weight.name}.half"], [weight.name], to=TensorProto.FLOAT))
            weight.CopyFrom(numpy_helper.from_array(half, f"{weight.name}.half"))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def graph(module: nn.Module, example: torch.Tensor, taken: str, given: list[str], **how: Any) -> bytes:
    """A module as the bytes of an ONNX file, for any number of images at once.

    Args:
        module: in evaluation mode; takes one tensor, gives one or a tuple, and leaves out what is None.
        example: what it takes, for some images.
        taken: name of the input.
        given: names of the outputs.
        how: more for the exporter.

    Raises:
        RuntimeError: onnx is not installed, or it has no such layers.
    """
    many = {name: {0: "images"} for name in (taken, *given)}
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        written = Path(folder) / "graph.onnx"
        # The newer exporter, which torch recommends here, needs another package.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            module,
            (example,),
            written,
            opset_version=OPSET,
            dynamo=False,
            input_names=[taken],
            output_names=given,
            dynamic_axes=many,
            **how,
        )
        return written.read_bytes()


def _written(
    name: str,
    module: nn.Module,
    card: ModelCard | DetectorCard,
    outputs: list[str],
    metadata: dict[str, str],
    *,
    small: bool,
) -> tuple[bytes, float]:
    """A module that takes brightness and gives ``outputs`` as an ONNX file, and how far ONNX Runtime is from torch."""
    import onnx

    channels = 3 if card.colour else 1
    example = torch.rand(2, channels, card.size, card.size, generator=torch.Generator().manual_seed(0))
    # Else normalisation is folded into the convolutions, whose products are no numbers of float16.
    how = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False} if small else {}
    model = onnx.load_from_string(graph(module, example, INPUT, outputs, **how))
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    if small:
        _halved(model)
    written = model.SerializeToString()
    found = _farthest(written, module, example)
    if not found <= TOLERANCE:
        raise WeightsError(f"ONNX Runtime is {found:.1e} from torch on {name}, over {TOLERANCE:g}: nothing is kept.")
    return written, found


def _farthest(written: bytes, module: nn.Module, example: torch.Tensor) -> float:
    """How far ONNX Runtime's outputs of the file are from torch's: the first as they are, others by their largest."""
    import onnxruntime

    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    theirs = session.run(None, {INPUT: example.numpy()})
    with torch.inference_mode():
        found = module(example)
    ours = [each.numpy() for each in (found if isinstance(found, tuple) else [found])]
    scales = [1.0, *(float(np.abs(each).max()) for each in ours[1:])]
    return max(
        float(np.abs(a - b).max()) / scale for a, b, scale in zip(ours, map(np.asarray, theirs), scales, strict=True)
    )


def model_onnx(network: FractureNetwork, card: ModelCard, *, small: bool = False) -> tuple[bytes, float]:
    """A model as the bytes of an ONNX file that says what torch says.

    Args:
        network: in evaluation mode, with its card.
        small: keep weights in float16 where they are the same numbers there.

    Returns:
        The file, and how far ONNX Runtime is from torch, at most ``TOLERANCE``.

    Raises:
        WeightsError: its maps are Grad-CAM's, or the file does not say what torch says.
        ModuleNotFoundError: onnx or onnxruntime is not installed.
    """
    if card.maps != "exact":
        raise WeightsError(f"The maps of {card.name} need gradients, which an ONNX file has none of.")
    outputs = ["probabilities", "maps", *(["fracture"] if card.places else [])]
    module = _Standalone(network.eval(), card).eval()
    return _written(card.name, module, card, outputs, _metadata(card, network), small=small)


def detector_onnx(detector: Detector) -> bytes:
    """The out-of-distribution detector as the bytes of an ONNX file, which takes brightness and gives the score.

    Raises:
        WeightsError: the file does not say what torch says.
        ModuleNotFoundError: onnx or onnxruntime is not installed.
    """
    return _written("the detector", _Score(detector).eval(), detector.card, ["score"], {}, small=True)[0]


def export_onnx(name: str, weights: Path, file: Path) -> float:
    """Writes a model as an ONNX file, and compares what ONNX Runtime makes of it with torch.

    Args:
        name: folder under ``weights``.
        weights: folder of models.
        file: to write; nothing is left there where the comparison fails.

    Returns:
        The greatest difference, at most ``TOLERANCE``.

    Raises:
        WeightsError: there is no such model, its maps are Grad-CAM's, or the file does not say what torch says.
        ModuleNotFoundError: onnx or onnxruntime is not installed.
        OSError: the file cannot be written.
    """
    written, found = model_onnx(*load_network(name, weights))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(written)
    return found
