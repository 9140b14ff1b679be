"""What a browser makes of a page that is busy, and of one that a phone may install."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from app.model.classifier import Classifier
from app.ui.busy import BUSY, WAITING
from tests.serving import PATIENCE, launch

pytestmark = pytest.mark.slow


def test_a_full_queue_and_an_icon_for_the_phone(browser: Browser, classifier: Classifier) -> None:
    page, address = launch([classifier])
    try:
        tab = browser.new_page()
        tab.set_default_timeout(1000 * PATIENCE)
        tab.goto(address)
        examples = tab.locator("#examples button")
        expect(examples.nth(1)).to_be_visible()
        session = tab.context.new_cdp_session(tab)
        told = session.send("Page.getInstallabilityErrors")["installabilityErrors"]
        assert {error["errorId"] for error in told} <= {"in-incognito"}
        page._queue.max_size = 0
        examples.first.click()
        expect(tab.locator(".toast-body")).to_contain_text(BUSY.format(waiting=0, seconds=1))
        page._queue.max_size = WAITING
        examples.nth(1).click()
        expect(tab.locator("#painted img")).to_be_visible()
    finally:
        page.close()
