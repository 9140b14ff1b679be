"""A classifier that somebody trained elsewhere becomes a model of the demo: ``python -m app import-model``."""

from __future__ import annotations

import datetime
import hashlib
import pickle
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from app.errors import WeightsError
from app.model.backbones import ARCHITECTURES
from app.model.from_onnx import network_of
from app.model.imported import ONNX, TracedNetwork, cut, is_imported, plain, state_of
from app.model.network import FractureNetwork
from app.model.readme import write_readme
from app.model.subject import Subject
from app.model.weights import FractureType, ModelCard, WeightsFile, available, load_card, write_card

__all__ = ["import_model", "read_classes"]

INTENDED_USE = "For study. Not checked for any other use."


def read_classes(path: Path) -> tuple[str, ...]:
    """Names of classes, one a line, in the order of the network's outputs.

    Raises:
        WeightsError: it cannot be read, or it names fewer than two, or one of them twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise WeightsError(f"{path} cannot be read; it names the classes, one a line, in UTF-8.") from None
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) < 2 or len(set(names)) < len(names):
        raise WeightsError(f"{path} has to name two classes or more, one a line, each once.")
    return names


def _stored(path: Path) -> object:
    """What a file of weights holds: safetensors, or what ``torch.save`` wrote, as far as that runs no code."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"There is no file {path}.") from None
    except pickle.UnpicklingError:
        raise WeightsError(
            f"{path} holds more than tensors, and loading it could run what it brings. Save model.state_dict() alone."
        ) from None
    except (SafetensorError, OSError, RuntimeError, EOFError, LookupError, ValueError):
        raise WeightsError(f"{path} is no file of weights: neither safetensors nor what torch.save writes.") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise WeightsError(f"There is no file {path}.") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror or 'unknown reason'}).") from None


def _opened(file: Path, architecture: str, classes: int, size: int) -> tuple[FractureNetwork, bytes, str]:
    """The network in a file, cut; the bytes that are kept of it; what to call it."""
    if architecture == ONNX:
        blob = _read(file)
        return cut(network_of(blob), f"The network in {file.name}", classes, size), blob, file.stem
    network = plain(architecture, classes)
    state = state_of(_stored(file), network, architecture)
    network.load_state_dict(state)
    return cut(network, architecture, classes, size), save(state), architecture.partition(":")[2]


def import_model(
    file: Path,
    name: str,
    architecture: str,
    classes: tuple[str, ...],
    folder: Path,
    *,
    size: int = 224,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    colour: bool = True,
    subject: Subject,
    intended_use: str = INTENDED_USE,
    licence: str = "unknown",
) -> ModelCard:
    """Writes ``folder/name``: the weights as they came, the card, and the card for people.

    Args:
        file: a state dict, as safetensors or by ``torch.save``, or an ONNX file.
        name: of the model and its folder.
        architecture: "torchvision:" or "timm:" and the package's name for the network, or "onnx".
        classes: in the order of the network's outputs.
        folder: of models.
        size: side of the square that the network sees, in pixels; images are letterboxed into it.
        mean, std: per channel, of brightness in 0..1.
        colour: whether it sees colours; else all three channels are the image's grey.
        subject: what its images show.
        intended_use, licence: for the card.

    Returns:
        The card.

    Raises:
        WeightsError: anything that keeps it from being served.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise WeightsError(f"'{name}' cannot be a model's name: small letters, digits and hyphens only.")
    if name in available(folder) and load_card(name, folder).architecture in ARCHITECTURES:
        raise WeightsError(f"{folder / name} is a model that was not imported; choose another name.")
    if not is_imported(architecture):
        raise WeightsError(f"'{architecture}' names no network; write torchvision:NAME, timm:NAME or onnx.")
    found, blob, title = _opened(file, architecture, len(classes), size)
    with torch.inference_mode():
        side = found(torch.zeros(1, 3, size, size)).maps.shape[-1]
    card = ModelCard(
        name=name,
        title=f"{title}, {size} px",
        architecture=architecture,
        stride=size // side,
        classes=tuple(FractureType(name=each, title=_title(each)) for each in classes),
        size=size,
        colour=colour,
        subject=subject,
        maps="gradient" if isinstance(found, TracedNetwork) else "exact",
        mean=mean,
        std=std,
        temperature=1.0,
        typical_evidence=0.0,
        weights=WeightsFile(
            file="model.onnx" if architecture == ONNX else "model.safetensors",
            sha256=hashlib.sha256(blob).hexdigest(),
        ),
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        seed=0,
        intended_use=intended_use,
        data={"limits": [UNKNOWN], "licence": licence},
    )
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    (target / card.weights.file).write_bytes(blob)
    write_card(card, target)
    write_readme(card, target)
    return card


UNKNOWN = (
    "It was trained elsewhere, and was not measured here. Images are letterboxed; if it learnt from cropped or "
    "stretched ones, it may do worse than its authors say."
)


def _title(name: str) -> str:
    words = name.replace("_", " ").strip() or name
    return words[0].upper() + words[1:]
