"""DICOM files as they are found, written byte by byte, so that they may hold what no library would write."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np
from PIL import Image
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.pixels import get_encoder
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from app.imaging.examples import draw
from app.imaging.radiograph import decode

Value = object
LONG = ("OB", "OW", "SQ", "UN", "UT", "OF")
FORMS = {"US": "H", "SS": "h", "UL": "I", "FL": "f", "FD": "d"}

FILM = draw("oblique", seed=3, height=128, width=96).astype(np.uint16) * 16
"""A drawn forearm of 12 bits."""
GREY = FILM / 4095.0
"""What a window over all 12 bits shows of it."""


def as_shown(low: float, high: float) -> np.ndarray:
    """What a screen shows of the drawing between two values."""
    return np.clip((FILM.astype(float) - low) / (high - low), 0, 1)


def plain(pixels: np.ndarray = FILM, /, **changes: Value) -> dict[str, Value]:
    """Elements of a well-formed file around some pixels; a change to None leaves one out."""
    bits = 8 * pixels.dtype.itemsize
    told: dict[str, Value] = {
        "Modality": "DX",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "BitsAllocated": bits,
        "BitsStored": min(12, bits),
        "HighBit": min(12, bits) - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "WindowCenter": "2048",
        "WindowWidth": "4096",
        "PixelData": pixels,
    }
    told.update(changes)
    return {name: value for name, value in told.items() if value is not None}


def _body(value: Value, kind: str, order: str, implicit: bool) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, np.ndarray):
        return value.astype(value.dtype.newbyteorder(order)).tobytes()
    if kind == "SQ":
        return b"".join(value)  # ty: ignore[no-matching-overload, invalid-argument-type]
    if isinstance(value, str):
        return value.encode("latin-1")
    several = value if isinstance(value, Sequence) else [value]
    if kind in FORMS:
        return struct.pack(f"{order}{len(several)}{FORMS[kind]}", *several)
    return "\\".join(str(each) for each in several).encode("latin-1")


def elements_of(told: dict[str, Value], order: str = "<", implicit: bool = False) -> bytes:
    """Elements in ascending order; a value may be (representation, value), else the dictionary's one is taken."""
    written = b""
    for name, value in sorted(told.items(), key=lambda each: tag_for_keyword(each[0]) or 0):
        tag = tag_for_keyword(name) or 0
        kind = dictionary_VR(tag)
        if isinstance(value, tuple):
            kind, value = value
        kind = {"US or SS": "US", "OB or OW": "OW", "US or OW": "OW"}.get(kind, kind)
        undefined = name == "PixelData" and isinstance(value, list)
        body = b"".join(value) if isinstance(value, list) and undefined else _body(value, kind, order, implicit)
        body += (b" " if kind in ("CS", "DS", "IS", "LO", "SH") else b"\0") * (len(body) % 2)
        length = 0xFFFFFFFF if undefined else len(body)
        written += struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
        if implicit:
            written += struct.pack(f"{order}I", length)
        elif kind in LONG:
            written += kind.encode() + struct.pack(f"{order}HI", 0, length)
        else:
            written += kind.encode() + struct.pack(f"{order}H", length)
        written += body + (b"\xfe\xff\xdd\xe0\0\0\0\0" if undefined else b"")
    return written


def item_of(told: dict[str, Value], order: str = "<", implicit: bool = False) -> bytes:
    """One item of a sequence."""
    body = elements_of(told, order, implicit)
    return struct.pack(f"{order}HHI", 0xFFFE, 0xE000, len(body)) + body


def meta_of(syntax: str, length: bool = True) -> bytes:
    """The group that tells how the rest is written; without its length if so wanted."""
    body = elements_of({"FileMetaInformationVersion": ("OB", b"\0\1"), "TransferSyntaxUID": ("UI", syntax)})
    return (elements_of({"FileMetaInformationGroupLength": len(body)}) if length else b"") + body


def dicom_bytes(told: dict[str, Value], syntax: str = ExplicitVRLittleEndian, **how: bool) -> bytes:
    """A whole file, little endian, with preamble and the group that tells its syntax."""
    return bytes(128) + b"DICM" + meta_of(syntax) + elements_of(told, **how)


FULL = as_shown(float(FILM.min()), float(FILM.max()))
FILM_8 = (FILM // 16).astype(np.uint8)
"""The same in 8 bits."""
CENTRED = FILM.astype(np.int16) - 2048
"""The same with a sign."""
NEGATIVE = 4095 - FILM
START = bytes(128) + b"DICM"
ITEM_END = b"\xfe\xff\xdd\xe0\0\0\0\0"


def near(data: bytes, expected: np.ndarray, tolerance: float = 1.5 / 255) -> tuple[str, ...]:
    """Asserts that a file shows what it should, 0 to 1; its notes."""
    film = decode(data)
    shown = film.brightness()
    assert shown.shape == expected.shape
    assert np.quantile(np.abs(shown - expected), 0.998) <= tolerance
    for note in film.notes:
        assert note[0].isupper()
        assert note.endswith(".")
    return film.notes


def packed(kind: str, pixels: np.ndarray) -> bytes:
    """One frame as RLE, J2K (pydicom's, which keeps signs), or whatever Pillow writes."""
    if kind in ("RLE", "J2K"):
        return get_encoder(RLELossless if kind == "RLE" else JPEG2000Lossless).encode(
            pixels.tobytes(),
            rows=pixels.shape[0],
            columns=pixels.shape[1],
            samples_per_pixel=1 if pixels.ndim == 2 else 3,
            number_of_frames=1,
            bits_allocated=8 * pixels.dtype.itemsize,
            bits_stored=8 * pixels.dtype.itemsize,
            pixel_representation=int(pixels.dtype.kind == "i"),
            photometric_interpretation="MONOCHROME2" if pixels.ndim == 2 else "RGB",
            planar_configuration=0,
        )
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **({"quality": 98} if kind == "JPEG" else {}))
    return file.getvalue()
