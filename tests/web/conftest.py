"""The page without a server, exported once and visited in Chromium; and JavaScript by itself, in Node."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import web_export
from app.errors import DeployError
from app.model.classifier import Classifier
from tests.browser.conftest import browser  # noqa: F401 - a fixture

MODEL = "resnet18-pyramid"
SOURCES = Path("app/web").resolve()


class Served(http.server.ThreadingHTTPServer):
    """Files of a folder on this machine, and a record of what was asked: method, path and length of the body."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[tuple[str, str, int]] = []
        super().__init__(("127.0.0.1", 0), functools.partial(Recorder, directory=str(folder)))
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Recorder(http.server.SimpleHTTPRequestHandler):
    def parse_request(self) -> bool:
        whole = super().parse_request()
        assert isinstance(self.server, Served)
        if whole:
            self.server.asked.append((self.command, self.path, int(self.headers.get("content-length") or 0)))
        return whole

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What npm fetches for the page."""
    if shutil.which("npm") is None:
        pytest.skip("no npm on this machine")
    try:
        return web_export._packages(tmp_path_factory.mktemp("npm"))
    except DeployError as error:
        pytest.skip(f"npm cannot be asked: {error}")


@pytest.fixture(scope="session")
def exporting(packages: Path) -> Iterator[Callable[..., Path]]:
    """Exports a model to a folder, with npm's packages at hand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web_export, "_packages", lambda folder: packages)

        def export(name: str, weights: Path, folder: Path) -> Path:
            web_export.export_web(name, weights, folder)
            return folder

        yield export


@pytest.fixture(scope="session")
def exported(exporting: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model's page."""
    return exporting(MODEL, Path("weights"), tmp_path_factory.mktemp("web") / "page")


@pytest.fixture(scope="session")
def shipped() -> Classifier:
    return Classifier.load(MODEL, Path("weights"))


@pytest.fixture
def served(exported: Path) -> Iterator[Served]:
    server = Served(exported)
    yield server
    server.close()


@pytest.fixture(scope="session")
def in_node() -> Callable[..., Any]:
    """Runs lines that import from the page's sources by ``./`` and give ``answer``; returns it through JSON."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js on this machine")

    def run(lines: str, **values: Any) -> Any:
        script = f"{lines}\nprocess.stdout.write(JSON.stringify(answer));"
        start = "const given = JSON.parse(await new Response(process.stdin).text());\n"
        told = [node, "--input-type=module", "-e", start + script.replace('"./', f'"file://{SOURCES}/')]
        ran = subprocess.run(told, input=json.dumps(values), capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    return run
