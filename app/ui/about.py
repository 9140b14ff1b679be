"""The tab about the models: their figures and generated model cards; and pages of ``docs``, as the page shows them."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from app.model.weights import DEFAULT_FOLDER, ModelCard, shipped, with_interval
from app.ui.figures import figures

__all__ = ["AboutTab", "compare", "page", "prose", "whole_card"]


def compare(cards: Sequence[ModelCard]) -> str:
    """Models beside each other as HTML; what was not measured says so."""

    def figure(card: ModelCard, part: str, key: str) -> str:
        found = card.metrics.get(part)
        if not found:
            return "not measured"
        value, bracket, interval = with_interval(found[key]).partition("(")
        folds, of = len(found.get("folds", [])), card.recipe.get("folds", 0)
        share = f" ({folds} of {of} folds, not equally hard)" if 0 < folds < of else ""
        # Accuracy beyond chance stands beside accuracy, wherever that is.
        kappa = f", kappa {found['kappa']['value']:.2f}" if key == "accuracy" and found.get("kappa") else ""
        return f"{value}<small>{bracket}{interval}{kappa}{share}</small>"

    columns = (("cross_validation", "accuracy"), ("cross_validation", "top3"), ("test", "accuracy"))
    head = (
        "Model",
        "Top-1, cross-validation",
        "Top-3, cross-validation",
        cards[0].subject.retell("Top-1, test X-rays"),
    )
    rows = [[html.escape(card.title), *(figure(card, *column) for column in columns)] for card in cards]
    titles = "".join(f"<th scope='col'>{title}</th>" for title in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        "<article class='about wide snug'><h2>The models</h2>"
        f"<table class='compare'><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></article>"
    )


def _readable(markdown: str) -> str:
    """Markdown without plots and without links into the repository, neither of which the page serves."""
    text = "\n".join(line for line in markdown.splitlines() if not line.startswith("!["))
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", text).strip()


def whole_card(card: ModelCard, folder: Path = DEFAULT_FOLDER) -> str:
    """The generated model card as Markdown, without metadata and title, or else what ``card.json`` says."""
    path = folder / card.name / "README.md"
    if path.is_file():
        return _readable(path.read_text(encoding="utf-8").split("---\n", 2)[2].partition("\n# ")[2].partition("\n")[2])
    limits = "\n".join(f"- {limit}" for limit in card.limits)
    return f"{card.intended_use}\n\n## What it cannot do\n\n{limits}"


def page(name: str) -> str:
    """A page of the documentation, such as "data", as Markdown."""
    return _readable((shipped("docs") / f"{name}.md").read_text(encoding="utf-8"))


def prose(markdown: str) -> gr.Markdown:
    """A long text, in the style of the page's own tables."""
    return gr.Markdown(markdown, elem_classes=["about", "wide", "card"])


class AboutTab:
    """Lays itself out inside the current Blocks; ``cards`` are the models', the default first."""

    def __init__(self, cards: Sequence[ModelCard]) -> None:
        if len(cards) > 1:
            gr.HTML(compare(cards))
        for number, card in enumerate(cards):
            with gr.Accordion(card.title, open=number == 0):
                gr.HTML(figures(card, DEFAULT_FOLDER / card.name), padding=False)
                with gr.Accordion("The whole model card", open=False):
                    prose(whole_card(card))
