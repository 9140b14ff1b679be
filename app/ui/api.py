"""The page's answers for programs: ``/explain`` names the type, ``/heatmap`` draws any method's map."""

from __future__ import annotations

import base64
import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import gradio as gr
import numpy as np

from app.errors import Cancelled, ImageError
from app.explain.methods import DEFAULT, METHODS, draw, heat, map_request
from app.imaging.radiograph import read
from app.model.classifier import Classifier, Explanation
from app.model.trust import answers
from app.ui.session import COMPUTE, LIMIT, OURS, PATIENT
from app.ui.uploads import uploaded
from app.watch import Progress

__all__ = ["build"]

log = logging.getLogger(__name__)


class _Choice(ValueError):
    """A name that is not to choose from; its words are meant for people."""


@contextmanager
def _in_words() -> Generator[None]:
    try:
        yield
    except (ImageError, Cancelled, _Choice) as error:
        raise gr.Error(str(error), print_exception=False) from None
    except Exception as error:  # noqa: BLE001 - Gradio would log the traceback
        log.error("a film could not be explained: %s", type(error).__name__)
        raise gr.Error(OURS, print_exception=False) from None


def _picture(heated: np.ndarray) -> str:
    encoded = cv2.imencode(".png", np.round(255.0 * heated).astype(np.uint8))[1]
    return "data:image/png;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def build(classifiers: Sequence[Classifier]) -> None:
    """Adds the endpoints to the current Blocks; the first model answers where none is named."""
    models = {classifier.card.name: classifier for classifier in classifiers}
    first = classifiers[0].card.name

    def look(film: Any, model: str, anyway: bool) -> tuple[Classifier, Explanation, bool]:
        if model not in models:
            raise _Choice(f"There is no model '{model}'. Known: {', '.join(models)}.")
        picture = read(uploaded(film["path"] if isinstance(film, dict) else film.path))
        unlike = models[model].check(picture, anyway=anyway)
        return models[model], models[model].explain([picture])[0], unlike

    def explain(film: gr.FileData, model: str = first, anyway: bool = False) -> dict[str, Any]:
        """Names the fracture type an X-ray shows. For study, not for diagnosis."""
        with _in_words():
            classifier, explanation, unlike = look(film, model, anyway)
            prediction = explanation.prediction
            return {
                "notice": classifier.card.intended_use,
                "model": explanation.model,
                "predicted": prediction.best,
                **answers(classifier.card, explanation, unlike=unlike),
                "probabilities": {name: prediction.probability(name) for name in prediction.ranking},
            }

    def heatmap(
        film: gr.FileData,
        method: str = DEFAULT,
        model: str = first,
        target: str = "",
        against: str = "",
        anyway: bool = False,
    ) -> dict[str, Any]:
        """Draws why, as a grey PNG of the film's size in a data URL. For study, not for diagnosis."""
        with _in_words():
            if method not in METHODS:
                raise _Choice(f"There is no method '{method}'. Known: {', '.join(METHODS)}.")
            classifier, explanation, unlike = look(film, model, anyway)
            try:
                question = map_request(
                    classifier, explanation.radiograph, target or None, against or None, Progress(LIMIT)
                )
            except ValueError as error:
                raise _Choice(str(error)) from None
            name = classifier.classes[question.target]
            drawn = explanation.heat(name) if method == DEFAULT else heat(draw(question, method), explanation.placement)
            return {
                "notice": classifier.card.intended_use,
                "model": explanation.model,
                "unlike": unlike,
                "notes": list(explanation.radiograph.notes),
                "method": method,
                "explained": name,
                "heatmap": _picture(drawn),
            }

    gr.api(explain, api_name="explain", concurrency_id=COMPUTE)
    gr.api(heatmap, api_name="heatmap", concurrency_id=PATIENT)
