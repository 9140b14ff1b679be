"""The page in Chromium, as the tests of this folder visit it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from playwright.sync_api import Browser, Page, expect, sync_playwright

from app.imaging.examples import draw
from app.model.classifier import Classifier
from app.model.ood import Detector, DetectorCard, backbone
from tests.serving import PATIENCE, launch

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def choosy(classifier: Classifier) -> Classifier:
    """A third model, which knows one grey square and nothing like it."""
    named = classifier.card.model_copy(update={"name": "choosy", "title": "Choosy network"})
    card = DetectorCard(file="detector.safetensors", sha256="0" * 64, size=96, warning=-1.0, rejection=-1.0)
    return Classifier(classifier.network, named, Detector(backbone(), torch.zeros(512), 0.0, card))


@pytest.fixture(scope="module")
def address(classifier: Classifier, second: Classifier, drawn_set: Path) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRACTURE_DATA", str(drawn_set))
        page, url = launch([classifier, second, choosy(classifier)])
    yield url
    page.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    expect.set_options(timeout=1000 * PATIENCE)
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        # A camera that Chromium makes up.
        flags += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags, timeout=1000 * PATIENCE)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Callable[..., Page]]:
    opened = []

    def go(width: int = 1280, at: str = address, **look: Any) -> Page:
        page = browser.new_page(viewport={"width": width, "height": 900}, **look)
        page.set_default_timeout(1000 * PATIENCE)
        page.goto(at)
        page.wait_for_selector("html[data-ready] #xray-input input[type=file]", state="attached")
        opened.append(page)
        return page

    yield go
    for page in opened:
        page.close()


@pytest.fixture
def drawing(tmp_path: Path) -> Path:
    path = tmp_path / "arm.png"
    cv2.imwrite(str(path), draw("oblique", seed=2))
    return path
