"""Who cannot see the page, or sees little contrast, can use it: axe-core finds nothing serious on any tab."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from app.explain import perturbation
from tests.browser.test_page import explained, open_tab

TABS = {"Compare": ("#compare-go", "#compare-sums table"), "Test": ("#test-go", ".findings li")}
"""Tabs that compute: what to press, and what is there once they are done."""

GRADIO = 'class="icon-button'
"""Gradio's button to add more files has its field for files inside."""


def serious(page: Page) -> list[str]:
    """What axe-core holds against what is shown, a line a rule and place."""
    found = Axe().run(page).response["violations"]
    return [
        f"{rule['id']}: {node['target']} {node['html'][:120]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
        if not (rule["id"] == "nested-interactive" and GRADIO in node["html"])
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_first_screen_has_no_serious_violation(visit: Callable[..., Page], drawing: Path, scheme: str) -> None:
    page = visit(1280, color_scheme=scheme)
    assert not serious(page)
    explained(page, drawing)
    for closed in page.locator("#bench summary").all():
        if closed.is_visible():
            closed.click()
    assert not serious(page)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_tab_has_a_serious_violation(
    visit: Callable[..., Page], drawing: Path, scheme: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perturbation, "SAMPLES", 40)
    page = visit(width, color_scheme=scheme)
    explained(page, drawing)
    for tab in ("Compare", "Test", "Batch", "About", "Data"):
        open_tab(page, tab)
        if tab in TABS:
            go, done = TABS[tab]
            page.locator(go).click()
            expect(page.locator(done).first).to_be_visible()
        if tab == "Batch":
            page.set_input_files("#batch-files input[type=file]", str(drawing))
            # Until the upload is done there is nothing to explain.
            expect(page.locator("#batch-files")).to_contain_text(drawing.stem)
            page.locator("#batch-go").click()
            expect(page.locator("#batch-gallery img").first).to_be_visible()
        assert not serious(page), tab


def test_what_has_no_contrast_is_found(visit: Callable[..., Page]) -> None:
    """So that silence means something."""
    page = visit(1280)
    page.evaluate("document.querySelector('.masthead .lead').style.color = '#cccccc'")
    assert any("color-contrast" in line and "lead" in line for line in serious(page))
