"""The tab that lays methods side by side on one X-ray, and shows why the model names one type and not another."""

from __future__ import annotations

import html
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from app.errors import Cancelled, ImageError
from app.explain.faithfulness import measured, objection
from app.explain.methods import DEFAULT, METHODS, MapRequest, Method, draw, heat, map_request
from app.explain.overlay import COLD, WARM, difference, overlay
from app.model.classifier import Classifier, Explanation
from app.model.weights import ModelCard
from app.sentence import Sentence
from app.ui import text
from app.ui.languages import in_every, label, marked, said, say
from app.ui.session import (
    LIMIT,
    SCREEN,
    Session,
    gallery,
    model_choices,
    picture,
    progress,
    run_slowly,
    type_choice,
    watched,
)

__all__ = ["CompareTab", "score_sums"]

log = logging.getLogger(__name__)

AT_FIRST = [DEFAULT, "gradcam++", "layercam", "finercam", "ablationcam"]
LATE = "{methods} took longer than {seconds} seconds."
ALT = "The X-ray with what speaks for one type and for the other in two colours"
COSTS = {"instant": "at once", "seconds": "seconds", "slow": "slow: up to minutes"}

LEAD = "See the same X-ray explained by several methods. Where they disagree, doubt all of them."
SCALES = (
    "Grad-CAM has a scale in logits. Every other map is drawn up to its own peak, since these methods have no common "
    "unit: compare places, not strengths."
)


def _intro() -> str:
    how = text.details(say("How to compare"), f"<p>{said(SCALES)}</p>")
    return f"<div class='reading'><p>{said(LEAD)}</p>\n{how}</div>"


class _Pair(NamedTuple):
    """The type that is explained, and the one it is told from."""

    target: str
    against: str


def method_notes(names: Sequence[str], figures: dict[str, dict[str, Any] | None], card: ModelCard) -> str:
    """What each method shows of a model, and what is held against it, as HTML; ``figures`` are by model's title."""
    rows = "".join(
        f"<li><strong>{said(METHODS[name].title)}</strong>: {text.shown(name, card)}"
        f"{''.join(_flags(name, figures))}</li>"
        for name in names
    )
    return text.details(say("What each method shows"), f"<ul class='methods'>{rows}</ul>")


def _told(how: Method) -> str:
    return f"{say(how.title)} · {say(COSTS[how.cost])}"


def _flags(name: str, figures: dict[str, dict[str, Any] | None]) -> Iterator[str]:
    """What was measured against a method before each model."""
    for title, found in figures.items():
        row = found["methods"].get(name) if found else None
        if row and (words := objection(row)):
            told = Sentence("With {model}: {words}", model=say(title), words=words) if len(figures) > 1 else words
            yield f" <em class='flag'>{marked(told)}</em>"


def score_sums(explanation: Explanation, titles: dict[str, str], names: Sequence[str]) -> str:
    """Each type's score as a sum one can check: evidence for, evidence against, and the constant, as HTML bars."""
    terms = {name: explanation.terms(name) for name in names}
    widest = max(abs(value) for parts in terms.values() for value in parts) or 1.0
    sums = []
    for name, parts in terms.items():
        rows = "".join(
            f"<tr><td>{said(term)}</td><td class='bar'><i class='{'minus' if value < 0 else 'plus'}' "
            f"style='width:{abs(value) / widest:.1%}'></i></td><td dir='ltr'>{value:+.3f}</td></tr>"
            for term, value in zip(("evidence for", "evidence against", "constant"), parts, strict=True)
        )
        score = float(explanation.prediction.logits[explanation.prediction.classes.index(name)])
        total = f"<tr class='total'><td>{said('score')}</td><td></td><td dir='ltr'>{score:+.3f}</td></tr>"
        sums.append(f"<table class='sum'><caption>{html.escape(titles[name])}</caption>{rows}{total}</table>")
    return f"<div class='sums'>{''.join(sums)}</div>"


def _difference_key(titles: dict[str, str], pair: _Pair) -> str:
    """What the colours of the difference mean, as HTML."""
    words = (said("speaks for {type}", type=html.escape(titles[name].lower())) for name in pair)
    parts = "".join(
        f"<span><i style='background:rgb{colour}'></i>{told}</span>"
        for told, colour in zip(words, (WARM, COLD), strict=True)
    )
    return f"<p class='difference-key'>{parts}</p>"


class CompareTab:
    """Lays itself out inside the current Blocks.

    Args:
        classifiers: the models to choose from, the default first.
        session: holds the X-ray of the first tab.
    """

    def __init__(self, classifiers: Sequence[Classifier], session: gr.State) -> None:
        self.models = {classifier.card.name: classifier for classifier in classifiers}
        self.card = classifiers[0].card
        self.figures = {name: measured(name) for name in self.models}
        gr.HTML(in_every(_intro))
        self._lay_out_choices(classifiers)
        self._lay_out_results(classifiers[0].card.name)
        self._bind(session)

    def _lay_out_choices(self, classifiers: Sequence[Classifier]) -> None:
        with gr.Row():
            self.target = type_choice(self.card, "Type", "the predicted type", "compare-target")
            self.against = type_choice(self.card, "Compare against", "the next likely type", "compare-against")
        self.methods = gr.CheckboxGroup(
            [(in_every(partial(_told, how)), name) for name, how in METHODS.items()],
            value=AT_FIRST,
            label=label("Methods"),
            elem_id="compare-methods",
        )
        self.others = gr.CheckboxGroup(
            model_choices([classifier.card for classifier in classifiers]),
            value=[classifiers[0].card.name],
            label=label("Models"),
            elem_id="compare-models",
            visible=len(classifiers) > 1,
        )
        with gr.Row():
            self.go = gr.Button(label("Compare methods"), variant="primary", elem_id="compare-go")
            self.stop = gr.Button(label("Stop"), visible=False, elem_id="compare-stop")

    def _lay_out_results(self, default: str) -> None:
        self.state = gr.HTML("", elem_id="compare-state")
        self.grid = gallery("compare-grid", 3)
        self.notes = gr.HTML(in_every(lambda: self._notes(AT_FIRST, [default])))
        self.key = gr.HTML("", elem_id="compare-key")
        self.why = picture("compare-why", "", buttons=[], height=420)
        self.sums = gr.HTML("", elem_id="compare-sums")

    def _bind(self, session: gr.State) -> None:
        results = [self.state, self.grid, self.notes, self.key, self.why, self.sums]
        inputs = [self.target, self.against, self.methods, self.others]
        run_slowly(self.compare, session, inputs, results, self.go, self.stop, self._cleared)

    def _cleared(self, sentence: str = "") -> dict[Any, Any]:
        message = text.line(sentence) if sentence else ""
        return {self.state: message, self.grid: [], self.key: "", self.why: None, self.sums: ""}

    def _notes(self, methods: Sequence[str], models: Sequence[str]) -> str:
        return method_notes(methods, {self.models[name].card.title: self.figures[name] for name in models}, self.card)

    def compare(
        self, session: Session | None, target: str, against: str, methods: list[str], models: list[str]
    ) -> Iterator[dict[Any, Any]]:
        if session is None:
            yield self._cleared(text.NO_XRAY)
            return
        explanation = session.explanation
        ranking = explanation.prediction.ranking
        target = target or ranking[0]
        pair = _Pair(target, against or next(name for name in ranking if name != target))
        if pair.target == pair.against:
            yield self._cleared("A type cannot be compared against itself; choose another one.")
            return
        models, titles = models or [explanation.model], text.titles(self.card)
        image = explanation.radiograph.shown()
        signed = explanation.evidence(pair.target) - explanation.evidence(pair.against)
        yield {
            self.state: progress(0.0, said("Predicting")),
            self.grid: [],
            self.notes: self._notes(methods, models),
            self.key: f"<h2>{said('Why this type and not the other?')}</h2>{_difference_key(titles, pair)}",
            self.why: gr.update(value=difference(image, explanation.placement.onto_image(signed)), alt_text=say(ALT)),
            self.sums: score_sums(explanation, titles, pair),
        }
        try:
            yield from self._maps(session, pair, methods, models)
        except ImageError as error:
            yield {self.state: text.line(str(error))}
        except Exception as error:  # noqa: BLE001 - whatever it is, the page stays usable
            log.error("methods could not be compared: %s", type(error).__name__)
            yield {self.state: text.line(text.OURS)}

    def _maps(
        self, session: Session, pair: _Pair, methods: Sequence[str], models: Sequence[str]
    ) -> Iterator[dict[Any, Any]]:
        """A row a method and a column a model."""
        requests = self._requests(session, models, pair)
        cells = [(method, *each) for method in methods for each in requests]
        several, image = len(requests) > 1, session.explanation.radiograph.shown()
        pictures: list[tuple[np.ndarray, str]] = []
        late: list[str] = []
        for number, (method, explained, request) in enumerate(cells):
            began, found = time.monotonic(), None
            title = say(METHODS[method].title)
            try:
                for share, done in watched(
                    lambda watch, method=method, request=request: draw(replace(request, watch=watch), method)
                ):
                    found = done
                    doing = said("{what}, {done} of {count}", what=title, done=str(number + 1), count=str(len(cells)))
                    yield {self.state: progress((number + share) / len(cells), doing)}
                took = f"{time.monotonic() - began:.1f} s"
            except Cancelled:
                late.append(title)
                took = say("took too long")
            before = f"{say(self.models[explained.model].card.title)}: " if several else ""
            # The place of a map that took too long stays, so that a column is a model's.
            shown = np.zeros(image.shape[:2], np.float32) if found is None else heat(found, explained.placement)
            if found is not None and method == DEFAULT:
                shown = explained.heat(pair.target)
            pictures = [*pictures, (overlay(image, shown), f"{before}{title} · {took}")]
            yield {self.grid: gr.Gallery(pictures, columns=len(requests) if several else 3)}
        yield {self.state: self._summary(pair, late)}

    def _requests(self, session: Session, names: Sequence[str], pair: _Pair) -> list[tuple[Explanation, MapRequest]]:
        """The X-ray as each model explains it, and what it is asked for."""
        explanation = session.explanation
        requests = []
        # Models look at the X-ray itself, not at the page's smaller copy.
        others = any(name != explanation.model for name in names)
        image = session.slices.radiograph() if others else explanation.radiograph
        for name in names:
            model = self.models[name]
            if name == explanation.model:
                requests.append((explanation, map_request(model, session.square, *pair)))
                continue
            explained = model.explain([image])[0].at_screen_size(SCREEN)
            requests.append((explained, map_request(model, image, *pair)))
        return requests

    def _summary(self, pair: _Pair, late: Sequence[str]) -> str:
        target, against = (text.titles(self.card)[name].lower() for name in pair)
        told = marked("Heatmaps for {target}, compared against {against}.", target=target, against=against)
        if late:
            methods = say(" and ").join(dict.fromkeys(late))
            told += f" {marked(LATE, methods=methods, seconds=f'{LIMIT:.0f}')}"
        return f"<p class='line'>{told}</p>"
