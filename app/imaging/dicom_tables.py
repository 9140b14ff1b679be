"""Look-up tables of DICOM files, read by what they hold where they claim something else (PS3.3 C.11.1, C.11.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom import Dataset

from app.imaging.dicom_values import held, numbers

__all__ = ["Table", "read_table"]

MOST = 65536
BEYOND = 0.01
"""Share of the pixels that may lie beyond the end of a table that was cut short."""


@dataclass(frozen=True, eq=False)
class Table:
    """A look-up table.

    Attributes:
        entries: uint16 (N,), at least two different ones.
        first: the value that the first entry stands for.
        white: largest number that the bits in use can hold.
    """

    entries: np.ndarray
    first: int
    white: float

    def look_up(self, values: np.ndarray) -> np.ndarray:
        """Entries, float64, for values of any shape; those outside take the nearest entry."""
        at = np.clip(values.astype(np.int64) - self.first, 0, len(self.entries) - 1)
        return self.entries[at].astype(np.float64)


def read_table(item: Dataset, values: np.ndarray) -> Table | None:
    """A table, as far as it can be used for some values; None where it cannot.

    Descriptors are found that claim more bits than any entry has, that tell the first value with the other sign, and
    more entries than follow. The bits in use are those of the largest entry; of both signs the one is taken with which
    the table meets the values.

    Args:
        item: with descriptor and data.
        values: a sample of what is to be looked up.
    """
    descriptor = numbers(item, "LUTDescriptor")
    if len(descriptor) < 2 or not np.isfinite(descriptor[:2]).all() or not values.size:
        return None
    # 0 stands for 65536, and a number of entries read with a sign may be negative.
    count = int(descriptor[0]) % MOST or MOST
    claimed = descriptor[2] if len(descriptor) > 2 and np.isfinite(descriptor[2]) else 16.0
    entries = _entries(item, count, claimed <= 8)
    if len(entries) < 2 or entries.min() == entries.max():
        return None
    first = _first(int(descriptor[1]), count, values)
    last = first + len(entries) - 1
    if len(entries) < count and float((values > last).mean()) > BEYOND:
        return None
    white = 2.0 ** int(entries.max()).bit_length() - 1.0
    return Table(entries, first, white)


def _entries(item: Dataset, count: int, narrow: bool) -> np.ndarray:
    """The entries that a table holds, uint16, at most ``count``."""
    element = held(item, "LUTData")
    value = None if element is None else element.value
    if element is None or value is None:
        return np.zeros(0, np.uint16)
    if not isinstance(value, bytes):
        value = np.array([int(each) % MOST for each in numbers(item, "LUTData") if np.isfinite(each)], "<u2").tobytes()
    order = "<" if getattr(element, "is_little_endian", True) else ">"
    words = np.frombuffer(value[: len(value) // 2 * 2], f"{order}u2").astype(np.uint16)
    if len(value) not in (count, count + count % 2):
        return words[:count]
    # Two entries a word (PS3.3 C.11.1.1.1), either of which may come first.
    low, high = words & 255, words >> 8
    pairs = [np.stack(pair, axis=1).ravel()[:count] for pair in ((low, high), (high, low))]
    smooth = min(pairs, key=_roughness)
    return smooth if narrow or _roughness(smooth) <= _roughness(words) else words


def _roughness(entries: np.ndarray) -> float:
    """Way that entries go up and down, in units of their range: 1 for a table that only rises or falls."""
    steps = np.abs(np.diff(entries.astype(np.int64)))
    return float(steps.sum()) / max(1, int(entries.max()) - int(entries.min())) if len(entries) else np.inf


def _first(told: int, count: int, values: np.ndarray) -> int:
    """The first value of a table, with the sign under which most of the values meet its entries."""
    choices = dict.fromkeys((told, told % MOST, (told + MOST // 2) % MOST - MOST // 2))
    low, high = np.percentile(values, (1, 99))
    return max(choices, key=lambda first: min(high, first + count - 1) - max(low, first))
