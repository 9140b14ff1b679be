"""Large pictures are worked on a strip at a time: only the result has their size, never a wide intermediate."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["strips"]

PIXELS = 1_000_000


def strips(rows: int, columns: int) -> Iterator[slice]:
    """Slices of rows that cover a picture from top to bottom, each of about ``PIXELS`` pixels, at least one row."""
    step = max(1, PIXELS // columns)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
