"""The tab that puts a heatmap on trial, and lets people hide a region and ask again."""

from __future__ import annotations

import html
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import cv2
import gradio as gr
import numpy as np

from app.errors import Cancelled, NoHeat, Progress
from app.explain import shortcuts
from app.explain.faithfulness import (
    COLUMNS,
    SHARES,
    Faithfulness,
    lost_to_random,
    measure_faithfulness,
    measured,
    measured_rows,
    unmeasured,
)
from app.explain.methods import DEFAULT, METHODS, MapRequest, draw, heat, map_request
from app.explain.overlay import overlay
from app.explain.sanity import (
    CHANGES,
    FEW_CHANGES,
    SAME_FOR_ANY_TYPE,
    UNCHANGED,
    Randomised,
    Stable,
    randomise_weights,
    stability,
)
from app.explain.shortcuts import KINDS, Shortcuts
from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier
from app.ui.about import table
from app.ui.canvas import Drawings, bound
from app.ui.session import COMPUTE, HOUR, NO_FILM, OURS, PATIENT, Session, progress, watched

__all__ = ["bench", "build", "dependence", "pointing", "verdict"]

log = logging.getLogger(__name__)

STABLE = 0.6
"""Mean rank correlation under small changes from which on a map is called stable."""

PARTS = (0.05, 0.55, 0.8, 1.0)
"""How far the whole is when drawing, curves, scrambling and stability are done."""

INTRO = """
<p class='reading'>Four questions to one heatmap of the film on the first tab. <strong>Does it point at what the score
needs?</strong> Its hottest places are blurred, uncovered and filled in first, and the same map moved elsewhere at
random has to do worse. <strong>Does it depend on the model?</strong> The weights are shuffled; a map that stays is a
picture of the film, not of what was learnt. <strong>Is it stable</strong> when the film is mirrored, turned or dimmed a
little? <strong>Does it lie on a shortcut</strong>, a letter, an edge or nothing at all? A map may pass all four and the
verdict still be wrong.</p>
"""
SHUFFLED = """
<p class='glossary'>The map, and what becomes of it as weights are shuffled from the head down; beneath each its rank
correlation with the map, whatever its sign, as a mean over several shuffles. A map without any colour has no heat
left.</p>
"""
HIDING = """
<h2>Hide a region and ask again</h2>
<p class='reading'>Paint over a letter, the fracture or anything else. What you paint is blurred away, and the model is
asked again: if the verdict moves, it leant on what you hid.</p>
"""


def _chart(title: str, found: Faithfulness, which: str) -> str:
    """The curve of one measure among those of the random maps, as SVG."""
    width, height, margin = 300.0, 170.0, 28.0

    def line(values: np.ndarray, style: str) -> str:
        points = " ".join(
            f"{margin + share * (width - margin - 6):.1f},{height - margin - value * (height - margin - 8):.1f}"
            for share, value in zip(SHARES, values, strict=True)
        )
        return f"<polyline points='{points}' class='{style}'/>"

    lines = "".join(line(getattr(each, which), "random") for each in found.random)
    axis = (
        f"<path class='axis' d='M{margin} 8V{height - margin}H{width - 6}'/>"
        f"<text x='{margin}' y='{height - 8}'>none</text><text x='{width - 6}' y='{height - 8}' "
        f"text-anchor='end'>all of the film</text><text x='{margin - 4}' y='16' text-anchor='end'>1</text>"
        f"<text x='{margin - 4}' y='{height - margin}' text-anchor='end'>0</text>"
    )
    return (
        f"<figure><svg viewBox='0 0 {width} {height}' role='img' aria-label='{title}'>{axis}{lines}"
        f"{line(getattr(found.real, which), 'real')}</svg><figcaption>{title}</figcaption></figure>"
    )


def pointing(found: Faithfulness) -> tuple[str, str, str]:
    """Whether the map points at what the score needs: kind, words and figures."""
    margins, beaten, count = found.margins(), found.beaten(), len(found.random)
    areas = {"deletion": found.real.deletion_area, "insertion": found.real.insertion_area, "ROAD": found.real.road}
    figures = "; ".join(
        f"{name} {areas[name]:.3f}, margin {margin:+.3f}, ahead of {beaten[name]} of {count}"
        for name, margin in margins.items()
    )
    words = (
        f"Areas under the curves, and margins over random maps (this one moved elsewhere), in units of probability: "
        f"{figures}. One random map in {count + 1} is ahead of all others too."
    )
    won = len(found.won())
    if won == 3:
        return "good", "It points at what the score needs.", words
    if won == 2:
        return "mixed", "It points at what the score needs by two measures of three.", words
    if min(margins.values()) > 0.0:
        return "mixed", "It does better than random maps on average, but some of them do as well.", words
    return "poor", "It does not point at what the score needs better than chance does.", words


def dependence(scrambled: Sequence[Randomised]) -> tuple[str, str, str]:
    """Whether the map is of what the model has learnt: kind, words and figures."""
    head, last = scrambled[0].correlation, scrambled[-1].correlation
    if last is None:
        return (
            "mixed",
            "Whether it depends on the model cannot be said.",
            "Randomised, the network leaves no heat to compare with.",
        )
    figures = (
        f"Rank correlation, whatever its sign, with maps of the network scrambled throughout: {last:.2f}, "
        f"under {UNCHANGED} is wanted (mean of {len(scrambled[-1].correlations)}); "
        f"structural similarity {scrambled[-1].similarity:.2f}. "
    )
    figures += (
        "With the head alone scrambled no heat is left."
        if head is None
        else f"With the head alone scrambled: {head:.2f}; from {SAME_FOR_ANY_TYPE} on a map would be the "
        "same for any type."
    )
    if last >= UNCHANGED:
        return "poor", "It does not depend on the model: a red flag.", figures
    if head is not None and head >= SAME_FOR_ANY_TYPE:
        return "poor", "It depends on the model, but not on the type asked about.", figures
    return "good", "It depends on the model.", figures


def verdict(found: Faithfulness, scrambled: Sequence[Randomised], stable: Sequence[Stable], lies: Shortcuts) -> str:
    """What the trial found in words, each with its figure, as HTML."""
    steady = float(np.mean([each.correlation for each in stable]))
    rows = [
        pointing(found),
        dependence(scrambled),
        (
            "good" if steady >= STABLE else "poor",
            "It is stable." if steady >= STABLE else "Small changes of the film change it.",
            f"Mean rank correlation {steady:.2f}: "
            + "; ".join(f"{each.title} {each.correlation:.2f}" for each in stable)
            + ".",
        ),
        (
            "poor" if lies.warns else "good",
            f"{lies.total:.0%} of its heat lies where no fracture can be."
            if lies.warns
            else "Little of its heat lies where no fracture can be.",
            "; ".join(f"{lies.shares[kind]:.0%} on {words}" for kind, words in KINDS.items()) + ".",
        ),
    ]
    lines = "".join(
        f"<li class='{kind}'><strong>{html.escape(words)}</strong> {html.escape(figure)}</li>"
        for kind, words, figure in rows
    )
    charts = _chart("Deletion: probability as the hottest places are blurred", found, "deletion") + _chart(
        "Insertion: probability as they are uncovered", found, "insertion"
    )
    return (
        f"<ul class='findings'>{lines}</ul><div class='charts'>{charts}</div>"
        "<p class='reading'>Strong line: this map. Faint lines: random maps.</p>"
    )


def _on_trial(question: MapRequest, method: str, seen: Session) -> tuple:
    """Everything the tab shows; one watch over all of it."""
    whole = question.watch
    placement = seen.explanation.placement

    def part(start: float, end: float) -> MapRequest:
        return replace(question, watch=Progress(tell=lambda share: whole.step(start + (end - start) * share)))

    found = draw(part(0.0, PARTS[0]), method)
    if np.ptp(found) == 0.0:
        raise NoHeat("This method finds no heat on this film, so there is nothing to put on trial.")
    curves = measure_faithfulness(part(PARTS[0], PARTS[1]), found, placement)
    slow = METHODS[method].cost == "slow"
    scrambled = randomise_weights(part(PARTS[1], PARTS[2]), method, found)
    stable = stability(part(PARTS[2], PARTS[3]), method, found, FEW_CHANGES if slow else CHANGES)
    lies = shortcuts.shortcut_shares(seen.explanation.radiograph.display(), found, placement)
    return found, curves, scrambled, stable, lies


def bench(title: str, found: dict[str, Any]) -> str:
    """How every method did before a model over many films, as HTML; ``found`` is from ``measured``."""
    default = found["methods"].get(DEFAULT)
    lost = lost_to_random(default) if default else []
    warning = (
        f"<p><strong>The map shown by default does not beat random maps by {html.escape(', '.join(lost))}.</strong></p>"
        if lost
        else ""
    )
    return (
        f"<div class='about wide'><h2>Methods before {html.escape(title)}</h2>"
        f"<p>On {found['films']} fractured films it never saw. Deletion, insertion and ROAD: how much better than "
        "random maps (the same one moved elsewhere), in units of probability, with 95 % intervals; above zero is "
        "better. Pointing: share of "
        "films whose hottest point lies in a fracture box, or within 5 % of the diagonal of one. Stability: mean rank "
        "correlation under small changes of the film. Randomised: absolute rank correlation under randomised weights; "
        f"near zero is right. Seconds: the median, on {found['threads']} of the processor's threads. "
        f"Made by <code>python -m training faithfulness</code>.</p>{warning}"
        f"{table(COLUMNS, measured_rows(found))}<p>{html.escape(unmeasured(found))}</p></div>"
    )


def build(classifiers: Sequence[Classifier], known: gr.State) -> Drawings:
    """Lays out the tab inside the current Blocks; ``known`` holds the film of the first tab.

    Returns:
        What people painted and did not ask about, to be forgotten in time.
    """
    models = {classifier.card.name: classifier for classifier in classifiers}
    titles = {kind.name: kind.title for kind in classifiers[0].card.classes}
    gr.HTML(INTRO)
    with gr.Row():
        method = gr.Dropdown(
            [(how.title, name) for name, how in METHODS.items()],
            value=DEFAULT,
            label="Method",
            elem_id="trial-method",
            min_width=240,
        )
        kind = gr.Dropdown(
            [("the predicted type", ""), *((title, name) for name, title in titles.items())],
            value="",
            label="Explain",
            elem_id="trial-kind",
            min_width=240,
        )
    with gr.Row():
        go = gr.Button("Put it on trial", variant="primary", elem_id="trial-go")
        stop = gr.Button("Stop", elem_id="trial-stop")
    state = gr.HTML("", elem_id="trial-state")
    findings = gr.HTML("", elem_id="trial-findings")
    shuffled = gr.HTML("")
    maps = gr.Gallery(
        show_label=False,
        columns=6,
        object_fit="contain",
        height="auto",
        format="png",
        elem_id="trial-maps",
        buttons=[],
    )
    gr.HTML(HIDING)
    # The film on the first tab may change while another one is being painted over.
    painted = gr.State(None, time_to_live=HOUR)
    fetch = gr.Button("Show the film here", elem_id="hide-fetch")
    with gr.Row(elem_id="hiding"):
        canvas = gr.ImageEditor(
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
        drawings = bound(canvas)
        after = gr.Gallery(
            show_label=False,
            columns=2,
            object_fit="contain",
            height="auto",
            format="png",
            elem_id="hide-after",
            buttons=[],
        )
    again = gr.Button("Ask again without it", variant="primary", elem_id="hide-go")
    moved = gr.HTML("", elem_id="hide-moved")
    for name, classifier in models.items():
        if found := measured(name):
            gr.HTML(bench(classifier.card.title, found))

    def put_on_trial(seen: Session | None, name: str, target: str) -> Iterator[tuple]:
        if seen is None:
            yield NO_FILM, "", "", []
            return
        explanation = seen.explanation
        target = target or explanation.prediction.best
        film = explanation.radiograph.display()
        try:
            results = None
            for share, done in watched(
                lambda watch: _on_trial(
                    map_request(models[explanation.model], seen.square, target, watch=watch), name, seen
                )
            ):
                results = done
                yield progress(share, f"{METHODS[name].title} on trial"), "", "", []
            if results is None:
                return
            found, curves, scrambled, stable, lies = results

            def shown(values: np.ndarray) -> np.ndarray:
                return overlay(film, heat(values, explanation.placement), contour=False)

            pictures = [(shown(found), "the map")]
            pictures += [
                (shown(step.found), step.down_to + ("" if step.correlation is None else f" · {step.correlation:.2f}"))
                for step in scrambled
            ]
            line = f"{METHODS[name].title} for {titles[target].lower()}. {METHODS[name].says}"
            told = verdict(curves, scrambled, stable, lies)
            yield f"<p class='glossary'>{html.escape(line)}</p>", told, SHUFFLED, pictures
        except (NoHeat, Cancelled) as error:
            yield f"<p class='glossary'>{html.escape(str(error))}</p>", "", "", []
        except Exception as error:  # noqa: BLE001 - whatever it is, the page stays usable
            log.error("a map could not be put on trial: %s", type(error).__name__)
            yield f"<p class='glossary'>{OURS}</p>", "", "", []

    def show(seen: Session | None) -> tuple:
        if seen is None:
            return None, None, NO_FILM
        return seen, np.dstack([seen.explanation.radiograph.display()] * 3), ""

    def ask_again(seen: Session | None, layers: list[np.ndarray], target: str) -> tuple:
        if seen is None:
            return [], "<p class='glossary'>There is no film here yet. Press &ldquo;Show the film here&rdquo;.</p>"
        try:
            return without(seen, layers, target)
        except Exception as error:  # noqa: BLE001 - whatever it is, the page stays usable
            log.error("a film could not be asked about again: %s", type(error).__name__)
            return [], f"<p class='glossary'>{OURS}</p>"

    def without(seen: Session, layers: list[np.ndarray], target: str) -> tuple:
        film = seen.explanation.radiograph.display()
        hidden = np.zeros(film.shape, bool)
        for layer in layers:
            alpha = cv2.resize(layer[:, :, 3], film.shape[::-1], interpolation=cv2.INTER_NEAREST)
            hidden |= alpha > 0
        if not hidden.any():
            return [], "<p class='glossary'>Nothing is painted over yet.</p>"
        blurred = cv2.GaussianBlur(film, (0, 0), max(film.shape) / 16.0)
        changed = np.where(hidden, blurred, film)
        classifier = models[seen.explanation.model]
        # Both from what is on the screen, so that nothing but the paint differs.
        before, now = classifier.explain([Radiograph(film, (0, 255)), Radiograph(changed, (0, 255))])
        best = before.prediction.best
        chosen = target or best
        names = dict.fromkeys([*before.prediction.ranking[:5], now.prediction.best, chosen])
        rows = [
            [titles[name], f"{before.prediction.probability(name):.0%}", f"{now.prediction.probability(name):.0%}"]
            for name in names
        ]
        stays = "stays" if now.prediction.best == best else f"becomes {titles[now.prediction.best].lower()}"
        words = (
            f"{hidden.mean():.0%} of the film hidden. The verdict, {titles[best].lower()}, {stays}. The heat is for "
            f"{titles[chosen].lower()}."
        )
        # One scale for both, so that heat that fades is seen to fade.
        scale = max(before.full_colour, now.full_colour)
        pictures = [
            (overlay(film, before.heat(chosen, scale)), "before"),
            (overlay(changed, now.heat(chosen, scale)), "after, same scale"),
        ]
        told = f"<p class='glossary'><strong>{html.escape(words)}</strong></p>"
        return pictures, f"<div class='about'>{told}{table(['Type', 'Before', 'After'], rows)}</div>"

    running = go.click(
        put_on_trial,
        [known, method, kind],
        [state, findings, shuffled, maps],
        show_progress="hidden",
        concurrency_id=PATIENT,
        concurrency_limit=2,
        api_visibility="private",
    )
    # What was found of another film must not stand beside this one.
    known.change(
        lambda: ("", "", "", []),
        None,
        [state, findings, shuffled, maps],
        cancels=[running],
        show_progress="hidden",
        api_visibility="private",
    )
    stop.click(lambda: "<p class='glossary'>Cancelled.</p>", None, state, cancels=[running], api_visibility="private")
    fetch.click(show, known, [painted, canvas, moved], api_visibility="private")
    again.click(
        ask_again,
        [painted, canvas, kind],
        [after, moved],
        concurrency_id=COMPUTE,
        concurrency_limit=2,
        api_visibility="private",
    )
    return drawings
