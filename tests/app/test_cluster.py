"""On a local Ray: the files of the local engine, whatever happens to a worker."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from app.cli import cli
from app.cluster import TABLE, _Store, _written
from app.imaging.examples import BREAKS, draw
from app.result_folders import SUMMARY


def x_rays(folder: Path, count: int, height: int = 160) -> Path:
    """Drawn X-rays in two folders, one file that is none, and a note."""
    for number in range(count):
        path = folder / f"ward {number % 2}" / f"arm {number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), draw(list(BREAKS)[number % len(BREAKS)], seed=number, height=height, width=height // 2))
    (folder / "bad.png").write_bytes(b"<html></html>")
    (folder / "notes.txt").write_text("a note")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


def command(weights: Path, *words: str | Path) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, "FRACTURE_WEIGHTS": str(weights), "OMP_NUM_THREADS": "1"}
    return [sys.executable, "-m", "app", "batch", "--model", "tiny", *map(str, words)], environment


def batch(weights: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    call, environment = command(weights, *words)
    return subprocess.run(call, env=environment, capture_output=True, text=True)


def table(path: Path) -> dict[str, dict[str, object]]:
    """Rows by name, without the folder, which each engine names by itself."""
    rows = pyarrow.parquet.read_table(path).to_pylist()
    return {row["name"]: {key: row[key] for key in row if key != "folder"} for row in rows}


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_it_gives_the_results_of_the_local_engine(tiny_weights: Path, tmp_path: Path) -> None:
    given = x_rays(tmp_path / "in", 6)
    one = batch(tiny_weights, given, "--out", tmp_path / "local", "--engine", "torch")
    many = batch(tiny_weights, given, "--out", f"file://{tmp_path}/ray", "--engine", "ray")
    assert one.stdout == many.stdout == "7 images: 6 explained, 0 rejected, 1 failed\n", one.stderr + many.stderr
    text = (tmp_path / "local" / "results.csv").read_text(encoding="utf-8-sig")
    local = {row["name"]: row for row in csv.DictReader(io.StringIO(text))}
    found = table(tmp_path / "ray" / TABLE)
    assert found.keys() == local.keys()
    for name, row in found.items():
        for column, value in row.items():
            told = "" if value is None else f"{value:.4f}" if isinstance(value, float) else value
            assert told == local[name][column]
        if row["state"] == "explained":
            assert parts(tmp_path / "ray" / name) == parts(tmp_path / "local" / local[name]["folder"])
    assert not (tmp_path / "ray" / "bad.png").exists()


def workers() -> list[int]:
    """Processes of Ray's actors, by their titles."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if place.joinpath("cmdline").read_bytes().startswith(b"ray::MapWorker"):
                found.append(int(place.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the workers under /proc")
def test_a_killed_worker_loses_nothing(tiny_weights: Path, tmp_path: Path) -> None:
    given = x_rays(tmp_path / "in", 24, height=1600)
    others = set(workers())
    call, environment = command(tiny_weights, given, "--out", tmp_path / "out", "--engine", "ray")
    run = subprocess.Popen(call, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (done := list(tmp_path.glob(f"out/*/*/{SUMMARY}"))):
        assert run.poll() is None, run.communicate()[1]
        time.sleep(0.02)
    victims = [number for number in workers() if number not in others]
    assert victims
    assert len(done) < 20
    os.kill(victims[0], signal.SIGKILL)
    told, errors = run.communicate()
    # Ray tells of the death before.
    assert told.endswith(counts := "25 images: 24 explained, 0 rejected, 1 failed\n"), errors
    assert len(table(tmp_path / "out" / TABLE)) == 25
    assert len(list(tmp_path.glob(f"out/*/*/{SUMMARY}"))) == 24
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob(f"out/*/*/{SUMMARY}")}
    assert batch(tiny_weights, given, "--out", tmp_path / "out", "--engine", "ray").stdout == counts
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_store_lists_pictures_and_nothing_of_the_results(tmp_path: Path) -> None:
    given = x_rays(tmp_path, 2)
    (given / "out" / "arm 0.png").mkdir(parents=True)
    (given / "out" / "arm 0.png" / "overlay.png").write_bytes(b"")
    store = _Store(f"file://{given}")
    assert store.pictures(_Store(str(given / "out")).root) == ["bad.png", "ward 0/arm 0.png", "ward 1/arm 1.png"]
    with pytest.raises(FileNotFoundError):
        _Store(str(tmp_path / "none")).pictures("elsewhere")


def test_a_folder_without_pictures_gives_an_empty_table(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    counts = _written([], _Store(str(tmp_path)), 0, lambda *progress: told.append(progress))
    assert not counts
    assert table(tmp_path / TABLE) == {}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("in", "more", "--engine", "ray"), "Ray takes one folder or store; name one.\n"),
        (("in", "--address", "auto"), "--address is of a Ray cluster, so it needs --engine ray.\n"),
        (("nowhere", "--engine", "ray"), "nowhere: there is no such folder.\n"),
        (("in", "--engine", "ray", "--model", "none"), "There is no model called 'none'"),
    ],
)
def test_what_cannot_be_done_gets_a_sentence(
    words: tuple[str, ...], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(cli, ["batch", *words, "--out", "out"])
    assert found.exit_code == 1
    assert found.output.startswith(sentence)
    assert found.output.count("\n") == 1
