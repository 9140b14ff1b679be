"""Figures into text: ``python -m training report``.

Reads what the other commands committed (cards, cross-validations, seeds, studies, audits, benchmarks) and fills the
templates of ``training/templates``: the pages of ``docs/``, every model's card for people, and the README's table.
Beside the weights it writes the numbers that the page draws of data and sources.

Sections of ``weights/<model>/README.md`` follow the model cards of the Hugging Face hub (Mitchell et al., 2019, "Model
cards for model reporting") and the items of CLAIM, the checklist for artificial intelligence in medical imaging (Mongan
et al., 2020; Tejani et al., 2024).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app.explain.faithfulness import depends_on_model, depends_on_type, lost_to_random
from app.explain.methods import DEFAULT, METHODS
from app.model.ood import FOLDER as OOD
from app.model.ood import real_images_kept
from app.model.weights import ModelCard, load_card, percent, ranked, with_interval
from training import read_json
from training.data.lessons import typed_beside
from training.evaluation.classification import plot_reliability
from training.evaluation.heatmaps import ASKED, best_baseline
from training.evaluation.metrics import kappa_of_counts, merged_classes
from training.recipe import Recipe
from training.studies.soundness import AUDITED, data_facts, source_facts
from training.studies.sources import plot_left_out

__all__ = ["PAGES", "fill", "model_card", "pages", "render", "report"]

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("results", "faithfulness", "data", "training", "sources")
"""Templates of ``docs/``."""
MEASURED = ("localisation", "presence", "faithfulness", "precision")
"""Files beside a card that commands of ``training`` write, without suffix."""


def _first_layers(card: ModelCard) -> str:
    source = card.initial["source"]
    return "ImageNet" if "imagenet" in source.lower() else source


def _drawn_often(card: ModelCard, source: str) -> int:
    """How often a model of many sources saw each training image of one of them, on average."""
    recipe = Recipe.model_validate(card.recipe)
    assert recipe.many is not None
    assert recipe.places is not None
    drawn = (recipe.head_epochs + recipe.tune_epochs) * recipe.many.steps * recipe.places.batch_size
    share = recipe.many.draws[source] / sum(recipe.many.draws.values())
    return round(drawn * share / card.data["sources"][source]["images"])


HELPERS: dict[str, Any] = {
    "ASKED": ASKED,
    "DEFAULT": DEFAULT,
    "METHODS": METHODS,
    "best_baseline": best_baseline,
    "depends_on_model": depends_on_model,
    "depends_on_type": depends_on_type,
    "drawn_often": _drawn_often,
    "first_layers": _first_layers,
    "lost_to_random": lost_to_random,
    "real_images_kept": real_images_kept,
    "typed_beside": typed_beside,
}
"""What templates may use besides filters."""


def _others(share: dict[str, float]) -> dict[str, float]:
    """A share of images as the share of the others."""
    return {**share, "value": 1.0 - share["value"], "low": 1.0 - share["high"], "high": 1.0 - share["low"]}


def _confusions(figures: dict[str, Any]) -> list[tuple[float, str, str]]:
    """Share of a type, the type, what it was called instead; the commonest first."""
    names = [row["name"] for row in figures["per_class"]]
    shares = [
        (count / max(1, sum(row)), names[truth], names[named])
        for truth, row in enumerate(figures["confusion"])
        for named, count in enumerate(row)
        if named != truth
    ]
    return sorted(shares, reverse=True)


GROUPINGS = (5, 4, 3, 2)
"""Numbers of groups of types that the page shows."""


def _groupings(card: ModelCard) -> list[tuple[list[list[str]], dict[str, float], dict[str, float]]]:
    """Types merged out of fold, and kappa of each grouping out of fold and on the test images."""
    confusion, test = (card.metrics[part]["confusion"] for part in ("cross_validation", "test"))
    names = [kind.name for kind in card.classes]
    return [
        (
            [[names[index] for index in group] for group in groups],
            kappa_of_counts(confusion, groups),
            kappa_of_counts(test, groups),
        )
        for groups in merged_classes(confusion)
        if len(groups) in GROUPINGS
    ]


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).resolve().parents[1] / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, of this project's own figures
    )
    made.filters.update(
        percent=partial(percent, digits=1),
        with_interval=with_interval,
        confusions=_confusions,
        others=_others,
        # Results of earlier measurements hold counts alone.
        kappa=lambda figures: figures.get("kappa") or kappa_of_counts(figures["confusion"]),
        groupings=_groupings,
    )
    made.globals.update(HELPERS)
    return made


def render(template: str, **context: Any) -> str:
    """A template of ``training/templates`` with its figures, as Markdown.

    Raises:
        jinja2.UndefinedError: it names a figure that the context lacks.
    """
    return _environment().get_template(f"{template}.md.j2").render(context)


def _read_all(folder: Path) -> dict[str, Any]:
    return {path.stem: read_json(path) for path in sorted(folder.glob("*.json"))}


def _beside(card: ModelCard, root: Path) -> dict[str, Any]:
    """What was measured of a model and lies beside its card, by name; None where it was not."""
    return {kind: read_json(root / "weights" / card.name / f"{kind}.json") for kind in MEASURED}


def _detector(root: Path) -> dict[str, Any] | None:
    found = read_json(root / "weights" / OOD / "detector.json")
    return found["metrics"] if found else None


def _figures(root: Path) -> dict[str, Any]:
    """Everything the pages show, by the name that the templates use; None or empty where it was not measured."""
    every = (load_card(name, root / "weights") for name in ranked(root / "weights"))
    cards = [card for card in every if card.subject.ours]
    results = root / "training" / "results"
    audits = (read_json(root / "training" / "data" / "audits" / f"{name}.json") for name in AUDITED)
    return {
        "cards": cards,
        "shipped": cards[0],
        "beside": {card.name: _beside(card, root) for card in cards},
        **{name: _read_all(results / name) for name in ("folds", "whole", "seeds", "sources", "left_out", "labellers")},
        "detector": _detector(root),
        "ensembles": read_json(results / "ensembles.json"),
        "label_noise": read_json(results / "label_noise.json"),
        "ablation": read_json(results / "ablation.json"),
        "unseen": read_json(results / "unseen_source.json"),
        "agreement": read_json(results / "agreement.json"),
        "crossed": read_json(results / "cross_source.json"),
        "replications": read_json(root / "training" / "recipes" / "replications" / "results.json"),
        "audits": [audit for audit in audits if audit],
        "costs": _read_all(root / "benchmarks" / "results"),
    }


def model_card(card: ModelCard, root: Path) -> str:
    """A model's card for people, in Markdown, with the hub's metadata in front.

    Args:
        card: of a model that was exported; what was not measured is said to be missing.
        root: of the repository, for what was measured beside the card.
    """
    return render(
        "model_card",
        card=card,
        detector=_detector(root),
        seeds=read_json(root / "training" / "results" / "seeds" / f"{card.name}.json"),
        audit=read_json(root / "training" / "data" / "audits" / "bone-break.json"),
        plots=[path.name for path in (root / "weights" / card.name).glob("*.png")],
        **_beside(card, root),
    )


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
    return made | _drawn(figures["cards"], root)


def _drawn(cards: Sequence[ModelCard], root: Path) -> dict[Path, str]:
    """What the page draws of data and sources, as JSON by the file it belongs in."""
    weights = root / "weights"
    facts: dict[Path, Any] = {weights / card.name / "sources.json": source_facts(card, root) for card in cards}
    facts[weights / "data.json"] = data_facts(root)
    return {path: json.dumps(its, indent=1, ensure_ascii=False) + "\n" for path, its in facts.items() if its}


def fill(text: str, contents: dict[str, str]) -> str:
    """A text with what stands between ``<!-- report: NAME -->`` and ``<!-- end -->`` replaced.

    Raises:
        KeyError: a marker names a table there is none of.
    """

    def replaced(found: re.Match[str]) -> str:
        return f"<!-- report: {found[1]} -->\n{contents[found[1]].strip()}\n<!-- end -->"

    return re.sub(r"<!-- report: (\w+) -->\n.*?<!-- end -->", replaced, text, flags=re.S)


def report(root: Path = ROOT) -> list[Path]:
    """Writes the pages, the cards and the README's table, and names what was written.

    Args:
        root: of the repository.
    """
    made = pages(root)
    (root / "docs").mkdir(exist_ok=True)
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")
    results = root / "training" / "results"
    for name, found in _read_all(results / "whole").items():
        if "reliability" in found:
            plot_reliability(found["reliability"], root / "docs" / f"reliability-{name}.png")
    if left_out := _read_all(results / "left_out"):
        within = read_json(results / "sources" / f"{next(iter(left_out.values()))['recipe']}-test.json")
        plot_left_out(left_out, within["sources"] if within else {}, root / "docs" / "left-out.png")
    return list(made)
