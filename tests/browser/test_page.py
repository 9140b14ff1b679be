"""The page as a person meets it: upload, wait, see the overlay, choose another type, see it change."""

from __future__ import annotations

import base64
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import FileChooser, JSHandle, Locator, Page, expect

from app.explain import perturbation
from app.explain.faithfulness import measure_faithfulness
from app.explain.sanity import REPEATS
from app.imaging.examples import draw
from app.imaging.radiograph import MAX_BYTES
from app.model.classifier import Classifier
from app.model.weights import ranked
from tests.app.imaging.test_archive import packed
from tests.app.imaging.test_dicom import made, written
from tests.conftest import SHIPPED
from tests.serving import PATIENCE, launch, until


def shown(page: Page, place: str) -> str:
    """The address of the picture shown in a field, once it is loaded."""
    picture = page.locator(f"{place} img").first
    expect(picture).to_be_visible()
    # By selector, not by element: Gradio replaces pictures while they load.
    loaded = (
        "place => { const image = document.querySelector(place); return image?.complete && image.naturalWidth > 0 }"
    )
    page.wait_for_function(loaded, arg=f"{place} img")
    return picture.get_attribute("src") or ""


def upload(page: Page, path: Path) -> None:
    page.set_input_files("#xray-input input[type=file]", str(path))


def test_a_film_is_named_explained_and_explained_otherwise(visit: Callable[[int], Page], drawing: Path) -> None:
    page = visit(1280)
    upload(page, drawing)
    first = shown(page, "#painted")
    assert shown(page, "#plain") != first
    assert page.locator("#types label").count() == 10
    expect(page.locator("#verdict .kind")).to_contain_text("%")
    assert len(page.locator("#verdict").inner_text().split()) <= 25
    page.locator("#verdict summary").click()
    expect(page.locator("#verdict li").first).to_be_visible()
    page.locator("#all-types").click()
    page.locator("#types label").nth(6).click()
    expect(page.locator("#painted img").first).not_to_have_attribute("src", first)
    shown(page, "#painted")
    expect(page.locator("#types label").nth(6)).to_have_class(re.compile("selected"))


WORDS = """() => {
    const found = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const near = walk.currentNode.parentElement;
        if (!near || !near.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true })) continue;
        // Gradio measures its tabs on a hidden copy, and hides labels from eyes alone.
        if (near.closest("style, script, .visually-hidden, .sr-only, [aria-hidden=true]")) continue;
        const range = document.createRange();
        range.selectNodeContents(walk.currentNode);
        const box = range.getBoundingClientRect();
        const seen = box.width > 1 && box.height > 1 && box.top < innerHeight && box.bottom > 0;
        if (seen) found.push(walk.currentNode.textContent);
    }
    // Neither a unit nor an arrow is a word.
    return found.join(" ").split(/\\s+/).filter(word => /[\\p{L}\\p{N}]/u.test(word));
}"""


@pytest.fixture(scope="module")
def default() -> Iterator[str]:
    """The page as it ships: only there all figures have something to say."""
    page, url = launch([Classifier.load(name) for name in ranked() if name in SHIPPED])
    yield url
    page.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_first_screen_shows_the_answer_in_few_words(
    visit: Callable[..., Page], default: str, drawing: Path, width: int
) -> None:
    page = visit(width, at=default)
    page.set_viewport_size({"width": width, "height": 800 if width == 1280 else 844})
    explained(page, drawing)
    expect(page.locator("#verdict .presence")).to_have_text("Possible fracture")
    for place in ("#painted img", "#verdict .kind", "#verdict .presence, #verdict .sure"):
        box = page.locator(place).first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= (800 if width == 1280 else 844), place
    words = page.evaluate(WORDS)
    assert len(words) <= 60, " ".join(words)


CLICK = """button => {
    for (const kind of ["pointerdown", "pointerup"]) button.dispatchEvent(new PointerEvent(kind, { bubbles: true }));
}"""
"""In no time, which no machine is too slow for."""


def test_heat_is_hidden_while_held_and_a_point_tells_its_evidence(visit: Callable[[int], Page], drawing: Path) -> None:
    page = visit(1280)
    explained(page, drawing)
    heat = page.locator("#painted img").first
    page.locator("#hold").dispatch_event("pointerdown")
    expect(heat).to_have_css("opacity", "0")
    # However slow the machine, this is longer than a click may take.
    page.wait_for_timeout(500)
    page.locator("#hold").dispatch_event("pointerup")
    expect(heat).to_have_css("opacity", "1")
    for opacity, offered in (("0", "Show heat"), ("1", "Hide heat")):
        page.locator("#hold").evaluate(CLICK)
        expect(heat).to_have_css("opacity", opacity)
        expect(page.locator("#hold")).to_have_text(offered)
    heat.click(position={"x": 300, "y": 200})
    expect(page.locator("#point")).to_contain_text("Evidence at this point")
    page.locator("#belief summary").click()
    expect(page.locator("#belief li")).to_have_count(3)
    page.locator("#belief a").click()
    expect(page.locator("#test-go")).to_be_visible()


def test_where_no_fracture_is_seen_heat_and_types_wait_until_they_are_asked_for(
    visit: Callable[[int], Page], drawing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("text", "painted"):
        monkeypatch.setattr(f"app.ui.{place}.presence", lambda *_: "none")
    page = visit(1280)
    explained(page, drawing)
    heat = page.locator("#painted img").first
    expect(heat).to_have_css("opacity", "0")
    expect(page.locator("#hold")).to_have_text("Show heat")
    expect(page.locator("#types label").first).to_be_hidden()
    page.locator("#verdict summary").click()
    expect(page.locator("#verdict .kind")).to_be_visible()
    expect(heat, "what is opened is no other verdict").to_have_css("opacity", "0")
    page.locator("#hold").evaluate(CLICK)
    expect(heat).to_have_css("opacity", "1")
    expect(page.locator("#legend")).to_contain_text("Colour does not mean a fracture.")
    page.locator("#all-types").click()
    page.locator("#types label").nth(1).click()
    expect(page.locator("#hold")).to_have_text("Hide heat")


@pytest.mark.slow
def test_another_method_draws_the_heatmap_and_a_slow_one_can_be_stopped(
    visit: Callable[[int], Page], drawing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perturbation, "SAMPLES", 100_000)
    page = visit(1280)
    explained(page, drawing)
    first = shown(page, "#painted")

    def choose_method(title: str) -> None:
        page.locator("#method input").click()
        page.get_by_role("option", name=title, exact=True).click()

    choose_method("LayerCAM")
    expect(page.locator("#painted img").first).not_to_have_attribute("src", first)
    expect(page.locator("#description")).to_contain_text("LayerCAM")
    choose_method("SHAP")
    expect(page.locator("#method-progress .progress")).to_contain_text("SHAP")
    page.locator("#method-stop").click()
    expect(page.locator("#method-stop")).to_be_hidden()
    expect(page.locator("#description")).to_contain_text("Grad-CAM: Exact")
    until(lambda: not any(thread.name.startswith("slow-work") for thread in threading.enumerate()))


@pytest.mark.slow
def test_another_model_judges_the_same_film(visit: Callable[[int], Page], drawing: Path) -> None:
    page = visit(1280)
    page.locator("#random-xray").click()
    first = shown(page, "#painted")
    label = page.locator("#verdict .label strong").inner_text()
    verdict = page.locator("#verdict").inner_text()
    page.locator("#model input").click()
    page.get_by_role("option", name="Second network").click()
    expect(page.locator("#painted img").first).not_to_have_attribute("src", first)
    expect(page.locator("#verdict .label strong")).to_have_text(label)
    assert page.locator("#verdict").inner_text() != verdict


@pytest.mark.slow
def test_looks_change_without_a_new_verdict(visit: Callable[[int], Page], drawing: Path) -> None:
    page = visit(1280)
    upload(page, drawing)
    first = shown(page, "#painted")
    verdict = page.locator("#verdict").inner_text()
    page.get_by_text("Settings").click()
    page.locator("#contour input").click()
    expect(page.locator("#painted img").first).not_to_have_attribute("src", first)
    assert page.locator("#verdict").inner_text() == verdict


@pytest.mark.slow
def test_quick_clicks_end_at_the_last_choice(visit: Callable[[int], Page], drawing: Path) -> None:
    page = visit(1280)
    upload(page, drawing)
    shown(page, "#painted")
    page.locator("#all-types").click()
    for place in (3, 6, 1):
        page.locator("#types label").nth(place).click()
        page.wait_for_timeout(40)
    chosen = page.locator("#types label").nth(1).inner_text().rsplit(" ", 2)[0].strip().lower()
    expect(page.locator("#description")).to_contain_text(f"Heatmap for {chosen}")


@pytest.mark.slow
def test_arrow_keys_step_through_the_types(visit: Callable[[int], Page], drawing: Path) -> None:
    page = visit(1280)
    upload(page, drawing)
    shown(page, "#painted")
    page.locator("#types input").first.focus()
    for key, place in (("ArrowDown", 1), ("ArrowRight", 2), ("ArrowUp", 1), ("ArrowUp", 0), ("ArrowLeft", 9)):
        page.keyboard.press(key)
        expect(page.locator("#types label").nth(place)).to_have_class(re.compile("selected"))
        expect(page.locator("#types input").nth(place)).to_be_focused()
    chosen = page.locator("#types label").nth(9).inner_text().rsplit(" ", 2)[0].strip().lower()
    expect(page.locator("#description")).to_contain_text(f"Heatmap for {chosen}")


@pytest.mark.slow
def test_opacity_answers_to_the_keyboard(visit: Callable[[int], Page], drawing: Path) -> None:
    page = visit(1280)
    upload(page, drawing)
    first = shown(page, "#painted")
    page.get_by_text("Settings").click()
    page.locator("#opacity input[type=range]").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#painted img").first).not_to_have_attribute("src", first)


@pytest.mark.slow
def test_before_and_after(visit: Callable[[int], Page], drawing: Path) -> None:
    page = visit(1280)
    upload(page, drawing)
    shown(page, "#painted")
    page.get_by_role("tab", name="Slider").click()
    expect(page.locator("#slider img").first).to_be_visible()


def test_drawings_can_be_tried(visit: Callable[[int], Page]) -> None:
    page = visit(1280)
    page.locator("#examples button img").first.click()
    shown(page, "#painted")
    expect(page.locator("#examples")).to_contain_text("drawn")


def test_a_random_film_tells_its_label_after_the_guess(visit: Callable[[int], Page]) -> None:
    page = visit(1280)
    page.locator("#random-xray").click()
    shown(page, "#painted")
    expect(page.locator("#verdict .label")).to_contain_text("Labelled")


@pytest.mark.slow
def test_a_tiff_is_shown_although_browsers_cannot(visit: Callable[[int], Page], tmp_path: Path) -> None:
    path = tmp_path / "arm.tiff"
    Image.fromarray(draw("spiral").astype(np.uint16) * 16).save(path)
    page = visit(1280)
    upload(page, path)
    shown(page, "#painted")
    shown(page, "#xray-input")
    expect(page.locator("#verdict .note")).to_contain_text("8 bits")


@pytest.fixture
def series(tmp_path: Path) -> list[str]:
    """Three slices of a CT."""
    paths = []
    for number in range(3):
        pixels = draw("oblique", seed=number).astype(np.int16) * 6 - 700
        place = {"ImagePositionPatient": [0, 0, 3.0 * number], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        data = written(made(pixels, Modality="CT", WindowCenter=0, WindowWidth=1500, PixelSpacing=[0.5, 0.5], **place))
        (tmp_path / f"{number}.dcm").write_bytes(data)
        paths.append(str(tmp_path / f"{number}.dcm"))
    return paths


def choose(page: Page, paths: list[str]) -> None:
    with page.expect_file_chooser() as chooser:
        page.locator("#xray-input button").first.click()
    assert chooser.value.is_multiple()
    chooser.value.set_files(paths)


def carried(page: Page, paths: list[str]) -> JSHandle:
    """Files as they are dropped or pasted, which browsers give no type they do not know."""
    files = [(Path(path).name, base64.b64encode(Path(path).read_bytes()).decode()) for path in paths]
    return page.evaluate_handle(
        """files => {
            const carried = new DataTransfer();
            for (const [name, encoded] of files) {
                const bytes = Uint8Array.from(atob(encoded), letter => letter.charCodeAt(0));
                carried.items.add(new File([bytes], name, { type: name.endsWith(".png") ? "image/png" : "" }));
            }
            return carried;
        }""",
        files,
    )


def choose_model(page: Page, name: str) -> None:
    page.locator("#model input").click()
    page.get_by_role("option", name=name).click()


@pytest.mark.slow
def test_a_refused_series_can_be_looked_through(visit: Callable[[int], Page], series: list[str]) -> None:
    page = visit(1280)
    choose_model(page, "Choosy network")
    choose(page, series)
    refused = page.locator("#message .rejected")
    expect(refused).to_contain_text("not look like any radiograph")
    expect(refused).to_contain_text("CT slice")
    first = shown(page, "#xray-input")
    slider = page.locator("#slice input[type=range]")
    slider.focus()
    slider.press("ArrowRight")
    slider.dispatch_event("pointerup")
    expect(page.locator("#xray-input img").first).not_to_have_attribute("src", first)
    expect(refused).to_contain_text("not look like any radiograph")
    expect(page.locator("#anyway")).to_be_visible()
    choose_model(page, "Second network")
    shown(page, "#painted")
    expect(page.locator("#slice input[type=number]")).to_have_value("3")


@pytest.fixture
def kinds(tmp_path: Path, drawing: Path, series: list[str]) -> dict[str, list[str]]:
    """What people have: a picture, a DICOM file with its ending and without, and a series of files without."""
    bare = []
    for number, path in enumerate(series):
        bare.append(str(tmp_path / f"IM0000{number}"))
        shutil.copy(path, bare[-1])
    return {"picture": [str(drawing)], "dicom": series[:1], "bare": bare[:1], "series": series, "bare series": bare}


KINDS = ["picture", "dicom", "bare", "series", "bare series"]


def expect_taken(page: Page, kind: str) -> None:
    """The X-ray is judged, shown in the field, and to be looked through where it is a series."""
    shown(page, "#painted")
    shown(page, "#xray-input")
    expect(page.locator("#workbench")).not_to_have_class(re.compile("busy"))
    if kind != "picture":
        expect(page.locator("#verdict")).to_contain_text("CT slice")
    slices = expect(page.locator("#slice input[type=number]"))
    if "series" in kind:
        slices.to_have_value("2")
    else:
        slices.to_be_hidden()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_chosen_by_click(visit: Callable[[int], Page], kinds: dict[str, list[str]], kind: str) -> None:
    page = visit(1280)
    choose(page, kinds[kind])
    expect_taken(page, kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_dropped(visit: Callable[[int], Page], kinds: dict[str, list[str]], kind: str) -> None:
    page = visit(1280)
    page.locator("#xray-input button").first.dispatch_event("drop", {"dataTransfer": carried(page, kinds[kind])})
    expect_taken(page, kind)


@pytest.mark.parametrize("kind", [KINDS[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])])
def test_everything_is_pasted(visit: Callable[[int], Page], kinds: dict[str, list[str]], kind: str) -> None:
    page = visit(1280)
    page.evaluate(
        "files => document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData: files, bubbles: true }))",
        carried(page, kinds[kind]),
    )
    expect_taken(page, kind)


@pytest.mark.slow
def test_the_next_film_is_dropped_on_the_one_shown(visit: Callable[[int], Page], kinds: dict[str, list[str]]) -> None:
    page = visit(1280)
    choose(page, kinds["picture"])
    expect_taken(page, "picture")
    page.locator("#xray-input img").dispatch_event("drop", {"dataTransfer": carried(page, kinds["bare"])})
    expect(page.locator("#verdict")).to_contain_text("CT slice")
    expect_taken(page, "bare")


@pytest.mark.slow
def test_files_are_chosen_by_keyboard(visit: Callable[[int], Page], drawing: Path) -> None:
    page = visit(1280)
    chosen: list[FileChooser] = []
    page.on("filechooser", lambda chooser: chosen.append(chooser))

    def opened() -> bool:
        # A browser that is slow to follow a key no longer takes it as a person's, and opens nothing.
        page.locator("#xray-input button").first.press("Enter")
        page.wait_for_timeout(1000)
        return bool(chosen)

    until(opened)
    chosen[0].set_files(str(drawing))
    expect_taken(page, "picture")
    expect(page.locator("#files")).to_be_hidden()


@pytest.mark.slow
def test_pictures_that_are_no_series_get_a_sentence(
    visit: Callable[[int], Page], drawing: Path, tmp_path: Path
) -> None:
    page = visit(1280)
    shutil.copy(drawing, tmp_path / "other.png")
    choose(page, [str(drawing), str(tmp_path / "other.png")])
    expect(page.locator("#message .rejected")).to_contain_text("slices of one series")
    expect(page.locator("#workbench")).not_to_have_class(re.compile("busy"))


def test_a_file_that_is_too_large_is_told_so(visit: Callable[[int], Page], tmp_path: Path) -> None:
    page = visit(1280)
    with (tmp_path / "large.dcm").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    choose(page, [str(tmp_path / "large.dcm")])
    expect(page.locator(".toast-body")).to_contain_text("50")
    expect(page.locator("#workbench")).not_to_have_class(re.compile("busy"))


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_a_film_is_photographed(visit: Callable[[int], Page], width: int) -> None:
    page = visit(width)
    page.get_by_role("button", name="Capture from camera").click()
    page.locator("#xray-input [title='grant webcam access'], #xray-input .access-btn button").first.click()
    expect(page.locator("#xray-input video")).to_be_visible(timeout=1000 * PATIENCE)
    page.wait_for_function("document.querySelector('#xray-input video').videoWidth > 0")
    assert "scaleX(-1)" not in (page.locator("#xray-input video").get_attribute("style") or "")
    page.get_by_role("button", name="capture photo").click()
    expect_taken(page, "picture")


@pytest.mark.slow
def test_a_series_is_looked_through(visit: Callable[[int], Page], series: list[str]) -> None:
    page = visit(1280)
    choose(page, series)
    first = shown(page, "#plain")
    expect(page.locator("#verdict")).to_contain_text("CT slice")
    number = page.locator("#slice input[type=number]")
    expect(number).to_have_value("2")
    slider = page.locator("#slice input[type=range]")
    slider.focus()
    slider.press("ArrowRight")
    slider.dispatch_event("pointerup")
    expect(page.locator("#plain img").first).not_to_have_attribute("src", first)
    second = shown(page, "#plain")
    page.locator("#window input").click()
    page.get_by_role("option", name="Bone").click()
    expect(page.locator("#plain img").first).not_to_have_attribute("src", second)
    page.locator("#random-xray").click()
    expect(page.locator("#slice")).to_be_hidden()


def test_a_bad_file_is_a_sentence_and_the_page_stays_usable(
    visit: Callable[[int], Page], tmp_path: Path, drawing: Path
) -> None:
    bad = tmp_path / "film.png"
    bad.write_bytes(b"<html>not a film</html>")
    page = visit(1280)
    upload(page, bad)
    expect(page.locator("#message .rejected")).to_contain_text("not a picture")
    assert "Traceback" not in page.content()
    page.reload()
    page.wait_for_selector("#xray-input input[type=file]", state="attached")
    upload(page, drawing)
    shown(page, "#painted")


@pytest.mark.slow
def test_what_is_unlike_any_film_is_refused_until_people_insist(visit: Callable[[int], Page], drawing: Path) -> None:
    page = visit(1280)
    upload(page, drawing)
    shown(page, "#painted")
    expect(page.locator("#anyway")).to_be_hidden()
    page.locator("#model input").click()
    page.get_by_role("option", name="Choosy network").click()
    expect(page.locator("#message .rejected")).to_contain_text("not look like any radiograph")
    expect(page.locator("#painted")).to_be_hidden()
    page.locator("#anyway").click()
    expect(page.locator("#verdict")).to_contain_text("do not believe this")
    shown(page, "#painted")
    expect(page.locator("#anyway")).to_be_hidden()


def explained(page: Page, drawing: Path) -> None:
    upload(page, drawing)
    shown(page, "#painted")


def open_tab(page: Page, name: str) -> None:
    tab = page.get_by_role("tab", name=name)
    more = page.get_by_role("button", name="More tabs").first
    expect(tab.or_(more).first).to_be_visible()
    if tab.count() and tab.is_visible():
        tab.click()
    else:
        more.click()
        page.locator(".overflow-dropdown").first.get_by_role("button", name=name).click()


def test_nothing_sticks_out_on_a_phone(visit: Callable[[int], Page], drawing: Path) -> None:
    page = visit(390)
    upload(page, drawing)
    shown(page, "#painted")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = page.locator("#painted img").first.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    expect(page.locator(".notice")).to_contain_text("not for diagnosis")
    for name in ("About", "Data"):
        open_tab(page, name)
        expect(page.locator(".about:visible").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
    open_tab(page, "Explain")
    page.get_by_text("Settings").click()
    label = page.locator("#contour label").bounding_box()
    assert label is not None
    assert label["width"] > 150


@pytest.mark.slow
def test_methods_are_compared_and_scores_add_up(visit: Callable[[int], Page], drawing: Path) -> None:
    page = visit(1280)
    open_tab(page, "Compare")
    page.locator("#compare-go").click()
    expect(page.locator("#compare-state")).to_contain_text("No X-ray yet")
    open_tab(page, "Explain")
    explained(page, drawing)
    open_tab(page, "Compare")
    page.locator("#compare-go").click()
    expect(page.locator("#compare-grid .thumbnail-item img, #compare-grid button img")).to_have_count(5)
    shown(page, "#compare-why")
    for number in range(2):
        cells = page.locator("#compare-sums table").nth(number).locator("td:last-child").all_inner_texts()
        parts = [float(cell) for cell in cells]
        assert sum(parts[:3]) == pytest.approx(parts[3], abs=0.003)
    page.locator("#compare-models input").nth(1).check()
    page.locator("#compare-go").click()
    expect(page.locator("#compare-grid .thumbnail-item img, #compare-grid button img")).to_have_count(10)
    titles = [page.locator("#compare-models label").nth(number).inner_text().strip() for number in range(2)]
    captions = page.locator("#compare-grid .caption-label").all_inner_texts()
    assert [caption.split(":")[0] for caption in captions] == titles * 5


def fetched(page: Page) -> Locator:
    """The Test tab's canvas with the X-ray on it; it then sends the server what it shows, and takes paint."""
    with page.expect_response(lambda answer: answer.url.endswith("/gradio_api/upload")):
        open_tab(page, "Test")
    canvas = page.locator("#hide-canvas canvas").first
    expect(canvas).to_be_visible()
    return canvas


@pytest.mark.slow
def test_a_map_is_put_on_trial_and_a_region_hidden(
    visit: Callable[[int], Page], drawing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.explain.checks.measure_faithfulness", partial(measure_faithfulness, random=2))
    monkeypatch.setattr("app.explain.sanity.REPEATS", dict.fromkeys(REPEATS, 1))
    page = visit(1280)
    open_tab(page, "Test")
    page.locator("#hide-go").click()
    expect(page.locator("#hide-moved")).to_contain_text("No X-ray yet")
    expect(page.locator("#test-stop")).to_be_hidden()
    open_tab(page, "Explain")
    explained(page, drawing)
    canvas = fetched(page)
    shown(page, "#test-picture")
    page.locator("#test-go").click()
    expect(page.locator("#test-stop")).to_be_visible()
    expect(page.locator(".findings li")).to_have_count(4)
    expect(page.locator("#test-stop")).to_be_hidden()
    expect(page.locator(".charts svg")).to_have_count(2)
    expect(page.locator("#test-maps button img")).to_have_count(7)

    def hidden() -> bool:
        # The button below it may have scrolled it away.
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        assert box is not None
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        # A canvas that is not ready yet drops the stroke, and tells nobody when it is.
        page.mouse.move(*middle)
        page.mouse.down()
        page.mouse.move(middle[0] + 40, middle[1] + 40, steps=8)
        page.mouse.up()
        page.locator("#hide-go").click()
        page.wait_for_timeout(1000)
        return "of the X-ray hidden" in page.locator("#hide-moved").inner_text()

    until(hidden)
    expect(page.locator("#hide-after button img")).to_have_count(2)
    open_tab(page, "Explain")
    page.locator("#examples button").first.click()
    open_tab(page, "Test")
    expect(page.locator(".findings li"), "of another X-ray").to_have_count(0)
    expect(page.locator("#test-maps button img")).to_have_count(0)


@pytest.mark.slow
def test_slow_methods_can_be_stopped(
    visit: Callable[[int], Page], drawing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perturbation, "SAMPLES", 100_000)
    page = visit(1280)
    explained(page, drawing)
    open_tab(page, "Compare")
    page.get_by_label("SHAP").check()
    page.locator("#compare-go").click()
    expect(page.locator("#compare-state .progress")).to_contain_text("SHAP")
    page.locator("#compare-stop").click()
    expect(page.locator("#compare-state")).to_contain_text("Cancelled")
    until(lambda: not any(thread.name.startswith("slow-work") for thread in threading.enumerate()))


@pytest.mark.slow
def test_the_new_tabs_fit_a_phone(visit: Callable[[int], Page], drawing: Path) -> None:
    page = visit(390)
    explained(page, drawing)
    open_tab(page, "Compare")
    page.locator("#compare-go").click()
    expect(page.locator("#compare-sums table").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    canvas = fetched(page).bounding_box()
    assert canvas is not None
    assert canvas["height"] > 200
    page.locator("#test-go").click()
    expect(page.locator(".findings li").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("width", [1280, 390])
def test_many_films_are_explained_sorted_and_taken_home(
    visit: Callable[[int], Page], tmp_path: Path, width: int
) -> None:
    page = visit(width)
    open_tab(page, "Batch")
    files = []
    for seed in range(2):
        files.append(str(tmp_path / f"film{seed}.png"))
        cv2.imwrite(files[-1], draw("oblique", seed=seed, height=300, width=200))
    (tmp_path / "day.zip").write_bytes(packed({"leg.png": Path(files[0]).read_bytes(), "bad.png": b"no picture"}))
    page.set_input_files("#batch-files input[type=file]", [*files, str(tmp_path / "day.zip")])
    expect(page.locator("#batch-files")).to_contain_text("day")
    page.locator("#batch-go").click()
    expect(page.locator("#batch-state")).to_contain_text("4 X-rays: 3 explained, 1 failed.")
    captions = page.locator("#batch-gallery .caption-label")
    expect(captions).to_have_count(3)
    shares = [int(re.findall(r"(\d+) %", caption)[0]) for caption in captions.all_inner_texts()]
    assert len(shares) == 3
    assert shares == sorted(shares)
    page.locator("#batch-order").get_by_text("As sent").click()
    expect(captions.first).to_contain_text("film0.png")
    expect(page.locator("#batch-table tbody tr").last).to_contain_text("day.zip/bad.png")
    for place, words in (("#batch-csv", b"film0.png,explained"), ("#batch-zip", b"01-film0.png")):
        with page.expect_download() as download:
            page.locator(place).click()
        assert words in Path(download.value.path()).read_bytes()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_report_is_taken_home_of_what_is_shown(visit: Callable[[int], Page], drawing: Path) -> None:
    page = visit(1280)
    explained(page, drawing)
    page.locator("#take-home").click()
    with page.expect_download() as download:
        page.locator("#take-home-report").click()
    assert Path(download.value.path()).read_bytes().startswith(b"%PDF")
    page.locator("#types label").nth(1).click()
    expect(page.locator("#take-home-report")).to_be_hidden()
