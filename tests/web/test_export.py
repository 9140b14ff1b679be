"""What ``python -m app export --web`` writes, and what it says where it cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnxruntime
import pytest
from huggingface_hub import metadata_load
from typer.testing import CliRunner

from app import cli, web_export
from app.imaging.examples import draw
from app.imaging.letterbox import letterbox
from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier
from app.model.to_onnx import detector_onnx, model_onnx
from app.model.weights import load_card, write_card


@pytest.fixture
def vendored(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if npm had been asked."""

    def vendor(target: Path) -> None:
        target.mkdir()
        (target / "ort.wasm").write_bytes(b"code")

    monkeypatch.setattr(web_export, "_vendor", vendor)


def test_the_folder_is_a_static_space(vendored: None, tiny_weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    how = ["export", "tiny", "--weights", str(tiny_weights), "--web", str(folder)]
    ran = CliRunner().invoke(cli.cli, how)
    assert ran.exit_code == 0, ran.output
    assert "is written" in ran.output
    front = metadata_load(folder / "README.md")
    assert front is not None
    assert (front["sdk"], front["title"]) == ("static", "Fractures, explained")
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert card["files"]["model.onnx"] == (folder / "model.onnx").stat().st_size
    worker = (folder / "service-worker.js").read_text(encoding="utf-8")
    assert "$" not in worker
    kept = json.loads(worker.partition("PAGE = ")[2].partition(";")[0])
    assert {"./", "index.html", "page.js", "card.json", "example-spiral.png"} <= set(kept)
    assert all((folder / name).exists() for name in kept)
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "$" not in page
    assert page.count("not for diagnosis") == 1
    assert CliRunner().invoke(cli.cli, how).exit_code == 0, "it may be written anew"
    assert (folder / "service-worker.js").read_text(encoding="utf-8") == worker


def test_nothing_else_is_overwritten(vendored: None, tiny_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("keep me")
    ran = CliRunner().invoke(cli.cli, ["export", "tiny", "--weights", str(tiny_weights), "--web", str(tmp_path)])
    assert ran.exit_code == 1
    assert "holds something else" in ran.output
    assert (tmp_path / "letter.txt").exists()


def test_without_npm_there_is_a_sentence(tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    where = ["--weights", str(tiny_weights), "--web", str(tmp_path / "page")]
    ran = CliRunner().invoke(cli.cli, ["export", "tiny", *where])
    assert ran.exit_code == 1
    assert "needs npm" in ran.output
    assert not (tmp_path / "page").exists()


def test_what_to_write_has_to_be_named(tiny_weights: Path) -> None:
    ran = CliRunner().invoke(cli.cli, ["export", "tiny", "--weights", str(tiny_weights)])
    assert ran.exit_code == 1
    assert "--onnx" in ran.output


def test_a_model_of_equalised_images_is_refused(tiny_weights: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_weights / "tiny", tmp_path / "tiny")
    write_card(load_card("tiny", tiny_weights).model_copy(update={"equalise": True}), tmp_path / "tiny")
    ran = CliRunner().invoke(cli.cli, ["export", "tiny", "--weights", str(tmp_path), "--web", str(tmp_path / "page")])
    assert ran.exit_code == 1
    assert "equalised" in ran.output


def test_small_files_lose_nothing(shipped: Classifier) -> None:
    written, _ = model_onnx(shipped.network, shipped.card, small=True)
    assert len(written) < 1.05 * (Path("weights") / shipped.card.name / shipped.card.weights.file).stat().st_size
    assert shipped.detector is not None
    score = onnxruntime.InferenceSession(detector_onnx(shipped.detector))
    square = letterbox(Radiograph(draw(), (0, 255)), shipped.detector.card.size)[0]
    found = score.run(None, {"brightness": square[None, None]})[0]
    assert found == pytest.approx(shipped.detector.scores(square[None]), abs=1e-4)


def test_pinned_packages_are_named_without_a_registry() -> None:
    pinned = json.loads((web_export.SOURCES / "package.json").read_text(encoding="utf-8"))["dependencies"]
    lock = json.loads((web_export.SOURCES / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    for name, version in pinned.items():
        assert lock[f"node_modules/{name}"]["version"] == version
    assert all("resolved" not in package for package in lock.values())
    assert all("integrity" in package for place, package in lock.items() if place)
