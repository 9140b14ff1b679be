"""The page's answers for programs, told in ``docs/api.md``: ``/classify``, ``/explain``, ``/batch`` and ``/methods``.

Their docstrings are what a program reads of them: Gradio shows them at ``/gradio_api/info``, and to agents as
descriptions of tools.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np
from gradio.context import LocalContext

from app.batch import explain_batch, gather
from app.errors import Cancelled, ChoiceError, ImageError, Progress
from app.explain import DEFAULT, METHODS
from app.imaging.radiograph import load
from app.model.classifier import Classifier
from app.model.weights import ModelCard
from app.pipeline import Result, explain_image
from app.ui.batch import refusal
from app.ui.languages import subject
from app.ui.session import COMPUTE, LIMIT, OURS, PATIENT
from app.ui.text import shows
from app.ui.uploads import FOREIGN, uploaded

__all__ = ["build", "tool_answer"]

log = logging.getLogger(__name__)


@contextmanager
def _in_words() -> Generator[None]:
    try:
        yield
    except (ImageError, Cancelled, ChoiceError) as error:
        raise gr.Error(subject().retell(str(error)), print_exception=False) from None
    except Exception as error:  # noqa: BLE001 - Gradio would log the traceback
        log.error("an image could not be explained: %s", type(error).__name__)
        raise gr.Error(subject().retell(OURS), print_exception=False) from None


def _picture(heat: np.ndarray) -> str:
    encoded = cv2.imencode(".png", np.round(255.0 * heat).astype(np.uint8))[1]
    return "data:image/png;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def _patience(seconds: float | None = LIMIT) -> Progress:
    """Lets work take its time for as long as somebody waits for it: who hangs up is answered by nobody."""
    page, event = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    waiting = page._queue.event_ids_to_events.get(event) if page is not None and event is not None else None

    def tell(_: float) -> None:
        if waiting is not None and not waiting.alive:
            progress.stop()

    progress = Progress(seconds, tell)
    return progress


def tool_answer(data: Sequence[dict[str, Any]], _root: str) -> list[Any]:
    """An endpoint's answer as contents that the Model Context Protocol knows: Gradio's own text would be no JSON."""
    from mcp.types import ImageContent, TextContent

    contents: list[Any] = []
    for answer in data:
        told = dict(answer)
        _, comma, encoded = told.pop("heatmap", "").partition(",")
        contents.append(TextContent(type="text", text=json.dumps(told)))
        if comma:
            contents.append(ImageContent(type="image", data=encoded, mimeType="image/png"))
    return contents


def _known(models: dict[str, Classifier], name: str) -> Classifier:
    if name not in models:
        raise ChoiceError(f"There is no model '{name}'. Known: {', '.join(models)}.")
    return models[name]


def _place(image: Any) -> str:
    return uploaded(image["path"] if isinstance(image, dict) else image.path)


def _answer(models: dict[str, Classifier], image: Any, model: str, **wanted: Any) -> Result:
    chosen = _known(models, model)
    # The bytes alone: an upload's name may be a person's.
    return explain_image(load(_place(image)), model=chosen, progress=_patience(), **wanted)


def _answers(models: dict[str, Classifier], images: Sequence[Any], model: str, *, anyway: bool) -> list[dict[str, Any]]:
    """A row an image, in order, each with the number of the file that it came in."""
    chosen, places = _known(models, model), [_place(image) for image in images]
    if any(not Path(place).is_file() for place in places):
        raise ImageError(FOREIGN)
    watch, rows = _patience(None), []
    with gather(places, [str(number) for number in range(1, 1 + len(places))]) as items:
        why, values = refusal(len(items))
        if why:
            raise ImageError(why.format(**values))
        for done, outcome in enumerate(explain_batch(items, model=chosen, anyway=anyway), start=1):
            row, result = outcome
            told = result.as_json() if result else None
            rows.append({"name": row.name, "state": row.state, "notes": row.notes, "explanation": told})
            watch.step(done / len(items))
    return rows


def build(classifiers: Sequence[Classifier]) -> None:
    """Adds the endpoints to the current Blocks; the first model answers where none is named."""
    models = {classifier.card.name: classifier for classifier in classifiers}
    _add_verdicts(models, classifiers[0].card.name)
    _add_batch(models, classifiers[0].card.name)
    _add_choices(models, classifiers[0].card)


def _about_its_subject(function: Callable[..., Any]) -> Callable[..., Any]:
    """The endpoint with a description of what the page is about."""
    function.__doc__ = subject().retell(function.__doc__ or "")
    return function


def _add_verdicts(models: dict[str, Classifier], first: str) -> None:
    def classify(image: gr.FileData, model: str = first, anyway: bool = False) -> dict[str, Any]:
        """Names the type of bone fracture an X-ray shows, and says whether a fracture is seen at all.

        A study aid that is often wrong about the type, and no diagnosis: pass its notice on.

        Args:
            image: an X-ray as PNG, JPEG, WebP, TIFF or DICOM, of at most 50 MB
            model: name of a model, as methods lists them; the best one where left out
            anyway: also answer for a picture that does not look like an X-ray

        Returns:
            JSON: every type with its calibrated probability, the finding, and warnings
        """
        with _in_words():
            return _answer(models, image, model, anyway=anyway).as_json()

    def explain(
        image: gr.FileData,
        method: str = DEFAULT,
        model: str = first,
        target: str = "",
        against: str = "",
        anyway: bool = False,
    ) -> dict[str, Any]:
        """Shows where a model looks on an X-ray: a heatmap of what speaks for a fracture type, with the verdict.

        It shows what the model used, not where the fracture is. For study, not for diagnosis.

        Args:
            image: an X-ray as PNG, JPEG, WebP, TIFF or DICOM, of at most 50 MB
            method: how to explain, as methods lists them; Grad-CAM where left out; slow ones take up to minutes
            model: name of a model, as methods lists them; the best one where left out
            target: the fracture type to explain; the likeliest one where left out
            against: the type to tell it from, for methods that contrast two
            anyway: also answer for a picture that does not look like an X-ray

        Returns:
            JSON: the verdict as classify gives it, and the heatmap as a grey PNG of the image's size
        """
        with _in_words():
            wanted = {"method": method, "target": target or None, "against": against or None}
            result = _answer(models, image, model, anyway=anyway, **wanted)
            return {"explanation": result.as_json(), "heatmap": _picture(result.heat)}

    # Or else the first request would lower the page's own limit to Gradio's, which is 1.
    gr.api(_about_its_subject(classify), api_name="classify", concurrency_id=COMPUTE, concurrency_limit=2)
    gr.api(_about_its_subject(explain), api_name="explain", concurrency_id=PATIENT, concurrency_limit=2)


def _add_batch(models: dict[str, Classifier], first: str) -> None:
    def batch(images: list[gr.FileData], model: str = first, anyway: bool = False) -> dict[str, Any]:
        """Names the type of bone fracture each of many X-rays shows, and says whether a fracture is seen on it at all.

        A study aid that is often wrong about the type, and no diagnosis: pass its notice on.

        Args:
            images: X-rays as PNG, JPEG, WebP, TIFF or DICOM, or zip files of these; at most 50 X-rays
            model: name of a model, as methods lists them; the best one where left out
            anyway: also answer for pictures that do not look like X-rays

        Returns:
            JSON: for every X-ray the number of its file, whether it was explained, rejected or failed, why, and what
            classify says of it
        """
        with _in_words():
            return {"results": _answers(models, images, model, anyway=anyway)}

    gr.api(_about_its_subject(batch), api_name="batch", concurrency_id=PATIENT, concurrency_limit=2)


def _told(name: str, card: ModelCard) -> dict[str, Any]:
    how = METHODS[name]
    return {"name": name, "title": how.title, "says": shows(name, card), "cost": how.cost, "contrasts": how.contrasts}


def _add_choices(models: dict[str, Classifier], card: ModelCard) -> None:
    def methods() -> dict[str, Any]:
        """Lists the methods to explain with, what each shows and costs, and the models with their fracture types.

        Returns:
            JSON: methods with name, title, says, cost and contrasts; models with name, title and types, the best first
        """
        known = [{"name": name, "title": its.card.title, "types": list(its.classes)} for name, its in models.items()]
        return {"methods": [_told(name, card) for name in METHODS], "models": known}

    gr.api(_about_its_subject(methods), api_name="methods", queue=False)
