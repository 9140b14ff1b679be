"""What a visitor waits for: from upload to heatmap, and from a click on another type or method to its heatmap.

``make bench-page`` serves the shipped models in a process of its own, drives headless Chromium, and prints medians
beside the time that the bare answer takes for the same drawn X-rays: read, predicted and explained, without a page.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

import cv2
from playwright.sync_api import Page, sync_playwright

from app.imaging.examples import draw
from app.model.classifier import Classifier
from app.model.weights import ranked
from app.pipeline import explain_image
from benchmarks.load import serving
from benchmarks.record import keep

TIMES = 20
WARM_UP = 2
SETTLED = 1000.0
"""Milliseconds for which nothing of an answer has changed: what an act changes may arrive after its heatmap."""
METHOD = "LayerCAM"
"""Instant; a new X-ray starts with Grad-CAM again."""
FIELD = "input[type=file]:has(+ #files)"
"""What takes every file; the field one sees goes once it shows an X-ray."""

PICTURE = "#painted img"
SAID = "#description"
"""Two types without heat have one picture; what is said of it tells them apart."""

WATCH = """([place, settled]) => {
    const shown = (where) => { const one = document.querySelector(where); return one?.src ?? one?.textContent; };
    const all = () => ["#painted img", "#description", "#legend"].map(shown).join();
    let before = all(), since = performance.now();
    const wait = () => {
        if (all() !== before) { before = all(); since = performance.now(); }
        if (performance.now() - since < settled) return requestAnimationFrame(wait);
        window.ready = true;
        const first = shown(place);
        const next = () => {
            const now = document.querySelector("#painted img");
            const changed = shown(place) && shown(place) !== first;
            if (changed && now?.complete && now.naturalWidth) window.heatmap = performance.now();
            else requestAnimationFrame(next);
        };
        next();
    };
    window.ready = false;
    window.heatmap = 0;
    wait();
}"""


def waited(page: Page, act: Callable[[], None], place: str = PICTURE) -> float:
    """Seconds from an act to what it changes at a place, with a heatmap on the screen, by the browser's own clock."""
    page.evaluate(WATCH, [place, SETTLED])
    page.wait_for_function("window.ready")
    began = page.evaluate("performance.now()")
    act()
    page.wait_for_function("window.heatmap > 0")
    return (page.evaluate("window.heatmap") - began) / 1000.0


def visit(address: str, images: list[Path]) -> dict[str, list[float]]:
    """Seconds a visitor waits for each image, another type of it, and another method."""
    found: dict[str, list[float]] = {"upload": [], "type": [], "method": []}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        page.wait_for_selector(f"html[data-ready] {FIELD}", state="attached")
        page.set_default_timeout(60_000)

        for image in images:
            found["upload"].append(waited(page, lambda image=image: page.set_input_files(FIELD, str(image))))
            other = page.locator("#types label:not(.selected)").first
            if not other.is_visible():  # no fracture is seen
                page.locator("#all-types").click()
            found["type"].append(waited(page, other.click, SAID))
            page.locator("#method input").click()
            found["method"].append(waited(page, page.get_by_role("option", name=METHOD, exact=True).click))
        browser.close()
    return {name: times[WARM_UP:] for name, times in found.items()}


def bare(images: list[Path]) -> list[float]:
    """Seconds of the answer alone."""
    classifier, found = Classifier.load(ranked()[0]), []
    for image in images:
        began = time.perf_counter()
        explain_image(image, model=classifier)
        found.append(time.perf_counter() - began)
    return found[WARM_UP:]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        images = [Path(folder) / f"{number}.png" for number in range(WARM_UP + TIMES)]
        for number, image in enumerate(images):
            cv2.imwrite(str(image), draw("oblique", seed=number, height=1200, width=900))
        with serving() as server:
            times = visit(f"http://127.0.0.1:{server.port}", images)
        alone = median(bare(images))
    figures: dict[str, float] = {"times": TIMES, "bare": round(alone, 3)}
    print(f"the answer without a page   {alone:.3f} s")
    for name, each in times.items():
        middle, late = median(each), quantiles(each, n=20)[-1]
        figures |= {f"{name}_p50": round(middle, 3), f"{name}_p95": round(late, 3)}
        print(f"{name:8s} to heatmap          p50 {middle:.3f} s ({middle / alone:.1f} x), p95 {late:.3f} s")
    keep("page", figures)


if __name__ == "__main__":
    main()
