"""The tab that explains many X-rays at once, and lays them out to be sorted by what was found."""

from __future__ import annotations

import html
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from app.batch import RESULTS, Outcome, Row, as_csv, explain_batch, gather
from app.bundle import pack
from app.errors import ImageError
from app.model.classifier import IN_WORDS, Classifier
from app.model.reliability import confidence
from app.model.weights import percent
from app.pipeline import png
from app.result_folders import Source, folder_name, printable
from app.ui import text
from app.ui.languages import digits, in_every, label, said, say
from app.ui.painted import paint
from app.ui.session import HOUR, PATIENT, cancel, gallery, model_choice, progress, stoppable
from app.ui.uploads import guard, hand_out

__all__ = ["MOST", "BatchTab", "Shown", "ordered", "refusal"]

log = logging.getLogger(__name__)

MOST = 50
"""Images that one visitor may send at once."""
SIDE = 768
"""Longest side of an overlay here, in pixels."""
LETTERS = 80
"""Of a file's name; browsers send what they like."""

LEAD = "Many X-rays at once: look at the doubtful ones first, take the table home. File names are shown to you alone."
NOTHING = "No X-rays yet: drop some in first."
NO_PICTURE = "There is no X-ray in what you sent: PNG, JPEG, WebP, TIFF or DICOM, or a zip file of these."
TOO_MANY = "These are {count:,} images; at most {most} can be sent at once here. The command line takes any number."
FINDINGS = ("definite", "suspicious", "none", "")
NOT_TOLD = "not told"
COUNTED = {"explained": "{count} explained", "rejected": "{count} rejected", "failed": "{count} failed"}
"""How many came to which end."""


def refusal(count: int) -> tuple[str, dict[str, int]]:
    """Why so many images, counted with those in zip files, are not taken, and what to put in; empty where they are."""
    if not count:
        return NO_PICTURE, {}
    return (TOO_MANY, {"count": count, "most": MOST}) if count > MOST else ("", {})


class Shown(NamedTuple):
    """A row of the table, and the path of its overlay; empty where there is none."""

    row: Row
    picture: str = ""


ORDERS: dict[str, Callable[[Row], Any] | None] = {
    "As sent": None,
    "Most doubtful first": lambda row: row.probability or 0.0,
    "By type": lambda row: (row.type, -(row.probability or 0.0)),
    "By fracture finding": lambda row: (FINDINGS.index(row.fracture), -(row.probability or 0.0)),
}


def ordered(found: Sequence[Shown], order: str) -> list[Shown]:
    """What was found, in one of ``ORDERS``; what was not explained comes last, but in the order it was sent."""
    if (key := ORDERS[order]) is None:
        return list(found)
    explained = [each for each in found if each.row.state == "explained"]
    return sorted(explained, key=lambda each: key(each.row)) + [each for each in found if each not in explained]


def _named(payload: Any) -> list[tuple[str, str]]:
    """Paths of uploads with the names that people know them by, which nothing else here learns.

    Raises:
        ImageError: one is no file: in the folder of uploads lie those of others.
    """
    files = payload.root if payload is not None else []
    if not all(Path(each.path).is_file() for each in files):
        raise ImageError(text.FOREIGN)
    return [(each.path, printable(each.orig_name or "image")[-LETTERS:]) for each in files]


class BatchTab:
    """Lays itself out inside the current Blocks; ``classifiers`` are the models to choose from, the default first."""

    def __init__(self, classifiers: Sequence[Classifier]) -> None:
        self.models = {classifier.card.name: classifier for classifier in classifiers}
        self.card = classifiers[0].card
        self.told = any(classifier.card.presence for classifier in classifiers) or self.card.subject.ours
        self.found = gr.State((), time_to_live=HOUR)
        gr.HTML(in_every(lambda: f"<div class='reading'><p>{said(LEAD)}</p></div>"))
        self._lay_out_inputs(classifiers)
        self.state = gr.HTML("", elem_id="batch-state")
        with gr.Column(visible=False, elem_id="batch-results") as self.results:
            self._lay_out_results()
        self._bind()

    def _lay_out_inputs(self, classifiers: Sequence[Classifier]) -> None:
        self.files = gr.File(
            label=label("Up to {most} X-rays, or a zip", most=MOST),
            file_count="multiple",
            elem_id="batch-files",
        )
        guard(self.files, _named)
        self.model = model_choice([classifier.card for classifier in classifiers], "batch-model")
        with gr.Row():
            self.go = gr.Button(label("Explain all"), variant="primary", elem_id="batch-go", min_width=140)
            self.stop = gr.Button(label("Stop"), visible=False, elem_id="batch-stop", min_width=140)

    def _lay_out_results(self) -> None:
        with gr.Row():
            self.csv = gr.DownloadButton(label("Table (CSV)"), size="sm", elem_id="batch-csv", min_width=140)
            self.zip = gr.DownloadButton(label("Overlays (zip)"), size="sm", elem_id="batch-zip", min_width=140)
        orders = [(label(order), order) for order in ORDERS if self.told or order != "By fracture finding"]
        self.order = gr.Radio(orders, value="Most doubtful first", label=label("Order"), elem_id="batch-order")
        self.gallery = gallery("batch-gallery", 4)
        self.table = gr.HTML("", elem_id="batch-table")

    def _bind(self) -> None:
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        changed = [self.state, self.found, self.results, self.gallery, self.table, self.csv, self.zip]
        running = self.go.click(
            stoppable(self.explain, self.stop),
            [self.files, self.model, self.order],
            [*changed, self.stop],
            concurrency_id=PATIENT,
            concurrency_limit=2,
            **quiet,
        )
        cancel(self.stop.click, running, self.stopped, [self.found, self.order], [*changed, self.stop], **quiet)
        self.files.upload(self.ready, self.found, self.state, **quiet)
        self.order.input(self.sorted, [self.found, self.order], [self.gallery, self.table], **quiet)

    def explain(self, files: list[tuple[str, str]], model: str, order: str) -> Iterator[dict[Any, Any]]:
        if not files:
            yield self._nothing(text.line(NOTHING))
            return
        try:
            with gather([path for path, _ in files], [name for _, name in files]) as items:
                why, values = refusal(len(items))
                if why:
                    yield self._nothing(text.line(why, **values))
                    return
                found: tuple[Shown, ...] = ()
                yield self._nothing(progress(0.0, _done_of(0, len(items))))
                for outcome in explain_batch(items, model=self.models[model]):
                    found = (*found, _shown(outcome))
                    bar = progress(len(found) / len(items), _done_of(len(found), len(items)))
                    yield {self.state: bar, self.found: found}
            yield self._done(found, order, "")
        except Exception as error:  # noqa: BLE001 - whatever it is, the page stays usable
            log.error("X-rays could not be explained together: %s", type(error).__name__)
            yield self._nothing(text.line(text.OURS))

    def ready(self, found: Sequence[Shown]) -> Any:
        """Files are here: what asked for some goes, what was said of earlier ones stays as long as they do."""
        return gr.skip() if found else ""

    def stopped(self, found: Sequence[Shown], order: str) -> dict[Any, Any]:
        cancelled = text.line(text.CANCELLED)
        left = self._done(found, order, f"{said(text.CANCELLED)} ") if found else self._nothing(cancelled)
        return {**left, self.stop: gr.update(visible=False)}

    def sorted(self, found: Sequence[Shown], order: str) -> dict[Any, Any]:
        if not found:
            return {self.gallery: [], self.table: text.line(text.FORGOTTEN)}
        return {self.gallery: self._pictures(found, order), self.table: self._rows(found, order)}

    def _nothing(self, message: str) -> dict[Any, Any]:
        return {self.state: message, self.found: (), self.results: gr.update(visible=False), self.gallery: []}

    def _done(self, found: Sequence[Shown], order: str, before: str) -> dict[Any, Any]:
        states = [each.row.state for each in found]
        counts = {word: states.count(word) for word in ("explained", "rejected", "failed")}
        told = say(", ").join(say(COUNTED[word], count=count) for word, count in counts.items() if count)
        all_of_them = say("1 X-ray") if len(found) == 1 else say("{count} X-rays", count=len(found))
        table = hand_out(RESULTS, as_csv(each.row for each in found))
        return {
            self.state: f"<p class='line'>{before}{html.escape(f'{all_of_them}: {told}.')}</p>",
            self.found: tuple(found),
            self.results: gr.update(visible=True),
            **self.sorted(found, order),
            self.csv: gr.update(value=table),
            self.zip: gr.update(value=hand_out("overlays.zip", _overlays(found)), visible=bool(counts["explained"])),
        }

    def _pictures(self, found: Sequence[Shown], order: str) -> list[tuple[str, str]]:
        titles = text.short_titles(self.card)

        def caption(row: Row) -> str:
            kind = f"{titles[row.type]} {digits(percent(row.probability or 0.0))}"
            # A type under a picture without a fracture would read as one.
            told = [_finding(row.fracture)] if row.fracture == "none" else [_finding(row.fracture), kind]
            return " · ".join(each for each in (*told, _last(row.name)) if each)

        return [(each.picture, caption(each.row)) for each in ordered(found, order) if each.picture]

    def _rows(self, found: Sequence[Shown], order: str) -> str:
        head = [say(word) for word in ("X-ray", "Type", "Confidence", "Fracture")]
        rows = [each.row for each in ordered(found, order)]
        cells = [self._cells(row) for row in rows]
        if not self.told:
            head, cells = head[:-1], [each[:3] for each in cells]
        if any(notes := [row.notes if row.state == "explained" else "" for row in rows]):
            head = [*head, say("Note")]
            cells = [[*each, note] if note else each for each, note in zip(cells, notes, strict=True)]
        return f"<div class='about wide'>{text.table(head, cells)}</div>"

    def _cells(self, row: Row) -> list[str]:
        if row.probability is None:
            return [row.name, f"{say(row.state.capitalize())}: {say(row.notes)}"]
        known = self.card.calibrated
        word = say(confidence(row.probability).removesuffix(" confidence") if known else text.UNCALIBRATED)
        sure = say(", ").join((digits(percent(row.probability)), word))
        kind = text.titles(self.card)[row.type]
        if row.fracture == "none":
            kind = say("if there is one: {type}", type=kind.lower())
        return [row.name, kind, sure, _finding(row.fracture) or say(NOT_TOLD)]


def _shown(outcome: Outcome) -> Shown:
    """What is kept of an outcome: its overlay at the size of the page, in a file that nobody else can name."""
    if outcome.result is None:
        return Shown(outcome.row)
    small = replace(outcome.result, explanation=outcome.result.explanation.at_screen_size(SIDE))
    drawn = paint(small.explanation, small.card, small.heat)
    return Shown(outcome.row, hand_out("overlay.png", png(drawn.picture)))


def _finding(fracture: str) -> str:
    """Whether a fracture is seen, in words; empty where the model does not tell."""
    return next((say(words) for finding, words in IN_WORDS.items() if finding == fracture), "")


def _done_of(done: int, count: int) -> str:
    return said("{done} of {count}", done=str(done), count=str(count))


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _overlays(found: Sequence[Shown]) -> bytes:
    """Every overlay as a zip file, by its number in the table and its name."""
    files = {}
    for number, (row, path) in enumerate(found, start=1):
        if path:
            files[f"{number:02d}-{folder_name(Source(_last(row.name)))}.png"] = Path(path).read_bytes()
    return pack(files)
