"""A model as one ONNX file that stands alone, for programs that have neither torch nor this package.

The graph takes letterboxed brightness and does the rest itself: normalisation, network, temperature. What a program
must know to feed it and to name what comes out lies in the file's metadata.
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
from app.imaging.letterbox import normalise
from app.model.network import FractureNetwork
from app.model.weights import ModelCard, load_network

__all__ = ["TOLERANCE", "export_onnx"]

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


def _farthest(written: bytes, network: nn.Module, example: torch.Tensor) -> float:
    """How far ONNX Runtime's outputs of the file are from torch's: probabilities as they are, maps by their largest."""
    import onnxruntime

    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    theirs = session.run(None, {INPUT: example.numpy()})
    with torch.inference_mode():
        ours = [each.numpy() for each in network(example)]
    scales = [1.0, *(float(np.abs(each).max()) for each in ours[1:])]
    return max(
        float(np.abs(a - b).max()) / scale for a, b, scale in zip(ours, map(np.asarray, theirs), scales, strict=True)
    )


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
    import onnx

    network, card = load_network(name, weights)
    if card.maps != "exact":
        raise WeightsError(f"The maps of {name} need gradients, which an ONNX file has none of.")
    whole = _Standalone(network.eval(), card).eval()
    example = torch.rand(2, 3 if card.colour else 1, card.size, card.size, generator=torch.Generator().manual_seed(0))
    outputs = ["probabilities", "maps", *(["fracture"] if card.places else [])]
    many = {key: {0: "images"} for key in (INPUT, *outputs)}
    how: dict[str, Any] = {"input_names": [INPUT], "output_names": outputs, "dynamic_axes": many}
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        # The newer exporter, which torch recommends here, needs another package.
        warnings.simplefilter("ignore", DeprecationWarning)
        bare = Path(folder) / "bare.onnx"
        torch.onnx.export(whole, (example,), bare, opset_version=OPSET, dynamo=False, **how)
        model = onnx.load(bare)
    for key, value in _metadata(card, network).items():
        model.metadata_props.add(key=key, value=value)
    written = model.SerializeToString()
    found = _farthest(written, whole, example)
    if not found <= TOLERANCE:
        raise WeightsError(f"ONNX Runtime is {found:.1e} from torch on {name}, over {TOLERANCE:g}: nothing is kept.")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(written)
    return found
