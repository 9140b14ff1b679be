"""HTML pages with radiographs, filled from the Jinja2 templates beside this file: for the user's own disk only."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader


def picture(pixels: np.ndarray, side: int, caption: str, name: str = "") -> dict[str, str]:
    """What the templates draw as one captioned picture.

    Args:
        pixels: uint8 (H, W), or (H, W, 3) in the order red, green, blue.
        side: the longer one in pixels.
        caption: below it.
    """
    scale = side / max(pixels.shape[:2])
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    small = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    jpeg = base64.b64encode(cv2.imencode(".jpg", small)[1].tobytes()).decode()
    return {"jpeg": jpeg, "caption": caption, "name": name}


def write_page(template: str, folder: Path, **values: Any) -> Path:
    """Fills a template into ``index.html`` in a folder, which is made where it is missing, and names the file."""
    environment = Environment(loader=PackageLoader("training"), autoescape=True)
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    page.write_text(environment.get_template(template).render(values), encoding="utf-8")
    return page
