from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import pytest
from gradio.utils import get_upload_folder
from pydicom import dcmread

from app.imaging.examples import draw
from app.imaging.series import gather
from app.model.classifier import Classifier
from app.pipeline import explain_image
from app.ui import take_home
from app.ui.session import SCREEN, Session
from app.ui.take_home import TakeHome
from tests.app.imaging.test_dicom import made, written
from tests.app.test_pipeline import valid

Held = Callable[[str, bytes], Session]


@pytest.fixture(scope="module")
def part(classifier: Classifier) -> TakeHome:
    with gr.Blocks():
        return TakeHome(gr.State(None), {"tiny": classifier}, gr.Radio([]), gr.Radio([]))


@pytest.fixture
def held(tmp_path: Path, classifier: Classifier) -> Held:
    def session(name: str, data: bytes) -> Session:
        (tmp_path / name).write_bytes(data)
        slices = gather([tmp_path / name])
        result = explain_image(slices.radiograph(), model=classifier)
        return Session(result.explanation.at_screen_size(SCREEN), result.square, slices, None)

    return session


def files(part: TakeHome, final: dict[Any, Any]) -> dict[str, bytes]:
    paths = [Path(final[button]["value"]) for button in (part.report, part.all)]
    assert all(path.is_relative_to(get_upload_folder()) and len(path.parent.name) == 40 for path in paths)
    with zipfile.ZipFile(paths[1]) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    assert found["report.pdf"] == paths[0].read_bytes()
    return found


def test_what_is_shown_is_taken_home(part: TakeHome, held: Held) -> None:
    data = cv2.imencode(".png", draw("oblique", height=1400, width=200))[1].tobytes()
    *_, final = part.write(held("Doe.png", data), "spiral", "layercam")
    assert final[part.ready] == gr.update(visible=True)
    found = files(part, final)
    summary = json.loads(found["explanation.json"])
    valid(summary)
    assert (summary["map"]["target"], summary["map"]["method"]) == ("spiral", "layercam")
    assert summary["source"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert (summary["source"]["height"], summary["source"]["name"]) == (1400, None)
    assert not any(b"Doe" in each for each in found.values())


def test_nobody_is_named_in_a_dicom_picture(part: TakeHome, held: Held) -> None:
    pixels = draw("oblique", height=120, width=90)
    *_, final = part.write(held("a.dcm", written(made(pixels, PatientName="Doe^Jane", PatientID="4711"))), "spiral")
    capture = dcmread(io.BytesIO(files(part, final)["secondary-capture.dcm"]))
    assert (capture.PatientName, capture.PatientID) == ("", "")


def test_what_cannot_be_made_is_a_sentence(part: TakeHome, held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(session: Session | None, target: str = "spiral") -> str:
        *_, final = part.write(session, target)
        assert final[part.ready] == gr.update(visible=False)
        return final[part.state]

    assert "No X-ray yet" in told(None)
    data = cv2.imencode(".png", draw("oblique", height=120, width=90))[1].tobytes()
    session = held("a.png", data)
    assert "is not a type" in told(session, "none")
    Path(session.slices.places[0][0]).unlink()
    assert "no such file" in told(session)
    monkeypatch.setattr(take_home, "explain_image", None)
    assert "our side" in told(held("a.png", data))
