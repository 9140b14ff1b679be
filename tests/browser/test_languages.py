"""The page as visitors meet it whose browser speaks another language."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.model.classifier import Classifier
from app.ui.languages import LANGUAGES
from tests.browser.test_page import WORDS, explained

LOCALES = {"es-ES": "es", "ar-EG": "ar"}
NAMES = {
    "ablation",
    "api",
    "cam",
    "dicom",
    "drawn",
    "grad",
    "jpeg",
    "network",
    "png",
    "resnet",
    "tests",
    "tiff",
    "webp",
}
"""Formats and methods go by the same names everywhere; the models of the tests have English titles alone."""

OFF_SCREEN = """() => [...document.querySelectorAll("button, input, p, img, label")]
    .filter(each => each.checkVisibility({ checkVisibilityCSS: true }))
    .filter(each => !each.closest(".visually-hidden, [aria-hidden=true]"))
    .map(each => [each.getBoundingClientRect(), each.outerHTML.slice(0, 120)])
    .filter(([box]) => box.width > 1 && (box.left < 0 || box.right > innerWidth))
    .map(([, told]) => told)"""


def foreign(page: Page, code: str) -> set[str]:
    """English words on the first screen that the language does not have."""
    pairs = LANGUAGES[code].sentences.items()
    known = {word for _, told in pairs for word in re.findall(r"[a-z]{3,}", told.lower())}
    english = {word for sentence, _ in pairs for word in re.findall(r"[a-z]{3,}", sentence.lower())}
    seen = set(re.findall(r"[a-z]{3,}", " ".join(page.evaluate(WORDS)).lower()))
    wrong = seen & english if LANGUAGES[code].direction == "ltr" else seen
    return wrong - known - NAMES - {"untrained", "for"}


@pytest.mark.parametrize("width", [pytest.param(1280, marks=pytest.mark.slow), 390])
@pytest.mark.parametrize("locale", LOCALES)
def test_the_first_screen_is_in_the_visitors_language(
    visit: Callable[..., Page], classifier: Classifier, drawing: Path, locale: str, width: int
) -> None:
    code = LOCALES[locale]
    sentences, direction = LANGUAGES[code].sentences, LANGUAGES[code].direction
    page = visit(width, locale=locale)
    expect(page.locator("html")).to_have_css("direction", direction)
    expect(page.locator("html")).to_have_attribute("lang", re.compile(f"^{code}"))
    expect(page.locator("#examples .caption-label").first).to_have_text(sentences["drawn: intact"])
    expect(page).to_have_title(sentences["Fracture types, explained"])
    assert not foreign(page, code)
    explained(page, drawing)
    titles = {sentences[kind.title] for kind in classifier.card.classes}
    assert page.locator("#verdict .kind").inner_text().split("\n")[0].rstrip("\u2066\u2069 %0123456789") in titles
    expect(page.locator("#verdict .sure")).to_have_text(
        re.compile("|".join(sentences[f"{word} confidence"] for word in ("High", "Moderate", "Low")))
    )
    expect(page.locator("#verdict")).to_have_css("direction", direction)
    expect(page.locator("#hold")).to_have_text(sentences["Hide heat"])
    assert not foreign(page, code)
    assert not page.evaluate(OFF_SCREEN)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_bars_grow_from_the_right_and_english_is_marked(visit: Callable[..., Page], drawing: Path) -> None:
    page = visit(1280, locale="ar")
    explained(page, drawing)
    fill = page.locator("#types label").first.evaluate("each => getComputedStyle(each).backgroundImage")
    assert "to left" in fill
    for place in ("#plain img", "#painted img"):
        expect(page.locator(place).first).to_have_css("transform", re.compile(r"none|matrix\(1, 0, 0, 1, 0, 0\)"))
    page.locator("#verdict summary").click()
    expect(page.locator("#verdict [lang=en]")).to_have_count(0)
    page.locator("#belief summary").click()
    page.locator("#belief a").click()
    expect(page.locator("#test-go")).to_have_text(LANGUAGES["ar"].sentences["Test this heatmap"])
    page.get_by_role("tab", name=LANGUAGES["ar"].sentences["About"], exact=True).click()
    expect(page.locator(".english[lang=en]").filter(visible=True).first).to_have_css("direction", "ltr")


@pytest.mark.slow
def test_who_speaks_another_language_reads_english(visit: Callable[..., Page], drawing: Path) -> None:
    page = visit(1280, locale="fr-FR")
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.locator(".masthead h1")).to_have_text("Fractures, explained")
    explained(page, drawing)
    expect(page.locator("#verdict .sure")).to_contain_text("confidence")
    assert page.locator("[lang=en] [lang=en]").count() == 0
