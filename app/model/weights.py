"""Models on disk: a folder each, ``model.safetensors`` beside the ``card.json`` that says all there is to know."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load

from app.errors import WeightsError
from app.model.backbones import ARCHITECTURES
from app.model.from_onnx import network_of
from app.model.imported import ONNX, cut, is_imported, plain
from app.model.network import FractureNetwork, Pooling, build_network
from app.model.subject import OURS, Subject

__all__ = [
    "DEFAULT_FOLDER",
    "FractureType",
    "ModelCard",
    "PredictionSets",
    "PresencePoints",
    "available",
    "known",
    "load_card",
    "load_network",
    "percent",
    "ranked",
    "shipped",
    "together",
    "with_interval",
    "write_card",
]


def shipped(name: str) -> Path:
    """A folder such as "weights": an installed package's copy, where ``setup.py`` puts it, or the working tree's."""
    package = Path(__file__).resolve().parents[1]
    copy = package / f"shipped_{name}"
    return copy if copy.is_dir() else package.parent / name


DEFAULT_FOLDER = Path(os.environ.get("FRACTURE_WEIGHTS") or shipped("weights"))


class FractureType(BaseModel):
    """One of a model's classes: its short ``name`` and the ``title`` people read."""

    model_config = ConfigDict(frozen=True)

    name: str
    title: str


class WeightsFile(BaseModel):
    """The file beside the card, and the hash it must have."""

    model_config = ConfigDict(frozen=True)

    file: str = Field(pattern=r"^[\w.-]+\.(safetensors|onnx)$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class PresencePoints(BaseModel):
    """Log odds of a fracture: under ``sensitive`` none is seen, from ``specific`` on it is definite."""

    model_config = ConfigDict(frozen=True)

    sensitive: float
    specific: float


class PredictionSets(BaseModel):
    """How to gather the types that hold the label with probability ``level``: all whose score is at most ``limit``."""

    model_config = ConfigDict(frozen=True)

    score: Literal["LAC", "APS"]
    level: float = Field(gt=0, lt=1)
    limit: float


class ModelCard(BaseModel):
    """What travels with the weights; the app knows nothing about a model that is not in here.

    Attributes:
        architecture, stride, head, places: arguments of ``build_network``.
        classes: in the order of the network's outputs.
        size: side of the letterboxed square, in pixels.
        equalise: whether images are equalised in contrast first.
        colour: whether it sees colours; else images are read in grey.
        subject: what its images show, in words.
        maps: whether a class's map adds up to its logit, or only follows its gradient, as where the head is no linear
            layer on averaged features.
        mean, std: per channel, of brightness in 0..1.
        temperature: divides the logits before the softmax (Guo et al., 2017, "On calibration of modern neural
            networks").
        typical_evidence: median, over images in cross-validation, of the predicted type's strongest evidence; the unit
            heat is drawn in; 0 where it was not measured, and then an image's own strongest evidence is.
        presence: operating points of the fracture map; none where they were not chosen.
        sets: how prediction sets are gathered; none where they were not calibrated.
        metrics, data, initial, recipe, training, calibration: for people; metrics also choose the default model
            and what is said of reliability.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    architecture: str
    stride: int
    head: Pooling = "mean"
    places: bool = False
    classes: tuple[FractureType, ...] = Field(min_length=2)
    size: int = Field(ge=32, le=1024)
    equalise: bool = False
    colour: bool = False
    subject: Subject = OURS
    maps: Literal["exact", "gradient"] = "exact"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    temperature: float = Field(gt=0)
    typical_evidence: float = Field(ge=0)
    weights: WeightsFile
    presence: PresencePoints | None = None
    sets: PredictionSets | None = None
    date: str
    seed: int
    intended_use: str
    metrics: dict[str, Any] = {}
    calibration: dict[str, Any] = {}
    data: dict[str, Any] = {}
    initial: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    training: dict[str, Any] = {}

    @property
    def calibrated(self) -> bool:
        """Whether probabilities may be put into words; this project's own models always are."""
        return bool(self.calibration) or self.subject.ours

    @property
    def limits(self) -> list[str]:
        """What nobody should expect of the model, in sentences."""
        subject, lacking = self.subject, []
        if subject.finding and not self.presence:
            whether = "whether a bone is broken" if subject.ours else f"whether there is a {subject.finding}"
            lacking = [f"It cannot tell {whether} at all."]
        return [*self.data.get("limits", []), *lacking]


def available(folder: Path = DEFAULT_FOLDER) -> list[str]:
    """Names of the models under ``folder`` that have a card, sorted; empty where there are none."""
    return sorted(card.parent.name for card in folder.glob("*/card.json"))


def ranked(folder: Path = DEFAULT_FOLDER) -> list[str]:
    """The same in the order people see: the best in cross-validation first, models without such a figure last.

    Best is the highest accuracy among those evaluated on most images: folds are not equally hard.

    Among models that the best one's interval does not tell from it, the one comes first that points at fractures best.
    Models of anything else come after those of this project, since figures on other images cannot be compared.
    """
    cards = {name: load_card(name, folder) for name in available(folder)}
    found = {name: card.metrics.get("cross_validation", {}) for name, card in cards.items()}
    accuracy = {name: its.get("accuracy", {}) for name, its in found.items()}
    comparable = [accuracy[name] for name, card in cards.items() if card.subject.ours] or [*accuracy.values()]
    best = max(comparable, key=lambda its: (its.get("n", 0), its.get("value", 0.0)), default={})

    def place(name: str) -> tuple[float, ...]:
        value = accuracy[name].get("value", 0.0)
        points = (found[name].get("places") or {}).get("type_peak_in_box", {}).get("value", 0.0)
        level = value >= best.get("low", best.get("value", 0.0))
        return float(cards[name].subject.ours), float(level), points if level else 0.0, value

    return sorted(found, key=place, reverse=True)


def known(folder: Path = DEFAULT_FOLDER) -> list[str]:
    """``ranked``, of which there is one at least; raises WeightsError where there is none."""
    names = ranked(folder)
    if not names:
        raise WeightsError(f"There is no model in {folder}; train one with `python -m training fit`.")
    return names


def together(folder: Path = DEFAULT_FOLDER) -> list[str]:
    """The models that one page can hold: the best, and those of the same types; raises WeightsError."""
    cards = {name: load_card(name, folder) for name in known(folder)}
    first = next(iter(cards.values()))
    return [name for name, its in cards.items() if (its.classes, its.subject) == (first.classes, first.subject)]


def load_card(name: str, folder: Path = DEFAULT_FOLDER) -> ModelCard:
    """Reads a model's card.

    Raises:
        WeightsError: no such model, or a card that cannot be used.
    """
    path = folder / name / "card.json"
    if name not in available(folder):
        known = ", ".join(available(folder)) or "none"
        raise WeightsError(f"There is no model called '{name}' in {folder}. Available: {known}.")
    try:
        card = ModelCard.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"The card of model '{name}' ({path}) cannot be used: {error}") from None
    if card.architecture not in ARCHITECTURES and not is_imported(card.architecture):
        raise WeightsError(f"Model '{name}' needs the architecture '{card.architecture}', which this version lacks.")
    return card


def write_card(card: ModelCard, target: Path) -> None:
    """Writes ``card.json`` into a folder, readable and with stable order."""
    text = json.dumps(card.model_dump(mode="json"), indent=1, ensure_ascii=False)
    (target / "card.json").write_text(text + "\n", encoding="utf-8")


def load_network(name: str, folder: Path = DEFAULT_FOLDER) -> tuple[FractureNetwork, ModelCard]:
    """A verified network, in float32 and ready to judge, with its card.

    Raises:
        WeightsError: no such model, a missing file, or one that is not what the card says.
    """
    card = load_card(name, folder)
    path = folder / name / card.weights.file
    if not path.is_file():
        raise WeightsError(
            f"The weights of model '{name}' are missing: {path} is not there. Clone or download it again."
        )
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != card.weights.sha256:
        hint = " It is a Git LFS pointer; run `git lfs pull`." if data.startswith(b"version https://git-lfs") else ""
        raise WeightsError(
            f"The weights of model '{name}' ({path}) are damaged: their SHA-256 is not the one in the card.{hint} "
            "Clone or download the file again."
        )
    try:
        if card.architecture == ONNX:
            network = cut(network_of(data), ONNX, len(card.classes), card.size)
        else:
            network = _filled(card, {key: _full(tensor) for key, tensor in load(data).items()})
    except (SafetensorError, RuntimeError) as error:
        raise WeightsError(f"The weights of model '{name}' do not fit its architecture: {error}") from None
    return network.eval().requires_grad_(False), card


def _filled(card: ModelCard, state: dict[str, torch.Tensor]) -> FractureNetwork:
    """The card's network with its weights; raises RuntimeError where they do not fit it."""
    if is_imported(card.architecture):
        theirs = plain(card.architecture, len(card.classes))
        theirs.load_state_dict(state)
        return cut(theirs, card.architecture, len(card.classes), card.size)
    network = build_network(
        card.architecture, len(card.classes), stride=card.stride, head=card.head, places=card.places
    )
    network.load_state_dict(state)
    return network


def _full(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def percent(share: float, digits: int = 0) -> str:
    """A share, 0 to 1, as ``19 %``."""
    return f"{100.0 * share:.{digits}f} %"


def with_interval(share: dict[str, Any] | None, digits: int | None = None, signed: bool = False) -> str:
    """A figure with its 95 % interval and number of images: "58.9 % (95 % CI 50.9 to 66.9, n = 168)".

    Args:
        share: "value", "low", "high" and "n"; what was not measured says so.
        digits: decimals of a plain number; a percentage where absent.
        signed: it is a difference, with a plus where it is positive; of percentages, in points.
    """
    if share is None:
        return "not measured"
    form = f"{{:{'+' * signed}.{1 if digits is None else digits}f}}"
    value, low, high = (form.format((100 if digits is None else 1) * share[key]) for key in ("value", "low", "high"))
    unit = "" if digits is not None else " points" if signed else " %"
    return f"{value}{unit} (95 % CI {low} to {high}, n = {share['n']:,})"
