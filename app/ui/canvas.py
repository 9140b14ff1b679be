"""What may be painted: few layers of the page's size, kept for minutes only.

Gradio's editor takes any number of layers of any size, and keeps what was painted until somebody asks about it, which
nobody does who closes the page.
"""

from __future__ import annotations

import io
import time
from functools import wraps
from typing import Any

import gradio as gr
import numpy as np
from fastapi import HTTPException
from PIL import Image

from app.errors import ImageError
from app.ui.session import SCREEN
from app.ui.uploads import guard

__all__ = ["Drawings", "bound"]

LAYERS = 4
DRAWINGS = 32
MINUTES = 10 * 60.0
"""Seconds for which a drawing waits to be asked about."""
BYTES = 8 * 1024 * 1024

TOO_LARGE = "What was painted is larger than the film on the page. Please show the film here again."


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
