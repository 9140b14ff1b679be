"""What the documents say can be done: README commands run here, and every page is what the report renders."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import kagglehub
import pytest
import typer
import yaml
from click.testing import Result
from typer.testing import CliRunner

from app.cli import cli as app_cli
from app.imaging.examples import draw
from app.model.weights import load_card, percent
from tests.app.test_cli import free_port, served
from tests.conftest import SHIPPED
from tests.training.toys import JOINT
from training.cli import cli as training_cli
from training.data import download as downloads
from training.fitting import cross_validation
from training.studies.report import PAGES, fill, pages

README = Path("README.md").read_text(encoding="utf-8")
DOCUMENTS = [Path("README.md"), Path("CONTRIBUTING.md"), *(Path("docs") / f"{name}.md" for name in PAGES)]
PYTHON = "\n".join(re.findall(r"```python\n(.*?)```", README, re.S))


def commands(text: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]


MAKE = [line for line in commands(README) if line.startswith("make ")]
APP = [line for line in commands(README) if " -m app " in line]
TRAINING = [line for line in commands(README) if " -m training " in line]


def help_of(cli: typer.Typer, words: list[str]) -> Result:
    return CliRunner().invoke(cli, [*words, "--help"])


def made(target: str) -> list[str]:
    """What make would run, and does not."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    told = subprocess.run(["make", "-n", target], capture_output=True, text=True, check=True, env=environment)
    return told.stdout.splitlines()


@pytest.fixture
def xray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A drawn X-ray under the README's name, in the folder where the test then works."""
    path = tmp_path / "xray.png"
    cv2.imwrite(str(path), draw("oblique", seed=2))
    monkeypatch.chdir(tmp_path)
    return path


def test_every_command_is_tried() -> None:
    assert sorted(commands(README)) == sorted([*MAKE, *APP, *TRAINING])
    assert MAKE == ["make demo", "make test"]


def test_make_demo_serves_the_page(tiny_weights: Path) -> None:
    *_, last = made("demo")
    words = shlex.split(last)
    assert words[0].endswith("bin/python")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, *words[1:], "--port", str(port)],
        env={**os.environ, "FRACTURE_WEIGHTS": str(tiny_weights)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        found = served(port, process)
    finally:
        process.kill()
        output = process.communicate()[0]
    assert found, output


def test_make_test_checks_and_tests() -> None:
    told = "\n".join(made("test"))
    for tool in ("ruff check", "ruff format --check", "ty check", "-m pytest"):
        assert tool in told


def _shape(line: str) -> str:
    """A line of the command line's output without the figures and types, which depend on the weights."""
    types = "|".join(sorted((kind.name for kind in load_card(SHIPPED[0]).classes), key=len, reverse=True))
    return re.sub(r"\d+", "N", re.sub(types, "TYPE", line))


def test_the_command_line_answers_as_shown(xray: Path) -> None:
    words = shlex.split(APP[0])
    assert words[:3] == [".venv/bin/python", "-m", "app"]
    answer = CliRunner().invoke(app_cli, words[3:])
    assert answer.exit_code == 0, answer.output
    shown = re.search(r"```\n(xray\.png: .*)\n```", README)
    assert shown
    assert _shape(answer.output.strip()) == _shape(shown[1])
    written = {path.name for path in (xray.parent / "explanations" / "xray").iterdir()}
    assert written == {"overlay.png", "heatmap.png", "explanation.json"}


def test_the_lines_of_python_run(xray: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = xray.parent / "explanations"
    folder.mkdir()
    exec(compile(PYTHON, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip() in {kind.name for kind in load_card(SHIPPED[0]).classes}
    assert {"overlay.png", "heatmap.png", "explanation.json"} <= {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_a_network_is_trained_as_shown(drawn_atlas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On drawn X-rays that stand in for what the publishers send, by a recipe of seconds."""
    recipe = Path(shlex.split(TRAINING[-1])[-1])
    assert recipe.is_file()
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", drawn_atlas / "FracAtlas"))
    checksum = hashlib.md5(packed.read_bytes(), usedforsecurity=False).hexdigest()
    listed = {"name": "FracAtlas.zip", "download_url": packed.as_uri(), "computed_md5": checksum}
    (tmp_path / "article.json").write_text(json.dumps({"files": [listed]}))
    monkeypatch.setattr(downloads, "FIGSHARE", (tmp_path / "article.json").as_uri())
    monkeypatch.setattr(kagglehub, "dataset_download", lambda handle: str(drawn_atlas / "bone-break"))
    kept = functools.partial(cross_validation.record, results=tmp_path / "results")
    monkeypatch.setattr(cross_validation, "record", kept)
    monkeypatch.delenv("FRACTURE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    recipe.parent.mkdir(parents=True)
    recipe.write_text(yaml.safe_dump(JOINT.model_copy(update={"name": recipe.stem}).model_dump(mode="json")))
    for command in TRAINING:
        answer = CliRunner().invoke(training_cli, shlex.split(command)[3:])
        assert answer.exit_code == 0, answer.output
    assert "out-of-fold accuracy" in answer.output
    assert (tmp_path / "results" / "folds" / f"{recipe.stem}.json").is_file()


@pytest.mark.parametrize("command", commands(Path("docs/training.md").read_text(encoding="utf-8")))
def test_training_commands_exist(command: str) -> None:
    words = shlex.split(command)
    assert words[:2] == [".venv/bin/python", "-m"]
    answer = help_of({"training": training_cli, "app": app_cli}[words[2]], words[3:4])
    assert answer.exit_code == 0
    for option in (word for word in words if word.startswith("--")):
        assert option in re.sub(r"\x1b\[[0-9;]*m", "", answer.output)
    for path in (word for word in words if word.startswith("training/")):
        assert Path(path).is_file()


def test_commands_named_in_the_pages_exist() -> None:
    named = {name for path in DOCUMENTS for name in re.findall(r"-m training ([a-z-]+)", path.read_text("utf-8"))}
    assert {"audit", "report", "localise"} <= named
    for name in named:
        assert help_of(training_cli, [name]).exit_code == 0, name


@pytest.mark.parametrize(("name", "count"), [("train", 8), ("train-all", 11)])
def test_everything_is_trained_by_commands_that_exist(name: str, count: int) -> None:
    target = re.search(rf"^{name}:.*?\n\n", Path("Makefile").read_text(), re.M | re.S)
    assert target
    found = re.findall(r"\$\(TRAIN\) (\S+)([^\n]*)", target[0])
    assert len(found) == count
    for command, rest in found:
        answer = help_of(training_cli, [command])
        assert answer.exit_code == 0, command
        for option in re.findall(r"--\w+", rest):
            assert option in re.sub(r"\x1b\[[0-9;]*m", "", answer.output), option


def test_pages_cards_and_readme_are_the_reports() -> None:
    rendered = pages(Path())
    written = [
        *(Path("docs") / f"{name}.md" for name in PAGES),
        *(Path("weights") / name / "README.md" for name in SHIPPED),
        *Path("weights").glob("*/sources.json"),
        Path("weights") / "data.json",
    ]
    assert set(rendered) == {Path("README.md"), *written}
    for path, text in rendered.items():
        assert path.read_text(encoding="utf-8") == text, path


def test_figures_in_the_readmes_sentences_are_those_that_were_measured() -> None:
    runs = json.loads(next(Path("training/recipes").rglob("results.json")).read_text(encoding="utf-8"))
    leak = runs["leak-resnet18-random"]
    audit = json.loads(Path("training/data/audits/bone-break.json").read_text(encoding="utf-8"))
    shipped = re.search(r"report: headline -->\n\| (.+?) \|", README)
    assert shipped
    card = next(card for card in map(load_card, SHIPPED) if card.title == shipped[1])
    calibrated = card.metrics["cross_validation"]["expected_calibration_error"]["bins"][4]
    text = " ".join(README.split())
    assert f"{percent(leak['published']['accuracy']['value'], 1)} on a random split" in text
    assert f"and {percent(leak['leak_free']['accuracy']['value'], 1)} once near-duplicates" in text
    assert percent(runs["resnet50-128"]["claimed"], 1) in text
    tied = audit["near_duplicates"]["across_parts"]["test images with a near-duplicate in train"]
    assert f"Up to {tied} of the {audit['by_part']['test']} official test images" in text
    assert f"of the {calibrated['images']} images called with 40 to 50 %" in text
    assert f"{percent(calibrated['accuracy'], 1)} carry that label" in text


@pytest.mark.parametrize("name", SHIPPED)
def test_model_cards_explain_with_their_own_model(name: str) -> None:
    text = (Path("weights") / name / "README.md").read_text(encoding="utf-8")
    for command in re.findall(r"```sh\n(.*?)\n```", text, re.S):
        assert shlex.split(command)[:5] == [".venv/bin/python", "-m", "app", "explain", "xray.png"]
        assert f"--model {name}" in command


def test_filled_tables_replace_only_themselves() -> None:
    text = "a\n<!-- report: x -->\n<!-- end -->\nb\n<!-- report: y -->\nold\n<!-- end -->\nc"
    once = fill(text, {"x": "1", "y": "2"})
    assert once == "a\n<!-- report: x -->\n1\n<!-- end -->\nb\n<!-- report: y -->\n2\n<!-- end -->\nc"
    assert fill(once, {"x": "1", "y": "2"}) == once


def test_the_readme_takes_two_minutes() -> None:
    assert len(README.split()) <= 1100


def test_spaces_can_start_it() -> None:
    front = yaml.safe_load(README.split("---")[1])
    pins = dict(line.split("==") for line in Path("requirements.txt").read_text().splitlines() if "==" in line)
    assert front["sdk"] == "gradio"
    assert front["sdk_version"] == pins["gradio"]
    assert Path(front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60


def test_names_in_the_guide_exist() -> None:
    text = " ".join(Path("CONTRIBUTING.md").read_text(encoding="utf-8").split())
    named = re.findall(r"((?:`\w+` and )?`\w+`) (?:in|of) \[(\S+?\.py)\]", text)
    assert len(named) == 5
    for names, path in named:
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^(def |class )?{name}\b", Path(path).read_text(encoding="utf-8"), re.M), (name, path)


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            assert (path.parent / target).exists(), target
