"""What ``pip install .`` leaves behind works far from the tree it was made of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import cv2
import pytest

from app.imaging.examples import draw
from app.model.weights import available, ranked

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
BUILT_OF = (
    "app",
    "training",
    "weights",
    "docs",
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "requirements.txt",
    "setup.py",
)
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"


def build(what: str, folder: Path) -> Path:
    """A distribution, made where nothing that was built before can get into it."""
    tree, dist = folder / "tree", folder / "dist"
    tree.mkdir()
    for name in BUILT_OF:
        (tree / name).symlink_to(ROOT / name)
    subprocess.run([sys.executable, "-c", BUILD, what, str(dist)], cwd=tree, check=True, capture_output=True)
    return next(dist.iterdir())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("build_wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel holds, which is all that installing a wheel without compiled parts copies."""
    target = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(target)
    return target


def run(installed: Path, folder: Path, code: str, *arguments: str) -> str:
    """What code prints in another folder, where the installed package comes before any other."""
    environment = {name: value for name, value in os.environ.items() if name != "FRACTURE_WEIGHTS"}
    code = f"import sys; sys.path.insert(0, {str(installed)!r})\n{code}"
    call = [sys.executable, "-c", code, *arguments]
    return subprocess.run(call, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout


START = """
from importlib.metadata import distribution
(point,) = [point for point in distribution("fracture-explained").entry_points if point.name == "fracture-explained"]
start = point.load()
import app
from pathlib import Path
assert Path(app.__file__).is_relative_to(sys.path[0]), app.__file__
start(sys.argv[1:])
"""


def test_an_installed_package_explains_anywhere(installed: Path, tmp_path: Path) -> None:
    film = tmp_path / "arm.png"
    cv2.imwrite(str(film), draw("oblique"))
    run(installed, tmp_path, START, "explain", "arm.png", "--out", "out", "--anyway")
    summary = json.loads((tmp_path / "out" / "arm" / "explanation.json").read_text())
    assert summary["model"]["name"] == ranked()[0]
    assert cv2.imread(str(tmp_path / "out" / "arm" / "overlay.png")) is not None


def test_an_installed_page_tells_all_that_the_tree_s_does(installed: Path, tmp_path: Path) -> None:
    code = """
import json
from app.explain import faithfulness
from app.ui import about
from app.ui.languages import LANGUAGES
from app.ui.page import SCRIPT, STYLE
from app.model.weights import load_card, ranked
cards = [about.whole_card(load_card(name)) for name in ranked()]
figures = [faithfulness.measured(name) for name in ranked()]
pages = [about.page(name) for name in ("data", "results", "faithfulness")]
print(json.dumps([ranked(), cards, figures, pages, STYLE.read_text(), SCRIPT.read_text(), LANGUAGES]))
"""
    here = run(ROOT, tmp_path, code)
    assert len(json.loads(here)[0]) == len(available())
    assert run(installed, tmp_path, code) == here


def test_the_sdist_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build("build_sdist", tmp_path)) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.glob("fracture_explained-*")
    subprocess.run([sys.executable, "-c", BUILD, "build_wheel", str(tree)], cwd=tree, check=True, capture_output=True)
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(tree / wheel.name) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())
        metadata = first.read(next(name for name in first.namelist() if name.endswith("/METADATA"))).decode()
    wanted = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    kept = [each for each in message_from_string(metadata).get_all("Requires-Dist", []) if "extra ==" not in each]
    assert len(kept) == len(wanted)
