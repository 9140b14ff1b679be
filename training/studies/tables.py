"""What commands measured, read back, and put into the templates of the documentation."""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app.explain.faithfulness import depends_on_model, depends_on_type, lost_to_random
from app.explain.methods import DEFAULT, METHODS
from app.model.ood import FOLDER as OOD
from app.model.ood import real_images_kept
from app.model.weights import percent, with_interval
from training.evaluation.localisation import best_baseline

__all__ = ["read", "read_all", "read_detector", "render"]

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
HELPERS: dict[str, Any] = {
    "DEFAULT": DEFAULT,
    "METHODS": METHODS,
    "best_baseline": best_baseline,
    "depends_on_model": depends_on_model,
    "depends_on_type": depends_on_type,
    "lost_to_random": lost_to_random,
    "real_images_kept": real_images_kept,
}
"""What templates may call besides filters."""


def read(path: Path) -> dict[str, Any] | None:
    """What a command wrote; None where it has not run."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def read_detector(root: Path) -> dict[str, Any] | None:
    """What was measured of the out-of-distribution detector; None where there is none."""
    found = read(root / "weights" / OOD / "detector.json")
    return found["metrics"] if found else None


def read_all(folder: Path) -> dict[str, Any]:
    """Every JSON file of a folder by its name without suffix, sorted; empty where there is none."""
    return {path.stem: read(path) for path in sorted(folder.glob("*.json"))}


def _commonest(figures: dict[str, Any], count: int) -> float:
    """Top-``count`` accuracy of always naming the commonest types among the images that were judged."""
    sizes = sorted((row["films"] for row in figures["per_class"]), reverse=True)
    return sum(sizes[:count]) / sum(sizes)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, of this project's own figures
    )
    made.filters.update(percent=partial(percent, digits=1), with_interval=with_interval, commonest=_commonest)
    made.globals.update(HELPERS)
    return made


def render(template: str, **context: Any) -> str:
    """A template of ``training/templates`` with its figures, as Markdown.

    Raises:
        jinja2.UndefinedError: it names a figure that the context lacks.
    """
    return _environment().get_template(f"{template}.md.j2").render(context)
