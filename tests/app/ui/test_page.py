from __future__ import annotations

import base64
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import gradio as gr
import httpx
import numpy as np
import pytest
from fastapi import HTTPException
from gradio.components.image_editor import EditorData
from gradio.context import LocalContext
from gradio.data_classes import FileData
from gradio.utils import get_upload_folder
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from app.explain import methods
from app.explain.methods import METHODS, heat, map_request
from app.imaging.examples import draw
from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier
from app.model.weights import load_card, with_interval
from app.ui import about
from app.ui.explain import Looks
from app.ui.page import OFTEN, OLDEST, own_folder
from app.ui.uploads import bound
from tests.app.imaging.test_dicom import made, written
from tests.app.test_pipeline import valid
from tests.conftest import SHIPPED
from tests.serving import PATIENCE, launch, until


@pytest.fixture(scope="module")
def address(classifier: Classifier, second: Classifier) -> Iterator[str]:
    page, url = launch([classifier, second])
    yield url
    page.close()


@pytest.fixture(scope="module")
def client(address: str) -> Client:
    return Client(address, verbose=False, httpx_kwargs={"timeout": PATIENCE})


@pytest.fixture(scope="module")
def garden(flowers: Classifier) -> Iterator[tuple[gr.Blocks, str]]:
    page, url = launch([flowers])
    yield page, url
    page.close()


def words(value: object) -> Iterator[str]:
    """Every text in what a page shows, names of its parts, of settings and of files aside."""
    if isinstance(value, str):
        yield from [] if Path(value).is_absolute() else [value]
    elif isinstance(value, dict):
        for key, each in value.items():
            if key not in ("elem_id", "elem_classes", "name", "id", "css", "js", "api_prefix"):
                yield from words(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from words(each)


OF_FRACTURES = re.compile(r"fractur|bone|x-ray|radiograph|twist", re.IGNORECASE)


def test_nothing_of_fractures_is_on_the_page_of_a_model_of_something_else(
    garden: tuple[gr.Blocks, str],
) -> None:
    page, url = garden
    shown = {each["id"]: each["props"] for each in page.get_config_file()["components"]}
    told = " ".join(word for props in shown.values() for word in words(props))
    assert "Flowers, explained" in told
    assert "Which of 3 types a photo shows" in told
    assert "Drop a photo here" in told
    assert "For tests." in told
    assert page.title == "Flowers, explained"
    # The order of a table is known by its old name, which its label replaces.
    left = [word for word in words(list(shown.values())) if OF_FRACTURES.search(word)]
    assert left == []
    info = httpx.get(f"{url}gradio_api/info", timeout=PATIENCE).text
    assert not OF_FRACTURES.search(info)


def test_nothing_of_fractures_is_said_of_an_image_of_something_else(
    garden: tuple[gr.Blocks, str], flowers: Classifier, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "rose.png"
    Image.fromarray(petals()).save(path)
    page, _ = garden
    tab = next(event.fn.__self__ for event in page.fns.values() if getattr(event.fn, "__name__", "") == "explain_shown")
    before = LocalContext.blocks.set(page)
    request.addfinalizer(lambda: LocalContext.blocks.reset(before))
    found = tab.explain_shown(str(path), "flowers", "gradcam", "inferno", 0.6, True, True)
    told = [value for value in found.values() if isinstance(value, str) and not Path(value).is_absolute()]
    assert any("Wild rose" in each or "Daisy" in each or "Spiral" in each for each in told)
    assert [each for each in told if OF_FRACTURES.search(each)] == []
    plain = np.asarray(Image.open(found[tab.plain]["value"]))
    assert plain.shape == (80, 120, 3)
    assert np.ptp(plain.astype(int), axis=2).max() > 100, "the page shows it in grey"
    session = found[tab.session]
    assert session.square.shape == (96, 96, 3)
    for name, method in ((flowers.classes[1], "gradcam"), (flowers.classes[0], "occlusion")):
        drawn = tab._drawn(session, name, Looks(method, "inferno", 0.6, True, True))
        assert [word for word in words(list(drawn.values())) if OF_FRACTURES.search(word)] == []


def petals() -> np.ndarray:
    """A red disc on green: uint8 (80, 120, 3)."""
    picture = np.full((80, 120, 3), (30, 140, 40), np.uint8)
    cv2.circle(picture, (60, 40), 25, (210, 30, 60), -1)
    return picture


def asked_by_hand(address: str, page: gr.Blocks, handler: str, data: list) -> dict:
    """What the server makes of a request that no browser would send: ``handler``'s, with any data."""
    number = next(i for i, event in page.fns.items() if getattr(event.fn, "__name__", "") == handler)
    body = {"data": data, "fn_index": number, "session_hash": f"{handler}{time.monotonic_ns()}"}
    httpx.post(f"{address}gradio_api/queue/join", json=body, timeout=PATIENCE).raise_for_status()
    where = f"{address}gradio_api/queue/data?session_hash={body['session_hash']}"
    with httpx.stream("GET", where, timeout=PATIENCE) as lines:
        for line in lines.iter_lines():
            if "process_completed" in line:
                return json.loads(line.removeprefix("data:"))
    raise AssertionError("the server never answered")


def test_no_upload_outlasts_an_hour(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, classifier: Classifier) -> None:
    """Not even one that was broken off, of which Gradio knows nothing; while what the page shows stays."""
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = own_folder()
    assert folder.is_relative_to(tmp_path)
    assert own_folder() == folder
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "mine"))
    folder = own_folder()
    assert folder.parent == tmp_path / "mine", "other files may lie where people say"
    stranger = folder.parent / "stranger.txt"
    monkeypatch.setattr("app.ui.page.OFTEN", 0.1)
    page, _ = launch([classifier])
    try:
        tray = [path for path in folder.rglob("*") if path.is_file()]
        assert tray, "the drawings to try"
        (folder / "a").mkdir()
        old, new = folder / "tmpwjed9rq4", folder / "a" / "new.dcm"
        for path in (old, new, stranger):
            path.write_bytes(b"a film")
        for path in (old, stranger, *tray):
            os.utime(path, (time.time() - 4000,) * 2)
        until(lambda: not old.exists())
        assert all(path.is_file() for path in (new, stranger, *tray))
        assert OFTEN + OLDEST <= 3600
    finally:
        page.close()


def test_only_few_small_layers_can_be_painted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gr.Blocks():
        canvas = gr.ImageEditor(type="numpy", image_mode="RGBA", sources=[], layers=False)
    drawings = bound(canvas)
    inside = Path(get_upload_folder())
    inside.mkdir(parents=True, exist_ok=True)

    def layer(side: int) -> FileData:
        path = inside / f"layer-{side}.png"
        Image.new("RGBA", (side, side), (255, 0, 0, 255)).save(path)
        return FileData(path=str(path))

    small = layer(64)
    assert [each.shape for each in canvas.preprocess(EditorData(layers=[small]))] == [(64, 64, 4)]
    assert canvas.preprocess(None) == []
    for layers in ([layer(2000)], [small] * 40):
        with pytest.raises(gr.Error, match="larger than the X-ray"):
            canvas.preprocess(EditorData(layers=layers))

    def sent(name: str, index: str, blob: bytes) -> SimpleNamespace:
        return SimpleNamespace(data={"type": "layer", "index": index, "id": name}, files=[("layer", blob)])

    picture = Path(small.path).read_bytes()
    assert canvas.accept_blobs._is_server_fn
    canvas.accept_blobs(sent("a", "0", picture))
    assert canvas.preprocess(EditorData(id="a"))[0].shape == (64, 64, 4)
    assert not drawings
    for index, blob in (("1000000000", picture), ("-1", picture), ("0", bytes(10_000_000))):
        with pytest.raises(HTTPException):
            canvas.accept_blobs(sent("b", index, blob))
    for number in range(100):
        canvas.accept_blobs(sent(str(number), "0", picture))
    assert len(drawings) <= 32
    assert "99" in drawings
    now = time.monotonic()
    monkeypatch.setattr("app.ui.uploads.time.monotonic", lambda: now + 3600)
    drawings.forget()
    assert not drawings


@pytest.mark.parametrize("meta", [{}, pytest.param({"meta": {"_type": "gradio.FileData"}}, marks=pytest.mark.slow)])
def test_files_of_the_server_are_nobodys_to_read(tmp_path: Path, classifier: Classifier, meta: dict) -> None:
    """Whatever component or endpoint is named, and however the path is written."""
    secret = tmp_path / "secret.png"
    cv2.imwrite(str(secret), draw("oblique"))
    inside = Path(get_upload_folder())
    inside.mkdir(parents=True, exist_ok=True)
    link = inside / f"link-{time.monotonic_ns()}.png"
    link.symlink_to(secret)
    page, address = launch([classifier])
    looks = [classifier.card.name, "gradcam", "inferno", 0.6, True, True]

    def requests(film: dict) -> dict[str, list]:
        return {
            "explain_shown": [film, *looks],
            "explain_files": [[film], *looks],
            "predict_without": [None, {"background": film, "layers": [film], "composite": film}, ""],
            "classify": [film, classifier.card.name, True],
            "explain": [film, "gradcam", classifier.card.name, "", "", True],
        }

    try:
        for path in (str(secret), f"{inside}/{os.path.relpath(secret, inside)}", str(link)):
            for handler, data in requests({"path": path, **meta}).items():
                answer = asked_by_hand(address, page, handler, data)
                assert not answer["success"], handler
                assert "image/png" not in json.dumps(answer)
        sent = httpx.post(
            f"{address}gradio_api/upload", files={"files": ("a.png", secret.read_bytes())}, timeout=PATIENCE
        )
        own = {"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}
        for handler, data in requests(own).items():
            assert asked_by_hand(address, page, handler, data)["success"], f"{handler}, with a file that was uploaded"
    finally:
        link.unlink()
        page.close()


PERSONAL = ("Doe^", "Doe-", "Doe's", "secret-", "19700101", "Elsewhere")
"""Each of at least four letters, or the bytes of some picture would hold one by chance."""


def test_nothing_of_a_patient_leaves_the_file(
    tmp_path: Path, classifier: Classifier, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
) -> None:
    """From the upload to answers, logs and what lies on disk, for a file that is judged and for two that are not."""
    dataset = made(draw("oblique", height=120, width=90), InstitutionName="Elsewhere", PatientComments="Doe's wrist")
    good = written(dataset)
    dataset.PixelData = dataset.PixelData[:999]
    files = {"Doe-4711.dcm": good, "Doe-4711-short.dcm": written(dataset), "Doe-4711-cut.dcm": good[: len(good) // 2]}
    page, address = launch([classifier])
    looks = [classifier.card.name, "gradcam", "inferno", 0.6, True, True]
    before = set(Path(get_upload_folder()).rglob("*"))
    told = []
    try:
        with caplog.at_level("DEBUG"):
            for name, data in files.items():
                sent = httpx.post(f"{address}gradio_api/upload", files={"files": (name, data)}, timeout=PATIENCE)
                film = {"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}
                for handler, request in (
                    ("explain_files", [[film], *looks]),
                    ("classify", [film, classifier.card.name, True]),
                    ("explain", [film, "gradcam", classifier.card.name, "", "", True]),
                ):
                    told.append(json.dumps(asked_by_hand(address, page, handler, request)))
    finally:
        page.close()
    assert '"success": true' in told[1]
    assert '"success": false' in told[-1]
    # Names of folders are drawn by lot.
    told = [re.sub("[0-9a-f]{40,}", "", answer) for answer in told]
    assert not any(word in answer for word in PERSONAL for answer in told)
    uploads = set(files)
    for path in set(Path(get_upload_folder()).rglob("*")) - before:
        if path.is_file() and path.name not in uploads:
            assert not any(word.encode() in path.read_bytes() for word in PERSONAL), path
    printed = capfd.readouterr()
    logged = "".join(record.getMessage() for record in caplog.records if record.name.startswith(("app", "pydicom")))
    assert not any(word in text for word in PERSONAL for text in (printed.out, printed.err, logged))


def test_the_api_answers_as_the_classifier_does(client: Client, classifier: Classifier, tmp_path: Path) -> None:
    picture = draw("spiral", seed=4)
    path = tmp_path / "arm.png"
    cv2.imwrite(str(path), picture)
    answer = client.predict(handle_file(str(path)), api_name="/classify")
    prediction = classifier.explain([Radiograph(picture, (0, 255))])[0].prediction
    valid(answer)
    assert answer["source"]["name"] is None
    assert answer["prediction"]["type"] == prediction.best
    assert "not for diagnosis" in answer["notice"]
    for kind in answer["prediction"]["types"]:
        assert kind["probability"] == pytest.approx(prediction.probability(kind["name"]), abs=1e-5)


def test_the_api_asks_the_model_that_is_named(client: Client, second: Classifier, tmp_path: Path) -> None:
    picture = draw("spiral", seed=4)
    path = tmp_path / "arm.png"
    cv2.imwrite(str(path), picture)
    answer = client.predict(handle_file(str(path)), second.card.name, api_name="/classify")
    prediction = second.explain([Radiograph(picture, (0, 255))])[0].prediction
    assert answer["model"]["name"] == second.card.name
    assert answer["prediction"]["probability"] == pytest.approx(prediction.probabilities.max(), abs=1e-5)
    with pytest.raises(AppError, match="There is no model 'oracle'"):
        client.predict(handle_file(str(path)), "oracle", api_name="/classify")


@pytest.mark.slow
def test_the_api_draws_every_method(client: Client, classifier: Classifier, tmp_path: Path) -> None:
    picture = draw("oblique", seed=4, height=120, width=90)
    path = tmp_path / "arm.png"
    cv2.imwrite(str(path), picture)
    film = Radiograph(picture, (0, 255))
    for method, how in METHODS.items():
        if how.cost == "slow":
            continue
        answer = client.predict(handle_file(str(path)), method, api_name="/explain")
        told = answer["explanation"]
        valid(told)
        assert told["map"]["method"] == method
        encoded = np.frombuffer(base64.b64decode(answer["heatmap"].split(",")[1]), np.uint8)
        grey = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
        explanation = classifier.explain([film])[0]
        question = map_request(classifier, explanation.radiograph)
        drawn = (
            explanation.heat(told["map"]["target"])
            if method == "gradcam"
            else heat(methods.draw(question, method), explanation.placement)
        )
        assert grey.shape == picture.shape
        assert np.abs(grey / 255.0 - drawn).max() < 0.02, method
    answer = client.predict(handle_file(str(path)), "gradcam", classifier.card.name, "spiral", api_name="/explain")
    assert answer["explanation"]["map"]["target"] == "spiral"
    for wrong, words in (
        (("guess",), "There is no method 'guess'"),
        (("gradcam", classifier.card.name, "sprain"), "'sprain' is not a type"),
        (("finercam", classifier.card.name, "spiral", "spiral"), "told from itself"),
    ):
        with pytest.raises(AppError, match=words):
            client.predict(handle_file(str(path)), *wrong, api_name="/explain")


def test_the_api_tells_what_it_takes(client: Client, classifier: Classifier, second: Classifier) -> None:
    told = client.predict(api_name="/methods")
    assert [each["name"] for each in told["methods"]] == list(METHODS)
    assert all(each["says"] == METHODS[each["name"]].says for each in told["methods"])
    assert [each["name"] for each in told["models"]] == [classifier.card.name, second.card.name]
    assert all(each["types"] == list(classifier.classes) for each in told["models"])


def test_the_api_keeps_sixteen_bits(client: Client, classifier: Classifier, tmp_path: Path) -> None:
    deep = draw("oblique").astype(np.uint16) * 8
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), deep)
    answer = client.predict(handle_file(str(path)), api_name="/classify")
    low, high = np.percentile(deep, (0.1, 99.9))
    prediction = classifier.explain([Radiograph(deep, (low, high))])[0].prediction
    assert answer["prediction"]["probability"] == pytest.approx(prediction.probabilities.max(), abs=1e-3)


def test_the_api_refuses_with_a_sentence(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    path.write_bytes(b"<html>no film</html>")
    with pytest.raises(AppError, match="not a picture that can be read"):
        client.predict(handle_file(str(path)), api_name="/classify")


def test_models_are_compared_by_their_cards(classifier: Classifier, second: Classifier) -> None:
    share = {"value": 0.25, "low": 0.2, "high": 0.3, "n": 100}
    figures = {"cross_validation": {"accuracy": share, "top3": share, "kappa": {**share, "value": 0.125}}}
    told = about.compare([classifier.card, second.card.model_copy(update={"metrics": figures})])
    assert told.count("not measured") == 4
    assert re.sub("<[^>]+>", "", told).count("25.0 % (95 % CI 20.0 to 30.0, n = 100)") == 2
    assert told.count("kappa 0.12") == 1
    assert "Second network" in told


def test_the_model_card_is_shown_without_what_a_page_cannot_use(classifier: Classifier, tmp_path: Path) -> None:
    alone = about.whole_card(classifier.card, tmp_path)
    assert classifier.card.intended_use in alone
    assert all(limit in alone for limit in classifier.card.limits)
    (tmp_path / "tiny").mkdir()
    text = "---\nlicense: mit\n---\n\n# Mine\n\n| a |\n| --- |\n| [1](../x) |\n\n![Curves](curves.png)\n"
    (tmp_path / "tiny" / "README.md").write_text(text)
    assert about.whole_card(classifier.card, tmp_path) == "| a |\n| --- |\n| 1 |"


def test_the_about_page_tells_figures_and_limits() -> None:
    for name in SHIPPED:
        card = load_card(name)
        text = about.whole_card(card)
        assert with_interval(card.metrics["test"]["accuracy"]) in text
        assert "not for diagnosis" in text
        assert card.data["limits"][0] in text
