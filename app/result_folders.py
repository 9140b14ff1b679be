"""A folder of results for every image, whatever images are called and whatever was written before.

Apart from the command line and from the pipeline, since both need it and ``--help`` must not wait for torch.
"""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePath, PureWindowsPath

__all__ = ["STDIN", "SUMMARY", "ResultFolders", "Source"]

SUMMARY = "explanation.json"
STDIN = "-"
ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".dcm", ".dicom"}
"""What a folder's name does without; other points belong to the name, as in 1.2.840.2.1."""
LONGEST = 120
"""Bytes of an image's name in a folder's; file systems take 255, some 143, and a number may follow."""
FORBIDDEN = '<>:"/\\|?*'
"""Characters that Windows takes in no name."""

Key = tuple[str | None, str | None, int | None]


@dataclass(frozen=True)
class Source:
    """Where an image came from; None where that is not known.

    Attributes:
        name: of the file, without its folder; ``-`` for the standard input.
        sha256: of the file's bytes, hexadecimal.
        frame: which of the file's pictures, from 1.
        window: name of the DICOM window it is seen through; None for the file's own.
    """

    name: str | None = None
    sha256: str | None = None
    frame: int | None = None
    window: str | None = None


class ResultFolders:
    """Gives every image a folder of its own.

    An image that was explained into the same place before gets its folder again, if its name, bytes and frame are the
    same. No other folder or file that lies there is touched. No two names differ in upper and lower case alone, so that
    the results can be copied to any disk.

    Args:
        out: the folder to write into; made where it is not there.

    Raises:
        OSError: it cannot be made or read.
    """

    def __init__(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._out = out
        self._taken: set[str] = set()
        self._earlier: dict[Key, list[Path]] = {}
        self._next: dict[str, int] = {}
        for path in sorted(out.iterdir()):
            self._taken.add(_folded(path.name))
            if key := _explained(path):
                self._earlier.setdefault(key, []).append(path)

    def claim(self, source: Source) -> Path:
        """A folder that exists and that no other claim returns; raises OSError where none can be made."""
        if earlier := self._earlier.get((source.name, source.sha256, source.frame)):
            return earlier.pop(0)
        name = _folder_name(source)
        for number in count(self._next.get(_folded(name), 1)):
            path = self._out / (name if number == 1 else f"{name}-{number}")
            if _folded(path.name) in self._taken:
                continue
            self._taken.add(_folded(path.name))
            self._next[_folded(name)] = number + 1
            try:
                path.mkdir()
            except FileExistsError:  # another process was quicker
                continue
            return path
        raise AssertionError("numbers never end")


def _explained(folder: Path) -> Key | None:
    try:
        source = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["source"]
        return source["name"], source["sha256"], source["frame"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _folder_name(source: Source) -> str:
    """A name that every usual file system takes, and that leads nowhere else."""
    path = PurePath(source.name or "")
    name = path.stem if path.suffix.lower() in ENDINGS else path.name
    name = "".join("_" if c in FORBIDDEN or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in name)
    name = unicodedata.normalize("NFC", name).encode("utf-8")[:LONGEST].decode("utf-8", "ignore")
    # Points in front hide a folder or lead out of it; Windows drops points and blanks at the end.
    name = name.lstrip(". ").rstrip(". ")
    if source.name == STDIN:
        name = "stdin"
    if PureWindowsPath(name).is_reserved():
        name = f"_{name}"
    return (name or "image") + (f"-frame-{source.frame}" if (source.frame or 1) > 1 else "")
