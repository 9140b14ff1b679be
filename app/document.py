"""The JSON of an explanation, the same from the page, the command line, the API and Python.

Its schema is generated from the models here; ``docs/json.md`` describes it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.model.classifier import FractureFinding
from app.model.engines import Engine
from app.model.ood import Likeness
from app.model.precision import Precision

__all__ = ["OOD", "SCHEMA", "Document", "Fracture", "Map", "Model", "PredictedType", "SourceImage", "Square", "Type"]


SCHEMA: Literal[3] = 3
"""Version of the layout, for programs that read what earlier versions wrote."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceImage(_Part):
    """Where the image came from, and how it was decoded; null is what is not known."""

    name: str | None = Field(description='of the file, without folders; "-" for the standard input')
    sha256: str | None = Field(description="of the file's bytes", pattern=r"^[0-9a-f]{64}$")
    frame: int | None = Field(description="which of the file's pictures", ge=1)
    window: str | None = Field(description="name of the DICOM window; null for the file's own")
    height: int = Field(description="in pixels")
    width: int = Field(description="in pixels")
    modality: str | None = Field(description='as DICOM names it, such as "DX"; null where the file tells none')
    notes: list[str] = Field(description="what had to be done to read it, in sentences")


class Model(_Part):
    """The model that answered."""

    name: str
    title: str
    sha256: str = Field(description="of its weights", pattern=r"^[0-9a-f]{64}$")
    engine: Engine = Field(description="what computed the prediction and exact maps")
    precision: Precision = Field(
        description="in which its backbone was computed; bfloat16 moves a probability by half a point at most"
    )


class OOD(_Part):
    """Whether the image is like those of the reference set; out of it, nothing below may be believed."""

    state: Likeness | None = Field(description="null where nothing tells")
    words: str | None = Field(description="a warning for people; null where there is none")


class Fracture(_Part):
    """Whether a fracture is seen, of whatever type."""

    finding: FractureFinding | None = Field(description="null from models that were not taught to tell")
    words: str | None = Field(description="the finding for people")


class Type(_Part):
    """One fracture type."""

    name: str
    probability: float = Field(description="calibrated, of all types", ge=0, le=1)
    logit: float = Field(description="score before temperature and softmax")
    peak_evidence: float = Field(description="strongest evidence on the image, in logits")
    has_evidence: bool = Field(description="whether that is strong enough to be drawn")
    evidence_outside_image: float = Field(
        description="share of positive evidence in the square's black margin", ge=0, le=1
    )


class PredictedType(_Part):
    """The likeliest type, and the others."""

    type: str
    probability: float = Field(ge=0, le=1)
    confidence: str = Field(description="the probability in words")
    possible_types: list[str] | None = Field(description="the types that hold the label with probability level")
    level: float | None = Field(description="null, as possible_types, from models that were not calibrated for it")
    types: list[Type] = Field(description="all types, the most probable first")


class Square(_Part):
    """The model's square, and the part of it that shows the image, in model pixels."""

    size: int = Field(description="side of the square")
    top: int
    left: int
    height: int
    width: int


class Map(_Part):
    """What the heatmap shows."""

    target: str = Field(description="the type it speaks for")
    against: str | None = Field(description="the type it is told from; null for methods that need none")
    method: str
    full_colour: float | None = Field(
        description="evidence in full colour, in logits; null for methods drawn in units of their own maximum"
    )
    scale: float = Field(
        description="what 65535 in map16.png stands for, in the unit of map.npy: logits, or the method's own", ge=0
    )
    square: Square = Field(description="which map.npy covers; map16.png covers the image")


class Document(_Part):
    """The explanation of one X-ray. For study, not for diagnosis."""

    schema_version: Literal[3] = Field(alias="schema", description="version of this layout")
    notice: str
    source: SourceImage
    model: Model
    ood: OOD
    fracture: Fracture
    prediction: PredictedType
    map: Map
    files: dict[str, str] = Field(description="SHA-256 of each file beside this one, by name; none where it has none")
