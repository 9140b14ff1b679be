"""Figures into text: ``python -m training report``.

Reads what the other commands committed (cards, cross-validations, seeds, studies, audits, benchmarks) and writes the
pages of ``docs/`` from ``training/templates``, every model's card for people, and the marked table of the README.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from app.model.weights import load_card, ranked
from training.evaluation.classification import plot_reliability
from training.release.model_card import MEASURED, model_card
from training.studies.tables import read, read_all, read_detector, render

__all__ = ["PAGES", "fill", "pages", "report"]

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("results", "faithfulness", "data", "training")
"""Templates of ``docs/``."""
AUDITED = ("bone-break", "fracatlas", "multi-region")


def _figures(root: Path) -> dict[str, Any]:
    """Everything the pages show, by the name that the templates use; None or empty where it was not measured."""
    cards = [load_card(name, root / "weights") for name in ranked(root / "weights")]
    results = root / "training" / "results"
    audits = (read(root / "training" / "data" / "audits" / f"{name}.json") for name in AUDITED)
    return {
        "cards": cards,
        "shipped": cards[0],
        "beside": {
            card.name: {kind: read(root / "weights" / card.name / f"{kind}.json") for kind in MEASURED}
            for card in cards
        },
        **{name: read_all(results / name) for name in ("folds", "whole", "seeds", "tuning")},
        "detector": read_detector(root),
        "ensembles": read(results / "ensembles.json"),
        "ablation": read(results / "ablation.json"),
        "crossed": read(results / "cross_source.json"),
        "replications": read(root / "training" / "recipes" / "replications" / "results.json"),
        "audits": [audit for audit in audits if audit],
        "costs": read_all(root / "benchmarks" / "results"),
    }


def pages(root: Path = ROOT) -> dict[Path, str]:
    """Every text that is made of figures, by the file it belongs in.

    Args:
        root: of the repository.
    """
    figures = _figures(root)
    made = {root / "docs" / f"{name}.md": render(name, **figures) for name in PAGES}
    made |= {root / "weights" / card.name / "README.md": model_card(card, root) for card in figures["cards"]}
    readme = root / "README.md"
    if readme.is_file():
        made[readme] = fill(readme.read_text(encoding="utf-8"), {"headline": render("headline", **figures)})
    return made


def fill(text: str, contents: dict[str, str]) -> str:
    """A text with what stands between ``<!-- report: NAME -->`` and ``<!-- end -->`` replaced.

    Raises:
        KeyError: a marker names a table there is none of.
    """

    def replaced(found: re.Match[str]) -> str:
        return f"<!-- report: {found[1]} -->\n{contents[found[1]].strip()}\n<!-- end -->"

    return re.sub(r"<!-- report: (\w+) -->\n.*?<!-- end -->", replaced, text, flags=re.S)


def report(root: Path = ROOT) -> list[Path]:
    """Writes the pages, the cards and the README's table.

    Args:
        root: of the repository.

    Returns:
        What was written.
    """
    made = pages(root)
    (root / "docs").mkdir(exist_ok=True)
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")
    for name, found in read_all(root / "training" / "results" / "whole").items():
        if "reliability" in found:
            plot_reliability(found["reliability"], root / "docs" / f"reliability-{name}.png")
    return list(made)
