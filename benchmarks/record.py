"""What benchmarks measured, kept for the report together with the machine they ran on."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "keep"]

RESULTS = Path(__file__).with_name("results")


def keep(name: str, figures: dict[str, Any], folder: Path = RESULTS) -> None:
    """Writes ``NAME.json``; figures are plain numbers and words."""
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, torch "
    folder.mkdir(parents=True, exist_ok=True)
    written = {"machine": machine + version("torch").partition("+")[0], "figures": figures}
    (folder / f"{name}.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
