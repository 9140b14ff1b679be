"""The tab where an X-ray is dropped in, classified and explained: the heatmap large, the verdict beside it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from app.errors import Cancelled, ImageError, RejectedError
from app.explain import DEFAULT, METHODS
from app.explain.checks import quick_checks
from app.explain.methods import draw
from app.explain.overlay import COLOUR_MAPS, plain
from app.explain.regions import evidence_at
from app.imaging import examples as library
from app.imaging.series import OWN_WINDOW, Slices, gather
from app.model.classifier import Classifier
from app.pipeline import explain_image
from app.ui import text
from app.ui.languages import in_every, label, marked, said, say
from app.ui.painted import paint
from app.ui.session import (
    HEAVY,
    HOUR,
    PATIENT,
    SCREEN,
    Requests,
    Session,
    cancel,
    model_choice,
    picture,
    progress,
    watched,
)
from app.ui.take_home import TakeHome
from app.ui.uploads import guard, on_page

__all__ = ["ExplainTab"]

log = logging.getLogger(__name__)

Updates = dict[Any, Any]
"""What a handler changes, by component."""

LIGHT: dict[str, Any] = {
    "concurrency_limit": 8,
    "api_visibility": "private",
    "show_progress": "hidden",
    # By default a click during a redraw would be dropped, and the picture would belong to another type than the choice.
    "trigger_mode": "always_last",
}

DROP = "Drop an X-ray here, or click to choose one"
FORMATS = "PNG, JPEG, WebP, TIFF or DICOM, or a DICOM series"


class Looks(NamedTuple):
    """How the overlay is drawn."""

    method: str
    colours: str
    opacity: float
    contour: bool
    fracture: bool


def _as_it_came(payload: Any) -> str | None:
    """The path of the uploaded file, whatever it holds: Gradio's own reading would cut 16 bits to 8."""
    return payload.path if payload is not None else None


def _source() -> gr.Image:
    source = gr.Image(
        label=label("X-ray"),
        show_label=False,
        type="filepath",
        format="png",
        image_mode=None,
        sources=["upload", "clipboard", "webcam"],
        # A phone's camera is held over a light box, and what it sees must not be mirrored.
        webcam_options=gr.WebcamOptions(mirror=False, constraints={"video": {"facingMode": "environment"}}),
        height=300,
        elem_id="xray-input",
        buttons=[],
        placeholder=in_every(lambda: f"{say(DROP)}\n{say(FORMATS)}"),
    )
    guard(source, _as_it_came)
    return source


class ExplainTab:
    """Lays itself out inside the current Blocks; ``session`` holds what the page knows of the X-ray, or None.

    Args:
        classifiers: the models to choose from, the default first.
    """

    def __init__(self, classifiers: Sequence[Classifier]) -> None:
        self.models = {classifier.card.name: classifier for classifier in classifiers}
        self.labelled = library.held_out_images(classifiers[0].card.classes)
        self.offered = library.examples(drawn=classifiers[0].card.subject.ours)
        self.requests = Requests()
        self.session = gr.State(None, time_to_live=HOUR)
        self.rejected = gr.State(None, time_to_live=HOUR)
        with gr.Column(elem_id="workbench"):
            self.message = gr.HTML("", elem_id="message")
            self.anyway = gr.Button(label("Explain it anyway"), visible=False, size="sm", elem_id="anyway")
            with gr.Row(visible=False, elem_id="bench") as self.bench:
                with gr.Column(scale=7, min_width=300, elem_id="stage"):
                    self._lay_out_stage()
                with gr.Column(scale=4, min_width=300, elem_id="side"):
                    self._lay_out_verdict()
                    self._lay_out_settings(any(classifier.card.presence for classifier in classifiers))
            with gr.Row(elem_id="through"):
                self.number = gr.Slider(1, 2, 1, step=1, label=label("Slice"), visible=False, elem_id="slice")
                self.window = gr.Dropdown(
                    [(label(OWN_WINDOW), OWN_WINDOW)],
                    value=OWN_WINDOW,
                    label=label("Window"),
                    visible=False,
                    elem_id="window",
                )
            with gr.Row(elem_id="start"):
                with gr.Column(scale=4, min_width=300):
                    self._lay_out_inputs(classifiers)
                with gr.Column(scale=7, min_width=300):
                    self._lay_out_examples()
        self._bind()

    def _lay_out_stage(self) -> None:
        with gr.Tabs(elem_id="views"):
            with gr.Tab(label("Heatmap")), gr.Group(elem_id="pair"):
                self.plain = picture("plain", "")
                self.painted = picture("painted", "")
            with gr.Tab(label("Slider")):
                self.slider = gr.ImageSlider(
                    show_label=False, format="png", interactive=False, elem_id="slider", buttons=[]
                )
        self.legend = gr.HTML("", elem_id="legend")
        self.progress = gr.HTML("", elem_id="method-progress")
        with gr.Row(elem_id="tools"):
            self.method = gr.Dropdown(
                [(label(how.title), name) for name, how in METHODS.items() if not how.contrasts],
                value=DEFAULT,
                label=label("Method"),
                show_label=False,
                container=False,
                elem_id="method",
                min_width=130,
            )
            self.stop = gr.Button(label("Stop"), visible=False, size="sm", elem_id="method-stop", min_width=70)
            label("Show heat")
            self.hold = gr.Button(label("Hide heat"), size="sm", elem_id="hold", min_width=120)
            self.another = gr.Button(label("New X-ray"), size="sm", elem_id="another", min_width=100)
        self.point = gr.HTML("", elem_id="point")

    def _lay_out_verdict(self) -> None:
        self.verdict = gr.HTML("", elem_id="verdict")
        self.bars = gr.HTML("", visible="hidden", elem_id="bars")
        self.types = gr.Radio([], label=label("Likeliest types"), show_label=False, container=False, elem_id="types")
        self.every = gr.Button(label("All types"), size="sm", elem_id="all-types")
        self.belief = gr.HTML("", elem_id="belief")
        TakeHome(self.session, self.models, self.types, self.method)

    def _lay_out_settings(self, fracture_map: bool) -> None:
        with gr.Accordion(label("Settings"), open=False, elem_id="settings"):
            self.colours = gr.Dropdown(list(COLOUR_MAPS), value="inferno", label=label("Colours"), elem_id="colours")
            self.opacity = gr.Slider(0.1, 1.0, 0.6, step=0.05, label=label("Opacity"), elem_id="opacity")
            self.contour = gr.Checkbox(True, label=label("Outline the hottest region"), elem_id="contour")
            self.fracture = gr.Checkbox(
                True, label=label("Outline the fracture seen"), visible=fracture_map, elem_id="fracture"
            )
        self.description = gr.HTML("", elem_id="description")

    def _lay_out_inputs(self, classifiers: Sequence[Classifier]) -> None:
        self.source = _source()
        self.model = model_choice([classifier.card for classifier in classifiers], "model")
        self.files = gr.UploadButton("Files", file_count="multiple", visible="hidden", elem_id="files")
        guard(self.files)
        self.random = gr.Button(
            label("Random test X-ray"), elem_id="random-xray", visible=bool(self.labelled), size="sm"
        )

    def _lay_out_examples(self) -> None:
        gr.HTML(in_every(self._origins), elem_id="origin", visible=bool(self.offered))
        for example in self.offered:
            # Gradio translates no captions: the page's script looks them up.
            label(example.label)
        self.examples = gr.Gallery(
            [(str(example.path), example.label) for example in self.offered],
            show_label=False,
            visible=bool(self.offered),
            columns=5,
            height="auto",
            allow_preview=False,
            object_fit="cover",
            elem_id="examples",
            buttons=[],
        )

    def _origins(self) -> str:
        sources = sorted({example.source for example in self.offered})
        told = "; ".join(marked(source) for source in sources)
        return f"<p class='origin'><strong>{said('Or click an example')}</strong> &ndash; {told}</p>"

    def _bind(self) -> None:
        looks = [self.method, self.colours, self.opacity, self.contour, self.fracture]
        inputs = [self.model, *looks]
        drawn = [self.painted, self.slider, self.legend, self.description, self.point, self.belief]
        results = [self.source, self.message, self.bench, self.session, self.rejected, self.anyway, self.verdict]
        results += [self.bars, self.types, self.plain, *drawn, self.number, self.window, self.method]
        states = [self.session, self.rejected]
        heavy: dict[str, Any] = {**HEAVY, "show_progress_on": [self.painted]}
        self.source.input(self.explain_shown, [self.source, *inputs], results, **heavy)
        self.files.upload(self.explain_files, [self.files, *inputs], results, **heavy)
        self.examples.select(self.explain_example, inputs, results, **heavy)
        self.random.click(self.explain_random, inputs, results, **heavy)
        for change in (self.number.release, self.window.input):
            through = [*states, self.number, self.window, *inputs]
            change(self.explain_slice, through, results, trigger_mode="always_last", **heavy)
        self.anyway.click(self.explain_anyway, [self.rejected, *inputs], results, **heavy)
        self.model.input(self.explain_again, [*states, *inputs], results, **heavy)
        changes = [self.colours.input, self.opacity.change, self.contour.input, self.fracture.input]
        chosen = [self.session, self.types, *looks]
        gr.on([*changes, self.types.input, self.method.select], self.redraw, chosen, drawn, **LIGHT)
        running = gr.on(
            [self.types.input, self.method.select],
            self.draw_slowly,
            chosen,
            [*drawn, self.progress, self.stop],
            concurrency_id=PATIENT,
            concurrency_limit=2,
            api_visibility="private",
            show_progress="hidden",
        )
        stopped = [self.progress, self.stop, self.method, *drawn]
        cancel(self.stop.click, running, self.stop_drawing, chosen, stopped, **LIGHT)
        cancel(self.session.change, running, self.nothing_runs, None, [self.progress, self.stop], **LIGHT)
        self.painted.select(self.tell_point, self.session, self.point, **LIGHT)

    def explain_shown(self, path: str | None, model: str, *looks: Any) -> Updates:
        if path:
            return self.explain_files([path], model, *looks)
        cleared = {**self._one_picture(), **self._nothing("")}
        del cleared[self.source]
        return cleared

    def explain_files(self, paths: list[str] | None, model: str, *looks: Any) -> Updates:
        def explain() -> Updates:
            slices = gather(paths or [])
            count = len(slices.places)
            windows = [(say(name), name) for name in (OWN_WINDOW, *slices.windows)]
            return {
                **self._explained(slices, model, Looks(*looks)),
                self.number: gr.update(maximum=max(2, count), value=slices.shown + 1, visible=count > 1),
                self.window: gr.update(choices=windows, value=OWN_WINDOW, visible=bool(slices.windows)),
            }

        return {**self._one_picture(), **self._attempt(explain)}

    def explain_example(self, event: gr.SelectData, model: str, *looks: Any) -> Updates:
        slices = Slices(((str(self.offered[event.index].path), 0),))
        return {**self._one_picture(), **self._explained(slices, model, Looks(*looks))}

    def explain_random(self, model: str, *looks: Any) -> Updates:
        path, kind = library.random_image(self.labelled)
        slices = Slices(((str(path), 0),))
        return {**self._one_picture(), **self._explained(slices, model, Looks(*looks), kind.name)}

    def explain_slice(
        self, session: Session | None, rejected: Slices | None, number: float, window: str, model: str, *looks: Any
    ) -> Updates:
        slices = session.slices if session else rejected
        if slices is None:
            return self._nothing(text.rejection(text.FORGOTTEN))
        chosen = slices.choose(round(number) - 1, window)
        return self._explained(chosen, model, Looks(*looks), anyway=session is not None and session.anyway)

    def explain_again(self, session: Session | None, rejected: Slices | None, model: str, *looks: Any) -> Updates:
        if session is not None:
            return self._explained(session.slices, model, Looks(*looks), session.label, session.anyway)
        return self._explained(rejected, model, Looks(*looks)) if rejected else self._nothing("")

    def explain_anyway(self, rejected: Slices | None, model: str, *looks: Any) -> Updates:
        if rejected is None:
            return self._nothing(text.rejection(text.FORGOTTEN))
        return self._explained(rejected, model, Looks(*looks), anyway=True)

    def redraw(self, session: Session | None, name: str | None, *looks: Any) -> Updates:
        """Everything that changes with the chosen type, method or look, but for maps that take time."""
        looks = Looks(*looks)
        if session is None or name is None:
            sentence = text.line(text.FORGOTTEN)
            return {self.painted: None, self.slider: None, self.legend: "", self.description: sentence, self.point: ""}
        if METHODS[looks.method].cost != "instant" and (name, looks.method) not in session.maps:
            return gr.skip()  # ``draw_slowly`` is at it
        return self._attempt(lambda: self._drawn(session, name, looks))

    def draw_slowly(self, session: Session | None, name: str | None, *looks: Any) -> Iterator[Updates]:
        """The map of a method that takes more than a moment, once it is found."""
        looks = Looks(*looks)
        title = METHODS[looks.method].title
        if session is None or name is None or METHODS[looks.method].cost == "instant":
            yield self.nothing_runs()
            return
        if (name, looks.method) in session.maps:
            yield self.nothing_runs()
            return
        request = self.requests.of(self.models[session.explanation.model], session, name)
        try:
            for share, found in watched(lambda watch: draw(replace(request, watch=watch), looks.method)):
                if found is None:
                    yield {self.progress: progress(share, say(title)), self.stop: gr.update(visible=True)}
                else:
                    session.maps[name, looks.method] = found
                    yield {**self.nothing_runs(), **self._drawn(session, name, looks)}
        except Cancelled:
            yield {**self.nothing_runs(), self.progress: text.line("{method} took too long.", method=say(title))}
        except Exception as error:  # noqa: BLE001 - whatever it is, the page stays usable
            log.error("a heatmap could not be drawn: %s", type(error).__name__)
            yield {**self.nothing_runs(), self.progress: text.line(text.OURS)}

    def stop_drawing(self, session: Session | None, name: str | None, *looks: Any) -> Updates:
        """Back to the method that takes no time."""
        looks = Looks(*looks)._replace(method=DEFAULT)
        return {**self.redraw(session, name, *looks), **self.nothing_runs(), self.method: DEFAULT}

    def nothing_runs(self) -> Updates:
        return {self.progress: "", self.stop: gr.update(visible=False)}

    def tell_point(self, event: gr.SelectData, session: Session | None) -> str:
        """What stands at the point of the X-ray that was clicked."""
        if session is None:
            return text.line(text.FORGOTTEN)
        explanation = session.explanation
        try:
            found = evidence_at(explanation, *(int(value) for value in event.index))
        except (TypeError, ValueError):
            return ""
        return text.point(self.models[explanation.model].card, found)

    def _run(self, slices: Slices, classifier: Classifier, label: str | None, anyway: bool) -> Session:
        """Reads, checks and explains the chosen picture.

        Raises:
            ImageError: it cannot be read; RejectedError where it is out-of-distribution and nobody insists.
        """
        result = explain_image(slices.radiograph(), model=classifier, anyway=anyway)
        explanation = result.explanation.at_screen_size(SCREEN)
        shown = on_page("image.png", plain(explanation.radiograph))
        return Session(explanation, result.square, slices, label, result.ood.state, shown)

    def _explained(
        self, slices: Slices, model: str, looks: Looks, label: str | None = None, anyway: bool = False
    ) -> Updates:
        """The verdict and the heatmap, or a sentence."""

        def explain() -> Updates:
            try:
                return self._found(self._run(slices, self.models[model], label, anyway), looks)
            except RejectedError as error:
                # What was rejected can still be looked at, and through, until people insist.
                image = slices.radiograph()
                picture = plain(image.scaled(min(SCREEN, max(image.height, image.width))))
                return self._nothing(text.rejection(str(error), image.notes), slices, picture)

        return self._attempt(explain)

    def _attempt(self, work: Callable[[], Updates]) -> Updates:
        try:
            return work()
        except ImageError as error:
            return self._nothing(text.rejection(str(error)))
        except Exception as error:  # noqa: BLE001 - whatever it is, the page stays usable
            log.error("an X-ray could not be explained: %s", type(error).__name__)
            return self._nothing(text.rejection(text.OURS))

    def _found(self, session: Session, looks: Looks) -> Updates:
        explanation = session.explanation
        classifier = self.models[explanation.model]
        choices, style = text.bars(classifier.card, explanation)
        # Nothing speaks for a heatmap of a picture that the model was never meant for.
        findings = () if session.anyway else quick_checks(self.requests.of(classifier, session), explanation)
        drawn = self._drawn(session, explanation.prediction.best, looks._replace(method=DEFAULT))
        return {
            self.message: "",
            self.bench: gr.update(visible=True),
            self.session: session,
            self.rejected: None,
            self.anyway: gr.update(visible=False),
            self.verdict: text.verdict(classifier.card, explanation, session.label, session.likeness),
            self.bars: style,
            self.types: gr.update(choices=choices, value=explanation.prediction.best),
            self.source: session.plain,
            self.plain: gr.update(value=session.plain, alt_text=say("The X-ray")),
            self.method: DEFAULT,
            **drawn,
            self.belief: gr.update(value=text.belief(findings), visible=True),
        }

    def _drawn(self, session: Session, name: str, looks: Looks) -> Updates:
        explanation = session.explanation
        model = self.models[explanation.model]
        card, heat = model.card, self.requests.heat(model, session, name, looks.method)
        how: dict[str, Any] = {"colours": looks.colours, "contour": looks.contour, "fracture": looks.fracture}
        painted, regions, outlines, opacity = paint(explanation, card, heat, opacity=looks.opacity, **how)
        alt = text.alternative(card, name, regions)
        drawn = on_page("heatmap.png", painted)
        # Files are forgotten a little before the session is.
        under = session.plain if Path(session.plain).is_file() else on_page("image.png", plain(explanation.radiograph))
        return {
            self.painted: gr.update(value=drawn, alt_text=alt),
            self.slider: (under, drawn),
            self.legend: text.legend(card, explanation, name, looks.method, looks.colours, opacity, outlines),
            # The quick checks are of this one map.
            self.belief: gr.update(visible=(name, looks.method) == (explanation.prediction.best, DEFAULT)),
            self.description: text.describe(card, explanation, name, looks.method, regions),
            self.point: "",
        }

    def _nothing(self, message: str, rejected: Slices | None = None, picture: np.ndarray | None = None) -> Updates:
        """No result, and what the page says instead; what was rejected stays to be looked at."""
        return {
            self.message: message,
            self.bench: gr.update(visible=False),
            self.session: None,
            self.rejected: rejected,
            self.anyway: gr.update(visible=rejected is not None),
            self.types: gr.update(choices=[], value=None),
            self.source: picture,
            **dict.fromkeys((self.plain, self.painted, self.slider)),
            **dict.fromkeys((self.verdict, self.bars, self.belief, self.legend, self.description, self.point), ""),
        }

    def _one_picture(self) -> Updates:
        """Nothing to look through."""
        return dict.fromkeys((self.number, self.window), gr.update(visible=False))
