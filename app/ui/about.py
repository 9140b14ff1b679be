"""The tab that says what the model is, what it was trained on and how well it does."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from app.model.ood import real_films_kept
from app.model.weights import DEFAULT_FOLDER, ModelCard

__all__ = ["build", "compare", "describe", "table", "whole_card"]


def _interval(share: dict) -> str:
    return f"{share['value']:.1%} (95 % interval {share['low']:.1%} to {share['high']:.1%})"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Text as an HTML table that scrolls by itself where it is too wide."""
    titles = "".join(f"<th scope='col'>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class='scroll'><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"


def describe(card: ModelCard) -> str:
    """A model's card as HTML; every figure is the card's."""
    parts = [f"<h2>{html.escape(card.title)}</h2>", f"<p><strong>{html.escape(card.intended_use)}</strong></p>"]
    if folds := card.metrics.get("cross_validation"):
        parts.append(
            f"<p>In cross-validation over {folds['films']} training films{_share(card, folds)}, each judged by a "
            "network that had not seen it, a near-duplicate or a film of the same case, it named the labelled type of "
            f"{_interval(folds['accuracy'])}.</p>"
        )
    if test := card.metrics.get("test"):
        parts += [
            "<h3>How good is it?</h3>",
            f"<p>Judged on {test['films']} films that chose nothing about the model. Training films with a "
            f"near-duplicate or a film of the same case among them were left out: {_films(card, 'leaked')}.</p>",
            table(
                ["Measure", "Test films"],
                [
                    ["Labelled type named", _interval(test["accuracy"])],
                    ["Labelled type among the first three", _interval(test["top3"])],
                    ["Always naming the commonest type", f"{test['chance_accuracy']:.1%}"],
                    ["Balanced accuracy", f"{test['balanced_accuracy']:.1%}"],
                    ["Macro precision / recall / F1", _triple(test)],
                    ["Macro one-vs-rest AUROC", f"{test['macro_auroc']:.2f}"],
                    ["Expected calibration error", f"{test['expected_calibration_error']['value']:.3f}"],
                ],
            ),
            "<h3>By fracture type</h3>",
            table(
                ["Type", "Films", "Precision", "Recall", "AUROC"],
                [
                    [
                        row["name"],
                        str(row["films"]),
                        f"{row['precision']:.0%}",
                        f"{row['recall']:.0%}",
                        "-" if row["auroc"] is None else f"{row['auroc']:.2f}",
                    ]
                    for row in test["per_class"]
                ],
            ),
        ]
    else:
        parts.append("<p>No test figures: this model has not been evaluated.</p>")
    if rows := _answers(card):
        parts += ["<h3>What else it says, and how far to trust that</h3>", table(["Answer", "Measured"], rows)]
    parts += [
        "<h3>What it learnt from</h3>",
        f"<p>{_films(card, 'train')} training films of "
        f"{html.escape(str(card.data.get('title', 'an unnamed set')))}{_boxed(card)}. No near-duplicates that our "
        f"search finds, and no films of one case as far as names tell, straddle training and test. "
        f"{_start(card)} "
        f"Trained on {html.escape(card.date)} for {card.training.get('epochs', '?')} epochs "
        f"({card.training.get('minutes', '?')} minutes, {html.escape(str(card.training.get('device', '?')))}), "
        f"seed {card.seed}.</p>",
        "<h3>What it cannot do</h3>",
        "<ul>" + "".join(f"<li>{html.escape(limit)}</li>" for limit in card.limits) + "</ul>",
    ]
    return f"<article class='about'>{''.join(parts)}</article>"


def _answers(card: ModelCard) -> list[list[str]]:
    """Broken at all, which types remain, what is refused: each with its figure, if it was measured."""
    rows = []
    if broken := card.metrics.get("presence"):
        films = f"{broken['films']:,} FracAtlas test films, {broken['fractured']} of them fractured"
        rows.append([f"Fractured or not: area under the curve, {films}", _interval(broken["auroc"])])
        for point, words in (("sensitive", "Suspicious"), ("specific", "Fracture seen")):
            found, spared = broken[point]["sensitivity"], broken[point]["specificity"]
            rows += [
                [f"{words}: said of fractured films", _interval(found)],
                [f"{words}: not said of whole bones", _interval(spared)],
            ]
        for name, far in broken["elsewhere"].items():
            if "auroc" in far:
                words = f"Fractured or not: area under the curve, another source ({name})"
                rows.append([words, _interval(far["auroc"])])
            said = far["sensitive"]["sensitivity"]
            rows.append([f"Suspicious: said of fractured films of another source ({name})", _interval(said)])
            if spared := far["sensitive"].get("specificity"):
                rows.append([f"Suspicious: not said of whole bones of another source ({name})", _interval(spared)])
    if card.sets and (sets := card.metrics.get("cross_validation", {}).get("sets")):
        its = sets[card.sets.score]
        rows.append([f"{card.sets.level:.0%} sets hold the label, out of fold", _interval(its["coverage"])])
        rows.append(["Types in such a set", f"{its['size']['value']:.1f} of {len(card.classes)}"])
        if tested := card.metrics.get("test", {}).get("sets"):
            rows.append([f"{card.sets.level:.0%} sets hold the label, test films", _interval(tested["coverage"])])
    if refused := card.metrics.get("refusal"):
        others = refused["others_refused"]
        rows.append([f"Refuses pictures that are no radiographs ({others['n']} of them)", _interval(others)])
        kept = real_films_kept(refused).items()
        rows += [[f"Keeps real films: {name}", _interval(its)] for name, its in kept]
    return rows


def _share(card: ModelCard, folds: dict) -> str:
    of = card.recipe.get("folds", 0)
    judged = len(folds.get("folds", []))
    return f" ({judged} of {of} folds, which are not equally hard)" if 0 < judged < of else ""


def _start(card: ModelCard) -> str:
    source = str(card.initial.get("source", "unknown"))
    fresh = ", ".join(card.initial.get("fresh", [])) or "none"
    text = f"First layers: {source}; random at the start: {fresh} and the head."
    if source == "random":
        text = "All of it was random at the start."
    if teacher := (card.recipe.get("distil") or {}).get("teacher"):
        text += f" Beside the labels it learnt from what {teacher} says and sees."
    return html.escape(text)


def _films(card: ModelCard, part: str) -> str:
    return str(card.data.get("parts", {}).get(part, {}).get("films", "unknown"))


def _boxed(card: ModelCard) -> str:
    places = card.data.get("places")
    if not places:
        return ""
    return f", and where fractures lie from {places['films']} FracAtlas films, {places['fractured']} of them fractured"


def _triple(test: dict) -> str:
    return f"{test['macro_precision']:.1%} / {test['macro_recall']:.1%} / {test['macro_f1']:.1%}"


def compare(cards: Sequence[ModelCard]) -> str:
    """Models beside each other as HTML; what was not measured says so."""

    def figure(card: ModelCard, part: str, key: str) -> str:
        found = card.metrics.get(part)
        if not found:
            return "not measured"
        return _interval(found[key]) + (_share(card, found) if part == "cross_validation" else "")

    head = ["Model", "Labelled type named, out of fold", "Among the first three, out of fold", "Named, test films"]
    rows = [
        [
            card.title,
            figure(card, "cross_validation", "accuracy"),
            figure(card, "cross_validation", "top3"),
            figure(card, "test", "accuracy"),
        ]
        for card in cards
    ]
    return f"<article class='about wide'><h2>The models</h2>{table(head, rows)}</article>"


def whole_card(name: str, folder: Path = DEFAULT_FOLDER) -> str | None:
    """The generated model card as Markdown, without the hub's metadata and the plots; None where there is none."""
    path = folder / name / "README.md"
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8").split("---\n", 2)[2]
    return "\n".join(line for line in text.splitlines() if not line.startswith("![")).strip()


def build(cards: Sequence[ModelCard]) -> None:
    """Lays out the tab inside the current Blocks."""
    if len(cards) > 1:
        gr.HTML(compare(cards))
    for card in cards:
        gr.HTML(describe(card))
        if text := whole_card(card.name):
            with gr.Accordion(f"The whole model card of {card.title}", open=False):
                gr.Markdown(text, elem_classes="card")
