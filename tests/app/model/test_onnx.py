"""A written file says what torch says, and a program that imports nothing of ours can use it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from app import cli
from app.imaging.examples import draw
from app.imaging.radiograph import read
from app.model import onnx
from app.model.classifier import Classifier


@pytest.fixture(scope="module")
def written(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("onnx") / "fracture.onnx"
    found = CliRunner().invoke(cli.cli, ["export", "tiny", "--onnx", str(file), "--weights", str(tiny_weights)])
    assert found.exit_code == 0, found.output
    assert "is written" in found.output
    return file


def test_the_file_says_what_it_needs_and_any_number_of_images_goes_in(written: Path, classifier: Classifier) -> None:
    session = onnxruntime.InferenceSession(written)
    about = session.get_modelmeta().custom_metadata_map
    card = classifier.card
    assert json.loads(about["classes"]) == [kind.name for kind in card.classes]
    assert (int(about["size"]), float(about["temperature"])) == (card.size, card.temperature)
    many = torch.rand(3, 1, card.size, card.size).numpy()
    probabilities, maps = session.run(["probabilities", "maps"], {"brightness": many})
    assert probabilities.sum(axis=1) == pytest.approx([1.0] * 3, abs=1e-5)
    logits = maps.mean(axis=(2, 3)) + json.loads(about["bias"])
    again = torch.from_numpy(logits / card.temperature).softmax(dim=1).numpy()
    assert again == pytest.approx(probabilities, abs=1e-4)


def test_the_script_in_the_docs_needs_nothing_of_ours(written: Path, classifier: Classifier, tmp_path: Path) -> None:
    told = Path("docs/training.md").read_text(encoding="utf-8")
    script = next(code for code in re.findall(r"```python\n(.*?)```", told, flags=re.S) if "onnxruntime" in code)
    (tmp_path / "look.py").write_text(script)
    shutil.copy(written, tmp_path)
    cv2.imwrite(str(tmp_path / "arm.png"), draw("oblique", seed=2))
    blocked = "import sys\nfor name in ('torch', 'app', 'training'): sys.modules[name] = None\n"
    ran = subprocess.run(
        [sys.executable, "-I", "-c", f"{blocked}sys.argv = ['look.py', 'arm.png']\nexec(open('look.py').read())"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    prediction = classifier.explain([read(tmp_path / "arm.png")])[0].prediction
    name, probability, *_ = ran.stdout.split()
    assert name == prediction.best
    assert float(probability) == pytest.approx(prediction.probability(name), abs=0.005)


def test_what_is_not_what_torch_says_is_not_kept(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "TOLERANCE", 0.0)
    monkeypatch.setattr(onnx, "_farthest", lambda *_: 0.5)
    target = tmp_path / "a.onnx"
    found = CliRunner().invoke(cli.cli, ["export", "tiny", "--onnx", str(target), "--weights", str(tiny_weights)])
    assert found.exit_code == 1
    assert found.output.startswith("ONNX Runtime is 5.0e-01 from torch on tiny")
    assert not target.exists()


def test_an_unknown_model_and_a_lacking_package_are_a_sentence(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ["--onnx", str(tmp_path / "a.onnx"), "--weights", str(tiny_weights)]
    found = CliRunner().invoke(cli.cli, ["export", "gone", *where])
    assert (found.exit_code, found.output.count("\n")) == (1, 1)
    monkeypatch.setitem(sys.modules, "onnx", None)
    found = CliRunner().invoke(cli.cli, ["export", "tiny", *where])
    assert found.exit_code == 1
    assert "pip install '.[onnx]'" in found.output
