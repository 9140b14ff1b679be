from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from app import __version__
from app import cli as app_cli
from app.errors import RejectedError
from app.explain import perturbation
from app.explain.methods import METHODS
from app.imaging.examples import draw
from app.imaging.radiograph import MAX_BYTES
from app.model.classifier import Classifier
from tests.app.imaging.test_dicom import made, written

runner = CliRunner()


@pytest.fixture(autouse=True)
def _tiny(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_cli, "_load", lambda *_: classifier)


@pytest.fixture
def drawing(tmp_path: Path) -> Path:
    path = tmp_path / "arm.png"
    cv2.imwrite(str(path), draw("oblique", height=240, width=120))
    return path


def test_writes_an_explanation_beside_its_pictures(drawing: Path, tmp_path: Path, classifier: Classifier) -> None:
    result = runner.invoke(app_cli.cli, ["explain", str(drawing), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert result.output.count("\n") == 1
    folder = tmp_path / "out" / "arm"
    summary = json.loads((folder / "explanation.json").read_text())
    assert "not for diagnosis" in summary["notice"]
    assert summary["prediction"]["types"][0]["name"] == summary["prediction"]["type"] == summary["map"]["target"]
    assert sum(t["probability"] for t in summary["prediction"]["types"]) == pytest.approx(1.0, abs=1e-5)
    assert len(summary["prediction"]["types"]) == len(classifier.classes)
    heat = cv2.imread(str(folder / "heatmap.png"), cv2.IMREAD_UNCHANGED)
    assert heat.shape == (240, 120, 4)
    painted = cv2.imread(str(folder / "overlay.png"))
    assert painted.shape[0] == 240
    assert painted.shape[1] > 120
    coloured = np.ptp(painted[:, :120].astype(int), axis=2) > 3
    assert coloured.any()
    assert not coloured[heat[:, :, 3] == 0].any()


def test_explains_another_type_when_asked(drawing: Path, tmp_path: Path) -> None:
    for target in ("spiral", "hairline"):
        result = runner.invoke(
            app_cli.cli, ["explain", str(drawing), "--out", str(tmp_path / target), "--target", target]
        )
        assert result.exit_code == 0
        assert json.loads((tmp_path / target / "arm" / "explanation.json").read_text())["map"]["target"] == target


def test_a_bad_file_does_not_stop_the_others(drawing: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"<html></html>")
    films = [str(bad), str(tmp_path / "none.png"), str(drawing)]
    result = runner.invoke(app_cli.cli, ["explain", *films, "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "not a picture" in result.output
    assert "no such file" in result.output
    assert "Traceback" not in result.output
    assert (tmp_path / "out" / "arm" / "overlay.png").exists()


def test_films_of_one_name_do_not_overwrite_each_other(drawing: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "arm.png"
    other.parent.mkdir()
    cv2.imwrite(str(other), draw("spiral"))
    runner.invoke(app_cli.cli, ["explain", str(drawing), str(other), "--out", str(tmp_path / "out")])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["arm", "arm-2"]


def test_an_unwritable_place_is_a_sentence(drawing: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = runner.invoke(app_cli.cli, ["explain", str(drawing), "--out", str(tmp_path / "file")])
    assert result.exit_code == 1
    assert "cannot write there (it is a file, not a folder)" in result.output


@pytest.mark.parametrize("command", [[], ["serve"]])
def test_a_port_in_use_is_a_sentence(command: list[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = runner.invoke(app_cli.cli, [*command, "--port", str(taken.getsockname()[1])])
    assert result.exit_code == 1
    assert "in use" in result.output


@pytest.mark.parametrize("command", [[], ["serve"]])
@pytest.mark.parametrize("port", ["0", "-1", "65536", "80000"])
def test_a_port_that_cannot_be_is_a_sentence(command: list[str], port: str) -> None:
    result = runner.invoke(app_cli.cli, [*command, "--port", port])
    assert result.exit_code == 2
    assert "Invalid value for '--port'" in result.output
    assert "Traceback" not in result.output


def test_an_address_of_another_machine_is_a_sentence() -> None:
    result = runner.invoke(app_cli.cli, ["serve", "--host", "192.0.2.1", "--port", "7999"])
    assert result.exit_code == 1
    assert "Nothing can be served on 192.0.2.1:7999" in result.output
    assert "in use" not in result.output


def test_a_temporary_folder_that_cannot_be_written_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", os.environ.get("no_proxy", ""))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "file"))
    (tmp_path / "file").write_text("in the way")
    result = runner.invoke(app_cli.cli, ["serve", "--port", str(free_port())])
    assert result.exit_code == 1
    assert f"{tmp_path / 'file'}" in result.output
    assert "GRADIO_TEMP_DIR" in result.output
    assert "port" not in result.output


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def served(port: int, process: subprocess.Popen[str]) -> bool:
    """Whether a process serves the page before it ends."""
    direct = build_opener(ProxyHandler({}))
    while process.poll() is None:
        try:
            return b"gradio" in direct.open(f"http://127.0.0.1:{port}/", timeout=30).read()
        except URLError:
            time.sleep(0.2)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("command", [[], ["serve"]])
def test_the_page_is_served_behind_a_proxy(command: list[str], tiny_weights: Path) -> None:
    """Not even one that httpx cannot use, since socksio is not there, keeps Gradio from its own address."""
    nowhere = "127.0.0.1:9"
    proxies = {
        "http_proxy": f"http://{nowhere}",
        "https_proxy": f"http://{nowhere}",
        "all_proxy": f"socks5://{nowhere}",
    }
    environment = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "app", *command, "--port", str(port)],
        env={**environment, **proxies, "FRACTURE_WEIGHTS": str(tiny_weights)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        found = served(port, process)
    finally:
        process.kill()
        output = process.communicate()[0]
    assert found, output


@pytest.mark.parametrize("words", [["--help"], ["explain", "--help"], ["serve", "--help"], ["--version"]])
def test_help_waits_for_neither_torch_nor_gradio(words: list[str]) -> None:
    code = (
        "import sys\nfrom app.cli import cli\n"
        "try: cli(sys.argv[1:])\n"
        "finally: print(sorted({'torch', 'gradio', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("[]\n")
    assert len(result.stdout) > len("[]\n")


def test_help_lists_every_method_and_command() -> None:
    methods = runner.invoke(app_cli.cli, ["explain", "--help"], env={"COLUMNS": "200"}).output
    assert all(name in methods for name in METHODS)
    commands = runner.invoke(app_cli.cli, ["--help"]).output
    assert "serve" in commands
    assert "explain" in commands


@pytest.mark.parametrize("command", [[], ["serve"], ["explain"]])
def test_the_version_is_told(command: list[str]) -> None:
    result = runner.invoke(app_cli.cli, [*command, "--version"])
    assert result.exit_code == 0
    assert result.output == f"fracture-explained {__version__}\n"


def test_an_unknown_target_names_the_known(drawing: Path, tmp_path: Path) -> None:
    result = runner.invoke(app_cli.cli, ["explain", str(drawing), "--out", str(tmp_path), "--target", "bent"])
    assert result.exit_code == 1
    assert "greenstick" in result.output


@pytest.mark.slow
def test_any_method_can_be_asked_for(drawing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perturbation, "SAMPLES", 32)
    pictures = set()
    for method in METHODS:
        where = tmp_path / method
        result = runner.invoke(app_cli.cli, ["explain", str(drawing), "--out", str(where), "--method", method])
        assert result.exit_code == 0, result.output
        assert json.loads((where / "arm" / "explanation.json").read_text())["map"]["method"] == method
        heat = cv2.imread(str(where / "arm" / "heatmap.png"), cv2.IMREAD_UNCHANGED)
        assert heat.shape == (240, 120, 4)
        pictures.add(heat.tobytes())
    assert len(pictures) >= len(METHODS) - 3


def test_a_type_is_told_from_another(drawing: Path, tmp_path: Path) -> None:
    heats = []
    for against in ("spiral", "hairline"):
        call = ["explain", str(drawing), "--out", str(tmp_path / against), "--target", "oblique"]
        result = runner.invoke(app_cli.cli, [*call, "--method", "finercam", "--against", against])
        assert result.exit_code == 0, result.output
        heats.append((tmp_path / against / "arm" / "heatmap.png").read_bytes())
    assert heats[0] != heats[1]
    same = runner.invoke(app_cli.cli, [*call, "--method", "finercam", "--against", "oblique"])
    assert same.exit_code == 1
    assert "told from itself" in same.output
    unknown = runner.invoke(app_cli.cli, [*call, "--method", "tea-leaves"])
    assert unknown.exit_code == 1
    assert "layercam" in unknown.output


@pytest.mark.parametrize("name", ["..png", "...png", ".hidden.png"])
def test_nothing_is_written_outside_the_folder(name: str, drawing: Path, tmp_path: Path) -> None:
    film = tmp_path / "images" / name
    film.parent.mkdir()
    shutil.copy(drawing, film)
    out = tmp_path / "deep" / "out"
    result = runner.invoke(app_cli.cli, ["explain", str(film), "--out", str(out)])
    written = [path for path in (tmp_path / "deep").rglob("*") if path.is_file()]
    assert all(path.parent.parent == out for path in written)
    assert len(written) == (3 if result.exit_code == 0 else 0)


def summaries(out: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(out.glob("*/explanation.json"))]


def test_an_explanation_says_which_file_it_is_of(drawing: Path, tmp_path: Path) -> None:
    runner.invoke(app_cli.cli, ["explain", str(drawing), "--out", str(tmp_path / "out")])
    sha256 = hashlib.sha256(drawing.read_bytes()).hexdigest()
    (found,) = summaries(tmp_path / "out")
    assert [found["source"][key] for key in ("name", "sha256", "frame")] == ["arm.png", sha256, 1]
    assert str(tmp_path) not in (tmp_path / "out" / "arm" / "explanation.json").read_text()


def test_a_second_run_keeps_apart_what_is_not_the_same_image(drawing: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    other = tmp_path / "other" / "arm.png"
    other.parent.mkdir()
    cv2.imwrite(str(other), draw("spiral"))
    for path, target in ((drawing, "spiral"), (other, "spiral"), (drawing, "hairline")):
        result = runner.invoke(app_cli.cli, ["explain", str(path), "--out", str(out), "--target", target])
        assert result.exit_code == 0, result.output
    first, second = summaries(out)
    assert first["source"]["sha256"] == hashlib.sha256(drawing.read_bytes()).hexdigest()
    assert second["source"]["sha256"] == hashlib.sha256(other.read_bytes()).hexdigest()
    assert (first["map"]["target"], second["map"]["target"]) == ("hairline", "spiral")


def test_a_full_disk_leaves_nothing_of_an_earlier_run(
    drawing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ["explain", str(drawing), "--out", str(tmp_path / "out")]
    runner.invoke(app_cli.cli, call)

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    result = runner.invoke(app_cli.cli, call)
    assert result.exit_code == 1
    assert "cannot write the results (No space left on device)" in result.output
    assert [path.name for path in (tmp_path / "out" / "arm").iterdir()] == ["unfinished.json"]


def test_the_standard_input_is_read(drawing: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = runner.invoke(app_cli.cli, ["explain", "-", "--out", str(out)], input=drawing.read_bytes())
    assert result.exit_code == 0, result.output
    sha256 = hashlib.sha256(drawing.read_bytes()).hexdigest()
    assert [summaries(out)[0]["source"][key] for key in ("name", "sha256", "frame")] == ["-", sha256, 1]
    twice = runner.invoke(app_cli.cli, ["explain", "-", "-", "--out", str(out)], input=drawing.read_bytes())
    assert twice.exit_code == 1
    assert "once only" in twice.output
    empty = runner.invoke(app_cli.cli, ["explain", "-", "--out", str(out)], input=b"")
    assert empty.exit_code == 1
    assert "empty" in empty.output


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("spoilt", [False, True])
def test_a_pipe_is_read_once_and_not_for_ever(drawing: Path, tmp_path: Path, spoilt: bool) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    data = bytes(MAX_BYTES + 1) if spoilt else drawing.read_bytes()
    writer = Thread(target=pipe.write_bytes, args=(data,), daemon=True)
    writer.start()
    result = runner.invoke(app_cli.cli, ["explain", str(pipe), "--out", str(tmp_path / "out")])
    writer.join()
    assert result.exit_code == int(spoilt), result.output
    assert ("More than 50 MB" in result.output) == spoilt
    assert [found["source"]["sha256"] for found in summaries(tmp_path / "out")] == (
        [] if spoilt else [hashlib.sha256(data).hexdigest()]
    )


def test_a_frame_can_be_chosen(tmp_path: Path) -> None:
    out = tmp_path / "out"
    frames = np.stack([draw("oblique", seed=1), draw("spiral", seed=2)])
    scan = tmp_path / "scan.dcm"
    scan.write_bytes(written(made(frames)))
    for frame in ("1", "2"):
        result = runner.invoke(app_cli.cli, ["explain", str(scan), "--out", str(out), "--frame", frame])
        assert result.exit_code == 0, result.output
        assert f"number {frame}" in result.output
    first, second = summaries(out)
    assert (first["source"]["frame"], second["source"]["frame"]) == (1, 2)
    assert first["prediction"] != second["prediction"]
    third = runner.invoke(app_cli.cli, ["explain", str(scan), "--out", str(out), "--frame", "3"])
    assert third.exit_code == 1
    assert "no number 3" in third.output


def test_a_frame_of_what_has_none_is_a_sentence(drawing: Path, tmp_path: Path) -> None:
    result = runner.invoke(app_cli.cli, ["explain", str(drawing), "--out", str(tmp_path / "out"), "--frame", "2"])
    assert result.exit_code == 1
    assert "no frame 2" in result.output
    none = runner.invoke(app_cli.cli, ["explain", str(drawing), "--out", str(tmp_path / "out"), "--frame", "0"])
    assert none.exit_code == 2


def test_notes_are_told_of_a_refused_image_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise RejectedError("This is not like any radiograph.")

    monkeypatch.setattr(Classifier, "check", refuse)
    deep = tmp_path / "deep.png"
    cv2.imwrite(str(deep), draw().astype(np.uint16) * 100)
    result = runner.invoke(app_cli.cli, ["explain", str(deep), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "not like any radiograph" in result.output
    assert "more than 8 bits" in result.output


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_name_of_several_lines_steers_no_terminal(drawing: Path, tmp_path: Path) -> None:
    film = tmp_path / "arm\n\x1b[2Jpatient.png"
    shutil.copy(drawing, film)
    result = runner.invoke(app_cli.cli, ["explain", str(film), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert result.output.count("\n") == 1
    assert "\x1b" not in result.output
    assert summaries(tmp_path / "out")[0]["source"]["name"] == film.name


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_an_output_that_is_full_is_a_sentence(tiny_weights: Path, drawing: Path, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "app", "explain", str(drawing), "--out", str(tmp_path / "out")],
            env={**os.environ, "FRACTURE_WEIGHTS": str(tiny_weights)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert ran.returncode == 1
    assert ran.stderr == "The standard output cannot be written to (No space left on device).\n"
