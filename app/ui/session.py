"""What the tabs share: the X-ray on the page, who waits where, and how slow work reports to the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import gradio as gr
import numpy as np
from gradio.components import Component

from app.errors import Progress
from app.explain.methods import DEFAULT, MapRequest, draw, heat, map_request
from app.imaging.series import Slices
from app.model.classifier import Classifier, Explanation
from app.model.ood import Likeness
from app.model.weights import ModelCard
from app.ui.languages import in_every, label
from app.ui.text import CANCELLED, OURS, line, titles

__all__ = [
    "COMPUTE",
    "HEAVY",
    "HOUR",
    "LIMIT",
    "OURS",
    "PATIENT",
    "SCREEN",
    "Session",
    "cancel",
    "gallery",
    "model_choice",
    "model_choices",
    "picture",
    "progress",
    "run_slowly",
    "stoppable",
    "type_choice",
    "watched",
]

Result = TypeVar("Result")

LIMIT = 180.0
"""Seconds that one method or one test may take on the page."""

COMPUTE = "compute"
"""Whatever asks a network once queues here."""

PATIENT = "patient"
"""Whatever may take minutes queues here, so that nobody waits behind it for a verdict."""

HEAVY: dict[str, Any] = {"concurrency_id": COMPUTE, "concurrency_limit": 2, "api_visibility": "private"}
"""How Gradio runs handlers that run a network once."""

SCREEN = 1024
"""Longest side of what is drawn on the page, in pixels."""

REFRESH = 0.25

HOUR = 3600
"""Seconds for which the page remembers an X-ray."""


@dataclass(frozen=True, eq=False)
class Session:
    """What the page knows of the X-ray on it.

    Attributes:
        explanation: of the X-ray at screen size.
        square: the X-ray as the model saw it, float (S, S) in 0..1.
        slices: the file or files it came from.
        label: the type it is labelled with, where that is known.
        likeness: to the reference set; people insisted where it is out of distribution.
        plain: path of the X-ray as the page shows it.
        maps: drawn by other methods than the default, float (h, w), by type and method, so that each is drawn once.
    """

    explanation: Explanation
    square: np.ndarray
    slices: Slices
    label: str | None
    likeness: Likeness | None = None
    plain: str = ""
    maps: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)

    @property
    def anyway(self) -> bool:
        """Whether it is explained although it is out of distribution."""
        return self.likeness == "out-of-distribution"


def picture(elem_id: str, alt: str, **look: Any) -> gr.Image:
    """One result, to be looked at only."""
    look = {"buttons": ["fullscreen", "download"], "min_width": 150, **look}
    return gr.Image(show_label=False, format="png", interactive=False, elem_id=elem_id, alt_text=alt, **look)


def gallery(elem_id: str, columns: int) -> gr.Gallery:
    """Maps side by side."""
    look: dict[str, Any] = {"show_label": False, "object_fit": "contain", "height": "auto", "format": "png"}
    return gr.Gallery(columns=columns, elem_id=elem_id, buttons=[], **look)


def type_choice(card: ModelCard, title: str, first: str, elem_id: str) -> gr.Dropdown:
    """A fracture type, or the empty name for the one that ``first`` describes."""
    kinds = [(in_every(lambda name=kind.name: titles(card)[name]), kind.name) for kind in card.classes]
    return gr.Dropdown([(label(first), ""), *kinds], value="", label=label(title), elem_id=elem_id, min_width=240)


def model_choices(cards: Sequence[ModelCard]) -> list[tuple[str, str]]:
    """Models as people read them, with their names."""
    return [(label(card.title) if card.subject.ours else card.title, card.name) for card in cards]


def model_choice(cards: Sequence[ModelCard], elem_id: str) -> gr.Dropdown:
    """A model, the first where nobody chooses; not shown where there is one alone."""
    return gr.Dropdown(
        model_choices(cards),
        value=cards[0].name,
        label=label("Model"),
        visible=len(cards) > 1,
        elem_id=elem_id,
    )


Work = Callable[..., Iterator[dict[Any, Any]]]
"""A handler that yields what changes, by component."""


def run_slowly(
    work: Work,
    session: gr.State,
    inputs: Sequence[Component],
    results: Sequence[Component],
    go: gr.Button,
    stop: gr.Button,
    clear: Callable[[], dict[Any, Any]],
) -> None:
    """Binds slow work to a button, and another button that stops it.

    Args:
        work: the handler.
        session: its first input.
        inputs: its other inputs.
        results: its outputs, a line of text first.
        go, stop: the buttons; the second is there while work runs.
        clear: empties the results: what was found of another X-ray must not stand beside this one.
    """
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    patient: dict[str, Any] = {"concurrency_id": PATIENT, "concurrency_limit": 2, **quiet}
    running = go.click(stoppable(work, stop), [session, *inputs], [*results, stop], **patient)
    over = {stop: gr.update(visible=False)}
    cancel(session.change, running, lambda: {**clear(), **over}, None, [*results, stop], **quiet)
    cancel(stop.click, running, lambda: {results[0]: line(CANCELLED), **over}, None, [results[0], stop], **quiet)


def stoppable(work: Work, stop: gr.Button) -> Work:
    """The same work, with the button that stops it on the page while it runs."""

    @wraps(work)
    def shown(*values: Any) -> Iterator[dict[Any, Any]]:
        yield {stop: gr.update(visible=True)}
        yield from work(*values)
        yield {stop: gr.update(visible=False)}

    return shown


class Requests:
    """What was last asked about X-rays on the page: their features cost a prediction, and a method that needs no more
    is there at once. As many as ``MOST`` are kept, and each no longer than its session."""

    MOST = 4

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[Session, MapRequest] = WeakKeyDictionary()

    def of(self, classifier: Classifier, session: Session, name: str | None = None) -> MapRequest:
        """A request for maps of a type on the session's X-ray; of the likeliest one where none is named."""
        request = self._kept.get(session)
        if request is None:
            request = self._kept[session] = map_request(classifier, session.square)
            for other in list(self._kept)[: -self.MOST]:
                self._kept.pop(other, None)
        return request if name is None else replace(request, target=classifier.classes.index(name))

    def heat(self, classifier: Classifier, session: Session, name: str, method: str) -> np.ndarray:
        """A type's map on the image, float32 (H, W) in 0..1; what took time to find is kept."""
        if method == DEFAULT:
            return session.explanation.heat(name)
        if (name, method) not in session.maps:
            session.maps[name, method] = draw(self.of(classifier, session, name), method)
        return heat(session.maps[name, method], session.explanation.placement)


def cancel(
    event: Callable[..., Any],
    running: Any,
    then: Callable[..., Any],
    inputs: Any,
    outputs: Sequence[Component] | Component,
    **look: Any,
) -> None:
    """Ends running work, then shows something in its place.

    Gradio awaits the function of an event before it cancels what the event cancels: the work would meanwhile write over
    what the function showed. So the event itself has no function.

    Args:
        event: of a component or ``gr.State``, what ends the work.
        running: what ``Component.event`` gave when the work was bound.
        then, inputs, outputs, look: as for any event.
    """
    event(None, cancels=[running], api_visibility="private").then(then, inputs, outputs, **look)


def progress(share: float, doing: str) -> str:
    """A bar and what is being done, as HTML."""
    return (
        f"<div class='progress' role='progressbar' aria-label='{doing}' aria-valuenow='{round(100 * share)}' "
        f"aria-valuemin='0' aria-valuemax='100'><i style='width:{100 * share:.0f}%'></i><span>{doing}</span></div>"
    )


def watched(work: Callable[[Progress], Result], seconds: float = LIMIT) -> Iterator[tuple[float, Result | None]]:
    """Runs slow work beside the page.

    Args:
        work: told whom to report to; stopped when the iterator is closed, as it is when people press Stop.
        seconds: most it may take.

    Yields:
        The share done and None until it is done, then 1 and the result.

    Raises:
        Whatever the work raises; Cancelled where its time was over.
    """
    share = 0.0

    def tell(done: float) -> None:
        nonlocal share
        share = done

    watch = Progress(seconds, tell)
    with ThreadPoolExecutor(1, "slow-work") as pool:
        future = pool.submit(work, watch)
        try:
            while not future.done():
                wait([future], timeout=REFRESH)
                if not future.done():
                    yield share, None
            yield 1.0, future.result()
        finally:
            watch.stop()
