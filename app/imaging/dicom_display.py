"""From stored values to what a screen shows: modality, background, window, polarity (PS3.3 C.11, PS3.4 N.2).

A window or look-up table of the file counts only where it shows something. Some files carry windows for other depths,
blank ones or words, and a picture that comes out black would pass for one without a fracture. So the next one is tried,
at last the pixels' own range, and a note says so. Tables are read by what they hold where they claim something else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from pydicom import Dataset
from pydicom.pixels import apply_color_lut

from app.errors import ImageError
from app.imaging.dicom_pixels import MONOCHROME, PALETTES
from app.imaging.dicom_read import held, items, levels_of, number, numbers, word
from app.imaging.pixels import IN_COLOUR, SAMPLE, Stored, count_coloured, is_coloured, strips

__all__ = ["show"]

Change = Callable[[np.ndarray], np.ndarray]

DEEP = 65535.0
ODD = (0.1, 99.9)
"""Percentiles outside of which pixels may saturate, where they alone would make the rest of a picture dark."""
MOST_SHOWN = (2.5, 97.5)
"""Percentiles of brightness between which a window must tell pixels apart."""
FAINT = 0.05
"""Least part of the way from black to white between them."""
BLACK, WHITE = 0.15, 0.9
"""Brightness on the screen that most pixels may not stay below, or above."""
LEAST_WIDTH = 1e-9
MOST_ALIKE = 0.8
"""Share of pixels other than air that may be all black, or all white."""
LEAST_GREY, MUCH_GREY = 0.08, 0.18
"""Shares of them that must be neither, and that leave no doubt: windows of one deviation about the mean of 300
radiographs leave 0.18 at least, and those a fourteenth of the range wide 0.04 in the middle."""
AIR = 0.05
"""Part of the way from the darkest to the brightest of most pixels that air takes."""
BINS, DARK, MANY = 30, 10, 0.2
"""Parts of that way, those where air may lie, and the share of all pixels in one part by which it is known."""
NOTHING = 1.0 / 255.0
ENTRIES = 65536
"""Most entries of a look-up table."""
COLOURS = ("Red", "Green", "Blue")
MOST_SCALED = 1e12
"""Most that a value may be multiplied or divided by, and most that may be added to it, in steps between values."""
BEYOND = 0.01
"""Share of the pixels that may lie beyond the end of a table that was cut short."""


@dataclass(frozen=True, eq=False)
class Survey:
    """The values of a picture without its background: their extremes, and about ``SAMPLE`` of them, float64 (N,)."""

    low: float
    high: float
    sample: np.ndarray


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

    def brightness(self, values: np.ndarray) -> np.ndarray:
        """Entries for values of any shape, 0 to 1."""
        return self.look_up(values) / self.white


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
        window: centre and width to show, even if they show nothing; the file's own where absent.
        notes: gains sentences for the user.

    Returns:
        uint16 (rows, columns), 0 black and 65535 white.

    Raises:
        ImageError: pixels have no value.
    """
    shape = word(dataset, "PresentationLUTShape").upper()
    inverse = photometric in MONOCHROME and (photometric == "MONOCHROME1" or shape == "INVERSE")
    if stored.words.ndim == 3 and photometric in MONOCHROME:
        stored = _uncoloured(stored)
    if stored.words.ndim == 3 or photometric == "PALETTE COLOR":
        return _coloured(stored, dataset, inverse, notes)
    levels = levels_of(dataset, index)
    background = _background(stored, dataset, notes)
    modality = _modality(stored, levels, notes)
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


def _uncoloured(stored: Stored) -> Stored:
    """One value a pixel in place of three, where they hardly differ; the same three where they do."""
    kind = stored.words.dtype
    white = 2.0 ** (stored.bits or 8 * kind.itemsize) - 1
    grey, coloured = np.empty(stored.words.shape[:2], kind), 0
    for rows in strips(*grey.shape):
        values = stored.values(rows)
        coloured += count_coloured(values, white)
        grey[rows] = np.rint(cv2.cvtColor(values.astype(np.float32), cv2.COLOR_RGB2GRAY)).astype(np.int64)
    if is_coloured(coloured, grey.size):
        return stored
    return replace(stored, words=grey, shift=0, bits=stored.bits and 8 * kind.itemsize)


def _coloured(stored: Stored, dataset: Dataset, inverse: bool, notes: list[str]) -> np.ndarray:
    """Colours in shades of grey: uint16 (rows, columns)."""
    shown = np.empty(stored.words.shape[:2], np.uint16)
    coloured = 0
    palette = _palette(stored, dataset, notes) if stored.words.ndim == 2 else None
    for rows in strips(*shown.shape):
        values = stored.values(rows)
        if palette is not None:
            colours = np.stack([table.brightness(values) for table in palette], axis=-1, dtype=np.float32)
        else:
            colours = values.astype(np.float32) / (2.0 ** (stored.bits or 8 * values.dtype.itemsize) - 1)
        coloured += count_coloured(colours, 1.0)
        bright = cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)
        shown[rows] = _deep(1.0 - bright if inverse else bright)
    if is_coloured(coloured, shown.size):
        notes.append(IN_COLOUR)
    return shown


def _palette(stored: Stored, dataset: Dataset, notes: list[str]) -> list[Table]:
    """Tables of red, green and blue (PS3.3 C.7.6.3.1.5, C.7.9.2); one that the file lacks is like its first one."""
    stated = [numbers(dataset, f"{colour}PaletteColorLookupTableDescriptor") for colour in COLOURS]
    count, first, bits = (int(each) for each in next((each for each in stated if len(each) >= 3), (256, 0, 16)))
    names = [name for name in PALETTES if held(dataset, name) is not None]
    names = [name for name in names if name.startswith("Segmented") == names[0].startswith("Segmented")]
    if len(names) < len(COLOURS):
        notes.append("The file lacks tables of its palette's colours; it is shown as a grey picture.")
        names = names[:1] * len(COLOURS)
    count = count % ENTRIES or ENTRIES
    if names[0].startswith("Segmented"):
        whole = Dataset()
        whole.file_meta = dataset.file_meta
        whole.add_new("RedPaletteColorLookupTableDescriptor", "US", [count % ENTRIES, 0, bits])
        for name, colour in zip(names, COLOURS, strict=True):
            whole.add_new(f"Segmented{colour}PaletteColorLookupTableData", "OW", dataset[name].value)
        entries = list(apply_color_lut(np.arange(count), whole).T)
    else:
        entries = [_entries(dataset, name, count) for name in names]
    # Not under 8 bits, which a palette may fill with dark colours only.
    white = 2.0 ** max(8, *(int(each.max()).bit_length() for each in entries)) - 1.0
    first = _first(first, count, stored.values()[:: 1 + len(stored.words) // 256])
    return [Table(each, first, white) for each in entries]


def _background(stored: Stored, dataset: Dataset, notes: list[str]) -> Callable[[slice], np.ndarray] | None:
    """Which pixels of some rows are padding (PS3.3 C.7.5.1.1.2); None where the file names none, or all."""
    stated = number(dataset, "PixelPaddingValue")
    if stated is None or stored.words.dtype.kind == "f":
        return None
    limit = number(dataset, "PixelPaddingRangeLimit")
    turn = 1 << (8 * stored.words.dtype.itemsize)

    def alike(value: float) -> int:
        # Writers store it with either sign, whatever the pixels have.
        whole = int(value) % turn
        if not stored.signed:
            return whole
        bits = 1 << stored.bits if stored.bits else turn
        return whole - bits if bits // 2 <= whole < bits else whole - turn if whole >= turn // 2 else whole

    ends = (stated, stated if limit is None else limit)
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
    """From stored values to quantities, such as Hounsfield units: float64 of the same shape (PS3.3 C.11.1)."""
    step = 1 + int((stored.words.size // SAMPLE) ** 0.5)
    for level in levels:
        for item in items(level, "ModalityLUTSequence"):
            table = _read_table(item, stored.values(slice(None, None, step))[:, ::step])
            if table is not None:
                return table.look_up
            notes.append("The file's table of values cannot be used; its stored values are shown.")
    slope, intercept = 1.0, 0.0
    for level in levels:
        stated, shift = number(level, "RescaleSlope"), number(level, "RescaleIntercept")
        if stated is not None or shift is not None:
            slope, intercept = 1.0 if stated is None else stated, shift or 0.0
            if not 1.0 / MOST_SCALED <= abs(slope) <= MOST_SCALED:
                notes.append("The file's rescale slope cannot be used; 1 takes its place.")
                slope = 1.0
            if abs(intercept) > MOST_SCALED * abs(slope):
                notes.append("The file's rescale intercept cannot be used; 0 takes its place.")
                intercept = 0.0
            break

    def quantities(values: np.ndarray) -> np.ndarray:
        found = values.astype(np.float64) * slope + intercept
        if not np.isfinite(found).all():
            raise ImageError("The picture holds pixels without a value, so it cannot be shown truthfully.")
        return found

    return quantities


def _survey(stored: Stored, modality: Change, background: Callable[[slice], np.ndarray] | None) -> Survey:
    low, high, sample = np.inf, -np.inf, []
    height, width = stored.words.shape
    for rows in strips(height - -(-stored.short // width), width):
        values = modality(stored.values(rows))
        real = values.ravel() if background is None else values[~background(rows)]
        if real.size:
            low, high = min(low, float(real.min())), max(high, float(real.max()))
            sample.append(real[:: 1 + stored.words.size // SAMPLE].copy())
    return Survey(low, high, np.concatenate(sample))


def _tone(survey: Survey, levels: Sequence[Dataset], inverse: bool, notes: list[str]) -> Change:
    """From quantities to brightness, mostly 0 to 1: the file's first way that shows something (PS3.3 C.11.2)."""
    failed = ""
    for thing, tone, narrow in _offered(survey, levels):
        fault, grey = ("cannot be used", 0.0) if tone is None else _fault(tone, narrow, survey, inverse)
        if tone is not None and not fault:
            if failed:
                notes.append(f"{failed}; {'its next one' if thing in failed else f'its {thing}'} is shown.")
            if grey < MUCH_GREY:
                notes.append(f"The file's {thing} shows most of the picture plain black or white.")
            return tone
        failed = failed or f"The file's {thing} {fault}"
    if failed:
        notes.append(f"{failed}; the full range is shown.")
    else:
        notes.append("The file names no window; the darkest and brightest values are shown as black and white.")
    low, high = survey.low, survey.high
    most = np.percentile(survey.sample, ODD)
    if most[1] - most[0] < (high - low) / 4:
        low, high = float(most[0]), float(most[1])
    return lambda values: (values - low) / max(high - low, 1e-12)


def _offered(survey: Survey, levels: Sequence[Dataset]) -> Iterator[tuple[str, Change | None, bool]]:
    """The file's tables and windows by name and in order, None for each that cannot be used; whether they mean to show
    little of a picture, as those of CT do, and those that part it in two.
    """
    narrow = word(levels[-1], "Modality").upper() == "CT"
    for level in levels:
        for item in items(level, "VOILUTSequence"):
            table = _read_table(item, survey.sample)
            yield "table", None if table is None else table.brightness, narrow
        function = word(level, "VOILUTFunction").upper().replace(" ", "_")
        function = function if function in ("SIGMOID", "LINEAR_EXACT") else "LINEAR"
        centres, widths = (numbers(level, name) for name in ("WindowCenter", "WindowWidth"))
        for centre, width in zip(centres, widths, strict=False):
            tone = None
            # The standard's formula turns over below 1, where files mean fractions of a quantity.
            formula = "LINEAR_EXACT" if function == "LINEAR" and width < 1 else function
            if np.isfinite(centre) and width >= LEAST_WIDTH:
                tone = _windowed(centre, width, formula)
            yield "window", tone, narrow or (formula, width) == ("LINEAR", 1)


def _fault(tone: Change, narrow: bool, survey: Survey, inverse: bool) -> tuple[str, float]:
    """What is wrong with a table or window that tells hardly any pixels apart, and the share of pixels in grey.

    The first is empty for a good one; the second is 1 where the picture itself has hardly any greys.
    """

    def bright(values: np.ndarray) -> np.ndarray:
        shown = np.clip(tone(values), 0.0, 1.0)
        return 1.0 - shown if inverse else shown

    low, high = np.percentile(survey.sample, MOST_SHOWN)
    # Where nearly all pixels are alike, the few others count.
    values, ends = (survey.sample, MOST_SHOWN) if low < high else (np.array([survey.low, survey.high]), (0, 100))
    darkest, brightest = np.percentile(bright(values), ends)
    if brightest - darkest < NOTHING:
        return "shows nothing", 0.0
    if brightest - darkest < FAINT or brightest < BLACK or darkest > WHITE:
        return "shows hardly anything", 0.0
    if low == high:
        return "", 1.0
    place = (survey.sample - low) / (high - low)
    place = 1.0 - place if inverse else place
    # Air may be black however much of it there is, and need not be the darkest.
    counts, edges = np.histogram(place, BINS, (0.0, 1.0))
    peak = int(counts.argmax())
    body = place >= AIR + (edges[peak + 1] if peak < DARK and counts[peak] > MANY * place.size else 0.0)
    own, shown = place[body], bright(survey.sample[body])
    if np.mean((own > NOTHING) & (own < 1.0 - NOTHING)) < LEAST_GREY:
        return "", 1.0
    black, white = np.mean(shown <= NOTHING), np.mean(shown >= 1.0 - NOTHING)
    grey = float(1.0 - black - white)
    useless = white > MOST_ALIKE or (not narrow and (black > MOST_ALIKE or grey < LEAST_GREY))
    return "shows hardly anything" if useless else "", grey


def _windowed(centre: float, width: float, function: str) -> Change:
    if function == "SIGMOID":
        return lambda values: 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -60.0, 60.0)))
    if function == "LINEAR_EXACT":
        return lambda values: np.clip((values - centre) / width + 0.5, 0.0, 1.0)
    if width == 1:
        return lambda values: (values > centre - 0.5).astype(np.float64)
    return lambda values: np.clip((values - (centre - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0)


def _read_table(item: Dataset, values: np.ndarray) -> Table | None:
    """A look-up table for values of which a sample is given; None where it cannot be used (PS3.3 C.11.1, C.11.2).

    Some descriptors claim more bits than any entry has, give the first value the other sign, or claim more entries than
    follow. The bits in use are those of the largest entry, and the sign is the one with which the table meets the
    values.
    """
    descriptor = numbers(item, "LUTDescriptor")
    if len(descriptor) < 2 or not np.isfinite(descriptor[:2]).all() or not values.size:
        return None
    # 0 stands for 65536, and a number of entries read with a sign may be negative.
    count = int(descriptor[0]) % ENTRIES or ENTRIES
    claimed = descriptor[2] if len(descriptor) > 2 and np.isfinite(descriptor[2]) else 16.0
    entries = _entries(item, "LUTData", count, claimed <= 8)
    if len(entries) < 2 or entries.min() == entries.max():
        return None
    first = _first(int(descriptor[1]), count, values)
    last = first + len(entries) - 1
    if len(entries) < count and float((values > last).mean()) > BEYOND:
        return None
    white = 2.0 ** int(entries.max()).bit_length() - 1.0
    return Table(entries, first, white)


def _entries(item: Dataset, name: str, count: int, narrow: bool = True) -> np.ndarray:
    """The entries that a table holds, uint16, at most ``count``."""
    element = held(item, name)
    value = None if element is None else element.value
    if element is None or value is None:
        return np.zeros(0, np.uint16)
    if not isinstance(value, bytes):
        finite = [int(each) % ENTRIES for each in numbers(item, name) if np.isfinite(each)]
        value = np.array(finite, "<u2").tobytes()
    order = "<" if getattr(element, "is_little_endian", True) else ">"
    words = np.frombuffer(value[: len(value) // 2 * 2], f"{order}u2").astype(np.uint16)
    if len(value) not in (count, count + count % 2):
        return words[:count]
    # Two entries a word (PS3.3 C.11.1.1.1), either of which may come first.
    low, high = words & 255, words >> 8
    pairs = [np.stack(pair, axis=1).ravel()[:count] for pair in ((low, high), (high, low))]
    if name in PALETTES:
        # Colours in any order, which tells nothing of that of bytes.
        return pairs[0]
    smooth = min(pairs, key=_roughness)
    return smooth if narrow or _roughness(smooth) <= _roughness(words) else words


def _roughness(entries: np.ndarray) -> float:
    """Way that entries go up and down, in units of their range: 1 for a table that only rises or falls."""
    steps = np.abs(np.diff(entries.astype(np.int64)))
    return float(steps.sum()) / max(1, int(entries.max()) - int(entries.min())) if len(entries) else np.inf


def _first(stated: int, count: int, values: np.ndarray) -> int:
    """The first value of a table, with the sign under which most of the values meet its entries."""
    choices = dict.fromkeys((stated, stated % ENTRIES, (stated + ENTRIES // 2) % ENTRIES - ENTRIES // 2))
    low, high = np.percentile(values, (1, 99))
    return max(choices, key=lambda first: min(high, first + count - 1) - max(low, first))
