"""The tab where a film is dropped in, named and explained."""

from __future__ import annotations

import html
import logging
from typing import Any

import gradio as gr
import numpy as np

from app import library
from app.classifier import Classifier, Explanation
from app.errors import FilmError
from app.glossary import GLOSSARY
from app.overlay import COLOUR_MAPS, NO_EVIDENCE, gradient, overlay
from app.radiograph import read

__all__ = ["build"]

log = logging.getLogger(__name__)

SCREEN = 1024
"""Longest side of what is drawn on the page, in pixels."""

PLAIN = 6
"""Where the film itself stands among what ``judge`` returns."""

WORTH_SAYING = 0.1
"""Share of evidence outside the film from which on the page mentions it."""

COMPUTE = "compute"
HOUR = 3600

WELCOME = (
    "<div class='verdict empty'><p>The verdict appears here. Drop in a film, or try one of the examples.</p></div>"
)
READING = (
    "Colour marks evidence <em>for</em> the chosen type; bare film is where nothing speaks for it. The white line "
    "encloses the hottest region. All ten maps share one scale, so a faint map means faint evidence. Averaged over the "
    "square the model sees, evidence for and against adds up to the type's score, exactly."
)
STEPS = """
<section class="steps">
  <h2>How it works</h2>
  <ol>
    <li><strong>Drop in a film</strong> of a broken bone, or try one of the drawings.</li>
    <li><strong>Read the verdict</strong> and how sure the model may claim to be.</li>
    <li><strong>See where it looked.</strong> Choose any other type to see what speaks for that one instead.</li>
  </ol>
  <p>Heat shows what the model used, not where the fracture is. If it lies on a letter, a cast or the background,
  do not believe the verdict.</p>
</section>
"""


def _as_it_came(payload: Any) -> str | None:
    """The path of the uploaded file, whatever it holds: Gradio's own reading would cut 16 bits to 8."""
    return payload.path if payload is not None else None


def _verdict(classifier: Classifier, explanation: Explanation, truth: str | None) -> str:
    prediction = explanation.prediction
    titles = {kind.name: kind.title for kind in classifier.card.classes}
    best, second = prediction.ranking[:2]
    lines = [
        f"<p class='kind'>{html.escape(titles[best])}<span>{prediction.probability(best):.0%}</span></p>",
        f"<p>{html.escape(_confidence(prediction.probability(best)))} Next: {html.escape(titles[second].lower())}, "
        f"{prediction.probability(second):.0%}.</p>",
    ]
    if truth is not None:
        word = "right" if truth == best else "wrong"
        lines.append(
            f"<p class='truth {word}'>Labelled: <strong>{html.escape(titles[truth])}</strong> &ndash; {word}.</p>"
        )
    lines += [f"<p class='note'>{html.escape(note)}</p>" for note in explanation.film.notes]
    lines.append(f"<p class='record'>{html.escape(_record(classifier))}</p>")
    return f"<div class='verdict' aria-live='polite'>{''.join(lines)}</div>"


def _confidence(probability: float) -> str:
    if probability >= 0.75:
        return "The model is fairly sure."
    if probability >= 0.45:
        return "The model leans this way."
    return "The model is unsure; read this as a guess."


def _record(classifier: Classifier) -> str:
    missing = "It always names one of ten types: it cannot say that a bone is whole or that a picture is no X-ray."
    test = classifier.card.metrics.get("test")
    if not test:
        return f"This model has not been tested. {missing}"
    share = test["accuracy"]
    return (
        f"On {share['n']} test films it had never seen, it named the labelled type in {share['value']:.0%} "
        f"(95 % interval {share['low']:.0%} to {share['high']:.0%}). {missing}"
    )


def _refusal(sentence: str) -> str:
    return f"<div class='verdict refused' role='alert'><p>{html.escape(sentence)}</p></div>"


def _choices(classifier: Classifier, explanation: Explanation) -> tuple[list[tuple[str, str]], str]:
    """Types by probability, and the style that turns each into a bar of that length."""
    prediction = explanation.prediction
    titles = {kind.name: kind.title for kind in classifier.card.classes}
    choices, rules = [], []
    for place, name in enumerate(prediction.ranking, start=1):
        probability = prediction.probability(name)
        choices.append((f"{titles[name]} · {probability:.0%}", name))
        rules.append(f"#types label:nth-of-type({place}) {{ --share: {probability:.2%}; }}")
    return choices, f"<style>{''.join(rules)}</style>"


def _describe(classifier: Classifier, explanation: Explanation, name: str) -> str:
    title = next(kind.title for kind in classifier.card.classes if kind.name == name)
    line = f"<strong>{html.escape(title)}.</strong> {GLOSSARY.get(name, '')}"
    if not explanation.has_evidence(name):
        line += f" <strong>On this film the model finds {NO_EVIDENCE} for it.</strong>"
    elif (outside := explanation.padding_share(name)) >= WORTH_SAYING:
        line += (
            f" <em>{outside:.0%} of the evidence for it lies outside the film, in the black margin that fills the "
            "model's square.</em>"
        )
    return f"<p class='glossary'>{line}</p>"


def _legend(explanation: Explanation, colour_map: str, opacity: float) -> str:
    """The colour bar of the overlay, as HTML."""
    colours = ", ".join(f"rgb{colour}" for colour in gradient(colour_map, opacity))
    return (
        "<div class='legend' role='img' aria-label='Colour scale of the evidence'><span>no evidence</span>"
        f"<i style='background: linear-gradient(to right, {colours})'></i>"
        f"<span>{explanation.full_colour:.1f} logits</span></div>"
    )


def build(classifier: Classifier) -> None:
    """Lays out the tab inside the current Blocks."""
    tests = library.held_out_films(classifier.card.classes)
    offered = library.examples()
    known = gr.State(None, time_to_live=HOUR)
    with gr.Row(elem_id="workbench"):
        with gr.Column(scale=4, min_width=300):
            source = gr.Image(
                label="X-ray film",
                show_label=False,
                type="filepath",
                format="png",
                image_mode=None,
                sources=["upload", "clipboard", "webcam"],
                height=300,
                elem_id="film-input",
                buttons=[],
                placeholder="Drop an X-ray here, or click to choose one\nPNG, JPEG, WebP or TIFF, up to 50 MB",
            )
            # A subclass would do, but Gradio writes a stub file beside every module that has one.
            source.preprocess = _as_it_came
            draw_lots = gr.Button("Random test film", elem_id="random-film", visible=bool(tests), size="sm")
            verdict = gr.HTML(WELCOME, elem_id="verdict")
            origins = "; ".join(sorted({html.escape(example.source) for example in offered}))
            gr.HTML(f"<p class='origin'><strong>Films to try</strong> &ndash; {origins}</p>")
            tray = gr.Gallery(
                [(str(example.path), example.label) for example in offered],
                show_label=False,
                columns=5,
                height=128,
                allow_preview=False,
                object_fit="cover",
                elem_id="examples",
                buttons=[],
            )
        with gr.Column(scale=7, min_width=300):
            steps = gr.HTML(STEPS)
            with gr.Column(visible=False) as bench:
                with gr.Tabs(elem_id="views"):
                    with gr.Tab("Side by side"), gr.Row(elem_id="pair"):
                        plain = gr.Image(
                            label="Film",
                            format="png",
                            interactive=False,
                            elem_id="plain",
                            buttons=["fullscreen"],
                            min_width=150,
                        )
                        painted = gr.Image(
                            label="Evidence",
                            format="png",
                            interactive=False,
                            elem_id="painted",
                            buttons=["download", "fullscreen"],
                            min_width=150,
                        )
                    with gr.Tab("Before and after"):
                        slider = gr.ImageSlider(
                            show_label=False, format="png", interactive=False, elem_id="slider", buttons=[]
                        )
                legend = gr.HTML("", elem_id="legend")
                description = gr.HTML("", elem_id="description")
                bars = gr.HTML("", visible="hidden")
                types = gr.Radio(
                    [], label="All ten types, likeliest first: choose one to see its evidence", elem_id="types"
                )
                with gr.Row(elem_id="controls"):
                    opacity = gr.Slider(0.1, 1.0, 0.6, step=0.05, label="Opacity", elem_id="opacity", min_width=140)
                    colour_map = gr.Dropdown(
                        list(COLOUR_MAPS), value="inferno", label="Colours", elem_id="colours", min_width=140
                    )
                    contour = gr.Checkbox(True, label="Outline the hottest region", elem_id="contour", min_width=140)
                gr.HTML(f"<p class='reading'>{READING}</p>")

    looks = [colour_map, opacity, contour]
    drawn = [painted, slider, legend, description]
    results = [source, steps, bench, known, verdict, bars, types, plain, *drawn]

    def draw(
        explanation: Explanation | None, name: str | None, colours: str, strength: float, outline: bool
    ) -> tuple[Any, Any, str, str]:
        """Everything that changes with the chosen type or look, from what is already known of the film."""
        if explanation is None or name is None:
            return None, None, "", ""
        film = explanation.film.display()
        hot = overlay(film, explanation.heat(name), colour_map=colours, opacity=strength, contour=outline)
        both = (np.dstack([film] * 3), hot)
        return hot, both, _legend(explanation, colours, strength), _describe(classifier, explanation, name)

    def nothing(message: str) -> tuple:
        idle = (gr.update(visible=True), gr.update(visible=False))
        return (*idle, None, message, "", gr.update(choices=[], value=None), None, None, None, "", "")

    def judge(path: str | None, colours: str, strength: float, outline: bool, truth: str | None = None) -> tuple:
        if path is None:
            return nothing(WELCOME)
        try:
            explanation = classifier.explain([read(path)])[0].at_screen_size(SCREEN)
        except FilmError as error:
            return nothing(_refusal(str(error)))
        except Exception as error:  # noqa: BLE001 - whatever it is, the page stays usable
            log.error("a film could not be explained: %s", type(error).__name__)
            return nothing(_refusal("Something went wrong on our side. The film was not kept; please try again."))
        best = explanation.prediction.best
        choices, style = _choices(classifier, explanation)
        return (
            gr.update(visible=False),
            gr.update(visible=True),
            explanation,
            _verdict(classifier, explanation, truth),
            style,
            gr.update(choices=choices, value=best),
            explanation.film.display(),
            *draw(explanation, best, colours, strength, outline),
        )

    def judge_example(event: gr.SelectData, *settings: Any) -> tuple:
        results = judge(str(offered[event.index].path), *settings)
        return (results[PLAIN], *results)

    def judge_random(*settings: Any) -> tuple:
        path, kind = library.random_film(tests)
        results = judge(str(path), *settings, kind.name)
        return (results[PLAIN], *results)

    def judge_upload(path: str | None, *settings: Any) -> tuple:
        results = judge(path, *settings)
        # Browsers cannot show TIFF, so its field would stay blank.
        preview = results[PLAIN] if path and path.lower().endswith((".tif", ".tiff")) else gr.skip()
        return (preview, *results)

    def explain_film(film: gr.FileData) -> dict[str, Any]:
        """Names the fracture type an X-ray shows. For study, not for diagnosis."""
        try:
            explanation = classifier.explain([read(film["path"] if isinstance(film, dict) else film.path)])[0]
        except FilmError as error:
            raise gr.Error(str(error), print_exception=False) from None
        prediction = explanation.prediction
        return {
            "notice": classifier.card.intended_use,
            "model": explanation.model,
            "predicted": prediction.best,
            "probabilities": {name: prediction.probability(name) for name in prediction.ranking},
        }

    heavy: dict[str, Any] = {"concurrency_id": COMPUTE, "concurrency_limit": 2, "api_visibility": "private"}
    light: dict[str, Any] = {"concurrency_limit": 8, "api_visibility": "private", "show_progress": "hidden"}
    source.input(judge_upload, [source, *looks], results, **heavy)
    tray.select(judge_example, looks, results, **heavy)
    draw_lots.click(judge_random, looks, results, **heavy)
    for change in (types.input, colour_map.input, opacity.release, contour.input):
        change(draw, [known, types, *looks], drawn, **light)
    gr.api(explain_film, api_name="explain", concurrency_id=COMPUTE)
