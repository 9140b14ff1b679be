"""The parts of a result to take home, beside its two pictures: the map as numbers, a report, a DICOM picture."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

import numpy as np

from app.explain import METHODS
from app.imaging.secondary_capture import secondary_capture
from app.pipeline import CAPTURE, MAP, RAW_MAP, REPORT, Result, png
from app.report import report

__all__ = ["bundle", "pack"]

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest date a zip file can hold stands for none: the same parts make the same bytes."""


def bundle(result: Result, dicom: bytes | None = None, *, keep_patient_tags: bool = False) -> dict[str, bytes]:
    """What ``Result.save`` writes beside the two pictures, by file name.

    - map16.png: the heat on the image, 16 bits; 65535 stands for ``map.scale`` of the JSON.
    - map.npy: the map over the model's square as the method gave it, float32 (h, w).
    - report.pdf: a page to print.
    - secondary-capture.dcm: the overlay as DICOM, where the image was.

    Args:
        result: of one image.
        dicom: the image's file, where that is DICOM.
        keep_patient_tags: take over into the DICOM picture who the patient is.

    Raises:
        ImageError: those tags cannot be kept.
    """
    array = io.BytesIO()
    np.save(array, np.ascontiguousarray(result.raw, np.float32))
    parts = {
        MAP: png(np.round(result.heat * 65535.0).astype(np.uint16)),
        RAW_MAP: array.getvalue(),
        REPORT: report(result),
    }
    if dicom is not None:
        shown = f"Heatmap for {result.target}, {METHODS[result.method].title}"
        parts[CAPTURE] = secondary_capture(result.overlay(), dicom, shown, keep_patient_tags=keep_patient_tags)
    return parts


def pack(files: Mapping[str, bytes]) -> bytes:
    """Files as a zip, in their order, the same bytes for the same files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compresslevel=1) as archive:
        for name, data in files.items():
            packed = name.endswith((".png", ".pdf"))
            archive.writestr(zipfile.ZipInfo(name, EPOCH), data, zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED)
    return file.getvalue()
