"""What is found of one X-ray, on one A4 page to print or send: PDF by fpdf2."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from fpdf import FPDF
from PIL import Image

from app import __version__
from app.explain import DEFAULT, METHODS
from app.explain.overlay import gradient, overlay
from app.explain.shortcuts import KINDS, nowhere, shortcut_shares
from app.model.classifier import IN_WORDS, possible_types
from app.model.reliability import confidence, how_sure, other_sources, track_record, where_judged
from app.model.weights import ModelCard, percent, with_interval

if TYPE_CHECKING:
    from app.pipeline import Result

__all__ = ["report"]

MARGIN, GAP, WIDE = 16.0, 7.0, 104.0
"""Millimetres: of the page, between columns, and of the picture's column."""
TALLEST = 128.0
LONGEST = 1024
"""Longest side of the picture, in pixels: 200 to the inch."""
NOTES, LETTERS = 3, 160
"""Most sentences about how the file was read, and most letters of one, so that all of it stays on one page."""

NO_DATE = datetime.fromtimestamp(0, timezone.utc)
"""PDF wants a date of creation, and the same result is to make the same bytes."""

INK, FAINT, LINE, ACCENT = (15, 23, 42), (71, 85, 105), (203, 213, 225), (15, 118, 110)
AMBER, RED = (180, 83, 9), (185, 28, 28)
FINDING = {"none": ACCENT, "suspicious": AMBER, "definite": RED}
LIKE = "\u2018\u2019\u201c\u201d\u2013\u2014\u2026\u2212\u2192"
PLAIN = dict(zip(LIKE, ("'", "'", '"', '"', "-", "-", "...", "-", "->"), strict=True))


def report(result: Result, *, name: str | None = None, date: str | None = None) -> bytes:
    """The page, the same to the byte for the same result.

    Args:
        result: of one image.
        name: what to call the image; left out where absent, since file names may name a person.
        date: of the report, in words; left out where absent.
    """
    page = _Page(result.card, [text for text in (name, date) if text])
    top = page.get_y()
    page.picture(result)
    below = page.get_y()
    page.column(MARGIN + WIDE + GAP, page.w - 2 * MARGIN - WIDE - GAP, top)
    page.verdict(result)
    page.types(result)
    below = max(below, page.get_y()) + 6.0
    half = (page.w - 2 * MARGIN - GAP) / 2
    page.column(MARGIN, half, below)
    page.heading("Can this heatmap be believed?")
    page.sentences(_checks(result))
    page.column(MARGIN + half + GAP, half, below)
    page.heading(result.card.title)
    page.figures(_figures(result.card))
    page.sentences(iter([f"It always names one of {len(result.card.classes)} types."]))
    page.footer_line(result)
    return bytes(page.output())


def _plain(text: str) -> str:
    """Text in the letters that the fonts of every PDF reader have, those of Latin-1; "?" for any other."""
    text = "".join(PLAIN.get(letter, letter) for letter in unicodedata.normalize("NFC", text))
    text = "".join(" " if unicodedata.category(letter)[0] == "C" else letter for letter in text)
    return text.encode("latin-1", "replace").decode("latin-1")


def _short(text: str) -> str:
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 3]}..."


class _Page(FPDF):
    """One page; ``column`` says where what follows is written."""

    def __init__(self, card: ModelCard, about: list[str]) -> None:
        super().__init__(format="A4")
        self._card = card
        self.set_creation_date(NO_DATE)
        self.set_title(card.subject.retell("X-ray explained"))
        self.set_lang("en")
        self.set_auto_page_break(False)
        self.set_margins(MARGIN, MARGIN)
        self.c_margin = 0.0
        self.add_page()
        self._left, self._wide = MARGIN, self.w - 2 * MARGIN
        self._say(card.subject.retell("X-ray, explained"), 20, bold=True)
        self._say(card.intended_use, 9.5, AMBER, bold=True, above=1.0)
        for text in about:
            self._say(_short(text), 9.5, FAINT, above=0.5)
        self.ln(5.0)

    def column(self, left: float, wide: float, top: float) -> None:
        self._left, self._wide = left, wide
        self.set_xy(left, top)

    def _say(
        self, text: str, size: float, colour: tuple[int, int, int] = INK, *, bold: bool = False, above: float = 0.0
    ) -> None:
        self.set_font("helvetica", "B" if bold else "", size)
        self.set_text_color(*colour)
        self.set_xy(self._left, self.get_y() + above)
        self.multi_cell(self._wide, size * 0.46, _plain(text), align="L", new_x="LEFT", new_y="NEXT")

    def heading(self, text: str) -> None:
        self._say(text, 11, ACCENT, bold=True)

    def sentences(self, texts: Iterator[str]) -> None:
        for text in texts:
            self._say(text, 9, above=1.2)

    def figures(self, found: Iterator[tuple[str, str]]) -> None:
        for what, figure in found:
            self._say(what, 8.5, FAINT, above=1.5)
            self._say(figure, 9.5)

    def picture(self, result: Result) -> None:
        explanation = result.explanation.at_screen_size(LONGEST)
        heat = replace(result, explanation=explanation).heat
        drawn, file = Image.fromarray(overlay(explanation.radiograph.shown(), heat)), io.BytesIO()
        drawn.save(file, "JPEG", quality=92)
        title, what = _title(result, result.target).lower(), METHODS[result.method].title
        scale = min(WIDE / drawn.width, TALLEST / drawn.height)
        top = self.get_y()
        shown = f"{self._card.subject.retell('The X-ray')} with the heatmap for {title} over it, by {what}"
        self.image(file, MARGIN, top, drawn.width * scale, drawn.height * scale, alt_text=shown)
        self.column(MARGIN, WIDE, top + drawn.height * scale + 2.0)
        self._legend(drawn.width * scale, result)
        against = f", as told from {_title(result, result.against).lower()}" if result.against else ""
        self._say(f"Heatmap for {title}{against}, by {what}.", 9, bold=True, above=1.5)
        told = self._card.subject.retell("It shows what the model used, not where the fracture is.")
        if result.method == DEFAULT and not result.explanation.has_evidence(result.target):
            told = "The model finds no positive evidence for it here."
        self._say(told, 9, FAINT, above=0.5)

    def _legend(self, wide: float, result: Result) -> None:
        """The colours of the heat, from none to full."""
        colours = gradient("inferno", 0.6, 60)
        top, ends = self.get_y(), ("none", "strong")
        if result.found is None:
            ends = ("none", f"strong ({result.scale:.0f} logits)")
        self.set_font("helvetica", "", 8)
        self.set_text_color(*FAINT)
        first, last = (self.get_string_width(text) for text in ends)
        left, step = MARGIN + first + 2.0, (wide - first - last - 4.0) / len(colours)
        self.text(MARGIN, top + 2.6, ends[0])
        self.text(MARGIN + wide - last, top + 2.6, ends[1])
        for number, colour in enumerate(colours):
            self.set_fill_color(*colour)
            # A little wider than the step, or readers show hairlines between.
            self.rect(left + number * step, top + 0.5, step + 0.1 * (number < len(colours) - 1), 2.4, style="F")
        self.set_y(top + 3.5)

    def verdict(self, result: Result) -> None:
        prediction = result.explanation.prediction
        probability = prediction.probability(prediction.best)
        if result.ood.words:
            self._say(result.ood.words, 9.5, AMBER, bold=True)
            self.ln(1.5)
        if result.finding:
            self._say(self._card.subject.retell(IN_WORDS[result.finding]), 13, FINDING[result.finding], bold=True)
        if result.finding == "none":
            self._say("If there is one:", 9, FAINT, above=1.0)
        muted = result.finding == "none" or bool(result.ood.words)
        self._say(_title(result, prediction.best), 13 if muted else 16, FAINT if muted else INK, bold=True, above=1.5)
        if result.card.calibrated:
            self._say(f"{percent(probability)}, {confidence(probability)}", 11, FAINT, above=0.5)
            self._say(f"In words: {how_sure(probability)}.", 9, above=2.0)
        else:
            self._say(f"{percent(probability)}, not calibrated", 11, FAINT, above=0.5)
        self.sentences(_reliability(result))
        self.sentences(_short(note) for note in result.explanation.radiograph.notes[:NOTES])

    def types(self, result: Result) -> None:
        """The three likeliest types as bars."""
        prediction = result.explanation.prediction
        self.ln(4.0)
        self.heading("The three likeliest types")
        for name in prediction.ranking[:3]:
            share = prediction.probability(name)
            self._say(f"{_title(result, name)}  {percent(share)}", 9, above=1.5)
            self.set_fill_color(*LINE)
            self.rect(self._left, self.get_y() + 0.6, self._wide, 2.0, style="F")
            self.set_fill_color(*ACCENT)
            self.rect(self._left, self.get_y() + 0.6, self._wide * share, 2.0, style="F")
            self.ln(3.0)

    def footer_line(self, result: Result) -> None:
        self.column(MARGIN, self.w - 2 * MARGIN, self.h - MARGIN - 5.0)
        self.set_draw_color(*LINE)
        self.line(MARGIN, self.get_y() - 2.0, self.w - MARGIN, self.get_y() - 2.0)
        parts = [f"fracture-explained {__version__}", f"weights {result.card.weights.sha256[:12]}"]
        if result.source.sha256:
            parts.append(f"image {result.source.sha256[:12]}")
        self._say("   ".join(parts), 8, FAINT)


def _title(result: Result, name: str) -> str:
    return next(kind.title for kind in result.card.classes if kind.name == name)


def _reliability(result: Result) -> Iterator[str]:
    """What was measured of such a verdict."""
    card, prediction = result.card, result.explanation.prediction
    if (record := track_record(card, prediction.probability(prediction.best))) and record[1]:
        yield card.subject.retell(
            f"{where_judged(card)} it was right on {record[0]} of {record[1]} X-rays when about this sure."
        )
    if card.sets is not None:
        types = possible_types(prediction, card.sets)
        which = f"all {len(types)}" if len(types) == len(card.classes) else ", ".join(types)
        like = card.subject.retell("If this is a fracture like those it learnt from")
        yield f"{like}: a list that holds the right type {percent(card.sets.level)} of the time: {which}."


def _checks(result: Result) -> Iterator[str]:
    """Where the heat lies, which costs no further look by the model; the page's other tests take seconds."""
    explanation, subject = result.explanation, result.card.subject
    found = shortcut_shares(explanation.radiograph.display(), result.raw, explanation.placement, subject)
    share, where = percent(found.total), nowhere(subject)
    yield subject.retell(
        f"{share} of its heat lies {where}." if found.warns else f"Little of its heat, {share}, lies {where}."
    )
    parts = ", ".join(f"{percent(share)} on {KINDS[kind]}" for kind, share in found.shares.items())
    yield subject.retell(f"Of it: {parts}.")
    yield "Not tested here: whether it points at what the score needs, depends on the model and is stable."


def _figures(card: ModelCard) -> Iterator[tuple[str, str]]:
    """What was measured of the model, as its card says."""
    test, folds, seen = (card.metrics.get(part) for part in ("test", "cross_validation", "presence"))
    if test:
        yield card.subject.retell("Top-1 accuracy, test X-rays"), with_interval(test["accuracy"])
        yield card.subject.retell("Top-3 accuracy, test X-rays"), with_interval(test["top3"])
    if folds:
        judged = "held-out images" if folds.get("held_out") else "cross-validation"
        yield f"Top-1 accuracy, {judged}", with_interval(folds["accuracy"])
    if seen:
        yield "Fractured or not, AUROC", with_interval(seen["auroc"], 2)
        if others := other_sources(card):
            where = min(others, key=lambda name: others[name]["auroc"]["value"])
            which = "of the sources left out of training" if card.metrics.get("left_out") else "of other sources"
            yield f"The same, {which}, the worst ({where})", with_interval(others[where]["auroc"], 2)
    if not (test or folds):
        yield "Accuracy", "not measured"
