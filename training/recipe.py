"""A recipe says everything that decides how a model comes out; it travels in the model's card."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from app.model.backbones import ARCHITECTURES
from app.model.network import Pooling

__all__ = ["Augment", "Distil", "Frozen", "Places", "Precision", "Recipe", "load_recipe"]

Precision = Literal["auto", "32-true", "bf16-mixed"]


class Augment(BaseModel):
    """Ranges of random change, each drawn evenly and anew for every film of a batch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rotation: float = Field(20.0, ge=0, le=180, description="degrees to either side")
    zoom: float = Field(0.2, ge=0, lt=1, description="relative change of scale to either side")
    shift: float = Field(0.08, ge=0, lt=1, description="share of the side, in both directions")
    shear: float = Field(8.0, ge=0, lt=90, description="degrees to either side")
    flip: bool = Field(True, description="mirror left and right, half of the time")
    brightness: float = Field(0.15, ge=0, le=1, description="added, in units of full brightness")
    contrast: float = Field(0.25, ge=0, lt=1, description="relative change of the spread around the film's mean")


class Places(BaseModel):
    """Learning where fractures lie, from boxed films, beside the types."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_size: int = Field(32, ge=2, description="boxed films beside each batch of typed ones")
    fractured: float = Field(0.5, gt=0, lt=1, description="share of fractured films among the boxed ones drawn")
    weight: float = Field(1.0, gt=0, description="of the places' loss beside the types'")
    where: float = Field(0.0, ge=0, description="weight of asking which place, of all, a fractured film's boxes cover")
    positive_weight: float = Field(4.0, gt=0, description="of a place inside a box beside one outside")
    target: Literal["touch", "share"] = Field(
        "touch", description="of a place: whether a box touches it, or how much of it compared with its best neighbour"
    )


class Distil(BaseModel):
    """Learning from the run of another recipe, beside the labels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    teacher: str = Field(description="name of the recipe; its runs lie beside this one's")
    weight: float = Field(0.5, gt=0, description="of the teacher's loss beside the labels'")
    temperature: float = Field(2.0, gt=0)
    hint: float = Field(0.0, ge=0, description="weight of the teacher's features; 0 for its answers alone")


class Frozen(BaseModel):
    """Logistic regression on pooled features of pretrained layers, none of which learn."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stages: tuple[str, ...] = Field(min_length=1, description="of the body, whose mean and spread over places count")
    decay: float = Field(0.01, gt=0, description="weight of the squared coefficients in the loss")


class Recipe(BaseModel):
    """How one model is trained; the fields of a YAML file in ``training/recipes``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="folder under weights/")
    architecture: str
    size: int = Field(224, ge=32, le=1024, description="side of the letterboxed square in pixels")
    stride: int = Field(32, description="pixels per place of the class maps, as its body has them")
    head: Pooling = "mean"
    places: Places | None = Field(None, description="none: the network learns types only")
    distil: Distil | None = Field(None, description="none: the network learns from labels only")
    frozen: Frozen | None = Field(None, description="none: the network learns; else its features are only read off")
    dropout: float = Field(0.3, ge=0, lt=1)
    equalise: bool = Field(False, description="equalise each film's contrast, in training and ever after")
    clean: bool = Field(False, description="leave out training films whose near-duplicates or case carry another label")
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    initial_licence: str = Field("BSD-3-Clause (torchvision)", description="of the layers training starts from")

    seed: int = 0
    folds: int = Field(5, ge=2, description="validation is one fold of this many, the same for every seed")
    fold: int | None = Field(None, description="which fold validates; none: all training films train")
    whole: bool = Field(False, description="deal the test films out with the others: to cross-validate, never to ship")

    early_size: int | None = Field(None, ge=32, description="side of the square in the first early_epochs epochs")
    early_epochs: int = Field(0, ge=0, description="progressive learning (Tan and Le, 2021, EfficientNetV2)")
    batch_size: int = Field(32, ge=2)
    head_epochs: int = Field(2, ge=0, description="phase 1: only layers without pretrained weights learn")
    tune_epochs: int = Field(24, ge=0, description="phase 2: the layers named in tune learn as well")
    tune: tuple[str, ...] = Field(description="prefixes of the body's parameter names")
    head_rate: float = Field(1e-3, gt=0, description="learning rate of layers without pretrained weights")
    body_rate: float = Field(1e-4, gt=0, description="learning rate of pretrained layers")
    weight_decay: float = Field(0.05, ge=0)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    class_weighted: bool = True
    augment: Augment = Augment()

    def model_post_init(self, _context: object) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"unknown architecture {self.architecture!r}; known are {', '.join(ARCHITECTURES)}")
        if (self.early_size is None) != (self.early_epochs == 0):
            raise ValueError("early_size and early_epochs go together")
        if self.frozen and (self.places or self.distil):
            raise ValueError("frozen features are read off by labels alone: neither places nor a teacher is of use")
        if self.fold is not None and not 0 <= self.fold < self.folds:
            raise ValueError(f"fold {self.fold} is not one of {self.folds}")


def load_recipe(path: Path, **changes: object) -> Recipe:
    """Reads and checks a recipe.

    Args:
        path: a YAML file with the fields of ``Recipe``.
        changes: fields that replace the file's.

    Raises:
        FileNotFoundError: no such file.
        pydantic.ValidationError: an unknown, missing or impossible field.
    """
    fields = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return Recipe.model_validate({**fields, **changes})
