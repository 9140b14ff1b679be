"""The button that makes what people take home of the X-ray on the page: a report, and a zip file of everything."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import gradio as gr

from app.bundle import bundle, pack
from app.errors import Cancelled, ChoiceError, ImageError, Progress
from app.explain import DEFAULT
from app.imaging.dicom_read import is_dicom
from app.imaging.radiograph import load
from app.imaging.series import OWN_WINDOW, Slices
from app.model.classifier import Classifier
from app.pipeline import REPORT, OpenedImage, explain_image
from app.result_folders import Source
from app.ui import text
from app.ui.languages import label
from app.ui.session import LIMIT, PATIENT, Session, cancel
from app.ui.uploads import hand_out

__all__ = ["TakeHome"]

Choice = gr.Radio | gr.Dropdown | gr.State

log = logging.getLogger(__name__)

MAKING = "Making the report and the files…"
DONE = "The report is a page to print. The zip file holds the pictures, the map as numbers, and the JSON."


def _opened(slices: Slices) -> OpenedImage:
    """The chosen picture at its own size, without a name; raises ImageError where it is gone."""
    path, frame = slices.places[slices.shown]
    data, window = load(path), None if slices.window == OWN_WINDOW else slices.window
    where = Source(None, hashlib.sha256(data).hexdigest(), frame + 1, window)
    return OpenedImage(slices.radiograph(), where, data if is_dicom(data) else None)


class TakeHome:
    """Lays itself out inside the current Blocks.

    Args:
        session: holds what the page knows of the X-ray.
        models: the models, by name.
        target: holds the type whose heatmap is shown.
        method: holds the method of the heatmap; the default one where absent.
    """

    def __init__(
        self,
        session: gr.State,
        models: Mapping[str, Classifier],
        target: Choice,
        method: Choice | None = None,
    ) -> None:
        self.models = models
        self.make = gr.Button(label("Download"), size="sm", elem_id="take-home")
        self.state = gr.HTML("", elem_id="take-home-state")
        with gr.Row(visible=False) as self.ready:
            look: dict[str, Any] = {"size": "sm", "min_width": 140}
            self.report = gr.DownloadButton(label("Report (PDF)"), elem_id="take-home-report", **look)
            self.all = gr.DownloadButton(label("Everything (zip)"), elem_id="take-home-all", **look)
        shown = [target] if method is None else [target, method]
        results = [self.state, self.ready, self.report, self.all]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        making = self.make.click(
            self.write, [session, *shown], results, concurrency_id=PATIENT, concurrency_limit=2, **quiet
        )
        # What was made of another X-ray or type must not stand beside this one.
        changes = [session.change, *(each.change for each in shown)]
        cancel(partial(gr.on, changes), making, self.cleared, None, results, **quiet)

    def cleared(self, message: str = "") -> dict[Any, Any]:
        return {self.state: message, self.ready: gr.update(visible=False)}

    def write(self, session: Session | None, target: str | None, method: str = DEFAULT) -> Iterator[dict[Any, Any]]:
        if session is None:
            yield self.cleared(text.line(text.NO_XRAY))
            return
        yield self.cleared(text.line(MAKING))
        try:
            opened, model = _opened(session.slices), self.models[session.explanation.model]
            result = explain_image(
                opened, model=model, method=method, target=target, anyway=session.anyway, progress=Progress(LIMIT)
            )
            parts = bundle(result, opened.dicom)
            yield {
                self.state: text.line(DONE),
                self.ready: gr.update(visible=True),
                self.report: gr.update(value=hand_out(REPORT, parts[REPORT])),
                self.all: gr.update(value=hand_out("bundle.zip", pack(result.files(parts)))),
            }
        except (ImageError, ChoiceError, Cancelled) as error:
            yield self.cleared(text.line(str(error)))
        except Exception as error:  # noqa: BLE001 - whatever it is, the page stays usable
            log.error("nothing to take home could be made: %s", type(error).__name__)
            yield self.cleared(text.line(text.OURS))
