"""Lossless JPEG, decoded by libraries that count differences round the end of their range (ISO 10918-1, H.1.2.1).

pylibjpeg-libjpeg 2.5.0 shows noise where a maker's encoder lets differences run over, as some of ultrasound do, and
says nothing. libjpeg-turbo, which Pillow brings, decodes grey pictures of 8 bits; GDCM 3.2.6 decodes all, but may take
its process down over a damaged picture, so it works in one of its own.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import JPEGLossless

from app.errors import ImageError
from app.imaging.streams import StreamHeader

__all__ = ["decode_lossless"]

DAMAGED = "The DICOM file is damaged or incomplete, so its picture cannot be decoded."
BITS = range(2, 17)
"""Of a value, as the standard has them."""
PATIENCE = 60.0
"""Seconds, many times what the largest picture takes."""


def decode_lossless(stream: bytes, header: StreamHeader) -> np.ndarray:
    """Decodes one lossless JPEG.

    Args:
        stream: one frame, as it is packed.
        header: what the stream says of itself, already judged.

    Returns:
        uint8 or uint16, (rows, columns) or (rows, columns, colours).

    Raises:
        ImageError: it is damaged, or GDCM is needed and absent.
        OSError: it is damaged.
    """
    if header.bits not in BITS:
        raise ImageError(DAMAGED)
    if (header.bits, header.colours) == (8, 1):
        with Image.open(io.BytesIO(stream), formats=("JPEG",)) as picture:
            return np.array(picture.convert("L"))
    if find_spec("gdcm") is None:
        raise ImageError(
            "The picture is packed as lossless JPEG of many bits; GDCM, which decodes it, is not installed."
        )
    kind = np.dtype(np.uint8 if header.bits <= 8 else np.uint16)
    colours = () if header.colours == 1 else (header.colours,)
    shape = (header.rows, header.columns, *colours)
    # Whoever is asked to decode finds the same packages.
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", "from app.imaging.lossless_jpeg import _answer; _answer()", json.dumps([*header])]
    try:
        answer = subprocess.run(command, input=stream, capture_output=True, timeout=PATIENCE, env=surroundings).stdout
    except subprocess.TimeoutExpired:
        answer = b""
    if len(answer) != kind.itemsize * int(np.prod(shape)):
        raise ImageError(DAMAGED)
    return np.frombuffer(answer, kind).reshape(shape)


def _answer() -> None:
    """Decodes by GDCM what comes in, in a process of its own."""
    header = StreamHeader(*json.loads(sys.argv[1]))
    allocated = 8 if header.bits <= 8 else 16
    options: dict[str, Any] = {
        "rows": header.rows,
        "columns": header.columns,
        "samples_per_pixel": header.colours,
        "photometric_interpretation": "MONOCHROME2" if header.colours == 1 else "RGB",
        "planar_configuration": 0,
        "number_of_frames": 1,
        "bits_allocated": allocated,
        "bits_stored": allocated,
        "pixel_representation": 0,
        "pixel_keyword": "PixelData",
        "pixel_vr": "OB",
    }
    packed = encapsulate([sys.stdin.buffer.read()])
    words, _ = get_decoder(JPEGLossless).as_array(packed, index=0, raw=True, decoding_plugin="gdcm", **options)
    sys.stdout.buffer.write(words.tobytes())
