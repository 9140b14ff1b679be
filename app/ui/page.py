"""The page as a whole: its tabs, how it looks and how it is served."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread

import gradio as gr

from app.imaging.radiograph import MAX_BYTES
from app.model.classifier import Classifier
from app.model.weights import ModelCard
from app.ui import api
from app.ui.about import AboutTab
from app.ui.batch import BatchTab
from app.ui.busy import bound_queue
from app.ui.compare import CompareTab
from app.ui.data import DataTab
from app.ui.explain import ExplainTab
from app.ui.languages import LANGUAGES, STATIC, about, in_every, label, named, said
from app.ui.privacy import HANDLERS, Page, nameless, silence
from app.ui.trial import TestTab
from app.ui.uploads import Drawings

__all__ = ["build", "launch", "own_folder", "tidy"]

STYLE = Path(__file__).with_name("style.css")
SCRIPT = Path(__file__).with_name("page.js")
ICON = Path(__file__).with_name("icon.png")
HEAD = """
<meta name="theme-color" content="#0f766e">
<script>if (CODES.includes(navigator.language.split("-")[0])) document.documentElement.dir = "rtl";</script>
"""
"""Which way lines run is settled before anything is laid out, so that nothing moves."""
OLDEST, OFTEN = 3000, 600
"""Uploads older than so many seconds are deleted every so many: none outlasts an hour."""

TITLE = "Fracture types, explained"
LEAD = "Which of {count} types of fracture an X-ray shows, and where the model looks."


def heading(card: ModelCard) -> str:
    """What stands over the page of a model."""
    return "Fractures, explained" if card.subject.ours else f"{card.subject.title}, explained"


def header(card: ModelCard) -> str:
    """What the page of a model is, and what it is not for, as HTML."""
    title = heading(card)
    lead = said(LEAD, count=str(len(card.classes)))
    notice = card.intended_use.partition(". ")[0].rstrip(".") + "."
    return f"""
<header class="masthead">
  <h1>{named(title)}</h1>
  <p class="lead">{lead}</p>
  <p class="notice" role="note"><strong>{named(notice)}</strong></p>
</header>
"""


def build(classifiers: Sequence[Classifier]) -> tuple[gr.Blocks, Drawings]:
    """The page for one or several models, the first of which answers unless people choose another.

    Returns:
        The page, and what people paint on it.
    """
    card = classifiers[0].card
    with about(card.subject):
        return _build(classifiers, card)


def _build(classifiers: Sequence[Classifier], card: ModelCard) -> tuple[gr.Blocks, Drawings]:
    title = TITLE if card.subject.ours else f"{card.subject.title}, explained"
    # Gradio tells others of the title, and would tell them of a marker; the script looks up this and what it says.
    label(TITLE)
    label("Reading…")
    with Page(title=title, analytics_enabled=False, delete_cache=(OFTEN, OLDEST)) as page:
        page.subject = card.subject
        gr.HTML(in_every(lambda: header(card)))
        with gr.Tabs():
            with gr.Tab(label("Explain")):
                explain = ExplainTab(classifiers)
                api.build(classifiers)
            with gr.Tab(label("Compare")):
                CompareTab(classifiers, explain.session)
            with gr.Tab(label("Test"), elem_id="tab-test") as tab:
                drawings = TestTab(classifiers, explain.session, explain.requests, tab).drawings
            with gr.Tab(label("Batch")):
                BatchTab(classifiers)
            with gr.Tab(label("About"), elem_classes="english"):
                AboutTab([classifier.card for classifier in classifiers])
            if card.subject.ours:
                with gr.Tab(label("Data"), elem_classes="english"):
                    DataTab()
    return page, drawings


def theme() -> gr.themes.Base:
    """Fonts of the system's own, so that the page asks nothing of other servers."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    soft = gr.themes.Soft(primary_hue="teal", neutral_hue="slate", font=fonts, font_mono=["ui-monospace", "monospace"])
    # Soft's own dark colours miss the contrast of 4.5 that small text needs.
    return soft.set(
        block_title_background_fill_dark="*primary_700",
        block_label_background_fill_dark="*primary_700",
        button_secondary_background_fill_hover_dark="*neutral_500",
        # What can be clicked has an edge.
        input_border_width="1px",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_600",
        checkbox_label_border_width="1px",
        checkbox_label_border_color="*neutral_300",
        checkbox_label_border_color_dark="*neutral_600",
        link_text_color="*primary_700",
        link_text_color_hover="*primary_800",
        link_text_color_active="*primary_700",
        link_text_color_visited="*primary_700",
        link_text_color_dark="*primary_400",
        link_text_color_hover_dark="*primary_300",
        link_text_color_active_dark="*primary_400",
        link_text_color_visited_dark="*primary_400",
    )


def head() -> str:
    """What stands in the page's head."""
    leftwards = [code for code, language in LANGUAGES.items() if language.direction == "rtl"]
    return HEAD.replace("CODES", json.dumps(leftwards))


def own_folder() -> Path:
    """Gives uploads a folder of their own, inside the one that is named for such files if there is one."""
    user = os.getuid() if hasattr(os, "getuid") else "me"
    name = f"fracture-uploads-{user}"
    folder = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    if folder.name != name:
        folder /= name
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    return folder


def tidy(folder: Path, keep: Collection[Path]) -> None:
    """Deletes every old file in the folder of uploads but those to keep.

    Gradio deletes what it knows of; uploads that were broken off, and what a killed server left behind, it does not.
    """
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path not in keep and path.is_file() and time.time() - path.stat().st_mtime > OLDEST:
                path.unlink()


def _keep_tidy(folder: Path, drawings: Drawings, page: gr.Blocks) -> None:
    # The drawings to try lie there too, for as long as the page is served.
    keep = {Path(path) for block in page.blocks.values() for path in getattr(block, "keep_in_cache", ())}
    while page.is_running:
        tidy(folder, keep)
        drawings.forget()
        time.sleep(OFTEN)


def launch(
    classifiers: Sequence[Classifier],
    *,
    host: str | None = None,
    port: int | None = None,
    block: bool = True,
    mcp: bool = False,
) -> tuple[gr.Blocks, str]:
    """Serves the page.

    Args:
        classifiers: the models to show, the default first.
        host, port: where to listen; Gradio's own choice where absent, as Spaces wants it.
        block: wait until the server is stopped.
        mcp: serve the API to agents as well, by the Model Context Protocol; needs the extra of that name.

    Returns:
        The page and its address.
    """
    folder = own_folder()
    silence()
    nameless(folder)
    page, drawings = build(classifiers)
    bound_queue(page)
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        theme=theme(),
        css_paths=STYLE,
        js=SCRIPT.read_text(encoding="utf-8"),
        i18n=STATIC,
        max_file_size=MAX_BYTES,
        allowed_paths=[],
        run_history=False,
        enable_monitoring=False,
        footer_links=["api"],
        ssr_mode=False,
        mcp_server=mcp,
        pwa=True,
        favicon_path=ICON,
        head=head(),
        prevent_thread_lock=True,
        app_kwargs={"exception_handlers": HANDLERS},
        quiet=not block,
    )
    if page.mcp_server_obj:
        vars(page.mcp_server_obj)["postprocess_output_data"] = api.tool_answer
    Thread(target=_keep_tidy, args=(folder, drawings, page), name="tidy", daemon=True).start()
    if block:
        page.block_thread()
    return page, address
