"""Everything that makes and judges weights; imports ``app`` so that both see the same pixels."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def aside(target: Path) -> Generator[Path]:
    """Where to write what becomes ``target`` once it is whole: an interrupted run leaves no half file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{os.getpid()}-{target.name}")
    yield partial
    partial.replace(target)


def read_json(path: Path) -> Any:
    """What a command wrote; None where it has not run."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write_json(path: Path, found: Any, *, ascii_only: bool = True) -> None:
    """Writes figures as they are committed: one value a line, in a folder that is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, ensure_ascii=ascii_only) + "\n", encoding="utf-8")
