"""From stored values to what a screen shows: modality, background, window, polarity (PS3.3 C.11, PS3.4 N.2).

A window or table of the file counts only where it shows something. Files carry windows for other depths, blank ones and
words; a picture that comes out black would be taken for one without a fracture. So the next one is tried, at last the
pixels' own range, and a note says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from pydicom import Dataset
from pydicom.pixels import apply_color_lut

from app.errors import ImageError
from app.imaging.colour import IN_COLOUR, count_coloured, is_coloured
from app.imaging.dicom_pixels import Stored
from app.imaging.dicom_read import FUNCTIONAL, GROUPS
from app.imaging.dicom_tables import Table, read_table
from app.imaging.dicom_values import items, number, numbers, word
from app.imaging.strips import strips

__all__ = ["levels_of", "show"]

Change = Callable[[np.ndarray], np.ndarray]

DEEP = 65535.0
SAMPLE = 1_000_000
"""About how many pixels tell the percentiles of a film."""
ODD = (0.1, 99.9)
"""Percentiles outside of which pixels are left to saturate, where they alone would make the rest of a film dark."""
MOST_SHOWN = (2.5, 97.5)
"""Percentiles of brightness between which a window has to tell pixels apart."""
FAINT = 0.05
"""Least part of the way from black to white between them."""
BLACK, WHITE = 0.15, 0.9
"""Brightness on the screen that most pixels may not stay below, or above."""
LEAST_WIDTH = 1e-9
NOTHING = 1.0 / 255.0


@dataclass(frozen=True, eq=False)
class Survey:
    """What values a picture has, its background left out.

    Attributes:
        low, high: the extremes.
        sample: float64, (N,), about ``SAMPLE`` of them.
    """

    low: float
    high: float
    sample: np.ndarray


def levels_of(dataset: Dataset, index: int) -> list[Dataset]:
    """Where a frame's elements are told, in the order in which they count: its own group, the shared one, the file."""
    levels = []
    for name, which in ((GROUPS[1], index), (GROUPS[0], 0)):
        groups = items(dataset, name)
        if which < len(groups):
            level = Dataset()
            for sequence in FUNCTIONAL:
                for item in items(groups[which], sequence)[:1]:
                    for tag in item:
                        level[tag.tag] = item.get_item(tag.tag)
            levels.append(level)
    return [*levels, dataset]


def show(
    stored: Stored,
    dataset: Dataset,
    index: int,
    photometric: str,
    window: tuple[float, float] | None,
    notes: list[str],
) -> np.ndarray:
    """What a screen shows of one frame.

    Args:
        stored: the decoded frame.
        dataset: the file's.
        index: of the frame, from 0.
        photometric: interpretation, as the standard spells it.
        window: centre and width to show, whatever they show; the file's own where absent.
        notes: to which sentences for the user are added.

    Returns:
        uint16 (rows, columns), 0 black and 65535 white.

    Raises:
        ImageError: pixels have no value.
    """
    if stored.words.ndim == 3 or photometric == "PALETTE COLOR":
        return _coloured(stored, dataset, photometric, notes)
    levels = levels_of(dataset, index)
    background = _background(stored, dataset, notes)
    modality = _modality(stored, levels, notes)
    inverse = photometric == "MONOCHROME1" or word(dataset, "PresentationLUTShape").upper() == "INVERSE"
    if window is not None:
        tone = _windowed(*window, "LINEAR")
    else:
        tone = _tone(_survey(stored, modality, background), levels, inverse, notes)
    shown = np.empty(stored.words.shape, np.uint16)
    for rows in strips(*shown.shape):
        bright = tone(modality(stored.values(rows)))
        if inverse:
            bright = 1.0 - bright
        if background is not None:
            bright[background(rows)] = 0.0
        shown[rows] = _deep(bright)
    return shown


def _deep(bright: np.ndarray) -> np.ndarray:
    return np.round(np.clip(bright, 0.0, 1.0) * DEEP).astype(np.uint16)


def _coloured(stored: Stored, dataset: Dataset, photometric: str, notes: list[str]) -> np.ndarray:
    """Colours in shades of grey: uint16 (rows, columns)."""
    shown = np.empty(stored.words.shape[:2], np.uint16)
    coloured = 0
    for rows in strips(*shown.shape):
        values = stored.values(rows)
        if photometric == "PALETTE COLOR":
            looked_up = apply_color_lut(values, dataset)
            colours = looked_up.astype(np.float32) / float(np.iinfo(looked_up.dtype).max)
        else:
            colours = values.astype(np.float32) / (2.0 ** (stored.bits or 8 * values.dtype.itemsize) - 1)
        coloured += count_coloured(colours, 1.0)
        shown[rows] = _deep(cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY))
    if is_coloured(coloured, shown.size):
        notes.append(IN_COLOUR)
    return shown


def _background(stored: Stored, dataset: Dataset, notes: list[str]) -> Callable[[slice], np.ndarray] | None:
    """Which pixels of some rows are padding (PS3.3 C.7.5.1.1.2); None where the file names none, or nothing else."""
    told = number(dataset, "PixelPaddingValue")
    if told is None or stored.words.dtype.kind == "f":
        return None
    limit = number(dataset, "PixelPaddingRangeLimit")
    turn = 1 << (8 * stored.words.dtype.itemsize)

    def alike(value: float) -> int:
        # Writers tell it with either sign, whatever the pixels have.
        whole = int(value) % turn
        if not stored.signed:
            return whole
        bits = 1 << stored.bits
        return whole - bits if bits // 2 <= whole < bits else whole - turn if whole >= turn // 2 else whole

    ends = (told, told if limit is None else limit)
    low, high = sorted(alike(end) for end in ends)
    across = low != high and (ends[0] < 0) != (ends[1] < 0) and not stored.signed

    def padding(rows: slice) -> np.ndarray:
        found = np.zeros(stored.words[rows].shape, bool)
        for values in (stored.whole(rows), stored.values(rows)):
            inside = (values >= low) & (values <= high)
            found |= (values <= low) | (values >= high) if across else inside
        return found

    if all(padding(rows).all() for rows in strips(*stored.words.shape)):
        notes.append("The file calls every pixel background, which cannot be; all are shown.")
        return None
    return padding


def _modality(stored: Stored, levels: Sequence[Dataset], notes: list[str]) -> Change:
    """What makes quantities, such as Hounsfield units, of stored values: to float64 of the same shape (C.11.1)."""
    for level in levels:
        for item in items(level, "ModalityLUTSequence"):
            table = read_table(item, _thinned(stored))
            if table is not None:
                return table.look_up
            notes.append("The file's table of values cannot be used; its stored values are shown.")
    slope, intercept = 1.0, 0.0
    for level in levels:
        told, shift = number(level, "RescaleSlope"), number(level, "RescaleIntercept")
        if told is not None or shift is not None:
            slope, intercept = told or 1.0, shift or 0.0
            if told == 0:
                notes.append("The file would turn every pixel into the same value; its stored values are shown.")
            break

    def quantities(values: np.ndarray) -> np.ndarray:
        found = values.astype(np.float64) * slope + intercept
        if not np.isfinite(found).all():
            raise ImageError("The picture holds pixels without a value, so it cannot be shown truthfully.")
        return found

    return quantities


def _thinned(stored: Stored) -> np.ndarray:
    """Some of the stored values."""
    step = 1 + int((stored.words.size // SAMPLE) ** 0.5)
    return stored.values(slice(None, None, step))[:, ::step]


def _survey(stored: Stored, modality: Change, background: Callable[[slice], np.ndarray] | None) -> Survey:
    low, high, sample = np.inf, -np.inf, []
    for rows in strips(*stored.words.shape):
        values = modality(stored.values(rows))
        real = values.ravel() if background is None else values[~background(rows)]
        if real.size:
            low, high = min(low, float(real.min())), max(high, float(real.max()))
            sample.append(real[:: 1 + stored.words.size // SAMPLE].copy())
    return Survey(low, high, np.concatenate(sample))


def _tone(survey: Survey, levels: Sequence[Dataset], inverse: bool, notes: list[str]) -> Change:
    """What makes brightness, mostly 0 to 1, of quantities: the first of the file's that shows something (C.11.2)."""
    failed = ""
    for thing, tone in _offered(survey, levels):
        fault = "cannot be used" if tone is None else _fault(tone, survey, inverse)
        if tone is not None and not fault:
            if failed:
                notes.append(f"{failed}; {'its next one' if thing in failed else f'its {thing}'} is shown.")
            return tone
        failed = failed or f"The file's {thing} {fault}"
    if failed:
        notes.append(f"{failed}; the full range is shown.")
    else:
        notes.append("The file names no window; the darkest and brightest values are shown as black and white.")
    low, high = _limits(survey)
    return lambda values: (values - low) / max(high - low, 1e-12)


def _offered(survey: Survey, levels: Sequence[Dataset]) -> Iterator[tuple[str, Change | None]]:
    """What the file offers to make brightness with, by name and in order; None for what cannot be read."""
    for level in levels:
        for item in items(level, "VOILUTSequence"):
            table = read_table(item, survey.sample)
            yield "table", None if table is None else _tabled(table)
        function = word(level, "VOILUTFunction").upper().replace(" ", "_")
        function = function if function in ("SIGMOID", "LINEAR_EXACT") else "LINEAR"
        centres, widths = (numbers(level, name) for name in ("WindowCenter", "WindowWidth"))
        for centre, width in zip(centres, widths, strict=False):
            usable = np.isfinite(centre) and width >= LEAST_WIDTH
            # The standard's formula turns over below 1, where files mean fractions of a quantity.
            formula = "LINEAR_EXACT" if function == "LINEAR" and width < 1 else function
            yield "window", _windowed(centre, width, formula) if usable else None


def _fault(tone: Change, survey: Survey, inverse: bool) -> str:
    """What is wrong with a way to make brightness that tells hardly any pixels apart; empty where it does."""
    low, high = np.percentile(survey.sample, MOST_SHOWN)
    # Where nearly all pixels are alike, the few others count.
    values, ends = (survey.sample, MOST_SHOWN) if low < high else (np.array([survey.low, survey.high]), (0, 100))
    bright = np.clip(tone(values), 0.0, 1.0)
    darkest, brightest = np.percentile(1.0 - bright if inverse else bright, ends)
    if brightest - darkest >= FAINT and brightest >= BLACK and darkest <= WHITE:
        return ""
    return "shows nothing" if brightest - darkest < NOTHING else "shows hardly anything"


def _tabled(table: Table) -> Change:
    return lambda values: table.look_up(values) / table.white


def _windowed(centre: float, width: float, function: str) -> Change:
    if function == "SIGMOID":
        return lambda values: 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -60.0, 60.0)))
    if function == "LINEAR_EXACT":
        return lambda values: np.clip((values - centre) / width + 0.5, 0.0, 1.0)
    if width == 1:
        return lambda values: (values > centre - 0.5).astype(np.float64)
    return lambda values: np.clip((values - (centre - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0)


def _limits(survey: Survey) -> tuple[float, float]:
    """The values shown as black and as white where no window counts."""
    most = np.percentile(survey.sample, ODD)
    if most[1] - most[0] < (survey.high - survey.low) / 4:
        return float(most[0]), float(most[1])
    return survey.low, survey.high
