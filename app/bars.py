"""What was asked of the models and what was reached: the page says it as plainly as the report, from the same file."""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from app.weights import DEFAULT_FOLDER

__all__ = ["FILE", "HEAD", "Bar", "Bars", "load"]

log = logging.getLogger(__name__)

FILE = "bars.json"
HEAD = ("Asked", "Measured", "Bar", "Verdict")


class Bar(BaseModel):
    """One row, in words: what was asked, the bar, what was measured with its interval, and the command for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    asked: str
    bar: str
    reached: str
    verdict: str
    command: str


class Bars(BaseModel):
    """All rows, and sentences on why figures that others publish were not reached."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: tuple[Bar, ...]
    why: tuple[str, ...]


def load(folder: Path = DEFAULT_FOLDER) -> Bars | None:
    """The table beside the weights; None where nobody wrote it, or it cannot be read."""
    try:
        return Bars.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        log.error("no table of what was asked and reached: %s", type(error).__name__)
        return None
