"""A folder of results for every image, whatever images are called and whatever was written before.

Apart from the command line and from the pipeline, since both need it and ``--help`` must not wait for torch.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

__all__ = ["STDIN", "SUMMARY", "UNFINISHED", "ResultFolders", "Source", "folder_name", "printable", "whole"]

SUMMARY = "explanation.json"
UNFINISHED = "unfinished.json"
"""Says whose a folder is from the moment it is there until its summary is: work that is broken off finds it again."""
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
        reserved: names in it that are no image's.

    Raises:
        OSError: it cannot be made or read.
    """

    def __init__(self, out: Path, reserved: Iterable[str] = ()) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._out = out
        self._taken = {_folded(name) for name in reserved}
        self._earlier: dict[Key, list[Path]] = {}
        self._next: dict[str, int] = {}
        for path in sorted(out.iterdir(), key=lambda path: (len(path.name), path.name)):
            self._taken.add(_folded(path.name))
            # A point in front is that of a folder that was never named.
            if not path.name.startswith(".") and (key := _claimed_by(path)):
                self._earlier.setdefault(key, []).append(path)

    def finished(self, source: Source, accept: Callable[[dict[str, Any]], bool]) -> tuple[Path, dict[str, Any]] | None:
        """An image's folder of an earlier run and its summary, with nothing of it missing or changed since.

        Args:
            source: of the image.
            accept: whether a summary is of a run with the settings of this one.

        Returns:
            None where there is no such folder; else no claim returns it any more.
        """
        for folder in (earlier := self._earlier.get(_key(source), [])):
            summary = _summary(folder / SUMMARY)
            if summary and not (folder / UNFINISHED).exists() and accept(summary) and _lies_in(folder, summary):
                earlier.remove(folder)
                return folder, summary
        return None

    def claim(self, source: Source) -> Path:
        """A folder that exists, says whose it is, and that no other claim returns.

        Raises:
            OSError: none can be made.
        """
        if earlier := self._earlier.get(_key(source)):
            _say_whose(earlier[0], source)
            return earlier.pop(0)
        name = folder_name(source)
        # Made under a name that a second attempt finds, and renamed with its say, so that no moment leaves one without.
        made = self._out / f".{hashlib.sha256(repr(_key(source)).encode()).hexdigest()[:32]}"
        made.mkdir(exist_ok=True)
        _say_whose(made, source)
        for number in count(self._next.get(_folded(name), 1)):
            path = self._out / (name if number == 1 else f"{name}-{number}")
            if _folded(path.name) in self._taken:
                continue
            self._taken.add(_folded(path.name))
            self._next[_folded(name)] = number + 1
            try:
                made.rename(path)
            except OSError:
                if path.exists():  # another process was quicker
                    continue
                raise
            return path
        raise AssertionError("numbers never end")


def _key(source: Source) -> Key:
    return source.name, source.sha256, source.frame


def _say_whose(folder: Path, source: Source) -> None:
    name, sha256, frame = _key(source)
    told = {"source": {"name": name, "sha256": sha256, "frame": frame}}
    (folder / UNFINISHED).write_text(json.dumps(told) + "\n", encoding="utf-8")


def _summary(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _claimed_by(folder: Path) -> Key | None:
    # A summary that was broken off says nothing; the other file does, until the summary is whole.
    for name in (SUMMARY, UNFINISHED):
        try:
            source = (_summary(folder / name) or {})["source"]
            return source["name"], source["sha256"], source["frame"]
        except (KeyError, TypeError):
            continue
    return None


def _lies_in(folder: Path, summary: dict[str, Any]) -> bool:
    return whole(summary, lambda name: (folder / name).read_bytes())


def whole(summary: dict[str, Any], read: Callable[[str], bytes]) -> bool:
    """Whether every part that a summary lists lies beside it as it was written; ``read`` gives one's bytes, by name."""
    try:
        parts = summary["files"].items()
        return all(hashlib.sha256(read(name)).hexdigest() == sha256 for name, sha256 in parts)
    except (OSError, KeyError, AttributeError, TypeError):
        return False


def printable(path: str) -> str:
    """A path as one line of text: what would steer a terminal, or is no text at all, is a replacement character."""
    unsafe = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in unsafe else c for c in path)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def folder_name(source: Source) -> str:
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
