"""The tab where a film is dropped in, named and explained."""

from __future__ import annotations

import html
import logging
from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np

from app.errors import ImageError, RejectedError
from app.explain.overlay import COLOUR_MAPS, fracture_outline, outline_marks, overlay, scale_bar
from app.imaging import examples as library
from app.imaging.letterbox import letterbox
from app.imaging.radiograph import Radiograph
from app.imaging.series import OWN_WINDOW, Slices, gather
from app.model.classifier import Classifier
from app.model.trust import presence
from app.ui import text as words
from app.ui.session import COMPUTE, HOUR, OURS, SCREEN, Session
from app.ui.uploads import guard

__all__ = ["build"]

log = logging.getLogger(__name__)

PLAIN = 6
"""Where the film itself stands among what ``judge`` returns."""

ONE = (gr.update(visible=False), gr.update(visible=False))
"""Slider and windows of a film that is one picture."""

WELCOME = "<div class='verdict empty'><p>The verdict appears here. Drop in a film, or try a drawing.</p></div>"
FORGOTTEN = "<p class='glossary'><strong>This film has been forgotten.</strong> Please drop it in again.</p>"
READING = (
    "Colour marks evidence <em>for</em> the chosen type; bare film is where nothing speaks for it. The white line "
    "encloses the hottest region. All types share one scale, so a faint map means faint evidence. Averaged over the "
    "square the model sees, the evidence for and against a type, plus a constant, is the type's score, exactly."
)
BROKEN = (
    " The blue line is another question: where the model sees a fracture at all, of whatever type; broken where it is "
    "a suspicion only."
)
STEPS = """
<section class="steps">
  <h2>How it works</h2>
  <ol>
    <li><strong>Drop in a film</strong> of a broken bone, or try one of the drawings.</li>
    <li><strong>Read the verdict</strong> and how often the model was right when it said so.</li>
    <li><strong>See where it looked.</strong> Choose any other type to see what speaks for that one instead.</li>
  </ol>
  <p>Heat shows what the model used, not where the fracture is. If it lies on a letter, a cast or the background,
  do not believe the verdict.</p>
</section>
"""


def _as_it_came(payload: Any) -> str | None:
    """The path of the uploaded file, whatever it holds: Gradio's own reading would cut 16 bits to 8."""
    return payload.path if payload is not None else None


def _film_input() -> gr.Image:
    source = gr.Image(
        label="X-ray film",
        show_label=False,
        type="filepath",
        format="png",
        image_mode=None,
        sources=["upload", "clipboard", "webcam"],
        # A phone's camera is held over a light box, and what it sees must not be mirrored.
        webcam_options=gr.WebcamOptions(mirror=False, constraints={"video": {"facingMode": "environment"}}),
        height=300,
        elem_id="film-input",
        buttons=[],
        placeholder=(
            "Drop an X-ray here, or click to choose one\n"
            "PNG, JPEG, WebP, TIFF or DICOM, up to 50 MB\n"
            "One file, or a series of DICOM slices"
        ),
    )
    guard(source, _as_it_came)
    return source


def _tray(offered: Sequence[library.Example]) -> gr.Gallery:
    origins = "; ".join(sorted({html.escape(example.source) for example in offered}))
    gr.HTML(f"<p class='origin'><strong>Films to try</strong> &ndash; {origins}</p>", elem_id="origin")
    return gr.Gallery(
        [(str(example.path), example.label) for example in offered],
        show_label=False,
        columns=5,
        height=128,
        allow_preview=False,
        object_fit="cover",
        elem_id="examples",
        buttons=[],
    )


def _picture(elem_id: str, alt: str) -> gr.Image:
    return gr.Image(
        show_label=False,
        format="png",
        interactive=False,
        elem_id=elem_id,
        alt_text=alt,
        buttons=["fullscreen", "download"],
        min_width=150,
    )


def _plain(film: Radiograph) -> np.ndarray:
    """The film as it is; what comes from a hospital with its scale, and with what may name a person outlined."""
    shown = film.display()
    if not film.modality:
        return shown
    picture, _ = outline_marks(np.dstack([shown] * 3), shown)
    return picture if film.spacing is None else scale_bar(picture, film.spacing)


def build(classifiers: Sequence[Classifier]) -> gr.State:
    """Lays out the tab inside the current Blocks; the first model is asked unless people choose another.

    Returns:
        What is known of the film on the page: ``Session``, or None.
    """
    models = {classifier.card.name: classifier for classifier in classifiers}
    card = classifiers[0].card
    tests = library.held_out_images(card.classes)
    offered = library.examples()
    known = gr.State(None, time_to_live=HOUR)
    refused = gr.State(None, time_to_live=HOUR)
    with gr.Row(elem_id="workbench"):
        with gr.Column(scale=4, min_width=300):
            source = _film_input()
            files = gr.UploadButton("Files", file_count="multiple", visible="hidden", elem_id="files")
            guard(files)
            number = gr.Slider(1, 2, 1, step=1, label="Slice", visible=False, elem_id="slice")
            window = gr.Dropdown([OWN_WINDOW], value=OWN_WINDOW, label="Window", visible=False, elem_id="window")
            model = gr.Dropdown(
                [(each.card.title, name) for name, each in models.items()],
                value=card.name,
                label="Model",
                visible=len(models) > 1,
                elem_id="model",
            )
            anyway = gr.Button("Explain it anyway", visible=False, size="sm", elem_id="anyway")
            draw_lots = gr.Button("Random test film", elem_id="random-film", visible=bool(tests), size="sm")
            verdict = gr.HTML(WELCOME, elem_id="verdict")
            tray = _tray(offered)
        with gr.Column(scale=7, min_width=300):
            steps = gr.HTML(STEPS)
            with gr.Column(visible=False, elem_id="bench") as bench:
                description = gr.HTML("", elem_id="description")
                with gr.Tabs(elem_id="views"):
                    with gr.Tab("Side by side"), gr.Row(elem_id="pair"):
                        plain = _picture("plain", "The film")
                        painted = _picture("painted", "The film with the evidence for the chosen type drawn over it")
                    with gr.Tab("Before and after"):
                        slider = gr.ImageSlider(
                            show_label=False, format="png", interactive=False, elem_id="slider", buttons=[]
                        )
                legend = gr.HTML("", elem_id="legend")
                bars = gr.HTML("", visible="hidden")
                types = gr.Radio(
                    [], label="All types, likeliest first: choose one to see its evidence", elem_id="types"
                )
                with gr.Row(elem_id="controls"):
                    opacity = gr.Slider(0.1, 1.0, 0.6, step=0.05, label="Opacity", elem_id="opacity", min_width=140)
                    colour_map = gr.Dropdown(
                        list(COLOUR_MAPS), value="inferno", label="Colours", elem_id="colours", min_width=140
                    )
                    contour = gr.Checkbox(True, label="Outline the hottest region", elem_id="contour", min_width=140)
                    broken = gr.Checkbox(
                        True,
                        label="Outline the fracture seen",
                        visible=any(classifier.card.presence for classifier in classifiers),
                        elem_id="broken",
                        min_width=140,
                    )
                gr.HTML(f"<p class='reading'>{READING}{BROKEN if card.presence else ''}</p>")

    looks = [colour_map, opacity, contour, broken]
    drawn = [painted, slider, legend, description]
    results = [source, steps, bench, known, verdict, bars, types, plain, *drawn, refused, anyway]

    def draw(
        seen: Session | None, name: str | None, colours: str, strength: float, outline: bool, broken: bool
    ) -> tuple[Any, Any, str, str]:
        """Everything that changes with the chosen type or look, from what is already known of the film."""
        if seen is None or name is None:
            return None, None, "", FORGOTTEN
        explanation = seen.explanation
        card = models[explanation.model].card
        film = explanation.radiograph.display()
        hot = overlay(film, explanation.heat(name), colour_map=colours, opacity=strength, contour=outline)
        seen_there, places = presence(explanation, card.presence), explanation.fracture_odds()
        if broken and places is not None and seen_there in ("suspicious", "definite"):
            hot = fracture_outline(hot, places, dashed=seen_there == "suspicious")
        if explanation.radiograph.spacing is not None:
            hot = scale_bar(hot, explanation.radiograph.spacing)
        both = (np.dstack([film] * 3), hot)
        return hot, both, words.legend(explanation, colours, strength), words.describe(card, explanation, name)

    def nothing(message: str, unlike: Slices | None = None, picture: np.ndarray | None = None) -> tuple:
        idle = (gr.update(visible=True), gr.update(visible=False))
        empty = (None, message, "", gr.update(choices=[], value=None), picture, None, None, "", "")
        return (*idle, *empty, unlike, gr.update(visible=unlike is not None))

    def judge(
        slices: Slices | None,
        asked: str,
        colours: str,
        strength: float,
        outline: bool,
        broken: bool,
        truth: str | None = None,
        *,
        insisting: bool = False,
    ) -> tuple:
        if slices is None:
            return nothing(WELCOME)
        try:
            return judged(slices, models[asked], colours, strength, outline, broken, truth, insisting)
        except ImageError as error:
            return nothing(words.refusal(str(error)))
        except Exception as error:  # noqa: BLE001 - whatever it is, the page stays usable
            log.error("a film could not be explained: %s", type(error).__name__)
            return nothing(words.refusal(OURS))

    def judged(
        slices: Slices,
        classifier: Classifier,
        colours: str,
        strength: float,
        outline: bool,
        broken: bool,
        truth: str | None,
        insisting: bool,
    ) -> tuple:
        film = slices.radiograph()
        try:
            if not insisting:
                classifier.check(film)
        except RejectedError as error:
            # What was refused can still be looked at, and through, until people insist.
            return nothing(
                words.refusal(str(error), film.notes),
                slices,
                _plain(film.scaled(min(SCREEN, max(film.height, film.width)))),
            )
        explanation = classifier.explain([film])[0].at_screen_size(SCREEN)
        square = letterbox(film, classifier.card.size, classifier.card.equalise)[0]
        best = explanation.prediction.best
        choices, style = words.bars(classifier.card, explanation)
        seen = Session(explanation, square, slices, truth, insisting)
        return (
            gr.update(visible=False),
            gr.update(visible=True),
            seen,
            words.verdict(classifier.card, explanation, truth, insisting),
            style,
            gr.update(choices=choices, value=best),
            _plain(explanation.radiograph),
            *draw(seen, best, colours, strength, outline, broken),
            None,
            gr.update(visible=False),
        )

    def judge_file(path: str, *settings: Any) -> tuple:
        return judge(Slices(((path, 0),)), *settings)

    def judge_shown(path: str | None, *settings: Any) -> tuple:
        return judge_files([path], *settings) if path else (*ONE, gr.skip(), *nothing(WELCOME))

    def judge_example(event: gr.SelectData, *settings: Any) -> tuple:
        results = judge_file(str(offered[event.index].path), *settings)
        return (*ONE, results[PLAIN], *results)

    def judge_random(*settings: Any) -> tuple:
        path, kind = library.random_image(tests)
        results = judge_file(str(path), *settings, kind.name)
        return (*ONE, results[PLAIN], *results)

    def judge_files(paths: list[str] | None, *settings: Any) -> tuple:
        try:
            slices = gather(paths or [])
        except ImageError as error:
            return (*ONE, None, *nothing(words.refusal(str(error))))
        except Exception as error:  # noqa: BLE001 - whatever it is, the page stays usable
            log.error("an upload could not be read: %s", type(error).__name__)
            return (*ONE, None, *nothing(words.refusal(OURS)))
        results = judge(slices, *settings)
        count = len(slices.places)
        look_through = (
            gr.update(maximum=max(2, count), value=slices.shown + 1, visible=count > 1),
            gr.update(choices=[OWN_WINDOW, *slices.windows], value=OWN_WINDOW, visible=bool(slices.windows)),
        )
        return (*look_through, results[PLAIN], *results)

    def judge_slice(seen: Session | None, refused: Slices | None, shown: float, name: str, *settings: Any) -> tuple:
        slices = seen.slices if seen else refused
        if slices is None:
            return (gr.skip(), *nothing(FORGOTTEN))
        chosen = slices.choose(round(shown) - 1, name)
        results = judge(chosen, *settings, insisting=seen is not None and seen.insisted)
        return (results[PLAIN], *results)

    def judge_again(seen: Session | None, refused: Slices | None, *settings: Any) -> tuple:
        if seen is None:
            return judge(refused, *settings)
        return judge(seen.slices, *settings, seen.truth, insisting=seen.insisted)

    def judge_anyway(slices: Slices | None, *settings: Any) -> tuple:
        return judge(slices, *settings, insisting=True) if slices else nothing(FORGOTTEN)

    heavy: dict[str, Any] = {"concurrency_id": COMPUTE, "concurrency_limit": 2, "api_visibility": "private"}
    # By default a click during a redraw would be dropped, and the picture would belong to another type than the choice.
    light: dict[str, Any] = {
        "concurrency_limit": 8,
        "api_visibility": "private",
        "show_progress": "hidden",
        "trigger_mode": "always_last",
    }
    through = [number, window]
    source.input(judge_shown, [source, model, *looks], [*through, *results], **heavy)
    files.upload(judge_files, [files, model, *looks], [*through, *results], **heavy)
    tray.select(judge_example, [model, *looks], [*through, *results], **heavy)
    draw_lots.click(judge_random, [model, *looks], [*through, *results], **heavy)
    for change in (number.release, window.input):
        change(judge_slice, [known, refused, *through, model, *looks], results, trigger_mode="always_last", **heavy)
    anyway.click(judge_anyway, [refused, model, *looks], results[1:], **heavy)
    model.input(judge_again, [known, refused, model, *looks], results[1:], **heavy)
    for change in (types.input, colour_map.input, opacity.change, contour.input, broken.input):
        change(draw, [known, types, *looks], drawn, **light)
    return known
