"""Calls that no browser would make, sent to the app as it is served: what it prints, logs, keeps and answers."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.imaging.examples import draw
from tests.app.imaging.test_dicom import made, written
from tests.serving import PATIENCE

NAME = "Doe^Jane-4711"
FILE = {"_type": "gradio.FileData"}
SENTENCE = re.compile(r"^['A-Z][^\n]{10,400}\.$")
NO_ANSWER = (ValueError, LookupError, TypeError, httpx.HTTPError)
ROOT = Path(__file__).parents[3]


def png() -> bytes:
    """A drawn radiograph with noise, so that any stretch of its base64 is its own."""
    file = io.BytesIO()
    drawn = draw("oblique", seed=2)
    noise = np.random.default_rng(4711).integers(0, 12, drawn.shape, np.uint8)
    Image.fromarray(drawn // 2 + noise).save(file, "PNG")
    return file.getvalue()


PICTURE = png()
ENCODED = base64.b64encode(PICTURE).decode()
URL = f"data:image/png;base64,{ENCODED}"
MARKERS = ("Doe", "4711", ENCODED[2000:2024])
"""Of the file's name, and of the picture as text. What holds one of them holds something of the upload."""


@dataclass
class Server:
    """The app in a process of its own."""

    address: str
    client: httpx.Client
    model: str = ""
    path: str = ""
    dependencies: list[dict[str, Any]] = field(default_factory=list)

    def post(self, route: str, **kwargs: Any) -> httpx.Response:
        return self.client.post(f"{self.address}/gradio_api/{route}", **kwargs)

    def stream(self, route: str) -> list[Any]:
        """Everything that an event stream tells."""
        told = []
        with self.client.stream("GET", f"{self.address}/gradio_api/{route}") as lines:
            for line in lines.iter_lines():
                if line.startswith("data:"):
                    told.append(json.loads(line.removeprefix("data:")))
                    if isinstance(told[-1], dict) and told[-1].get("msg") == "process_completed":
                        break
        return told

    def call(self, name: str, data: Any, version: str = "") -> Any:
        sent = self.post(f"call/{version}{name}", json=data if version else {"data": data})
        return self.stream(f"call/{name}/{sent.json()['event_id']}")[-1] if sent.is_success else sent.json()

    def run(self, name: str, data: Any) -> Any:
        return self.post(f"run/{name}", json={"data": data}).json()

    def join(self, number: Any, data: Any, **more: Any) -> Any:
        body = {"data": data, "fn_index": number, "session_hash": f"s{time.monotonic_ns()}", **more}
        sent = self.post("queue/join", json=body)
        if not sent.is_success:
            return sent.json()
        return self.stream(f"queue/data?session_hash={body['session_hash']}")[-1]["output"]

    def number(self, name: str) -> int:
        return next(each["id"] for each in self.dependencies if each["api_name"] == name)


Call = Callable[[Server], Any]


def film(server: Server, **more: Any) -> dict[str, Any]:
    return {"path": server.path, "orig_name": f"{NAME}.png", "meta": FILE, **more}


def stranger(server: Server) -> dict[str, Any]:
    return {"path": f"/home/{NAME}.png", "orig_name": f"{NAME}.png", "meta": FILE}


ANSWERED: dict[str, Call] = {
    "defaults, call": lambda server: server.call("classify", [film(server)])[0],
    "defaults, call v2": lambda server: server.call("classify", {"image": film(server)}, "v2/")[0],
    "defaults, join": lambda server: server.join(server.number("classify"), [film(server)])["data"][0],
    "defaults, null": lambda server: server.call("classify", [film(server), None, None])[0],
    "defaults, explain": lambda server: server.call("explain", [film(server)])[0],
    "defaults, batch": lambda server: server.call("batch", [[film(server)]])[0]["results"][0]["explanation"],
    "batch, one alone": lambda server: server.call("batch", [film(server)])[0]["results"][0]["explanation"],
    "no meta": lambda server: server.call("classify", [{"path": server.path}])[0],
}
"""Well enough formed to be answered with a verdict."""

REFUSED: dict[str, Call] = {
    "call, data in path": lambda server: server.call("classify", [{"path": URL, "meta": FILE}]),
    "call, data in path, no meta": lambda server: server.call("classify", [{"path": URL}]),
    "call, data in url": lambda server: server.call("classify", [{"url": URL, "meta": FILE}]),
    "call, text": lambda server: server.call("classify", [URL]),
    "call, path alone": lambda server: server.call("classify", [f"/home/{NAME}.png"]),
    "call, a stranger's path": lambda server: server.call("classify", [stranger(server)]),
    "call, nothing": lambda server: server.call("classify", []),
    "call, unknown": lambda server: server.call(NAME, [film(server)]),
    "call, no list": lambda server: server.call("classify", {"image": URL}),
    "call, other types": lambda server: server.call("classify", [film(server), [URL], {"a": URL}]),
    "call, a number": lambda server: server.call("classify", [film(server), 4711]),
    "call, truth as text": lambda server: server.call("classify", [film(server), server.model, URL]),
    "call, long text": lambda server: server.call("classify", [film(server), URL * 20]),
    "call, long method": lambda server: server.call("explain", [film(server), URL * 20]),
    "call, long target": lambda server: server.call("explain", [film(server), "gradcam", server.model, URL * 20]),
    "call, nested": lambda server: server.call("classify", [json.loads("[" * 300 + f'"{NAME}"' + "]" * 300)]),
    "call, nested file": lambda server: server.call("classify", [[[film(server)]]]),
    "call, path of bytes": lambda server: server.call("classify", [{"path": f"a\0{NAME}", "meta": FILE}]),
    "call, long path": lambda server: server.call("classify", [{"path": NAME * 1000, "meta": FILE}]),
    "call, path is a list": lambda server: server.call("classify", [{"path": [URL], "meta": FILE}]),
    "batch, a stranger's path": lambda server: server.call("batch", [[film(server), stranger(server)]]),
    "batch, data in path": lambda server: server.call("batch", [[{"path": URL, "meta": FILE}]]),
    "batch, data that is none": lambda server: server.call("batch", [[f"data:{NAME}"]]),
    "batch, text": lambda server: server.call("batch", [[f"/home/{NAME}.png"]]),
    "call v2, too much": lambda server: server.call("classify", {"image": film(server), NAME: URL}, "v2/"),
    "call v2, nothing": lambda server: server.call("classify", {}, "v2/"),
    "call v2, unknown": lambda server: server.call(NAME, {"image": film(server)}, "v2/"),
    "run, past the queue": lambda server: server.run("classify", [film(server)]),
    "run, data in path": lambda server: server.run("classify", [{"path": URL, "meta": FILE}]),
    "run, a stranger's path": lambda server: server.run("explain", [stranger(server)]),
    "run, nothing": lambda server: server.run("explain", []),
    "run, unknown": lambda server: server.run(NAME, [film(server)]),
    "run, a file that is none": lambda server: server.run(
        "classify", [{"path": f"{server.path}.{NAME}", "meta": FILE}]
    ),
    "run, body is text": lambda server: server.post("run/classify", content=URL).json(),
    "run, broken JSON": lambda server: server.post("run/classify", content=f'{{"data": ["{URL}"').json(),
    "run, other content": lambda server: server.post("run/classify", data={"data": URL}).json(),
    "api, data in path": lambda server: server.post(
        "api/classify", json={"data": [{"path": URL, "meta": FILE}]}
    ).json(),
    "join, too few": lambda server: server.join(server.number("classify"), []),
    "join, data in path": lambda server: server.join(server.number("classify"), [{"path": URL, "meta": FILE}]),
    "join, unknown number": lambda server: server.join(4711, [film(server)]),
    "join, number is text": lambda server: server.join(NAME, [film(server)]),
    "join, no number": lambda server: server.join(None, [film(server)]),
    "join, session is a list": lambda server: server.join(0, [film(server)], session_hash=[URL]),
    "join, trigger is text": lambda server: server.join(0, [film(server)], trigger_id=URL),
    "join, no session": lambda server: server.post("queue/join", json={"data": [URL], "fn_index": 0}).json(),
    "component, unknown": lambda server: server.post(
        "component_server",
        json={"session_hash": NAME, "component_id": 4711, "fn_name": "accept_blobs", "data": URL},
    ).json(),
    "component, nothing": lambda server: server.post("component_server", json={NAME: URL}).json(),
    "component, blobs of nothing": lambda server: server.post(
        "component_server", files={"file": (f"{NAME}.png", PICTURE)}
    ).json(),
    "upload, other content": lambda server: server.post("upload", content=PICTURE).json(),
    "upload, no file": lambda server: server.post("upload", files={"files": (None, URL)}).json(),
    "cancel": lambda server: server.post("cancel", json={"session_hash": URL}).json(),
}
"""Not to be answered with anything but a sentence."""


def broken_off(server: Server, route: str) -> None:
    """Sends the first half of a file, and hangs up."""
    host, port = server.address.removeprefix("http://").split(":")
    head = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{NAME}.png"\r\n\r\n'.encode()
    with socket.create_connection((host, int(port))) as line:
        line.sendall(
            f"POST /gradio_api/{route} HTTP/1.1\r\nHost: {host}\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            f"Content-Length: {10 * len(PICTURE)}\r\n\r\n".encode()
            + head
            + PICTURE
        )
        time.sleep(0.5)


def everything_else(server: Server) -> dict[str, Any]:
    """Calls whose answer is a matter of taste: they must leave no trace."""
    for call in odd_calls(server):
        with suppress(*NO_ANSWER):
            call()
    return {}


def odd_calls(server: Server) -> Iterator[Callable[[], Any]]:
    for route in ("upload", "component_server", "process_recording"):
        yield partial(broken_off, server, route)
    for route in (
        f"queue/data?session_hash={NAME}",
        f"file=/home/{NAME}.png",
        f"file=http://127.0.0.1:9/{NAME}.png",
        f"proxy=http://127.0.0.1:9/{NAME}.png",
        f"call/classify/{NAME}",
        f"upload_progress?upload_id={NAME}",
        f"custom_component/{NAME}/client/component/{NAME}.js",
        f"stream/{NAME}/4711/4711/playlist.m3u8",
    ):
        yield partial(server.client.get, f"{server.address}/gradio_api/{route}")
    for dependency in server.dependencies:
        number, count = dependency["id"], len(dependency["inputs"])
        yield partial(server.join, number, [film(server)])
        for junk in (stranger(server), {"path": URL, "meta": FILE}, URL, [[URL]], {NAME: {"value": URL}}):
            yield partial(server.join, number, [junk] * count, trigger_id=4711, event_data={NAME: URL})
    yield partial(server.call, "classify", [{"path": f"http://127.0.0.1:9/{NAME}.png", "meta": FILE}])
    for name in ("../" * 20 + f"{NAME}.{NAME}", f"{NAME}\0.png", NAME * 200, ""):
        yield partial(server.post, f"upload?upload_id={NAME}", files={"files": (name, PICTURE)})
    dicom = written(made(draw("oblique", height=120, width=90), PatientName=NAME, PatientID="4711", StudyDate=NAME))
    for data in (dicom, dicom[:999]):
        sent = server.post("upload", files={"files": (f"{NAME}.dcm", data)})
        for name in ("classify", "explain"):
            yield partial(server.call, name, [{"path": sent.json()[0], "meta": FILE}])
        yield partial(server.call, "batch", [[{"path": sent.json()[0], "meta": FILE}]])
    for body in (b"\xff\xfe" + PICTURE, f"--b\r\n{NAME}\r\n".encode() + PICTURE, b""):
        for route in ("upload", "component_server", "queue/join", "process_recording"):
            for kind in ("multipart/form-data; boundary=b", "multipart/form-data", f"application/{NAME}"):
                yield partial(server.post, route, content=body, headers={"Content-Type": kind})


@dataclass(frozen=True)
class Outcome:
    """What the app answered, and what was left of it once it was stopped."""

    answers: dict[str, Any]
    written: str
    folder: Path


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Outcome:
    """Of the calls that have a name above."""
    return outcome_of(named_calls, tmp_path_factory.mktemp("served"), tiny_weights)


@pytest.fixture(scope="module", params=["named", pytest.param("odd", marks=pytest.mark.slow)])
def left(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Outcome:
    """Of the named calls, and of hundreds more."""
    if request.param == "named":
        return request.getfixturevalue("outcome")
    return outcome_of(everything_else, tmp_path_factory.mktemp("served-oddly"), tiny_weights)


def named_calls(server: Server) -> dict[str, Any]:
    answers = {}
    for name, call in {**ANSWERED, **REFUSED}.items():
        try:
            answers[name] = call(server)
        except NO_ANSWER as error:
            answers[name] = f"{type(error).__name__}"
    return answers


def outcome_of(calls: Callable[[Server], dict[str, Any]], folder: Path, tiny_weights: Path) -> Outcome:
    """Serves the app, calls it and stops it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {name: str(folder) for name in ("TMPDIR", "HOME", "XDG_CACHE_HOME")}
    environment = {**os.environ, **places, "PYTHONWARNINGS": "default", "PYTHONUNBUFFERED": "1"}
    environment["FRACTURE_WEIGHTS"] = str(tiny_weights)
    environment.pop("GRADIO_TEMP_DIR", None)
    printed = folder / "printed.txt"
    with printed.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "--port", str(port)],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    # Each call on a connection of its own: the app ends those whose body it refuses to read.
    client = httpx.Client(timeout=PATIENCE, limits=httpx.Limits(max_keepalive_connections=0))
    server = Server(f"http://127.0.0.1:{port}", client)
    try:
        server.dependencies = config(server, process)["dependencies"]
        info = client.get(f"{server.address}/gradio_api/info").json()
        server.model = info["named_endpoints"]["/classify"]["parameters"][1]["parameter_default"]
        sent = server.post("upload", files={"files": (f"{NAME}.png", PICTURE, "image/png")})
        server.path = sent.json()[0]
        answers = calls(server)
    finally:
        client.close()
        process.terminate()
        process.wait(30)
    return Outcome(answers, printed.read_text(encoding="utf-8", errors="replace"), folder)


def config(server: Server, process: subprocess.Popen) -> dict[str, Any]:
    """What the served page consists of, once it is served."""
    while process.poll() is None:
        try:
            return server.client.get(f"{server.address}/config").json()
        except httpx.HTTPError:
            time.sleep(0.5)
    raise AssertionError("the app ended before it was served")


@pytest.mark.parametrize("name", ANSWERED)
def test_what_is_left_out_takes_its_default(outcome: Outcome, name: str) -> None:
    answer = outcome.answers[name]
    told = answer.get("explanation", answer)
    assert "not for diagnosis" in told["notice"], answer
    assert told["model"]["name"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_answered_gets_a_sentence(outcome: Outcome, name: str) -> None:
    answer = outcome.answers[name]
    sentence = answer.get("error") or answer.get("detail") if isinstance(answer, dict) else answer
    assert isinstance(sentence, str), answer
    assert SENTENCE.match(sentence), sentence
    assert not any(marker in json.dumps(answer) for marker in MARKERS)


def test_nothing_of_an_upload_is_printed_or_logged(left: Outcome) -> None:
    assert "Running on" in left.written, "what is read here is what the app prints"
    found = [line for line in left.written.splitlines() if any(marker in line for marker in MARKERS)]
    assert found == []
    assert "Traceback" not in left.written


def test_nothing_of_an_upload_lies_outside_the_folder_that_is_emptied(left: Outcome) -> None:
    """Neither by the name of a file, nor by what it holds; and what lies inside has lost its name."""
    files = [path for path in left.folder.rglob("*") if path.is_file()]
    assert any(path.read_bytes() == PICTURE for path in files), "the upload itself, which is deleted within the hour"
    for path in files:
        assert not any(marker in str(path.relative_to(left.folder)) for marker in MARKERS)
        data = path.read_bytes()
        inside = any("fracture-uploads" in part for part in path.parts)
        assert inside or not any(marker.encode() in data for marker in MARKERS), path
        assert inside or PICTURE[200:400] not in data, path
