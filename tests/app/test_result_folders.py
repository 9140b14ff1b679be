from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path, PureWindowsPath

import pytest

from app.result_folders import SUMMARY, UNFINISHED, ResultFolders, Source

HOSTILE = [
    "a.png",
    "a.png",
    "a-2.png",
    "A.png",
    "a.PNG",
    "a.dcm",
    "a",
    "1.2.840.2.1",
    "1.2.840.2.2",
    "1.2.840.2",
    "..",
    "...png",
    ".hidden.png",
    ".",
    " ",
    "-",
    "stdin",
    "con.png",
    "NUL",
    "nul.1.dcm",
    "COM1.tiff",
    "end. .png",
    "line\nbreak.png",
    "nul\0.png",
    "c:\\x\\y.png",
    'what?*<>|".png',
    "\udcff.png",
    "x" * 251 + ".png",
    "x" * 250 + "y.png",
    "\u00e9" * 125 + ".png",
    "stra\u00dfe.png",
    "STRASSE.png",
    "\u00e9.png",
    "e\u0301.png",
]


def sources() -> list[Source]:
    return [Source(name, f"{number:064x}", 1) for number, name in enumerate(HOSTILE)]


def explained(folder: Path, source: Source) -> None:
    (folder / SUMMARY).write_text(json.dumps({"source": asdict(source)}))


def test_no_two_images_share_a_folder_on_any_disk(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    folders = ResultFolders(out)
    claimed = [folders.claim(source) for source in sources()]
    assert all(path.parent == out and path.is_dir() for path in claimed)
    names = [path.name for path in claimed]
    assert len({name.casefold() for name in names}) == len(HOSTILE)
    assert all(0 < len(name.encode()) <= 140 for name in names)
    assert not any(PureWindowsPath(name).is_reserved() or name.strip(". ") != name for name in names)
    assert not any(set(name) & set('<>:"/\\|?*\n\0') for name in names)
    assert sorted(path.name for path in (tmp_path / "deep").rglob("*") if path.is_dir()) == sorted([*names, "out"])
    assert {path.name for path in out.rglob("*") if path.is_file()} == {UNFINISHED}
    assert "1.2.840.2.1" in names
    assert names[0] == "a"


def test_the_same_image_gets_its_folder_again_in_any_order(tmp_path: Path) -> None:
    first = ResultFolders(tmp_path)
    claimed = {source: first.claim(source) for source in sources()}
    for source, folder in claimed.items():
        explained(folder, source)
    again = ResultFolders(tmp_path)
    assert {source: again.claim(source) for source in reversed(sources())} == claimed


def test_images_alike_to_the_byte_are_two_images(tmp_path: Path) -> None:
    source = Source("a.png", "0" * 64, 1)
    for _ in range(2):
        folders = ResultFolders(tmp_path)
        claimed = [folders.claim(source), folders.claim(source)]
        assert [path.name for path in claimed] == ["a", "a-2"]
        for folder in claimed:
            explained(folder, source)


@pytest.mark.parametrize("summary", [None, "", "{", "[]", "{}", '{"source": 1}', '{"source": {"name": "a.png"}}'])
def test_folders_of_somebody_else_are_left_alone(tmp_path: Path, summary: str | None) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "A-2").write_text("a file")
    if summary is not None:
        (tmp_path / "a" / SUMMARY).write_text(summary)
    assert ResultFolders(tmp_path).claim(Source("a.png", "0" * 64, 1)).name == "a-3"


def test_two_processes_at_once_share_no_folder(tmp_path: Path) -> None:
    one, other = ResultFolders(tmp_path), ResultFolders(tmp_path)
    assert one.claim(Source("a.png", "0" * 64, 1)) != other.claim(Source("a.png", "1" * 64, 1))


def test_frames_of_one_file_are_told_apart(tmp_path: Path) -> None:
    folders = ResultFolders(tmp_path)
    names = [folders.claim(Source("a.dcm", "0" * 64, frame)).name for frame in (1, 2, 12)]
    assert names == ["a", "a-frame-2", "a-frame-12"]


class Killed(BaseException):
    """Ends a run where it stands, whatever it would still do about it."""


@pytest.mark.parametrize("moment", ["mkdir", "write_text", "rename"])
@pytest.mark.parametrize("done", [False, True])
def test_work_that_is_broken_off_finds_its_folder_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, done: bool
) -> None:
    """Before or after whatever a claim does to the disk."""
    source = Source("arm.png", "0" * 64, 1)
    kept = getattr(Path, moment)

    def kill(path: Path, *args: object, **kwargs: object) -> None:
        if done:
            kept(path, *args, **kwargs)
        raise Killed

    folders = ResultFolders(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, moment, kill)
        with pytest.raises(Killed):
            folders.claim(source)
    folder = ResultFolders(tmp_path).claim(source)
    assert list(tmp_path.iterdir()) == [folder]
    assert folder.name == "arm"
    (folder / SUMMARY).write_text('{"source": {"na')
    assert ResultFolders(tmp_path).claim(source) == folder


def test_only_a_whole_result_of_the_same_settings_is_finished(tmp_path: Path) -> None:
    source = Source("arm.png", "0" * 64, 1)
    folder = ResultFolders(tmp_path).claim(source)
    (folder / "overlay.png").write_bytes(b"a picture")
    summary = {"source": asdict(source), "files": {"overlay.png": hashlib.sha256(b"a picture").hexdigest()}}
    (folder / SUMMARY).write_text(json.dumps(summary))

    def finished(accept: bool = True) -> object:
        return ResultFolders(tmp_path).finished(source, lambda found: accept and found == summary)

    assert finished() is None, "it is still at work"
    (folder / UNFINISHED).unlink()
    assert finished() == (folder, summary)
    assert finished(accept=False) is None
    assert ResultFolders(tmp_path).finished(Source("arm.png", "1" * 64, 1), lambda _: True) is None
    folders = ResultFolders(tmp_path)
    folders.finished(source, lambda _: True)
    assert folders.claim(source) != folder
    (folder / "overlay.png").write_bytes(b"another")
    assert finished() is None
    (folder / "overlay.png").unlink()
    assert finished() is None
