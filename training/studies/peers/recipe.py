"""A peer's recipe: what is claimed, by whom, how it was made, and how it is run here."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

from training.recipe import Augment
from training.studies.peers.protocol import Protocol

__all__ = ["FOLDER", "ReplicationRecipe", "ShortRecipe", "load_all"]

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "peers"


class ShortRecipe(BaseModel):
    """How a network is trained for a comparison, not to be shipped."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: str
    size: int = Field(ge=32, le=512)
    epochs: int = Field(ge=1, description="passes over the training films when run here")
    batch_size: int = Field(32, ge=2)
    rate: float = Field(gt=0)
    weight_decay: float = Field(0.01, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weighted: bool = False
    dropout: float = Field(0.0, ge=0, lt=1, description="before the last layer; of whole blocks in ConvNeXt")
    mixup: float = Field(0.0, ge=0, description="parameter of the beta distribution; 0 for none")
    focal: float = Field(0.0, ge=0, description="exponent of the focal loss; 0 for cross-entropy")
    flip_judging: bool = Field(False, description="test-time augmentation: average with the mirrored film")
    initial: str = Field("", description="start of the name of the file with initial layers; from scratch where empty")
    augment: Augment = Augment()
    seed: int = 0


class ReplicationRecipe(ShortRecipe):
    """The fields of a YAML file in ``training/recipes/peers``."""

    title: str = Field(description="the row's name in the table")
    claim: str = Field(description="whose claim it is and how it was made, in a sentence")
    claimed: float | None = Field(ge=0, le=1, description="published accuracy; none where no figure was published")
    data: str
    protocol: Protocol
    judged: float = Field(0.2, gt=0, lt=1, description="share of the films that judge, where the split is our draw")


def load_all(folder: Path = FOLDER) -> dict[str, ReplicationRecipe]:
    """Every peer's recipe by the name of its file, sorted."""
    return {
        path.stem: ReplicationRecipe.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        for path in sorted(folder.glob("*.yaml"))
    }
