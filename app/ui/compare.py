"""The tab that lays methods side by side on one film, and tells why one type and not another."""

from __future__ import annotations

import html
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr
import numpy as np

from app.errors import Cancelled, ImageError
from app.explain import faithfulness
from app.explain.methods import DEFAULT, METHODS, MapRequest, draw, heat, map_request
from app.explain.overlay import COLD, WARM, difference, overlay
from app.model.classifier import Classifier, Explanation
from app.ui.session import LIMIT, NO_FILM, OURS, PATIENT, SCREEN, Session, progress, watched

__all__ = ["build", "sums", "told"]

log = logging.getLogger(__name__)

AT_FIRST = [DEFAULT, "gradcam++", "layercam", "eigencam", "finercam", "ablationcam"]
COSTS = {"instant": "at once", "seconds": "seconds", "slow": "slow: up to minutes"}

INTRO = """
<p class='reading'>The film of the first tab, explained by as many methods as you like. Grad-CAM has a scale
in logits; every other map is drawn up to its own peak, since these methods have no common unit: compare places, not
strengths. Methods that disagree are a reason to doubt all of them.</p>
"""


def _caption(name: str) -> str:
    return f"{METHODS[name].title} · {COSTS[METHODS[name].cost]}"


def told(names: Sequence[str], measured: dict[str, dict[str, Any] | None]) -> str:
    """What each method shows, and what is held against it, as HTML; ``measured`` is by model's title."""
    rows = "".join(
        f"<li><strong>{html.escape(METHODS[name].title)}</strong>: {html.escape(METHODS[name].says)}"
        f"{''.join(_flags(name, measured))}</li>"
        for name in names
    )
    return f"<ul class='methods'>{rows}</ul>"


def _flags(name: str, measured: dict[str, dict[str, Any] | None]) -> Iterator[str]:
    """What the bench of methods holds against one before each model."""
    for title, found in measured.items():
        if found and (words := _against(found["methods"].get(name))):
            before = f"With {html.escape(title)}: " if len(measured) > 1 else ""
            yield f" <em class='flag'>{before}{words}</em>"


def _against(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if faithfulness.depends_on_model(row) is False:
        return "Does not depend on the model: it stays when all weights are shuffled."
    if faithfulness.depends_on_type(row) is False:
        return "Does not depend on the type: it stays when the head's weights are shuffled."
    lost = faithfulness.lost_to_random(row)
    return f"No better than random maps by {', '.join(lost)}." if lost else ""


def sums(explanation: Explanation, titles: dict[str, str], names: Sequence[str]) -> str:
    """Each class's score as a sum one can check: evidence for, evidence against, and the constant, as HTML bars."""
    parts = []
    for name in names:
        index = explanation.prediction.classes.index(name)
        found = explanation.maps[index]
        positive = float(np.clip(found, 0.0, None).mean())
        negative = float(np.clip(found, None, 0.0).mean())
        bias, score = float(explanation.biases[index]), float(explanation.prediction.logits[index])
        parts.append((name, positive, negative, bias, score))
    widest = max(max(abs(value) for value in row[1:]) for row in parts) or 1.0
    lines = []
    for name, positive, negative, bias, score in parts:
        bars = "".join(
            f"<tr><td>{label}</td><td class='bar'><i class='{'minus' if value < 0 else 'plus'}' "
            f"style='width:{100 * abs(value) / widest:.1f}%'></i></td><td>{value:+.3f}</td></tr>"
            for label, value in (
                ("evidence for it", positive),
                ("evidence against it", negative),
                ("constant", bias),
            )
        )
        total = f"<tr class='total'><td>score</td><td></td><td>{score:+.3f}</td></tr>"
        lines.append(f"<table class='sum'><caption>{html.escape(titles[name])}</caption>{bars}{total}</table>")
    return f"<div class='sums'>{''.join(lines)}</div>"


def versus(name: str, against: str) -> str:
    """What the colours of the difference mean, as HTML."""
    parts = "".join(
        f"<span><i style='background:rgb{colour}'></i>speaks for {html.escape(title.lower())}</span>"
        for title, colour in ((name, WARM), (against, COLD))
    )
    return f"<p class='versus'>{parts}</p>"


def build(classifiers: Sequence[Classifier], known: gr.State) -> None:
    """Lays out the tab inside the current Blocks; ``known`` holds the film of the first tab."""
    models = {classifier.card.name: classifier for classifier in classifiers}
    titles = {kind.name: kind.title for kind in classifiers[0].card.classes}
    kinds = [(title, name) for name, title in titles.items()]
    gr.HTML(INTRO)
    with gr.Row():
        kind = gr.Dropdown(
            [("the predicted type", ""), *kinds], value="", label="Explain", elem_id="compare-kind", min_width=240
        )
        other = gr.Dropdown(
            [("the next likely one", ""), *kinds],
            value="",
            label="Tell it from",
            elem_id="compare-other",
            min_width=240,
        )
    chosen = gr.CheckboxGroup(
        [(_caption(name), name) for name in METHODS], value=AT_FIRST, label="Methods", elem_id="compare-methods"
    )
    also = gr.CheckboxGroup(
        [(classifier.card.title, name) for name, classifier in models.items()],
        value=[classifiers[0].card.name],
        label="Models",
        elem_id="compare-models",
        visible=len(models) > 1,
    )
    with gr.Row():
        go = gr.Button("Compare", variant="primary", elem_id="compare-go")
        stop = gr.Button("Stop", elem_id="compare-stop")
    state = gr.HTML("", elem_id="compare-state")
    grid = gr.Gallery(
        show_label=False,
        columns=3,
        object_fit="contain",
        height="auto",
        format="png",
        elem_id="compare-grid",
        buttons=[],
    )
    measured = {name: faithfulness.measured(name) for name in models}

    def sentences(names: Sequence[str], asked: Sequence[str]) -> str:
        return told(names, {models[name].card.title: measured[name] for name in asked or [classifiers[0].card.name]})

    methods = gr.HTML(sentences(AT_FIRST, []))
    gr.HTML("<h2>Why this one and not that one?</h2>")
    key = gr.HTML("", elem_id="compare-key")
    why = gr.Image(show_label=False, format="png", interactive=False, elem_id="compare-why", buttons=[], height=420)
    adding = gr.HTML("", elem_id="compare-sums")

    def pair(seen: Session, name: str, against: str) -> tuple[str, str]:
        ranking = seen.explanation.prediction.ranking
        name = name or ranking[0]
        return name, against or next(each for each in ranking if each != name)

    def questions(
        seen: Session, chosen: Sequence[str], name: str, against: str
    ) -> tuple[dict[str, tuple[Explanation, MapRequest]], list[str]]:
        """The film as each model explains it and is asked about it, and titles of models that would not judge it.

        The first tab's model is asked where none is chosen.
        """
        explanation = seen.explanation
        by_model, unlike = {}, []
        others = [model for model in chosen if model != explanation.model]
        # Models look at the film itself, not at the page's smaller copy.
        film = seen.slices.radiograph() if others else explanation.radiograph
        for model in chosen or [explanation.model]:
            if model == explanation.model:
                by_model[model] = explanation, map_request(models[model], seen.square, name, against)
                continue
            if models[model].check(film, anyway=True):
                unlike.append(models[model].card.title)
            explained = models[model].explain([film])[0].at_screen_size(SCREEN)
            by_model[model] = explained, map_request(models[model], film, name, against)
        return by_model, unlike

    def compare(seen: Session | None, name: str, against: str, names: list[str], asked: list[str]) -> Iterator[tuple]:
        if seen is None:
            yield NO_FILM, [], sentences(names, asked), "", None, ""
            return
        explanation = seen.explanation
        name, against = pair(seen, name, against)
        if name == against:
            yield (
                "<p class='glossary'>A type cannot be told from itself; choose another one.</p>",
                [],
                sentences(names, asked),
                "",
                None,
                "",
            )
            return
        film = explanation.radiograph.display()
        signed = explanation.placement.onto_image(explanation.evidence(name) - explanation.evidence(against))
        signed = signed / max(float(np.abs(signed).max()), 1e-6)
        pictures: list[tuple[np.ndarray, str]] = []
        late: list[str] = []
        told_once = (
            sentences(names, asked or [explanation.model]),
            versus(titles[name], titles[against]),
            difference(film, signed),
            sums(explanation, titles, (name, against)),
        )
        yield progress(0.0, "Asking"), [], *told_once
        same = (gr.skip(), gr.skip(), gr.skip(), gr.skip())
        try:
            by_model, unlike = questions(seen, asked, name, against)
            # A row a method and a column a model.
            columns = len(by_model) if len(by_model) > 1 else 3
            cells = [(method, model) for method in names for model in by_model]
            for number, (method, model) in enumerate(cells):
                began = time.monotonic()
                explained, question = by_model[model]
                found = None
                try:
                    for share, done in watched(
                        lambda watch, method=method, question=question: draw(replace(question, watch=watch), method)
                    ):
                        found = done
                        doing = f"{METHODS[method].title}, {number + 1} of {len(cells)}"
                        yield progress((number + share) / len(cells), doing), gr.skip(), *same
                except Cancelled:
                    late.append(METHODS[method].title)
                if found is None:
                    # Its place stays, so that a column is a model's.
                    drawn, took = np.zeros(film.shape, np.float32), "took too long"
                else:
                    drawn = explained.heat(name) if method == DEFAULT else heat(found, explained.placement)
                    took = f"{time.monotonic() - began:.1f} s"
                caption = f"{METHODS[method].title} · {took}"
                if len(by_model) > 1:
                    caption = f"{models[model].card.title}: {caption}"
                pictures = [*pictures, (overlay(film, drawn), caption)]
                yield gr.skip(), gr.Gallery(pictures, columns=columns), *same
            line = f"Evidence for {titles[name].lower()}, told from {titles[against].lower()}."
            if late:
                line += f" {' and '.join(dict.fromkeys(late))} took longer than {LIMIT:.0f} seconds."
            if unlike:
                line += f" {' and '.join(unlike)} would not judge this film, as it is like none they know."
            yield f"<p class='glossary'>{html.escape(line)}</p>", gr.skip(), *same
        except ImageError as error:
            yield f"<p class='glossary'>{html.escape(str(error))}</p>", gr.skip(), *same
        except Exception as error:  # noqa: BLE001 - whatever it is, the page stays usable
            log.error("methods could not be compared: %s", type(error).__name__)
            yield f"<p class='glossary'>{OURS}</p>", gr.skip(), *same

    running = go.click(
        compare,
        [known, kind, other, chosen, also],
        [state, grid, methods, key, why, adding],
        show_progress="hidden",
        concurrency_id=PATIENT,
        concurrency_limit=2,
        api_visibility="private",
    )
    # What was drawn for another film must not stand beside this one.
    known.change(
        lambda: ("", [], "", None, ""),
        None,
        [state, grid, key, why, adding],
        cancels=[running],
        show_progress="hidden",
        api_visibility="private",
    )
    stop.click(lambda: "<p class='glossary'>Cancelled.</p>", None, state, cancels=[running], api_visibility="private")
