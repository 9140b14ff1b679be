"""Pictures in a zip file, read one by one within bounds and never written to disk.

What a stranger packed may unfold to more than a machine holds, and its names may lead anywhere; so names are only
shown, and whatever oversteps a bound is a sentence in the place of the picture.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from app.errors import ImageError
from app.imaging.dicom_read import is_dicom
from app.imaging.radiograph import MAX_BYTES
from app.result_folders import ENDINGS

__all__ = ["MOST_MEMBERS", "Member", "hidden", "is_picture", "is_zip", "opened"]

MOST_MEMBERS = 5000
MOST_BYTES = 4 * 2**30
"""Of everything that is read, unpacked."""
RATIO, SMALL = 200, 2**20
"""Most times a member may grow, and the bytes up to which nobody minds: black squares shrink further than X-rays."""

ENTRY = b"PK\x01\x02"
"""Start of an entry in a zip file's table of contents (APPNOTE 4.3.12)."""
STARTS = (b"PK\x03\x04", b"PK\x05\x06")
CHUNK = 2**20
SNIFFED = 4096
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""How members may be packed; unpackers of the others take as much memory as the file says."""
LEFT_OUT = {"__macosx", "dicomdir", "thumbs.db", "desktop.ini"}
"""What systems put into folders, and the table of contents of a disc."""

ENCRYPTED = "It is encrypted; please unpack the zip file first."
NESTED = "A zip file inside a zip file is not opened."
LEADS_OUT = "Its name leads out of the zip file, so it was not read."
GROWS = f"It unfolds to more than {RATIO} times its size, as no X-ray does, so it was not read."
TOO_MUCH = f"Everything before it in the zip file unfolds to {MOST_BYTES // 2**30} GB, so it was not read."
ODDLY_PACKED = "It is packed in a way that cannot be read here."
DAMAGED = "It is damaged in the zip file."
NO_ZIP = "This zip file is damaged or incomplete."
TOO_MANY = f"This zip file has more than {MOST_MEMBERS:,} entries."


class Member(NamedTuple):
    """A picture in a zip file: its path there, to be shown only, and its bytes; reading raises ImageError."""

    name: str
    read: Callable[[], bytes]


def is_zip(path: Path) -> bool:
    """Whether a file starts as a zip file, or is called one."""
    try:
        with path.open("rb") as file:
            return file.read(4) in STARTS or path.suffix.lower() == ".zip"
    except (OSError, ValueError):
        return False


def is_picture(name: str, start: Callable[[], bytes]) -> bool:
    """Whether a file found in a folder is to be taken for a picture: by its ending, else if it starts as DICOM does."""
    return Path(name).suffix.lower() in ENDINGS or is_dicom(start())


def hidden(name: str) -> bool:
    """Whether a file or folder is a system's own."""
    return name.startswith(".") or name.lower() in LEFT_OUT


@contextmanager
def opened(path: Path) -> Generator[list[Member]]:
    """The pictures in a zip file, to be read inside the context, in the file's order.

    Raises:
        ImageError: no zip file, or one with too many entries.
    """
    if _entries(path) > MOST_MEMBERS:
        raise ImageError(TOO_MANY)
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise ImageError(NO_ZIP) from None
    with archive:
        yield list(_members(archive))


def _entries(path: Path) -> int:
    """The entries there may be at most, before anything is made of them: the file's own count may be a lie."""
    count, tail = 0, b""
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                count += (tail + chunk).count(ENTRY)
                tail = chunk[-len(ENTRY) + 1 :]
    except OSError:
        raise ImageError("The file cannot be opened; perhaps it may not be read.") from None
    return count


def _members(archive: zipfile.ZipFile) -> Iterator[Member]:
    total = 0
    for info in archive.infolist():
        name = info.filename.replace("\\", "/")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if not parts or name.endswith("/") or any(hidden(part) for part in parts if part != ".."):
            continue
        problem = _problem(info, name, parts)
        if not problem and not is_picture(name, start := _part(archive, info, SNIFFED)):
            problem = NESTED if start()[:4] in STARTS else None
            if not problem:
                continue
        if not problem:
            total += info.file_size
            problem = TOO_MUCH if total > MOST_BYTES else None
        yield Member(name, _refused(problem) if problem else _whole(archive, info))


def _problem(info: zipfile.ZipInfo, name: str, parts: list[str]) -> str | None:
    if name.startswith("/") or ".." in parts or name[1:2] == ":":
        return LEADS_OUT
    if info.flag_bits & 0x1:
        return ENCRYPTED
    if info.compress_type not in METHODS:
        return ODDLY_PACKED
    if info.file_size > SMALL and info.file_size > RATIO * info.compress_size:
        return GROWS
    return None


def _refused(sentence: str) -> Callable[[], bytes]:
    def read() -> bytes:
        raise ImageError(sentence)

    return read


def _part(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> Callable[[], bytes]:
    """Reads the start of a member; nothing of one that is damaged."""

    def read() -> bytes:
        try:
            return _read(archive, info, most)
        except ImageError:
            return b""

    return read


def _whole(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        data = _read(archive, info, MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ImageError(f"It unfolds to more than {MAX_BYTES // 2**20} MB, which is more than can be read.")
        return data

    return read


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    try:
        with archive.open(info) as stream:
            return stream.read(most)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, NotImplementedError):
        raise ImageError(DAMAGED) from None
