"""How slow work tells how far it is, and how it is stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event

from app.errors import Cancelled

__all__ = ["Progress"]


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
                f"This took longer than the {self.seconds:.0f} seconds it may have here. A quicker method "
                "will do, or a machine of your own."
            )
        if self._tell is not None:
            self._tell(min(1.0, share))
