"""Takes the README's picture: the page explaining a drawn X-ray, in headless Chromium (``make picture``)."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import cv2
from playwright.sync_api import sync_playwright

from app.imaging.examples import draw
from app.model.classifier import Classifier
from app.model.weights import ranked
from app.ui.page import launch

TARGET = Path(__file__).with_name("page.png")


def main() -> None:
    page, address = launch([Classifier.load(name) for name in ranked()], host="127.0.0.1", block=False)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        xray = Path(folder) / "drawing.png"
        cv2.imwrite(str(xray), draw("oblique", seed=2))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        tab.goto(address)
        tab.set_input_files("#xray-input input[type=file]", str(xray))
        tab.wait_for_selector("#painted img")
        tab.wait_for_timeout(1500)
        tab.screenshot(path=TARGET, clip={"x": 0, "y": 0, "width": 1280, "height": 800})
        browser.close()
    page.close()


if __name__ == "__main__":
    main()
