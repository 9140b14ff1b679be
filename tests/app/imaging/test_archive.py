"""Zip files as strangers pack them: every picture or its sentence, nothing on disk, nothing beyond the bounds."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import ImageError
from app.imaging import archive
from app.imaging.archive import (
    DAMAGED,
    ENCRYPTED,
    GROWS,
    LEADS_OUT,
    MOST_MEMBERS,
    NESTED,
    NO_ZIP,
    ODDLY_PACKED,
    TOO_MANY,
    TOO_MUCH,
    opened,
)


def packed(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return file.getvalue()


def read(path: Path, data: bytes) -> dict[str, bytes | str]:
    """What each member gives: its bytes, or a sentence."""
    path.write_bytes(data)
    found: dict[str, bytes | str] = {}
    with opened(path) as members:
        for member in members:
            try:
                found[member.name] = member.read()
            except ImageError as error:
                found[member.name] = str(error)
    return found


@pytest.fixture
def read_here(tmp_path: Path) -> Callable[[bytes], dict[str, bytes | str]]:
    def read_bytes(data: bytes) -> dict[str, bytes | str]:
        found = read(tmp_path / "a.zip", data)
        assert [path.name for path in tmp_path.rglob("*")] == ["a.zip"]
        return found

    return read_bytes


Read = Callable[[bytes], dict[str, bytes | str]]


def test_pictures_are_taken_and_all_else_is_left(read_here: Read) -> None:
    files = {
        "b.png": b"1",
        "ward/a.JPG": b"2",
        "ward/": b"",
        "IM0001": bytes(128) + b"DICM" + bytes(99),
        "1.2.840.3": bytes(128) + b"DICM",
        "notes.txt": b"a note",
        "ward/.hidden.png": b"3",
        ".git/c.png": b"4",
        "__MACOSX/._b.png": b"5",
        "DICOMDIR": bytes(128) + b"DICM",
        "Thumbs.db": b"6",
    }
    assert list(read_here(packed(files))) == ["b.png", "ward/a.JPG", "IM0001", "1.2.840.3"]


@pytest.mark.parametrize(
    "name", ["/etc/a.png", "../a.png", "ward/../../a.png", "C:\\a.png", "..\\a.png", "c:a.png", "\\\\host\\a.png"]
)
def test_a_name_that_leads_out_is_refused(read_here: Read, name: str) -> None:
    found = read_here(packed({name: b"1", "b.png": b"2"}))
    assert list(found.values()) == [LEADS_OUT, b"2"]


def test_a_zip_file_in_it_is_not_opened(read_here: Read) -> None:
    inner = packed({"a.png": b"1"})
    assert read_here(packed({"inner.zip": inner, "bare": inner, "b.png": b"2"})) == {
        "inner.zip": NESTED,
        "bare": NESTED,
        "b.png": b"2",
    }


def test_what_unfolds_too_far_is_refused(read_here: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = b"".join(struct.pack("<I", (7919 * number) % 65521) for number in range(300_000))
    found = read_here(packed({"bomb.png": bytes(10**7), "black.png": bytes(10**6), "noise.png": noise}))
    assert (found["bomb.png"], found["black.png"], found["noise.png"]) == (GROWS, bytes(10**6), noise)
    monkeypatch.setattr(archive, "MOST_BYTES", 250)
    parts = {f"{number}.png": bytes([number]) * 100 for number in range(4)}
    assert list(read_here(packed(parts)).values()) == [parts["0.png"], parts["1.png"], TOO_MUCH, TOO_MUCH]
    monkeypatch.setattr(archive, "MAX_BYTES", 99)
    assert "MB" in str(read_here(packed({"0.png": bytes(100)}))["0.png"])


def test_a_member_that_lies_about_its_size_is_damaged(read_here: Read) -> None:
    """The central directory says 100 bytes; no more is unpacked, whatever there is."""
    data = bytearray(packed({"a.png": bytes(10**6)}))
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", 100)
    assert read_here(bytes(data)) == {"a.png": DAMAGED}


def test_too_many_entries_are_counted_before_anything_is_made_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray(packed({f"{number}.txt": b"" for number in range(MOST_MEMBERS + 1)}))
    end = data.rindex(b"PK\x05\x06")
    data[end + 8 : end + 12] = struct.pack("<HH", 1, 1)
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(ImageError) as refused:
        read(tmp_path / "a.zip", bytes(data))
    assert str(refused.value) == TOO_MANY


def test_entries_are_counted_across_the_pieces_that_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.zip").write_bytes(packed({f"{number}.txt": b"" for number in range(40)}))
    for chunk in range(4, 60):
        monkeypatch.setattr(archive, "CHUNK", chunk)
        assert archive._entries(tmp_path / "a.zip") == 40


def test_encrypted_or_oddly_packed_members_are_sentences(read_here: Read) -> None:
    data = bytearray(packed({"a.png": b"1"}))
    for start, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(start) + place] |= 1
    assert read_here(bytes(data)) == {"a.png": ENCRYPTED}
    for method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        assert read_here(packed({"a.png": b"1"}, method)) == {"a.png": ODDLY_PACKED}


def test_a_damaged_file_is_a_sentence_wherever_it_is_damaged(tmp_path: Path) -> None:
    whole = packed({"a.png": b"some bytes of a picture" * 9, "b.png": b"2" * 99})
    path = tmp_path / "a.zip"
    sentences = {DAMAGED, ENCRYPTED, GROWS, LEADS_OUT, NESTED, ODDLY_PACKED}
    refused = 0
    for place in range(len(whole)):
        for data in (whole[:place], whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]):
            try:
                found = read(path, data)
            except ImageError as error:
                refused += str(error) == NO_ZIP
            else:
                assert all(isinstance(each, bytes) or each in sentences for each in found.values())
    assert refused >= len(whole), "no part of a zip file is one"
