"""The page as tests serve it, and how long they wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import gradio as gr
import pytest
from gradio import networking
from gradio.exceptions import ServerFailedToStartError
from gradio.http_server import Server

from app.model.classifier import Classifier
from app.ui import page

__all__ = ["PATIENCE", "launch", "until"]

PATIENCE = 600.0
"""Seconds until tests give an event up: no verdict on how fast a machine is, since none takes a hundredth of it."""


def _start(server: Server) -> None:
    server.thread = threading.Thread(target=server.run, daemon=True)
    server.thread.start()
    while not server.started:
        if not server.thread.is_alive():
            raise ServerFailedToStartError
        time.sleep(0.01)


def launch(classifiers: Sequence[Classifier], **wanted: bool) -> tuple[gr.Blocks, str]:
    """Serves the page on this machine: ``app.ui.page.launch``, but for the seconds Gradio gives it to answer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Server, "run_in_thread", _start)
        patch.setattr(networking, "url_ok", lambda url: True)
        return page.launch(classifiers, host="127.0.0.1", block=False, **wanted)


def until(reached: Callable[[], object]) -> None:
    """Waits for what no event tells of.

    Raises:
        AssertionError: it was given up.
    """
    given_up = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < given_up, "given up"
        time.sleep(0.05)
