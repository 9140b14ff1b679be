"""What the tabs share: the film on the page, and how slow work reports to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from app.errors import Progress
from app.imaging.series import Slices
from app.model.classifier import Explanation

__all__ = ["COMPUTE", "HOUR", "LIMIT", "NO_FILM", "OURS", "PATIENT", "SCREEN", "Session", "progress", "watched"]

Result = TypeVar("Result")

LIMIT = 180.0
"""Seconds that one method or one trial may take on the page."""

COMPUTE = "compute"
"""Whatever asks a network once queues here."""

PATIENT = "patient"
"""Whatever may take minutes queues here, so that nobody waits behind it for a verdict."""

OURS = "Something went wrong on our side, and nothing about the film was written down. Please try again."

NO_FILM = "<p class='glossary'>No film yet: drop one in under &ldquo;Explain a film&rdquo; first.</p>"

SCREEN = 1024
"""Longest side of what is drawn on the page, in pixels."""

REFRESH = 0.25

HOUR = 3600
"""Seconds for which the page remembers a film."""


@dataclass(frozen=True, eq=False)
class Session:
    """The film on the page.

    Attributes:
        explanation: of the film at screen size.
        square: the film as the model saw it, float (S, S) in 0..1.
        slices: the file or files it came from.
        truth: its label, where that is known.
        insisted: whether it is judged although it is like no film the model knows.
    """

    explanation: Explanation
    square: np.ndarray
    slices: Slices
    truth: str | None
    insisted: bool = False


def progress(share: float, doing: str) -> str:
    """A bar and what is being done, as HTML."""
    return (
        f"<div class='progress' role='progressbar' aria-valuenow='{round(100 * share)}' aria-valuemin='0' "
        f"aria-valuemax='100'><i style='width:{100 * share:.0f}%'></i><span>{doing}</span></div>"
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
