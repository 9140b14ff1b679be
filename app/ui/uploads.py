"""Only what was uploaded to this server is read for people.

Gradio checks the paths of a request only where they come with its own metadata; a request made by hand can leave that
out, and name any file of the machine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.utils import get_upload_folder
from pydantic import BaseModel

from app.errors import ImageError

__all__ = ["FOREIGN", "guard", "uploaded"]

log = logging.getLogger(__name__)

FOREIGN = "That file was not uploaded here. Please drop it in again."
NOT_TAKEN = "That could not be taken in. Please drop it in again."


def uploaded(path: str) -> str:
    """The same path, if it lies in the folder of uploads once links are followed.

    Raises:
        ImageError: it does not.
    """
    if not Path(path).resolve().is_relative_to(Path(get_upload_folder()).resolve()):
        raise ImageError(FOREIGN)
    return path


def _paths(payload: Any) -> Iterator[str]:
    if isinstance(payload, BaseModel):
        payload = payload.model_dump()
    if isinstance(payload, dict):
        if isinstance(payload.get("path"), str):
            yield payload["path"]
        payload = list(payload.values())
    if isinstance(payload, (list, tuple)):
        for part in payload:
            yield from _paths(part)


def guard(component: Component, read: Callable[[Any], Any] | None = None) -> None:
    """Makes a component refuse files that were not uploaded.

    Args:
        component: changed in place; a subclass would do, but Gradio writes a stub file beside every module with one.
        read: what is made of the payload; the component's own reading where not given.
    """
    own = read or component.preprocess

    def preprocess(payload: Any) -> Any:
        try:
            for path in _paths(payload):
                uploaded(path)
            return own(payload)
        except ImageError as error:
            raise gr.Error(str(error), print_exception=False) from None
        except Exception as error:  # noqa: BLE001 - Gradio would log the traceback, and with it the file's name
            log.error("an upload could not be taken: %s", type(error).__name__)
            raise gr.Error(NOT_TAKEN, print_exception=False) from None

    component.preprocess = preprocess
