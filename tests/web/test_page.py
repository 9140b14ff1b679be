"""The page without a server in Chromium: the answers of the Python app, and no request that carries the picture."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from playwright.sync_api import Browser, Page, expect
from pydicom.data import get_testdata_file

from app.explain.overlay import overlay
from app.imaging.examples import BREAKS, draw
from app.imaging.radiograph import read
from app.model.classifier import REJECTED, Classifier, Explanation, presence
from app.ui import text
from app.ui.painted import paint
from tests.serving import PATIENCE
from tests.web.conftest import Served

pytestmark = pytest.mark.slow

WIDTHS = pytest.mark.parametrize("width", [1280, 390])
BLOB = 'new Blob([Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))], { type: "image/png" })'
LISTEN = """
  () => {
    const told = ({ type, detail }) => {
      if (type === "refused") return { type, words: detail };
      const { probabilities, maps, fracture } = detail.explanation;
      const words = [...document.querySelectorAll("#verdict :is(p, summary, li)")].map((each) => each.textContent);
      return {
        type,
        probabilities: [...probabilities],
        maps: maps.map((map) => [...map]),
        fracture: fracture && [...fracture],
        likeness: detail.likeness,
        words,
      };
    };
    globalThis.answer = new Promise((resolve) => {
      for (const type of ["explained", "refused"]) {
        document.addEventListener(type, (event) => resolve(told(event)), { once: true });
      }
    });
  }
"""
"""Waits for the page's next answer."""


@pytest.fixture
def visit(browser: Browser, served: Served) -> Iterator[Callable[..., Page]]:
    opened = []

    def go(width: int = 1280, address: str = "", **look: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, **look)
        opened.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.goto(address or served.address)
        page.wait_for_selector("html[data-ready]", state="attached")
        return page

    yield go
    for context in opened:
        context.close()


def answered(page: Page, give: Callable[[], object]) -> dict[str, Any]:
    """What the page says once a picture was given to it."""
    page.evaluate(LISTEN)
    give()
    return page.evaluate("globalThis.answer")


def upload(page: Page, path: Path) -> dict[str, Any]:
    return answered(page, lambda: page.set_input_files("#drop input", path))


@pytest.fixture
def drawing(tmp_path: Path) -> Path:
    path = tmp_path / "arm.png"
    cv2.imwrite(str(path), draw("oblique", seed=2))
    return path


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """A house under a blue sky, which nobody would take for an X-ray."""
    rng = np.random.default_rng(5)
    rows = np.arange(400)[:, None, None]
    sky = np.array([230.0, 140.0, 80.0]) + rows * np.array([-0.1, 0.3, 0.3])
    grass = np.array([40.0, 130.0, 60.0]) + rng.normal(0.0, 25.0, (400, 600, 3))
    picture = np.where(rows < 200, sky, grass).clip(0, 255).astype(np.uint8)
    cv2.circle(picture, (450, 90), 40, (90, 230, 255), -1)
    cv2.rectangle(picture, (120, 140), (260, 300), (40, 60, 170), -1)
    cv2.fillPoly(picture, [np.array([[100, 140], [280, 140], [190, 60]])], (30, 40, 90))
    path = tmp_path / "house.jpg"
    cv2.imwrite(str(path), picture)
    return path


def drawings(folder: Path, count: int) -> Iterator[Path]:
    """Drawn images of all kinds and many sizes, PNG and JPEG, some in colour."""
    rng = np.random.default_rng(21)
    for number in range(count):
        height = int(rng.integers(90, 1500))
        width = int(height * rng.uniform(0.5, 1.1))
        picture = draw(list(BREAKS)[number % len(BREAKS)], seed=number, height=height, width=max(width, 64))
        if number % 7 == 3:
            tint = np.array([0.85, 0.95, 1.0]) if number % 2 else np.array([1.0, 0.98, 0.96])
            picture = (picture[:, :, None] * tint).astype(np.uint8)
        path = folder / f"{number}.{'jpg' if number % 2 else 'png'}"
        cv2.imwrite(str(path), picture)
        yield path


def words_of(card_html: str) -> list[str]:
    """The sentences of a verdict as the served page tells it."""
    found = re.findall(r"<(p|summary|li)\b[^>]*>(.*?)</\1>", card_html)
    return [html.unescape(re.sub("<[^>]+>", "", told)) for _, told in found]


def compare(theirs: dict[str, Any], ours: Explanation, model: Classifier, likeness: Any) -> None:
    assert np.abs(np.array(theirs["probabilities"]) - ours.prediction.probabilities).max() < 1e-3
    for found, expected in zip(theirs["maps"], ours.maps, strict=True):
        assert np.abs(np.reshape(found, expected.shape) - expected).max() < 0.01 * np.ptp(expected)
    assert ours.fracture is not None
    assert np.abs(np.reshape(theirs["fracture"], ours.fracture.shape) - ours.fracture).max() < 0.01 * np.ptp(
        ours.fracture
    )
    assert theirs["likeness"] == likeness
    said = words_of(text.verdict(model.card, ours, likeness=likeness))
    assert [told.replace(" ", "") for told in theirs["words"]] == [told.replace(" ", "") for told in said]


def test_fifty_drawings_get_the_answers_of_the_python_app(
    visit: Callable[..., Page], shipped: Classifier, tmp_path: Path
) -> None:
    page = visit()
    explained = 0
    for path in drawings(tmp_path, 100):
        theirs, film = upload(page, path), read(path)
        likeness = shipped.check(film, anyway=True)
        if likeness == "out-of-distribution":
            assert (theirs["type"], theirs["words"]) == ("refused", REJECTED), path
            continue
        assert theirs["type"] == "explained", path
        compare(theirs, shipped.explain([film])[0], shipped, likeness)
        explained += 1
        if explained == 50:
            return
    pytest.fail(f"only {explained} drawings were like X-rays")


def painted(page: Page) -> np.ndarray:
    """What stands on the page's canvas: uint8 (H, W, 3), RGB."""
    url = page.evaluate("document.querySelector('#picture').toDataURL()")
    data = np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8)
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize(("height", "width"), [(512, 384), (1500, 1100)])
def test_the_picture_is_painted_as_the_python_app_paints_it(
    visit: Callable[..., Page], shipped: Classifier, tmp_path: Path, height: int, width: int
) -> None:
    page, path = visit(), tmp_path / "arm.png"
    cv2.imwrite(str(path), draw("oblique", seed=2, height=height, width=width))
    upload(page, path)
    ours = shipped.explain([read(path)])[0].at_screen_size(1024)
    if presence(ours, shipped.card.presence) == "none":
        page.locator("#heat").click()
    theirs = painted(page)
    expected = paint(ours, shipped.card, ours.heat(ours.prediction.best)).picture
    assert theirs.shape == expected.shape
    apart = np.abs(theirs.astype(int) - expected).max(axis=2)
    # Both draw lines in the same places, each with its own smoothing.
    assert (apart > 2).mean() < 0.02
    page.locator("#heat").click()
    assert np.abs(painted(page).astype(int) - ours.radiograph.shown()[:, :, None]).max() <= 1


@WIDTHS
def test_an_upload_is_explained_and_another_type_shown(
    visit: Callable[..., Page], drawing: Path, shipped: Classifier, width: int
) -> None:
    page = visit(width)
    upload(page, drawing)
    best = shipped.explain([read(drawing)])[0].prediction.ranking
    titles = text.titles(shipped.card)
    expect(page.locator("#verdict .kind")).to_contain_text(f"Type: {text.short_titles(shipped.card)[best[0]].lower()}")
    alt = f"The X-ray with the heatmap for {titles[best[0]].lower()}"
    expect(page.locator("#picture")).to_have_attribute("aria-label", re.compile(alt))
    assert page.locator("#types label:visible").count() == 3
    first = painted(page)
    page.locator("#types label").nth(1).click()
    expect(page.locator("#picture")).to_have_attribute("aria-label", re.compile(titles[best[1]].lower()))
    assert (painted(page) != first).any()
    page.locator("#picture").click()
    expect(page.locator("#point")).to_contain_text("Evidence at this point: ")
    page.locator("#every").click()
    assert page.locator("#types label:visible").count() == len(shipped.classes)
    page.keyboard.press("Tab")
    page.locator("#types input").nth(1).focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#types input").nth(2)).to_be_checked()
    expect(page.locator("#aid div")).to_contain_text(titles[best[2]].lower())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@WIDTHS
def test_a_picture_may_be_pasted_dropped_or_taken(visit: Callable[..., Page], drawing: Path, width: int) -> None:
    page = visit(width, permissions=["clipboard-read", "clipboard-write"])
    expected = upload(page, drawing)
    data = base64.b64encode(drawing.read_bytes()).decode()
    page.evaluate(f"(data) => navigator.clipboard.write([new ClipboardItem({{ 'image/png': {BLOB} }})])", data)
    assert answered(page, lambda: page.keyboard.press("Control+v")) == expected
    assert answered(page, page.locator("#paste").click) == expected
    drop = f"""(data) => {{
      const transfer = new DataTransfer();
      transfer.items.add(new File([{BLOB}], "arm.png", {{ type: "image/png" }}));
      dispatchEvent(new DragEvent("drop", {{ dataTransfer: transfer }}));
    }}"""
    assert answered(page, lambda: page.evaluate(drop, data)) == expected
    assert page.locator("#camera input").get_attribute("capture") == "environment"
    assert answered(page, lambda: page.set_input_files("#camera input", drawing)) == expected


@WIDTHS
def test_a_photograph_and_what_is_no_picture_get_a_sentence(
    visit: Callable[..., Page], photograph: Path, drawing: Path, tmp_path: Path, width: int
) -> None:
    page = visit(width)
    assert upload(page, photograph)["words"] == REJECTED
    expect(page.locator("#message")).to_contain_text(REJECTED)
    expect(page.locator("#bench")).to_be_hidden()
    assert answered(page, page.get_by_role("button", name="Explain it anyway").click)["type"] == "explained"
    expect(page.locator("#verdict .warning")).to_contain_text("do not believe this")
    spoilt = {
        "letter.txt": b"Dear reader",
        "empty.png": b"",
        "scan.tif": b"II*\0" + bytes(64),
        "broken.png": drawing.read_bytes()[:300],
    }
    for name, data in spoilt.items():
        (tmp_path / name).write_bytes(data)
        told = upload(page, tmp_path / name)
        assert told["type"] == "refused"
        assert re.fullmatch(r"[A-Z].+\.", told["words"]), name
    assert upload(page, drawing)["type"] == "explained"
    expect(page.locator("#message")).to_be_hidden()


@WIDTHS
def test_once_loaded_the_page_works_without_a_server(
    browser: Browser, exported: Path, drawing: Path, width: int
) -> None:
    server = Served(exported)
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    page.goto(server.address)
    expect(page.locator("#device")).to_contain_text("Works offline", timeout=1000 * PATIENCE)
    online = upload(page, drawing)
    server.close()
    page.reload()
    page.wait_for_selector("html[data-ready]", state="attached")
    assert page.evaluate("crossOriginIsolated")
    assert upload(page, drawing) == online
    context.close()


def test_no_request_carries_the_picture(
    visit: Callable[..., Page], served: Served, drawing: Path, photograph: Path
) -> None:
    page = visit()
    expect(page.locator("#device")).to_contain_text("Works offline", timeout=1000 * PATIENCE)
    asked: list[tuple[str, str, str | None]] = []
    page.context.on("request", lambda each: asked.append((each.method, each.url, each.post_data)))
    page.context.on("websocket", lambda each: asked.append(("websocket", each.url, None)))
    before = len(served.asked)
    upload(page, drawing)
    upload(page, photograph)
    upload(page, Path(str(get_testdata_file("CT_small.dcm"))))
    answered(page, page.locator("#examples button").first.click)
    names = {path.name for path in (drawing, photograph)}
    for method, url, body in asked:
        assert (method, body) == ("GET", None)
        assert url.startswith((served.address, "blob:"))
        assert not any(name in url for name in names)
    # All that is needed was kept before, so the server hears no more than whether there is a newer version.
    assert {path for _, path, _ in served.asked[before:]} <= {"/service-worker.js"}
    assert all((method, body) == ("GET", 0) and "?" not in path for method, path, body in served.asked)
    blocked = page.evaluate("fetch('https://example.com/', { method: 'POST', body: 'x' }).then(() => 0, () => 1)")
    assert blocked == 1


@pytest.mark.parametrize("inverse", [False, True])
def test_dicom_is_windowed(
    visit: Callable[..., Page], shipped: Classifier, tmp_path: Path, drawing: Path, inverse: bool
) -> None:
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    pixels = cv2.imread(str(drawing), cv2.IMREAD_GRAYSCALE).astype(np.uint16) * 8 + 100
    if inverse:
        pixels = 4095 - pixels
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelData = pixels.tobytes()
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverse else "MONOCHROME2"
    dataset.Modality, dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit = "DX", 0, 12, 11
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.WindowCenter, dataset.WindowWidth = (2975 if inverse else 1120), 2040
    path = tmp_path / "arm.dcm"
    dataset.save_as(path)
    theirs = upload(visit(), path)
    ours = shipped.explain([read(path)])[0]
    # The page has 8 bits where the server keeps 16.
    assert np.abs(np.array(theirs["probabilities"]) - ours.prediction.probabilities).max() < 0.01


def test_sixteen_bits_are_not_cut(visit: Callable[..., Page], shipped: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), draw("spiral", seed=4).astype(np.uint16) * 14 + 300)
    theirs, film = upload(visit(), path), read(path)
    compare(theirs, shipped.explain([film])[0], shipped, shipped.check(film))


def test_a_model_of_anything_else_is_served_in_its_own_words(
    exporting: Callable[..., Path],
    visit: Callable[..., Page],
    flowers: Classifier,
    photograph: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Classifier, "load", lambda *_: flowers)
    server = Served(exporting("flowers", tmp_path, tmp_path / "page"))
    page = visit(1280, server.address)
    told = upload(page, photograph)
    ours = flowers.explain([read(photograph)])[0]
    assert np.abs(np.array(told["probabilities"]) - ours.prediction.probabilities).max() < 1e-3
    assert (told["likeness"], told["fracture"]) == (None, None)
    assert (
        np.abs(painted(page).astype(int) - overlay(ours.radiograph.shown(), ours.heat(ours.prediction.best))).mean() < 3
    )
    page.locator("#aid summary").click()
    expect(page.locator("#legend .seen")).to_be_hidden()
    page.evaluate("document.querySelectorAll('[hidden]').forEach((each) => each.remove())")
    said = page.locator("body").inner_text() + page.title()
    assert not re.search("fracture|x-ray|bone", said, re.IGNORECASE)
    server.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit: Callable[..., Page], drawing: Path, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = visit(1280, color_scheme=scheme, bypass_csp=True)
    assert Axe().run(page).response["violations"] == []
    upload(page, drawing)
    page.locator("#verdict summary").click()
    page.locator("#aid summary").click()
    found = Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
