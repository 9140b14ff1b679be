"""The ways things go wrong for a user, whose messages are shown as they are, and how slow work reports and stops."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event


class ImageError(ValueError):
    """This file cannot be read as a radiograph; the message says why in words a layman understands."""


class RejectedError(ImageError):
    """An image is out of distribution for a model; people may insist on a verdict all the same."""


class ChoiceError(ValueError):
    """A method, type, frame or window that is not to choose from; the message says which ones are."""


class WeightsError(RuntimeError):
    """A model cannot be used; the message says which one, why, and what to do."""


class DeployError(RuntimeError):
    """No Space can be made of this clone; the message says why and what to do."""


class Cancelled(Exception):
    """Slow work that was stopped, or ran out of time; the message is for people."""


class NoHeat(ValueError):
    """A map is the same everywhere, so there is nothing to judge; the message is a sentence for people."""


class Progress:
    """Counts the steps of one piece of work; another thread may stop it.

    Args:
        seconds: most it may take; no limit where absent.
        tell: called with the share done, 0 to 1, after every step.
    """

    def __init__(self, seconds: float | None = None, tell: Callable[[float], None] | None = None) -> None:
        self.seconds = seconds
        self.began = time.monotonic()
        self._tell = tell
        self._stop = Event()

    def stop(self) -> None:
        """Makes the next step the last; safe from any thread."""
        self._stop.set()

    def step(self, share: float) -> None:
        """Says that so much is done.

        Raises:
            Cancelled: somebody stopped the work, or its time is over.
        """
        if self._stop.is_set():
            raise Cancelled("This was stopped before it was done.")
        if self.seconds is not None and time.monotonic() - self.began > self.seconds:
            raise Cancelled(
                f"This took longer than the {self.seconds:.0f} seconds it may have here: the method is slow, or others "
                "wait too. Try again later, or on a machine of your own."
            )
        if self._tell is not None:
            self._tell(min(1.0, share))
