"""What the user dropped in, to look through: a picture, a DICOM file of several frames, or a series of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from app.errors import ImageError
from app.imaging.dicom import DicomFile, is_dicom, parse
from app.imaging.radiograph import Radiograph, decode, dicom_image, load

__all__ = ["MOST_FILES", "MOST_PICTURES", "OWN_WINDOW", "Slices", "gather"]

MOST_FILES = 500
MOST_PICTURES = 20_000
OWN_WINDOW = "As stored"


@dataclass(frozen=True)
class Slices:
    """Pictures in the order they lie in the body, one of them chosen; holds paths and no pixel.

    Attributes:
        places: path and frame of every picture.
        windows: names of windows to choose from; empty where the file's own is the only one.
        shown: index of the chosen picture.
        window: name of the chosen window.
    """

    places: tuple[tuple[str, int], ...]
    windows: tuple[str, ...] = ()
    shown: int = 0
    window: str = OWN_WINDOW

    def choose(self, shown: int, window: str) -> Slices:
        """The same pictures with another one chosen, the nearest there is, and another window, if there is one."""
        shown = min(max(0, shown), len(self.places) - 1)
        return replace(self, shown=shown, window=window if window in self.windows else OWN_WINDOW)

    def radiograph(self) -> Radiograph:
        """The chosen picture.

        Raises:
            ImageError: it is gone, or anything ``decode`` refuses.
        """
        path, frame = self.places[self.shown]
        data = load(path)
        if not is_dicom(data):
            return decode(data)
        return dicom_image(parse(data), frame, None if self.window == OWN_WINDOW else self.window)


def gather(paths: Sequence[str | Path]) -> Slices:
    """Puts files into order.

    Args:
        paths: one picture of any kind, or several DICOM files of one series.

    Raises:
        ImageError: nothing, too many files, several that are no series, or one that cannot be read.
    """
    if not paths:
        raise ImageError("No file was chosen.")
    if len(paths) > MOST_FILES:
        raise ImageError(f"These are {len(paths)} files; at most {MOST_FILES} slices can be looked through.")
    if len(paths) == 1 and not is_dicom(load(paths[0])):
        return Slices(((str(paths[0]), 0),))
    files: list[tuple[float, str, DicomFile]] = []
    for path in paths:
        data = load(path)
        if not is_dicom(data):
            raise ImageError("Several files can be opened together only if all of them are DICOM slices of one series.")
        file = parse(data)
        # Without its pixels, since a whole series may not fit into memory.
        files.append((file.position, str(path), file.without_pixels()))
    first = files[0][2]
    if any(
        (file.modality, file.rows, file.columns, file.series)
        != (first.modality, first.rows, first.columns, first.series)
        for *_, file in files
    ):
        raise ImageError("These files are not slices of one series: they differ in kind, size or series.")
    files.sort(key=lambda each: each[:2])
    count = sum(file.frames for *_, file in files)
    if count > MOST_PICTURES:
        raise ImageError(f"This holds {count:,} pictures; at most {MOST_PICTURES:,} can be looked through.")
    places = tuple((path, frame) for _, path, file in files for frame in range(file.frames))
    middle = len(places) // 2 if len(files) > 1 else 0
    return Slices(places, first.windows, middle)
