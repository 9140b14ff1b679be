"""The page in a visitor's language: English sentences stand in the code, and ``<language>.json`` tells each in another.

They are about fractures on X-rays. On the page of a model of anything else ``Subject.retell`` retells them, in English.

What is laid out once, Gradio translates in the browser; what is made for one visitor is put into words here. Both go by
the language that the browser names first. Programs, files and reports get English.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal, NamedTuple

import gradio as gr
from gradio.context import LocalContext

from app.model.subject import OURS, Subject
from app.sentence import Sentence

__all__ = [
    "ENGLISH",
    "LANGUAGES",
    "STATIC",
    "Language",
    "about",
    "digits",
    "in_every",
    "label",
    "marked",
    "named",
    "said",
    "say",
    "speaking",
    "spoken",
    "subject",
]

ENGLISH = "en"


class Language(NamedTuple):
    """What a language is called by those who speak it, which way it is written, and its sentences by the English."""

    name: str
    direction: Literal["ltr", "rtl"]
    sentences: dict[str, str]


def _read(path: Path) -> Language:
    return Language(**json.loads(path.read_text(encoding="utf-8")))


LANGUAGES = {path.stem: _read(path) for path in sorted(Path(__file__).parent.glob("*.json"))}
"""Every language but English, by its code (ISO 639-1)."""

STATIC = gr.I18n(**{ENGLISH: {}}, **{code: {} for code in LANGUAGES})
"""What the browser translates; filled while the page is laid out."""

_chosen: ContextVar[str | None] = ContextVar("language", default=None)


@contextmanager
def speaking(code: str) -> Generator[None]:
    """Whatever the browser says, words are in this language here."""
    before = _chosen.set(code)
    try:
        yield
    finally:
        _chosen.reset(before)


def spoken() -> str:
    """The code of the language to speak: that of the request at hand, where the page speaks it, else English."""
    if chosen := _chosen.get():
        return chosen
    request = LocalContext.request.get(None)
    wanted = request.headers.get("accept-language") if request is not None else None
    # Browsers name the one first that they call their own, which is the one Gradio goes by.
    code = (wanted or ENGLISH).split(",")[0].split(";")[0].split("-")[0].strip().lower()
    return code if code in LANGUAGES else ENGLISH


_about: ContextVar[Subject | None] = ContextVar("subject", default=None)


@contextmanager
def about(its: Subject) -> Generator[None]:
    """Whatever is laid out here is about this."""
    before = _about.set(its)
    try:
        yield
    finally:
        _about.reset(before)


def subject() -> Subject:
    """What the page is about: the one being laid out, or that of the request at hand."""
    return _about.get() or getattr(LocalContext.blocks.get(None), "subject", OURS)


def _told(sentence: str, code: str) -> str | None:
    """A sentence in a language with the values it holds; None where the language does not know all of it."""
    if isinstance(sentence, Sentence) and sentence.values:
        template = _told(sentence.template, code)
        parts = {name: _value(part, code) for name, part in sentence.values.items()}
        known = {name: part for name, part in parts.items() if part is not None}
        return None if template is None or len(known) < len(parts) else template.format(**known)
    if (retold := subject().retell(sentence)) != sentence:
        return retold if code == ENGLISH else None
    return sentence if code == ENGLISH else LANGUAGES[code].sentences.get(sentence)


def _value(part: str, code: str) -> str | None:
    if isinstance(part, Sentence):
        return _told(part, code)
    # U+2068 and U+2069: what is between them runs as its own first letter does, and figures from left to right.
    return f"\u2068{part}\u2069" if code != ENGLISH and LANGUAGES[code].direction == "rtl" else part


def say(sentence: str, **values: Any) -> str:
    """A sentence in the language to speak; English where it knows none.

    Args:
        sentence: in English, with the names of values in braces, or with its values in it.
        values: to put in.
    """
    told = _told(sentence, spoken()) or _told(sentence, ENGLISH) or sentence
    return told.format(**values) if values else told


def said(sentence: str, **parts: str) -> str:
    """``say`` as HTML, whose parts are HTML already."""
    return html.escape(say(sentence)).format(**parts) if parts else html.escape(say(sentence))


def marked(sentence: str, **values: Any) -> str:
    """``say`` as HTML for what the language to speak may not know: marked as English then.

    Screen readers and the direction of lines have to know.
    """
    told = html.escape(say(sentence, **values))
    known = spoken() == ENGLISH or _told(sentence, spoken())
    return told if known else f"<span lang='en' dir='ltr'>{told}</span>"


def named(told: str) -> str:
    """What a card calls something, as HTML, in the language to speak where this project's own card says so."""
    return said(told) if subject().ours else html.escape(told)


def digits(told: str) -> str:
    """Digits with their signs, which must not change places in text from right to left."""
    code = spoken()
    # U+2066 and U+2069: what is between them runs from left to right, whatever is around it.
    return f"\u2066{told}\u2069" if code != ENGLISH and LANGUAGES[code].direction == "rtl" else told


def in_every(render: Callable[[], str]) -> str:
    """What is laid out once for all, rendered in every language: a marker, for which the browser puts its own."""
    versions = {}
    for code in STATIC.translations:
        with speaking(code):
            versions[code] = render()
    key = versions[ENGLISH]
    if not key:
        return ""
    for code, version in versions.items():
        STATIC.translations[code][key] = version
    return str(STATIC(key))


def label(sentence: str, **values: Any) -> str:
    """``say`` for what is laid out once."""
    return in_every(lambda: say(sentence, **values))
