"""Nothing jumps while results arrive, and what can be clicked has a name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from playwright.sync_api import Page, expect

from app.imaging.examples import draw
from tests.browser.test_page import shown, upload

WATCH = """() => {
  window.shifts = [];
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      const moved = entry.sources.map((source) => source.node?.id || source.node?.className || source.node?.nodeName);
      window.shifts.push([entry.value, moved.join(" ")]);
    }
  }).observe({ type: "layout-shift", buffered: true });
}"""
STILL = 0.01
"""A layout shift that nobody sees; up to 0.1 is called good (web.dev, "Cumulative Layout Shift")."""


def shifts(page: Page) -> list[float]:
    """What has jumped since the last time this was asked, each by how much."""
    page.wait_for_timeout(300)
    return [value for value, _ in page.evaluate("() => window.shifts.splice(0)")]


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_makes_room_once_and_then_nothing_jumps(
    visit: Callable[..., Page], drawing: Path, tmp_path: Path, width: int
) -> None:
    page = visit(width)
    page.evaluate(WATCH)
    assert sum(shifts(page)) <= 0.1
    upload(page, drawing)
    first = shown(page, "#painted")
    expect(page.locator("#verdict .kind")).to_be_visible()
    assert len([value for value in shifts(page) if value > STILL]) <= 1
    page.locator("#types label").nth(1).click()
    expect(page.locator("#painted img").first).not_to_have_attribute("src", first)
    assert sum(shifts(page)) <= STILL
    second = shown(page, "#painted")
    another = tmp_path / "another.png"
    cv2.imwrite(str(another), draw("oblique", seed=5))
    upload(page, another)
    expect(page.locator("#painted img").first).not_to_have_attribute("src", second)
    shown(page, "#painted")
    assert sum(shifts(page)) <= 0.1


def test_examples_are_called_what_they_show(visit: Callable[..., Page]) -> None:
    page = visit(1280)
    expect(page.locator("#examples button").first).not_to_have_attribute("aria-label", re.compile("Thumbnail"))
    for button in page.locator("#examples button").all():
        expect(button).to_have_attribute("aria-label", button.inner_text().strip())
