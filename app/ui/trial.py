"""The tab that tests a heatmap, and lets people hide a region and predict without it."""

from __future__ import annotations

import html
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr
import numpy as np

from app.errors import Cancelled, NoHeat
from app.explain.checks import PARTS, Checks, Hidden, chart, check_heatmap, hide
from app.explain.faithfulness import lost_to_random, measured
from app.explain.methods import DEFAULT, METHODS, heat, map_request
from app.explain.overlay import as_picture, overlay
from app.explain.regions import hot_regions
from app.model.classifier import IN_WORDS, Classifier, presence
from app.model.weights import ModelCard, percent
from app.ui import text
from app.ui.about import page, prose
from app.ui.languages import digits, in_every, label, marked, said, say, subject
from app.ui.session import (
    HEAVY,
    HOUR,
    Requests,
    Session,
    gallery,
    picture,
    progress,
    run_slowly,
    type_choice,
    watched,
)
from app.ui.uploads import bound

__all__ = ["TestTab", "warnings"]

log = logging.getLogger(__name__)

QUESTIONS = {
    "Does it point at what the score needs?": "Its hottest cells are blurred, uncovered and filled in first; "
    "the same map moved elsewhere at random has to do worse.",
    "Does it depend on the model?": "The weights are shuffled; a map that stays shows the X-ray, not what was learnt.",
    "Is it stable?": "The X-ray is mirrored, turned or dimmed a little; the map should stay.",
    "Does it lie on a shortcut?": "A letter, an edge or nothing at all.",
}
"""What the tests ask of a heatmap, and how."""
LEAD = "Four tests of one heatmap, in about a minute. It may pass all four and the verdict still be wrong."
SHUFFLED = (
    "From the head down, each with its rank correlation with the map, whatever its sign. No colour: no heat is left."
)
HIDING = (
    "Paint over a letter, the fracture or anything else: it is blurred away. "
    "If the verdict moves, it leant on what you hid."
)
STAYS = "{share} of the X-ray hidden. The likeliest type, {type}, stays."
FINDING_BECOMES = "“{finding}” becomes “{other}”."
BECOMES = "{share} of the X-ray hidden. The likeliest type, {type}, becomes {other}."
BETTER = "The default map of {model} does not beat random maps by {measures}."
NOT_PAINTED = "Nothing is painted over yet."


def _intro() -> str:
    asked = "".join(f"<li><strong>{marked(each)}</strong> {marked(how)}</li>" for each, how in QUESTIONS.items())
    what = text.details(say("What is tested"), f"<ol>{asked}</ol>")
    return f"<div class='reading'><p>{said(LEAD)}</p>\n{what}</div>"


def _part(level: int, title: str, sentence: str) -> str:
    return f"<h{level}>{said(title)}</h{level}>\n<p class='reading'>{said(sentence)}</p>"


def findings(checks: Checks) -> str:
    """What the tests found: a sentence each, figures and curves on demand, as HTML."""
    told = "".join(
        f"<li class='{found.kind}'><strong>{marked(found.words)}</strong>"
        f"{text.details(say('Figures'), f'<p>{marked(found.figures)}</p>')}</li>"
        for found in checks.findings(subject())
    )
    ends = said("none"), said("all of the X-ray")
    charts = (
        chart(said("Deletion: probability as the hottest cells are blurred"), checks.curves, "deletion", ends),
        chart(said("Insertion: probability as they are uncovered"), checks.curves, "insertion", ends),
    )
    # An axis runs from left to right whatever is said of it.
    return (
        f"<ul class='findings'>{told}</ul><div class='charts' dir='ltr'>{''.join(charts)}</div>"
        f"<p class='reading'>{said('Strong line: this map. Faint lines: random maps.')}</p>"
    )


def warnings(classifiers: Sequence[Classifier]) -> str:
    """What over many X-rays was found against the default map of each model, as HTML; empty where nothing was."""
    told = []
    for classifier in classifiers:
        default = (measured(classifier.card.name) or {"methods": {}})["methods"].get(DEFAULT)
        if lost := lost_to_random(default) if default else []:
            told.append(text.line(BETTER, model=say(classifier.card.title), measures=", ".join(map(say, lost))))
    return "".join(told)


def hidden_table(found: Hidden, card: ModelCard, target: str) -> str:
    """What hiding a region changed, as HTML."""
    titles = text.titles(card)
    before, after = found.before.prediction, found.after.prediction
    names = dict.fromkeys([*before.ranking[:5], after.best, target])
    shares = [[digits(percent(each.probability(name))) for each in (before, after)] for name in names]
    rows = [[titles[name], *its] for name, its in zip(names, shares, strict=True)]
    sentence = STAYS if after.best == before.best else BECOMES
    kinds = {"type": titles[before.best].lower(), "other": titles[after.best].lower()}
    words = say(sentence, share=digits(percent(found.share)), **kinds)
    seen = [presence(each, card.presence) for each in (found.before, found.after)]
    if seen[0] is not None and seen[1] is not None:
        findings = [say(IN_WORDS[each]) for each in seen if each]
        rows = [[say("Fracture"), *findings], *rows]
        if seen[0] != seen[1]:
            words = f"{say(FINDING_BECOMES, finding=findings[0], other=findings[1])} {words}"
    told = f"<p class='line'><strong>{html.escape(words)}</strong></p>"
    return f"<div class='about'>{told}{text.table([say('Type'), say('Before'), say('After')], rows)}</div>"


class TestTab:
    """Lays itself out inside the current Blocks; ``drawings`` is what people painted, to be forgotten in time.

    Args:
        classifiers: the models, the default first.
        session: holds the X-ray of the first tab.
        requests: what was asked about X-rays there.
        tab: that this lays itself out in.
    """

    def __init__(self, classifiers: Sequence[Classifier], session: gr.State, requests: Requests, tab: gr.Tab) -> None:
        self.requests = requests
        self.models = {classifier.card.name: classifier for classifier in classifiers}
        self.card = classifiers[0].card
        # The X-ray on the first tab may change while another one is being painted over.
        self.painted = gr.State(None, time_to_live=HOUR)
        gr.HTML(in_every(_intro))
        self._lay_out_test()
        self._lay_out_hiding()
        gr.HTML(in_every(lambda: warnings(classifiers)))
        if self.card.subject.ours:
            tested = label("How heatmaps are tested, and how every method did")
            with gr.Accordion(tested, open=False), gr.Column(elem_classes="english"):
                prose(page("faithfulness"))
        self._bind(session, tab)

    def _lay_out_test(self) -> None:
        with gr.Row(elem_id="test-setup"):
            with gr.Column(scale=2, min_width=220):
                self.tested = picture("test-picture", "")
            with gr.Column(scale=5, min_width=300):
                self.method = gr.Dropdown(
                    [(label(how.title), name) for name, how in METHODS.items()],
                    value=DEFAULT,
                    label=label("Method"),
                    elem_id="test-method",
                )
                self.target = type_choice(self.card, "Type", "the predicted type", "test-target")
                with gr.Row():
                    self.go = gr.Button(label("Test this heatmap"), variant="primary", elem_id="test-go")
                    self.stop = gr.Button(label("Stop"), visible=False, elem_id="test-stop")
        self.state = gr.HTML("", elem_id="test-state")
        self.findings = gr.HTML("", elem_id="test-findings")
        self.shuffled = gr.HTML("")
        self.maps = gallery("test-maps", 4)

    def _lay_out_hiding(self) -> None:
        gr.HTML(in_every(lambda: _part(2, "Hide a region", HIDING)))
        with gr.Row(elem_id="hiding"):
            with gr.Column(min_width=300):
                self.canvas = gr.ImageEditor(
                    type="numpy",
                    image_mode="RGBA",
                    sources=[],
                    layers=False,
                    transforms=[],
                    brush=gr.Brush(default_size=24, colors=["#f59e0b"], color_mode="fixed"),
                    show_label=False,
                    height=420,
                    elem_id="hide-canvas",
                    buttons=[],
                )
                self.drawings = bound(self.canvas)
                self.again = gr.Button(label("Predict without it"), variant="primary", elem_id="hide-go")
            with gr.Column(min_width=300):
                self.moved = gr.HTML("", elem_id="hide-moved")
                self.after = gallery("hide-after", 2)

    def _bind(self, session: gr.State, tab: gr.Tab) -> None:
        results = [self.state, self.findings, self.shuffled, self.maps]
        run_slowly(self.test, session, [self.method, self.target], results, self.go, self.stop, self._cleared)
        light: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        chosen = [session, self.method, self.target]
        gr.on([tab.select, self.method.select, self.target.select], self.show, chosen, self.tested, **light)
        # Another X-ray to paint on once somebody looks; what is painted on this one stays.
        tab.select(lambda its: its, session, self.painted, **light)
        self.painted.change(self.load_xray, self.painted, [self.canvas, self.after, self.moved], **light)
        inputs = [self.painted, self.canvas, self.target]
        self.again.click(self.predict_without, inputs, [self.after, self.moved], **HEAVY)

    def _cleared(self, message: str = "") -> dict[Any, Any]:
        return {self.state: message, self.findings: "", self.shuffled: "", self.maps: []}

    def test(self, session: Session | None, method: str, target: str) -> Iterator[dict[Any, Any]]:
        if session is None:
            yield self._cleared(text.line(text.NO_XRAY))
            return
        explanation = session.explanation
        target = target or explanation.prediction.best
        model, title = self.models[explanation.model], say(METHODS[method].title)
        try:
            checks = None
            for share, done in watched(
                lambda watch: check_heatmap(
                    map_request(model, session.square, target, watch=watch), method, explanation
                )
            ):
                checks = done
                yield self._cleared(progress(share, self._doing(share, title)))
            if checks is not None:
                kind = text.titles(self.card)[target].lower()
                told = said("{method} for {type}.", method=title, type=html.escape(kind))
                yield {
                    self.state: f"<p class='line'>{told} {text.shown(method, model.card)}</p>",
                    self.findings: findings(checks),
                    self.shuffled: _part(3, "Maps as weights are shuffled", SHUFFLED),
                    self.maps: self._maps(session, checks),
                }
        except (NoHeat, Cancelled) as error:
            yield self._cleared(text.line(str(error)))
        except Exception as error:  # noqa: BLE001 - whatever it is, the page stays usable
            log.error("a heatmap could not be tested: %s", type(error).__name__)
            yield self._cleared(text.line(text.OURS))

    def _doing(self, share: float, title: str) -> str:
        """Which of the tests runs, in words."""
        number = sum(share >= part for part in PARTS[:-1])
        if not number:
            return said("Testing {method}", method=title)
        question = said(list(QUESTIONS)[number - 1])
        return said("{number} of {count}: {question}", number=str(number), count=str(len(QUESTIONS)), question=question)

    def show(self, session: Session | None, method: str, target: str) -> Any:
        """The heatmap that would be tested; the X-ray alone where that takes more than a moment."""
        if session is None:
            return None
        explanation = session.explanation
        model = self.models[explanation.model]
        image, name = explanation.radiograph.shown(), target or explanation.prediction.best
        if METHODS[method].cost != "instant" or METHODS[method].contrasts:
            return gr.update(value=as_picture(image), alt_text=say("The X-ray"))
        found = self.requests.heat(model, session, name, method)
        alt = text.alternative(model.card, name, hot_regions(found))
        return gr.update(value=overlay(image, found, contour=False), alt_text=alt)

    def _maps(self, session: Session, checks: Checks) -> list[tuple[np.ndarray, str]]:
        image, placement = session.explanation.radiograph.shown(), session.explanation.placement
        shown = [(say("the map"), checks.found)]
        for step in checks.randomised:
            correlation = "" if step.correlation is None else f" · {step.correlation:.2f}"
            shown.append((f"{say(step.down_to)}{correlation}", step.found))
        return [(overlay(image, heat(found, placement), contour=False), caption) for caption, found in shown]

    def load_xray(self, session: Session | None) -> dict[Any, Any]:
        image = None if session is None else as_picture(session.explanation.radiograph.shown())
        return {self.canvas: image, self.after: [], self.moved: ""}

    def predict_without(self, session: Session | None, layers: list[np.ndarray], target: str) -> dict[Any, Any]:
        if session is None:
            return {self.after: [], self.moved: text.line(text.NO_XRAY)}
        try:
            # Both from what is on the screen, so that nothing but the paint differs.
            image = session.explanation.radiograph.shown()
            found = hide(self.models[session.explanation.model], image, layers)
            if found is None:
                return {self.after: [], self.moved: text.line(NOT_PAINTED)}
            target = target or found.before.prediction.best
            pictures = [
                (overlay(each.radiograph.shown(), each.heat(target, found.full_colour)), caption)
                for each, caption in ((found.before, say("before")), (found.after, say("after, same scale")))
            ]
            return {self.after: pictures, self.moved: hidden_table(found, self.card, target)}
        except Exception as error:  # noqa: BLE001 - whatever it is, the page stays usable
            log.error("a region could not be hidden: %s", type(error).__name__)
            return {self.after: [], self.moved: text.line(text.OURS)}
