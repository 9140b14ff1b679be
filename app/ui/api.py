"""The page's answers for programs, as ``docs/json.md`` lays them out.

``/explain`` names the type; ``/heatmap`` says the same and draws any method's map.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import gradio as gr
import numpy as np

from app.errors import Cancelled, ChoiceError, ImageError, Progress
from app.explain import DEFAULT
from app.imaging.radiograph import load
from app.model.classifier import Classifier
from app.pipeline import Result, explain_image
from app.ui.session import COMPUTE, LIMIT, OURS, PATIENT
from app.ui.uploads import uploaded

__all__ = ["build"]

log = logging.getLogger(__name__)


@contextmanager
def _in_words() -> Generator[None]:
    try:
        yield
    except (ImageError, Cancelled, ChoiceError) as error:
        raise gr.Error(str(error), print_exception=False) from None
    except Exception as error:  # noqa: BLE001 - Gradio would log the traceback
        log.error("an image could not be explained: %s", type(error).__name__)
        raise gr.Error(OURS, print_exception=False) from None


def _picture(heat: np.ndarray) -> str:
    encoded = cv2.imencode(".png", np.round(255.0 * heat).astype(np.uint8))[1]
    return "data:image/png;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def build(classifiers: Sequence[Classifier]) -> None:
    """Adds the endpoints to the current Blocks; the first model answers where none is named."""
    models = {classifier.card.name: classifier for classifier in classifiers}
    first = classifiers[0].card.name

    def answer(image: Any, model: str, **wanted: Any) -> Result:
        if model not in models:
            raise ChoiceError(f"There is no model '{model}'. Known: {', '.join(models)}.")
        # The bytes alone: an upload's name may be a person's.
        data = load(uploaded(image["path"] if isinstance(image, dict) else image.path))
        return explain_image(data, model=models[model], progress=Progress(LIMIT), **wanted)

    def explain(image: gr.FileData, model: str = first, anyway: bool = False) -> dict[str, Any]:
        """Names the fracture type an X-ray shows. For study, not for diagnosis."""
        with _in_words():
            return answer(image, model, anyway=anyway).as_json()

    def heatmap(
        image: gr.FileData,
        method: str = DEFAULT,
        model: str = first,
        target: str = "",
        against: str = "",
        anyway: bool = False,
    ) -> dict[str, Any]:
        """Draws why, as a grey PNG of the image's size in a data URL. For study, not for diagnosis."""
        with _in_words():
            wanted = {"method": method, "target": target or None, "against": against or None}
            result = answer(image, model, anyway=anyway, **wanted)
            return {"explanation": result.as_json(), "heatmap": _picture(result.heat)}

    gr.api(explain, api_name="explain", concurrency_id=COMPUTE)
    gr.api(heatmap, api_name="heatmap", concurrency_id=PATIENT)
