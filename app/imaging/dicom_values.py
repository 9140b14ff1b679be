"""Numbers and words of DICOM elements as they are found: what cannot be read is absent, and never an error.

pydicom turns a whole element into an exception where one of its numbers is none. Files say ``0,143``, ``AUTO`` or
nothing at all, mostly in elements that no picture needs, so values are read here from the bytes of each element.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement

__all__ = ["held", "items", "lengths", "number", "numbers", "word"]

BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
OPAQUE = ("UN", "OB", "OW")
"""Representations that writers choose where they do not know a better one."""
NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?", re.ASCII)


def held(dataset: Dataset, name: str) -> RawDataElement | DataElement | None:
    """An element as it lies in the file, nothing converted; None where it is absent."""
    tag = tag_for_keyword(name)
    return dataset.get_item(tag) if tag is not None and tag in dataset else None


def numbers(dataset: Dataset, name: str) -> list[float]:
    """Every number of an element, with NaN in place of each that cannot be read.

    A decimal comma is read as a point, as writers who set one mean it.

    Args:
        dataset: of elements as they lie in the file, or as they were set.
        name: keyword of an element; empty for one that is absent.
    """
    element = held(dataset, name)
    if element is None or element.value is None:
        return []
    value = element.value
    if not isinstance(value, bytes):
        several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        return [_read(str(each)) for each in several]
    kind = element.VR
    if kind is None or kind in OPAQUE:
        kind = dictionary_VR(element.tag)[:2]
    form = BINARY.get(kind)
    if form is not None and value and len(value) % struct.calcsize(form) == 0:
        order = "<" if getattr(element, "is_little_endian", True) else ">"
        return [float(each) for each in struct.unpack(f"{order}{len(value) // struct.calcsize(form)}{form}", value)]
    return [_read(each) for each in value.decode("latin-1").split("\\")]


def _read(text: str) -> float:
    text = text.strip(" \0\t\r\n")
    value = float(text.replace(",", ".")) if NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else math.nan


def number(dataset: Dataset, name: str) -> float | None:
    """The first number of an element; None where it is absent or cannot be read."""
    found = numbers(dataset, name)
    return found[0] if found and math.isfinite(found[0]) else None


def lengths(dataset: Dataset, name: str) -> tuple[float, float] | None:
    """Two positive numbers, such as the height and width of a pixel; None where the file tells none."""
    found = numbers(dataset, name)
    return (found[0], found[1]) if len(found) >= 2 and all(each > 0 for each in found[:2]) else None


def word(dataset: Dataset, name: str) -> str:
    """The first word of an element without padding; empty where it is absent."""
    element = held(dataset, name)
    value = None if element is None else element.value
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        value = next(iter(value), None)
    return "" if value is None else str(value).split("\\")[0].strip(" \0\t\r\n")


def items(dataset: Dataset, name: str) -> list[Dataset]:
    """The items of a sequence; none where it is absent or no sequence."""
    if held(dataset, name) is None:
        return []
    try:
        return list(dataset[name].value or ())
    except Exception:  # noqa: BLE001 - what pydicom raises on damaged sequences is not documented
        return []
