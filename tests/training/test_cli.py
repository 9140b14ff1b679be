"""Commands answer bad input with one sentence, before they load torch or make a folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from training.cli import cli

MANY = "training/recipes/resnet18-pyramid.yaml"
RECIPE = "training/recipes/resnet18.yaml"
BAD = {
    "fit gone.yaml": "There is no recipe gone.yaml.",
    "fit unknown.yaml": "unknown.yaml: there is no field 'speed'.",
    "cross-validate unknown.yaml": "unknown.yaml: there is no field 'speed'.",
    "seeds unknown.yaml": "unknown.yaml: there is no field 'speed'.",
    "ensemble gone.yaml": "There is no recipe gone.yaml.",
    "ablate gone.yaml": "There is no recipe gone.yaml.",
    "export gone --folds gone": "gone holds no run; `python -m training fit` or `cross-validate` writes one.",
    "evaluate gone": "There is no model called 'gone' in weights. Available: none.",
    "localise gone": "There is no model called 'gone' in weights. Available: none.",
    "presence gone": "There is no model called 'gone' in weights. Available: none.",
    "faithfulness gone": "There is no model called 'gone' in weights. Available: none.",
    "faithfulness gone guess": "There is no method 'guess'; known are gradcam,",
    "audit gone": "There is no data set 'gone'; known are bone-break, fracatlas, multi-region.",
    "audit bone-break": "no bone-break images under data",
    "split fracatlas": "no FracAtlas under data",
    "cross-source": "no bone-break images under data",
    "replications gone": "There is no replication 'gone'; known are",
    "replications --only neither": "There is no side 'neither'; known are published, leak_free.",
    "replications": "no bone-break images under data",
    "examples": "no FracAtlas under data",
    "groups": "There is no data/films.csv, which says",
    "audit-sets gone": "There is no data set 'gone'; known are veda, hbfmid, ca1len, bone-break-more, multi-region-dis",
    "audit-sets veda": "no veda under data: expected veda/data.yaml.",
    "agreement": "no hbfmid under data: expected hbfmid/data.yaml.",
    "labellers gone": "There is no model called 'gone' in weights. Available: none.",
    "by-source gone": "There is no model called 'gone' in weights. Available: none.",
    "by-source gone --part all": "There is no part 'all'; known are validation, test, unseen.",
    "leave-out gone.yaml veda": "There is no recipe gone.yaml.",
}
"""Command line to the start of what it answers, in a folder that holds nothing but ``unknown.yaml``."""

IN_A_FRESH_PROCESS = """
import json, sys
from typer.testing import CliRunner
from training.cli import cli

answers = {}
for line in json.load(sys.stdin):
    found = CliRunner().invoke(cli, line.split(), env={"FRACTURE_DATA": ""})
    loaded = [name for name in ("torch", "lightning", "gradio") if name in sys.modules]
    answers[line] = (found.exit_code, found.output, type(found.exception).__name__, loaded)
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str, list[str]]]:
    folder = tmp_path_factory.mktemp("empty")
    (folder / "unknown.yaml").write_text("name: a\narchitecture: resnet18\ntune: []\nspeed: 9\n")
    ran = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS],
        input=json.dumps(list(BAD)),
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(Path.cwd()), "PATH": ""},
        check=True,
    )
    assert [path.name for path in folder.rglob("*")] == ["unknown.yaml"]
    return json.loads(ran.stdout)


@pytest.mark.parametrize("line", list(BAD))
def test_bad_input_is_one_sentence_before_anything_is_loaded_or_made(line: str, answers: dict) -> None:
    code, output, exception, loaded = answers[line]
    assert (code, exception, loaded) == (1, "SystemExit", [])
    assert output.startswith(BAD[line])
    assert output.count("\n") == 1


def test_the_sets_of_many_sources_are_looked_for(drawn_atlas: Path) -> None:
    for line, sentence in (
        (["fit", MANY, "--data", str(drawn_atlas)], "no veda under"),
        (["leave-out", MANY, "bone-break", "--data", str(drawn_atlas)], "no veda under"),
    ):
        result = CliRunner().invoke(cli, line)
        assert (result.exit_code, result.output.count("\n")) == (1, 1)
        assert result.output.startswith(sentence)


@pytest.mark.parametrize(
    "options",
    [["--data", "gone"], ["--fold", "7"], ["--teacher", "gone"], ["--init", "gone"]],
    ids=lambda options: options[0],
)
def test_nothing_is_made_before_the_inputs_of_a_training_are_checked(
    options: list[str], drawn_atlas: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    result = CliRunner().invoke(cli, ["fit", RECIPE, "--data", str(drawn_atlas), *options, "--run", str(run)])
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert not run.exists()


def test_a_student_without_its_teacher_and_a_probe_are_refused_before_anything_is_made(
    drawn_atlas: Path, tmp_path: Path
) -> None:
    student = tmp_path / "student.yaml"
    student.write_text("extends: resnet18.yaml\nname: student\ndistil: {teacher: resnet18}\n")
    for recipe, sentence in (
        (str(student), "name its run"),
        ("training/recipes/tried/resnet50v2-frozen.yaml", "cross-validate"),
    ):
        line = ["fit", recipe, "--data", str(drawn_atlas), "--run", str(tmp_path / "run")]
        result = CliRunner().invoke(cli, line)
        assert result.exit_code == 1
        assert sentence in result.output
        assert not (tmp_path / "run").exists()


def test_missing_images_are_a_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["fit", RECIPE, "--data", str(tmp_path)])
    assert result.exit_code == 1
    assert "download bone-break" in result.output
    assert "Traceback" not in result.output
