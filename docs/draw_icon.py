"""Draws the page's icon, a drawn forearm with heat on its break (``python -m docs.draw_icon``)."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from app.explain.overlay import overlay
from app.imaging.examples import draw

TARGET = Path(__file__).parents[1] / "app" / "ui" / "icon.png"
SIDE = 512


def main() -> None:
    forearm = draw("transverse", seed=4, height=1280, width=960, marker=False)
    top, left = 463, 110
    square = forearm[top : top + 640, left : left + 640]
    square = cv2.GaussianBlur(cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA), (0, 0), 1.5)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    heat = np.exp(-((columns - 247) ** 2 + (rows - 256) ** 2) / (2 * 60.0**2)).astype(np.float32)
    Image.fromarray(overlay(square, heat, contour=False)).save(TARGET, optimize=True)


if __name__ == "__main__":
    main()
