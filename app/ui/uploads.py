"""What is taken from people: only files uploaded to this server, and only few small layers of paint, kept for minutes.

Gradio checks the paths of a request only where they come with its own metadata; a request made by hand can leave that
out, and name any file of the machine. Its editor takes any number of layers of any size, and keeps what was painted
until somebody asks about it, which nobody does who closes the page.
"""

from __future__ import annotations

import io
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from fastapi import HTTPException
from gradio.components import Component
from gradio.utils import get_upload_folder
from PIL import Image
from pydantic import BaseModel

from app.errors import ImageError
from app.pipeline import png
from app.ui.session import SCREEN
from app.ui.text import FOREIGN, NOT_TAKEN, TOO_LARGE

__all__ = ["FOREIGN", "Drawings", "bound", "guard", "hand_out", "on_page", "uploaded"]

log = logging.getLogger(__name__)

LAYERS = 4
DRAWINGS = 32
MINUTES = 10 * 60.0
"""Seconds for which a drawing waits to be asked about."""
BYTES = 8 * 1024 * 1024


def uploaded(path: str) -> str:
    """The same path, if it lies in the folder of uploads once links are followed.

    Raises:
        ImageError: it does not.
    """
    if not Path(path).resolve().is_relative_to(Path(get_upload_folder()).resolve()):
        raise ImageError(FOREIGN)
    return path


def hand_out(name: str, data: bytes) -> str:
    """Writes a file for whoever asked for it, and returns its path, which nobody else can guess.

    It lies among the uploads, and is deleted as they are.
    """
    folder = Path(get_upload_folder()) / secrets.token_hex(20)
    folder.mkdir(parents=True)
    (folder / name).write_bytes(data)
    return str(folder / name)


def on_page(name: str, picture: np.ndarray) -> str:
    """A picture for the page as a file: encoded once, and quickly, where Gradio encodes it anew for every field."""
    return hand_out(name, png(picture))


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
            No handler may answer with an update of it, not even to skip it: Gradio then makes it anew, unguarded.
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


class Drawings(dict[str, Any]):
    """Drawings by the name Gradio gave them, the newest ``DRAWINGS`` of the last minutes."""

    def __init__(self) -> None:
        super().__init__()
        self._since: dict[str, float] = {}

    def __setitem__(self, name: str, drawing: Any) -> None:
        self.forget()
        self._since.setdefault(name, time.monotonic())
        super().__setitem__(name, drawing)
        while len(self) > DRAWINGS:
            self.pop(next(iter(self)))

    def pop(self, key: object, *default: Any) -> Any:
        self._since.pop(str(key), None)
        return super().pop(key, *default)

    def forget(self) -> None:
        """Drops what has waited too long."""
        for name, since in list(self._since.items()):
            if time.monotonic() - since > MINUTES:
                self.pop(name, None)


def bound(canvas: gr.ImageEditor) -> Drawings:
    """Makes an editor take few small layers only, and nothing but layers.

    Args:
        canvas: changed in place; its handlers get the layers, uint8 (H, W, 4) each, in a list.

    Returns:
        What was painted and waits, for whoever tidies up.
    """
    drawings = Drawings()
    canvas.blob_storage = drawings
    accept = canvas.accept_blobs

    # With it goes the mark by which Gradio knows what browsers may call.
    @wraps(accept)
    def accept_blobs(data: Any) -> Any:
        index = str(data.data["index"] or "null")
        few = index == "null" or (index.isdigit() and int(index) < LAYERS)
        if not few or any(len(blob) > BYTES for _, blob in data.files):
            raise HTTPException(413, TOO_LARGE)
        return accept(data)

    canvas.accept_blobs = accept_blobs

    def layers(payload: Any) -> list[np.ndarray]:
        if payload is None:
            return []
        sent = drawings.pop(payload.id, None) if payload.id is not None else payload
        found = [layer for layer in (sent.layers if sent else None) or [] if layer is not None]
        if len(found) > LAYERS:
            raise ImageError(TOO_LARGE)
        return [_opened(io.BytesIO(layer) if isinstance(layer, bytes) else layer.path) for layer in found]

    guard(canvas, layers)
    return drawings


def _opened(source: Any) -> np.ndarray:
    with Image.open(source, formats=("PNG",)) as picture:
        if max(picture.size) > SCREEN:
            raise ImageError(TOO_LARGE)
        return np.asarray(picture.convert("RGBA"))
