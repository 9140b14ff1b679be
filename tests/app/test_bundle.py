from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from app.bundle import bundle, pack
from app.cli import cli
from app.imaging.examples import draw
from app.model.classifier import Classifier
from app.pipeline import explain_image, open_image
from tests.app.imaging.test_dicom import made, written
from tests.app.test_pipeline import valid


@pytest.fixture
def scan() -> bytes:
    return written(made(draw("oblique", height=120, width=90), PatientName="Doe^Jane"))


@pytest.mark.parametrize("method", ["gradcam", "layercam"])
def test_numbers_give_the_map_back(scan: bytes, classifier: Classifier, method: str) -> None:
    result = explain_image(scan, model=classifier, method=method)
    parts, told = bundle(result), result.as_json()["map"]
    raw = np.load(io.BytesIO(parts["map.npy"]))
    assert np.array_equal(raw, result.raw)
    deep = cv2.imdecode(np.frombuffer(parts["map16.png"], np.uint8), cv2.IMREAD_UNCHANGED)
    assert deep.dtype == np.uint16
    # Half a step, and the rounding of float32.
    assert np.abs(deep / 65535.0 - result.heat).max() <= 0.51 / 65535.0
    square, size = told["square"], told["square"]["size"]
    whole = cv2.resize(np.clip(raw, 0.0, None), (size, size), interpolation=cv2.INTER_CUBIC)
    part = whole[square["top"] : square["top"] + square["height"], square["left"] : square["left"] + square["width"]]
    again = np.clip(cv2.resize(part, deep.shape[::-1], interpolation=cv2.INTER_LINEAR) / told["scale"], 0.0, 1.0)
    assert np.abs(again - deep / 65535.0).max() < 1e-4


def test_everything_is_packed_with_its_hash_the_summary_last(scan: bytes, classifier: Classifier) -> None:
    opened = open_image(scan, name="Doe.dcm")
    results = [explain_image(opened, model=classifier) for _ in range(2)]
    packed = [pack(result.files(bundle(result, opened.dicom))) for result in results]
    assert packed[0] == packed[1]
    with zipfile.ZipFile(io.BytesIO(packed[0])) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert list(files)[-1] == "explanation.json"
    summary = json.loads(files.pop("explanation.json"))
    valid(summary)
    assert summary["files"] == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    assert np.array_equal(dcmread(io.BytesIO(files["secondary-capture.dcm"])).pixel_array, results[0].overlay())
    assert not any(b"Jane" in data for data in files.values())
    assert bundle(results[0]).keys() == files.keys() - {"overlay.png", "heatmap.png", "secondary-capture.dcm"}


def test_the_command_line_writes_it_when_asked(
    scan: bytes, classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli._load", lambda *_: classifier)
    file = tmp_path / "arm.dcm"
    file.write_bytes(scan)

    def explained(*more: str) -> dict[str, Path]:
        called = CliRunner().invoke(cli, ["explain", str(file), "--out", str(tmp_path / "out"), *more])
        assert called.exit_code == 0, called.output
        return {path.name: path for path in (tmp_path / "out" / "arm").iterdir()}

    few = {"overlay.png", "heatmap.png", "explanation.json"}
    more = {"map16.png", "map.npy", "report.pdf", "secondary-capture.dcm"}
    assert explained("--bundle", "--keep-patient-tags").keys() == few | more
    kept = dcmread(tmp_path / "out" / "arm" / "secondary-capture.dcm")
    assert kept.PatientName == "Doe^Jane"
    assert dcmread(explained("--bundle")["secondary-capture.dcm"]).PatientName == ""
    assert explained().keys() == few
    called = CliRunner().invoke(cli, ["explain", str(file), "--out", str(tmp_path / "out"), "--keep-patient-tags"])
    assert called.exit_code == 1
    assert "--bundle" in called.output
