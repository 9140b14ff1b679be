"""The page for programs: agents by the Model Context Protocol, phones that install it, and what a full queue says."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import shutil
import subprocess
import time
import zipfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import cv2
import gradio as gr
import httpx
import numpy as np
import pytest
from gradio.utils import get_upload_folder
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from typer.testing import CliRunner

from app import cli
from app.errors import Cancelled
from app.explain import perturbation
from app.explain.methods import METHODS
from app.imaging.examples import draw
from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier
from app.ui import batch, busy
from app.ui.busy import BUSY, bound_queue, until_free
from tests.app.test_pipeline import valid
from tests.serving import PATIENCE, launch, until

GUIDE = Path("docs/api.md").read_text(encoding="utf-8")
PICTURE = draw("spiral", seed=4)
PNG = cv2.imencode(".png", PICTURE)[1].tobytes()
URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


def talk(address: str, conversation: Callable[[Any], Awaitable[Any]]) -> Any:
    """What an agent gets out of a conversation with the page."""
    mcp = pytest.importorskip("mcp", reason="the extra 'mcp' is not installed")
    from mcp.client.streamable_http import streamable_http_client

    async def run() -> Any:
        async with (
            streamable_http_client(f"{address}gradio_api/mcp/") as (read, write, _),
            mcp.ClientSession(read, write) as session,
        ):
            await session.initialize()
            return await conversation(session)

    return asyncio.run(run())


@pytest.fixture(scope="module")
def page(classifier: Classifier) -> Iterator[gr.Blocks]:
    page, _ = launch([classifier], mcp=find_spec("mcp") is not None)
    yield page
    page.close()


@pytest.fixture
def address(page: gr.Blocks) -> str:
    assert page.local_url
    return page.local_url


def test_an_agent_is_told_what_each_tool_does(address: str) -> None:
    tools = {tool.name: tool for tool in talk(address, lambda agent: agent.list_tools()).tools}
    assert tools.keys() == {"classify", "explain", "batch", "methods"}
    for name, needed in {"classify": "image", "explain": "image", "batch": "images"}.items():
        schema = tools[name].inputSchema
        assert schema["required"] == [needed]
        assert all(argument.get("description") for argument in schema["properties"].values()), schema
        assert "diagnosis" in tools[name].description
        assert "Returns: JSON" in tools[name].description


def test_an_agent_gets_the_answers_of_the_pipeline(address: str, classifier: Classifier) -> None:
    async def ask(agent: Any) -> list[Any]:
        listed = await agent.call_tool("methods", {})
        verdict = await agent.call_tool("classify", {"image": URL})
        shown = await agent.call_tool("explain", {"image": URL, "target": "oblique"})
        return [listed, verdict, shown]

    listed, verdict, shown = talk(address, ask)
    assert not any(answer.isError for answer in (listed, verdict, shown)), (listed, verdict, shown)
    assert [each["name"] for each in json.loads(listed.content[0].text)["methods"]] == list(METHODS)
    told = json.loads(verdict.content[0].text)
    explanation = classifier.explain([Radiograph(PICTURE, (0, 255))])[0]
    valid(told)
    assert told["prediction"]["type"] == explanation.prediction.best
    text, picture = shown.content
    assert json.loads(text.text)["explanation"]["map"]["target"] == "oblique"
    grey = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.data))))
    assert picture.mimeType == "image/png"
    assert np.abs(grey / 255.0 - explanation.heat("oblique")).max() < 0.02


def test_an_agent_asks_about_many_at_once(address: str) -> None:
    photograph = "data:image/png;base64," + base64.b64encode(b"<html>").decode()
    answer = talk(address, lambda agent: agent.call_tool("batch", {"images": [URL, photograph]}))
    assert not answer.isError, answer
    rows = json.loads(answer.content[0].text)["results"]
    assert [row["state"] for row in rows] == ["explained", "failed"]


def test_an_agent_is_refused_with_a_sentence(address: str) -> None:
    async def ask(agent: Any) -> list[Any]:
        page = "data:image/png;base64," + base64.b64encode(b"<html>").decode()
        arguments = [{"image": page}, {"image": URL, "method": "guess"}, {"image": "http://127.0.0.1:9/Doe-4711.png"}]
        return [await agent.call_tool("explain", each) for each in arguments]

    answers = talk(address, ask)
    assert all(answer.isError for answer in answers)
    no_picture, no_method, no_file = (answer.content[0].text for answer in answers)
    assert "not a picture that can be read" in no_picture
    assert "There is no method 'guess'" in no_method
    assert "could not be understood" in no_file


def test_what_an_agent_sends_lies_where_it_is_deleted(address: str) -> None:
    talk(address, lambda agent: agent.call_tool("classify", {"image": URL}))
    from gradio import mcp

    assert Path(mcp.DEFAULT_TEMP_DIR).resolve() == Path(get_upload_folder()).resolve()
    assert any(path.read_bytes() == PNG for path in Path(get_upload_folder()).rglob("*.png"))


def test_without_the_extra_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    answer = CliRunner().invoke(cli.cli, ["serve", "--mcp"])
    assert answer.exit_code == 1
    assert re.fullmatch(r"--mcp needs a package that is not installed\. .*'\.\[mcp\]'\.\n", answer.output)


def test_a_phone_can_install_the_page(address: str) -> None:
    """By its name, its icon and its colour; nothing says that it works without a network."""
    page = httpx.get(address, timeout=PATIENCE).text
    assert re.search(r'<link[^>]*rel="manifest"[^>]*href="[./]*manifest\.json"', page)
    config = httpx.get(f"{address}config", timeout=PATIENCE).json()
    assert '<meta name="theme-color" content="#0f766e">' in config["head"]
    manifest = httpx.get(f"{address}manifest.json", timeout=PATIENCE).json()
    assert manifest["name"] == "Fracture types, explained"
    assert manifest["display"] == "standalone"
    assert {icon["sizes"] for icon in manifest["icons"]} == {"192x192", "512x512"}
    for icon in manifest["icons"]:
        picture = Image.open(io.BytesIO(httpx.get(f"{address}{icon['src'].lstrip('/')}", timeout=PATIENCE).content))
        assert picture.format == "PNG"
        assert "x".join(map(str, picture.size)) == icon["sizes"]
        assert np.ptp(np.asarray(picture.convert("RGB")).astype(int), axis=2).max() > 60, "there is heat on it"


class Asker:
    """Somebody who asks by hand, the API or as the page does, and may hang up."""

    def __init__(self, address: str) -> None:
        self.api = f"{address}gradio_api/"
        files = {"files": ("arm.png", PNG)}
        path = httpx.post(f"{self.api}upload", files=files, timeout=PATIENCE).json()[0]
        self.image = {"path": path, "meta": {"_type": "gradio.FileData"}}

    def ask(self, method: str = "gradcam") -> httpx.Response:
        return httpx.post(f"{self.api}call/explain", json={"data": [self.image, method]}, timeout=PATIENCE)

    def answer(self, asked: httpx.Response) -> Any:
        where = f"{self.api}call/explain/{asked.json()['event_id']}"
        text = httpx.get(where, timeout=PATIENCE).text
        return json.loads(re.findall(r"^data: (.*)$", text, re.M)[-1])

    def hang_up(self, asked: httpx.Response) -> None:
        """Begins to listen for the answer, and goes."""
        self._listen_in_vain(f"call/explain/{asked.json()['event_id']}")

    def press(self, page: gr.Blocks, handler: str, data: list[Any], session: str) -> None:
        number = next(i for i, event in page.fns.items() if getattr(event.fn, "__name__", "") == handler)
        body = {"data": data, "fn_index": number, "session_hash": session}
        httpx.post(f"{self.api}queue/join", json=body, timeout=PATIENCE).raise_for_status()

    def see(self, session: str) -> str:
        return httpx.get(f"{self.api}queue/data?session_hash={session}", timeout=PATIENCE).text

    def leave(self, session: str) -> None:
        self._listen_in_vain(f"queue/data?session_hash={session}")

    def _listen_in_vain(self, where: str) -> None:
        with httpx.stream("GET", f"{self.api}{where}", timeout=PATIENCE) as answer:
            assert answer.is_success


STOPPED = "This was stopped before it was done."
"""Not because its time was over."""


class Slow:
    """Stands for a method that goes on until it is stopped; counts who is at it."""

    def __init__(self) -> None:
        self.begun = self.ended = 0
        self.released = False
        self.words = ""

    def __call__(self, network: Any, pixels: Any, black: Any, square: Any, target: int, watch: Any) -> np.ndarray:
        self.begun += 1
        try:
            while not self.released:
                watch.step(0.5)
                time.sleep(0.02)
        except Cancelled as error:
            self.words = str(error)
            raise
        finally:
            self.ended += 1
        return np.ones((4, 4), np.float32)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    slow = Slow()
    monkeypatch.setattr(perturbation, "lime", slow)
    return slow


@pytest.fixture
def asker(address: str) -> Asker:
    return Asker(address)


def test_a_full_queue_says_when_to_try_again(
    page: gr.Blocks, asker: Asker, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page._queue, "max_size", 1)
    running = [asker.ask("lime") for _ in range(2)]
    until(lambda: slow.begun == 2)
    waiting = asker.ask("lime")
    assert waiting.is_success
    refused = asker.ask()
    assert refused.status_code == 429
    seconds = refused.headers["Retry-After"]
    assert int(seconds) >= 1
    assert refused.json() == {"detail": BUSY.format(waiting=1, seconds=seconds)}
    slow.released = True
    for asked in (*running, waiting, asker.ask()):
        assert asker.answer(asked)[0]["explanation"]["prediction"]["type"]


def many(address: str, files: Sequence[tuple[str, bytes]], **wanted: Any) -> Any:
    """What the page says of many files at once: rows, or the sentence of a refusal."""
    page = Client(address, verbose=False)
    with TemporaryDirectory() as folder:
        for name, data in files:
            (Path(folder) / name).write_bytes(data)
        try:
            paths = [handle_file(Path(folder) / name) for name, _ in files]
            return page.predict(paths, **wanted, api_name="/batch")["results"]
        except AppError as error:
            return str(error)


def test_many_images_are_answered_one_by_one(address: str, classifier: Classifier) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("left/arm.png", PNG)
        files.writestr("notes.txt", "no picture")
    noise = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))[1].tobytes()
    sent = [("Doe-4711.png", PNG), ("page.png", b"<html>"), ("both.zip", archive.getvalue()), ("noise.png", noise)]
    rows = many(address, sent)
    assert [row["name"] for row in rows] == ["1", "2", "3/left/arm.png", "4"], "no file's name is needed"
    assert [row["state"] for row in rows[:3]] == ["explained", "failed", "explained"]
    assert "not a picture that can be read" in rows[1]["notes"]
    assert rows[1]["explanation"] is None
    best = classifier.explain([Radiograph(PICTURE, (0, 255))])[0].prediction.best
    for row in (rows[0], rows[2]):
        valid(row["explanation"])
        assert row["explanation"]["prediction"]["type"] == best


def test_too_many_images_and_none_are_refused_with_a_sentence(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MOST", 2)
    assert many(address, [(f"{number}.png", PNG) for number in range(3)]) == batch.TOO_MANY.format(count=3, most=2)
    assert many(address, []) == batch.NO_PICTURE
    assert "There is no model 'x'" in many(address, [("a.png", PNG)], model="x")


@pytest.mark.parametrize("place", ["/etc/hostname", "/etc", "folder"])
def test_only_files_that_were_uploaded_are_read(asker: Asker, place: str) -> None:
    """Not even the folder of all uploads, in which those of others lie."""
    path = get_upload_folder() if place == "folder" else place
    asked = httpx.post(f"{asker.api}call/batch", json={"data": [[asker.image, {"path": path}]]}, timeout=PATIENCE)
    answer = httpx.get(f"{asker.api}call/batch/{asked.json()['event_id']}", timeout=PATIENCE).text
    assert "event: error" in answer
    assert "explanation" not in answer


def test_nobody_gets_past_the_queue(asker: Asker) -> None:
    answer = httpx.post(f"{asker.api}run/classify", json={"data": [asker.image]}, timeout=PATIENCE)
    assert answer.status_code == 404
    assert "join the queue" in answer.json()["detail"]


def test_the_time_to_wait_is_that_of_who_waits() -> None:
    with gr.Blocks() as page:
        gr.api(lambda: None, api_name="quick", concurrency_id="a", concurrency_limit=2)
        gr.api(lambda: None, api_name="slow", concurrency_id="b", concurrency_limit=2)
    bound_queue(page)
    queue = page._queue
    assert until_free(queue) == 1
    quick, slow = page.fns.values()
    for function in (quick, slow):
        queue.create_event_queue_for_fn(function)
    lines = queue.event_queue_per_concurrency_id
    lines["a"].queue = [SimpleNamespace(fn=quick)] * 8  # ty: ignore[invalid-assignment]
    assert until_free(queue) == busy.UNKNOWN * 8 / 2
    queue.process_time_per_fn[quick].add(3.0)
    assert until_free(queue) == 3 * 8 / 2
    lines["a"].start_times_per_fn[quick].add(time.time() - 100)
    assert until_free(queue) == 3 * 8 / 2, "what takes longer than usual may be done at any moment"
    queue.process_time_per_fn[slow].add(1e6)
    lines["b"].queue = [SimpleNamespace(fn=slow)]  # ty: ignore[invalid-assignment]
    assert until_free(queue) == 3 * 8 / 2
    lines["a"].queue = []
    assert until_free(queue) == busy.LIMIT


def test_work_for_the_api_ends_when_who_asked_hangs_up(asker: Asker, slow: Slow) -> None:
    asked = asker.ask("lime")
    until(lambda: slow.begun == 1)
    asker.hang_up(asked)
    until(lambda: slow.ended == 1)
    assert slow.words == STOPPED


def test_work_for_the_page_ends_when_who_asked_leaves(
    page: gr.Blocks, asker: Asker, slow: Slow, classifier: Classifier
) -> None:
    model = classifier.card.name
    asker.press(page, "explain_files", [[asker.image], model, "gradcam", "inferno", 0.6, True, True], "visitor")
    assert '"success":true' in asker.see("visitor")
    asker.press(page, "compare", [None, "", "", ["lime"], [model]], "visitor")
    until(lambda: slow.begun == 1)
    asker.leave("visitor")
    until(lambda: slow.ended == 1)
    assert slow.words == STOPPED


def printed(language: str, address: str) -> str:
    """A snippet of the guide as it stands there, but for the address."""
    (snippet,) = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.S)
    assert "http://127.0.0.1:7860" in snippet
    return snippet.replace("http://127.0.0.1:7860", address.rstrip("/"))


@pytest.fixture
def told(classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The verdict on an X-ray that lies in the working folder under the guide's name."""
    (tmp_path / "xray.png").write_bytes(PNG)
    monkeypatch.chdir(tmp_path)
    return classifier.explain([Radiograph(PICTURE, (0, 255))])[0].prediction.best


def test_the_guide_s_python_runs(address: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(printed("python", address), "api.md", "exec"), {})
    verdict, shown = capsys.readouterr().out.splitlines()
    assert verdict.split()[0] == told
    assert shown == "layercam data:image/png;base64,"


def test_the_guide_s_curl_runs(address: str, told: str) -> None:
    if not shutil.which("curl"):
        pytest.skip("there is no curl")
    run = subprocess.run(["sh", "-c", printed("sh", address)], capture_output=True, text=True, timeout=PATIENCE)
    answer = json.loads(run.stdout.split("data: ")[-1])[0]
    valid(answer)
    assert answer["prediction"]["type"] == told


@pytest.mark.slow
def test_the_guide_s_javascript_runs(address: str, told: str, tmp_path: Path) -> None:
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("there is no node, or no npm")
    install = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "@gradio/client"], capture_output=True)
    if install.returncode:
        pytest.skip("npm cannot install @gradio/client here")
    (tmp_path / "ask.mjs").write_text(printed("js", address), encoding="utf-8")
    run = subprocess.run(["node", "ask.mjs"], capture_output=True, text=True, timeout=PATIENCE)
    assert run.returncode == 0, run.stderr
    verdict, shown = run.stdout.splitlines()
    assert verdict.split()[0] == told
    assert shown == "layercam data:image/png;base64,"


def test_the_guide_tells_every_endpoint_and_limit(page: gr.Blocks) -> None:
    endpoints = page.get_api_info()["named_endpoints"]
    rows = re.findall(r"^\| `(/\w+)` \| ([^|]*) \|", GUIDE, re.M)
    assert {name: re.findall(r"`(\w+)`", takes) for name, takes in rows} == {
        name: [parameter["parameter_name"] for parameter in its["parameters"]] for name, its in endpoints.items()
    }
    assert f"{busy.WAITING} requests wait at most" in GUIDE
    assert f"longer than {busy.LIMIT:.0f} seconds" in GUIDE
