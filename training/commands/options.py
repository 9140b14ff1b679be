"""Options that the commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Data", "Init", "Weights", "data_folder"]

Data = Annotated[
    Path | None, typer.Option("--data", help="Folder that holds the films; FRACTURE_DATA where not given.")
]
Init = Annotated[
    Path | None, typer.Option(help="Initial layers: safetensors with the architecture's names, or a folder of them")
]
Weights = Annotated[Path, typer.Option(help="Folder of models")]


def data_folder(given: Path | None) -> Path:
    """The films' folder, from the option, else FRACTURE_DATA, else ``data``."""
    return given or Path(os.environ.get("FRACTURE_DATA") or "data")
