"""The README cannot rot: its commands exist, its figures are the card's, its picture is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml
from click.testing import Result
from typer.testing import CliRunner

from app.cli import cli as app_cli
from app.model.weights import available, load_card
from training.cli import cli as training_cli
from training.release.model_card import model_card
from training.studies.report import fill, page_text, tables

README = Path("README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.S)
COMMANDS = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines()]


def help_of(cli: typer.Typer, words: list[str]) -> Result:
    return CliRunner().invoke(cli, [*words, "--help"])


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", Path("Makefile").read_text(), re.M)
        return
    assert words[:2] == [".venv/bin/python", "-m"]
    cli = {"app": app_cli, "training": training_cli}[words[2]]
    answer = help_of(cli, words[3:4])
    assert answer.exit_code == 0
    for option in (word for word in words if word.startswith("--")):
        assert option in re.sub(r"\x1b\[[0-9;]*m", "", answer.output)
    for path in (word for word in words if word.startswith("training/")):
        assert Path(path).is_file()


def test_everything_is_trained_by_commands_that_exist() -> None:
    target = re.search(r"^train-all:.*?\n\n", Path("Makefile").read_text(), re.M | re.S)
    assert target
    commands = re.findall(r"\$\(TRAIN\) (\S+)([^\n]*)", target[0])
    assert len(commands) == 11
    for command, rest in commands:
        answer = help_of(training_cli, [command])
        assert answer.exit_code == 0, command
        for option in re.findall(r"--\w+", rest):
            assert option in re.sub(r"\x1b\[[0-9;]*m", "", answer.output), option


def test_tables_are_the_reports() -> None:
    contents = tables()
    assert fill(README, contents) == README
    assert {name for name in contents if f"<!-- report: {name} -->" in README} == set(contents)


def test_the_report_is_of_what_was_measured() -> None:
    assert page_text(Path()) == Path("docs/report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", available())
def test_model_cards_are_the_reports(name: str) -> None:
    text = (Path("weights") / name / "README.md").read_text(encoding="utf-8")
    assert text == model_card(load_card(name), Path())
    for command in re.findall(r"```sh\n(.*?)\n```", text, re.S):
        assert shlex.split(command)[:5] == [".venv/bin/python", "-m", "app", "explain", "film.png"]
        assert f"--model {name}" in command


def test_filled_tables_replace_only_themselves() -> None:
    text = "a\n<!-- report: x -->\n<!-- end -->\nb\n<!-- report: y -->\nold\n<!-- end -->\nc"
    once = fill(text, {"x": "1", "y": "2"})
    assert once == "a\n<!-- report: x -->\n1\n<!-- end -->\nb\n<!-- report: y -->\n2\n<!-- end -->\nc"
    assert fill(once, {"x": "1", "y": "2"}) == once


def test_spaces_can_start_it() -> None:
    front = yaml.safe_load(README.split("---")[1])
    pins = dict(line.split("==") for line in Path("requirements.txt").read_text().splitlines() if "==" in line)
    assert front["sdk"] == "gradio"
    assert front["sdk_version"] == pins["gradio"]
    assert Path(front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert Path(target).exists(), target
