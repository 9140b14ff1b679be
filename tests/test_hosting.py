"""The demo where only what is deployed lies, and only requirements.txt is installed: as a Space, and as a container."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import cv2
import httpx
import pytest

from app.deploy import space_files
from app.imaging.examples import draw
from app.model.weights import ranked
from tests.app.test_cli import free_port, served
from tests.app.test_pipeline import valid
from tests.serving import PATIENCE

ROOT = Path(__file__).resolve().parents[1]
PORT = "7860"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's, in order: word and what follows it on one line."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def argument(word: str) -> list[str]:
    """What CMD or HEALTHCHECK runs."""
    (rest,) = [rest for name, rest in instructions() if name == word]
    return json.loads(rest[rest.index("[") :])


def ignored(name: str) -> bool:
    """Whether .dockerignore leaves a file out: the last pattern that names it, or a folder it lies in, decides."""
    parts = name.split("/")
    places = ["/".join(parts[: end + 1]) for end in range(len(parts))]
    out = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split():
        pattern = line.removeprefix("!")
        anywhere = pattern.removeprefix("**/")
        names = parts if anywhere != pattern else [place for place in places if place.count("/") == pattern.count("/")]
        if any(fnmatch(each, anywhere) for each in names):
            out = not line.startswith("!")
    return out


def copied() -> dict[str, Path]:
    """What the COPY lines take, by its place in the working folder."""
    found: dict[str, Path] = {}
    for rest in (rest for name, rest in instructions() if name == "COPY"):
        *sources, target = rest.split()
        for source in (each for pattern in sources for each in ROOT.glob(pattern)):
            for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
                if path.is_file() and not ignored(path.relative_to(ROOT).as_posix()):
                    inside = path.relative_to(source) if source.is_dir() else Path(source.name)
                    found[(Path(target) / inside).as_posix()] = path
    return found


def test_a_container_holds_what_a_space_does() -> None:
    assert copied() == space_files(ROOT)


def test_the_build_is_sent_no_more_than_it_copies() -> None:
    kept = {path.relative_to(ROOT).as_posix() for path in copied().values()}
    for name in ("training/cli.py", "tests/__init__.py", "Makefile", "app/__pycache__/cli.pyc", "docs/draw_icon.py"):
        assert ignored(name), name
        assert name not in kept


def test_the_dockerfile_keeps_to_the_rules() -> None:
    linter = Path(sys.prefix) / "bin" / "hadolint"
    if not linter.exists():
        pytest.skip("hadolint is not installed")
    found = subprocess.run([linter, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


def test_a_container_runs_without_rights_where_it_says() -> None:
    told = dict(instructions())
    user = told["USER"].split(":")[0]
    assert user not in ("root", "0")
    assert told["EXPOSE"] == PORT
    assert f":{PORT}/" in argument("HEALTHCHECK")[-1]
    assert "--port" not in argument("CMD"), "the default is the one that is exposed"


def interpreter(version: str) -> str:
    """A Python of a version that starts; skips the test where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    places = [shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"versions/{version}.*/bin/python")))]
    for place in filter(None, places):
        told = subprocess.run([place, "-c", "import sys; print(*sys.version_info[:2], sep='.')"], capture_output=True)
        if told.stdout.decode().strip() == version:
            return place
    pytest.skip(f"there is no Python {version}")


@dataclass(frozen=True)
class Place:
    """A folder with a demo in it, and the environment that runs it."""

    folder: Path
    python: Path

    @property
    def environment(self) -> dict[str, str]:
        """The machine's, without what would bring other models, modules or settings."""
        foreign = ("FRACTURE_", "PYTHON", "GRADIO_", "VIRTUAL_ENV")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        path = f"{self.python.parent}{os.pathsep}{kept.get('PATH', '')}"
        return {**kept, "PATH": path, "HOME": str(self.folder.parent), "GRADIO_ANALYTICS_ENABLED": "False"}


def run(place: Place, *command: str | Path, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd or place.folder, env=place.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def made(version: str, base: Path, files: dict[str, Path]) -> Place:
    """The files alone in a folder, beside a fresh environment in which something can be installed."""
    place = Place(base / "demo", base / "venv" / "bin" / "python")
    subprocess.run([interpreter(version), "-m", "venv", base / "venv"], check=True, capture_output=True)
    one = next(line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("typer"))
    tried = [place.python, "-m", "pip", "install", "--quiet", one]
    if subprocess.run(tried, env={**os.environ, "PYTHONPATH": ""}, capture_output=True).returncode:
        pytest.skip("no package can be installed here")
    for name, path in files.items():
        (place.folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place.folder / name)
    return place


@contextmanager
def started(place: Place, *command: str, port: int) -> Iterator[str]:
    process = subprocess.Popen(
        command,
        cwd=place.folder,
        env={**place.environment, "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert served(port, process), process.communicate()[0]
        yield f"http://127.0.0.1:{port}/gradio_api"
    finally:
        process.kill()
        process.communicate()


def answers(api: str) -> None:
    """Asks for a drawn X-ray, as the guide does."""
    png = cv2.imencode(".png", draw("oblique", seed=2))[1].tobytes()
    path = httpx.post(f"{api}/upload", files={"files": ("xray.png", png)}, timeout=PATIENCE).json()[0]
    asked = httpx.post(f"{api}/call/classify", json={"data": [{"path": path}]}, timeout=PATIENCE).json()
    told = httpx.get(f"{api}/call/classify/{asked['event_id']}", timeout=PATIENCE).text
    (answer,) = json.loads(re.findall(r"^data: (.*)$", told, re.M)[-1])
    valid(answer)
    assert answer["model"]["name"] == ranked()[0]


@pytest.mark.hosting
def test_a_space_answers_from_its_files_alone(tmp_path: Path) -> None:
    place = made("3.10", tmp_path, space_files(ROOT))
    uv = shutil.which("uv")
    install = [uv, "pip", "install", "--python", place.python] if uv else [place.python, "-m", "pip", "install"]
    run(place, *install, "--quiet", "--requirement", "requirements.txt")
    port = free_port()
    with started(place, "python", "space.py", port=port) as api:
        answers(api)


@pytest.mark.hosting
def test_the_dockerfile_s_steps_make_a_space_and_a_server_that_answer(tmp_path: Path) -> None:
    (base,) = [rest for name, rest in instructions() if name == "FROM"]
    place = made(base.removeprefix("python:").removesuffix("-slim"), tmp_path, copied())
    for step in (rest for name, rest in instructions() if name == "RUN"):
        run(place, *shlex.split(step))
    port = free_port()
    with started(place, *argument("CMD"), "--port", str(port), port=port) as api:
        answers(api)
        run(place, *(word.replace(PORT, str(port)) for word in argument("HEALTHCHECK")))
    port = free_port()
    with started(place, "python", "space.py", port=port) as api:
        answers(api)
