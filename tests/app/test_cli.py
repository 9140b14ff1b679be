from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from app import attribution
from app import cli as app_cli
from app.classifier import Classifier
from app.methods import METHODS
from app.phantom import draw

runner = CliRunner()


@pytest.fixture(autouse=True)
def _tiny(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_cli, "_load", lambda model: classifier)


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
    assert summary["types"][0]["name"] == summary["predicted"] == summary["explained"]
    assert sum(t["probability"] for t in summary["types"]) == pytest.approx(1.0, abs=1e-5)
    assert len(summary["types"]) == len(classifier.classes)
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
        assert json.loads((tmp_path / target / "arm" / "explanation.json").read_text())["explained"] == target


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
    assert "cannot write" in result.output


def test_a_port_in_use_is_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = runner.invoke(app_cli.cli, ["--port", str(taken.getsockname()[1])])
    assert result.exit_code == 1
    assert "in use" in result.output


def test_an_unknown_target_names_the_known(drawing: Path, tmp_path: Path) -> None:
    result = runner.invoke(app_cli.cli, ["explain", str(drawing), "--out", str(tmp_path), "--target", "bent"])
    assert result.exit_code == 1
    assert "greenstick" in result.output


def test_any_method_can_be_asked_for(drawing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribution, "SAMPLES", 32)
    pictures = set()
    for method in METHODS:
        where = tmp_path / method
        result = runner.invoke(app_cli.cli, ["explain", str(drawing), "--out", str(where), "--method", method])
        assert result.exit_code == 0, result.output
        assert json.loads((where / "arm" / "explanation.json").read_text())["method"] == method
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
    film = tmp_path / "films" / name
    film.parent.mkdir()
    shutil.copy(drawing, film)
    out = tmp_path / "deep" / "out"
    result = runner.invoke(app_cli.cli, ["explain", str(film), "--out", str(out)])
    written = [path for path in (tmp_path / "deep").rglob("*") if path.is_file()]
    assert all(path.parent.parent == out for path in written)
    assert len(written) == (3 if result.exit_code == 0 else 0)
