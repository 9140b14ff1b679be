from __future__ import annotations

import csv
import io
import json
import shutil
import zipfile
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner

from app import batch as app_batch
from app import cli as app_cli
from app.batch import OURS, Outcome, Row, as_csv, explain_batch, gather
from app.errors import Cancelled, Progress, RejectedError
from app.imaging.examples import draw
from app.model.classifier import Classifier
from app.pipeline import explain_image
from app.result_folders import SUMMARY
from tests.app.imaging.test_archive import packed
from tests.app.test_pipeline import valid

runner = CliRunner()


def drawn(seed: int, kind: str = "oblique") -> bytes:
    return cv2.imencode(".png", draw(kind, seed=seed, height=96, width=72))[1].tobytes()


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A folder of everything: two of one name, a zip file, a bad file, and what is no picture."""
    folder = tmp_path / "in"
    (folder / "ward").mkdir(parents=True)
    (folder / "arm.png").write_bytes(drawn(1))
    (folder / "ward" / "arm.png").write_bytes(drawn(2))
    (folder / "bad.png").write_bytes(b"<html></html>")
    (folder / "notes.txt").write_text("a note")
    (folder / ".hidden.png").write_bytes(drawn(3))
    (folder / "more.zip").write_bytes(packed({"leg.png": drawn(4), "../evil.png": drawn(5), "=cmd.png": drawn(6)}))
    return folder


ROWS = {
    "arm.png": "explained",
    "bad.png": "failed",
    "more.zip/leg.png": "explained",
    "more.zip/../evil.png": "failed",
    "more.zip/=cmd.png": "explained",
    "ward/arm.png": "explained",
}


def explained(paths: list[Path], classifier: Classifier, **more: object) -> list[Outcome]:
    with gather(paths) as items:
        return list(explain_batch(items, model=classifier, **more))


def table(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_one_bad_file_never_loses_the_rest(given: Path, classifier: Classifier) -> None:
    outcomes = explained([given, given / "none.png", given / "notes.txt"], classifier)
    rows = {outcome.row.name: outcome.row.state for outcome in outcomes}
    assert rows == {**ROWS, "none.png": "failed", "notes.txt": "failed"}
    for outcome in outcomes:
        assert (outcome.result is not None) == (outcome.row.state == "explained")
        assert outcome.row.state == "explained" or outcome.row.notes.endswith(".")


def test_a_row_says_what_the_result_says(given: Path, classifier: Classifier) -> None:
    for outcome in explained([given], classifier, method="layercam"):
        if outcome.result is None:
            continue
        told = outcome.result.as_json()
        valid(told)
        again = explain_image(drawn({"arm.png": 1, "ward/arm.png": 2}.get(outcome.row.name, 4)), model=classifier)
        if "arm" in outcome.row.name:
            assert outcome.row.type == again.explanation.prediction.best
        assert outcome.row.probability == told["prediction"]["probability"]
        assert outcome.row.confidence == told["prediction"]["confidence"]
        assert outcome.row.top_three.split("; ")[2].startswith(told["prediction"]["types"][2]["name"])


def test_an_error_of_ours_is_a_row(given: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    count = iter(range(99))

    def sometimes(*args: object, **kwargs: object) -> object:
        number = next(count)
        if number == 0:
            raise MemoryError("Doe.png")
        if number == 1:
            raise RejectedError("This is no X-ray.")
        return explain_image(*args, **kwargs)

    monkeypatch.setattr(app_batch, "explain_image", sometimes)
    rows = [outcome.row for outcome in explained([given], classifier)]
    states = [(row.state, row.notes) for row in rows if row.name.endswith(("arm.png", "leg.png"))]
    assert states[:2] == [("failed", OURS), ("rejected", "This is no X-ray.")]
    assert rows[-1].state == "explained"


def test_work_can_be_stopped(given: Path, classifier: Classifier) -> None:
    progress = Progress()
    progress.stop()
    with pytest.raises(Cancelled):
        explained([given], classifier, method="occlusion", progress=progress)


def test_no_cell_is_a_formula() -> None:
    hostile = ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\uff1d1", 'a"b,c', "\ud800", "'=1", "a=1", "n\u00e4me"]
    data = as_csv([Row(name, "failed", name) for name in hostile])
    assert data.startswith(b"\xef\xbb\xbf")
    cells = [row["name"] for row in table(data)]
    assert len(cells) == len(hostile)
    assert not any(cell.strip()[:1] in tuple("=+-@\uff1d") for cell in cells)
    assert cells[-1] == "n\u00e4me"
    assert cells[7] == 'a"b,c'


def test_names_cannot_steer_a_terminal(tmp_path: Path, classifier: Classifier) -> None:
    (tmp_path / "a.zip").write_bytes(packed({"a\x1b[2Jb.png": drawn(1), "c\nd.png": drawn(2)}))
    names = [outcome.row.name for outcome in explained([tmp_path / "a.zip"], classifier)]
    assert names == ["a.zip/a\ufffd[2Jb.png", "a.zip/c\ufffdd.png"]


def test_links_in_a_circle_and_the_results_themselves_are_left_out(given: Path, tmp_path: Path) -> None:
    (given / "ward" / "circle").symlink_to(given)
    shutil.copytree(given / "ward", given / "out", ignore=shutil.ignore_patterns("circle"))
    with gather([given], leave_out=given / "out") as items:
        assert [item.name for item in items] == list(ROWS)


@pytest.fixture
def call(given: Path, tmp_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(app_cli, "_load", lambda *_: classifier)
    return ["batch", str(given), "--out", str(tmp_path / "out")]


def test_the_command_line_writes_a_folder_an_image_and_a_table(call: list[str], tmp_path: Path) -> None:
    called = runner.invoke(app_cli.cli, call)
    assert called.exit_code == 1, called.output
    assert called.stdout == "6 images: 4 explained, 0 rejected, 2 failed\n"
    assert "6/6 ward/arm.png: " in called.stderr
    assert "Traceback" not in called.output
    rows = table((tmp_path / "out" / "results.csv").read_bytes())
    assert {row["name"]: row["state"] for row in rows} == ROWS
    for row in rows:
        if row["state"] != "explained":
            assert row["folder"] == row["type"] == ""
            continue
        told = json.loads((tmp_path / "out" / row["folder"].lstrip("'") / "explanation.json").read_text())
        assert told["prediction"]["type"] == row["type"]
        assert f"{told['prediction']['probability']:.4f}" == row["probability"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["=cmd", "arm", "arm-2", "leg", "results.csv"]


def test_the_table_may_be_parquet_with_the_same_rows(call: list[str], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    runner.invoke(app_cli.cli, [*call, "--table", "parquet"])
    rows = parquet.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    assert {row["name"]: row["state"] for row in rows} == ROWS
    assert all((row["probability"] is None) == (row["state"] != "explained") for row in rows)
    assert not (tmp_path / "out" / "results.csv").exists()
    # What is done is known again, whatever table it went into.
    runner.invoke(app_cli.cli, call)
    csv = {row["name"]: row for row in table((tmp_path / "out" / "results.csv").read_bytes())}
    for row in rows:
        assert row["top_three"] == csv[row["name"]]["top_three"]


def test_an_image_called_like_the_table_is_not_in_its_way(call: list[str], given: Path, tmp_path: Path) -> None:
    (given / "Results.csv.png").write_bytes(drawn(9))
    runner.invoke(app_cli.cli, call)
    assert (tmp_path / "out" / "results.csv").is_file()
    assert (tmp_path / "out" / "Results.csv-2" / "overlay.png").is_file()


def test_what_is_done_is_not_done_again(call: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counted(*args: object, **kwargs: object) -> object:
        made.append(args)
        return explain_image(*args, **kwargs)

    monkeypatch.setattr(app_batch, "explain_image", counted)

    def again(*more: str) -> int:
        made.clear()
        runner.invoke(app_cli.cli, [*call, *more])
        return len(made)

    assert again() == 4
    first = tree(tmp_path / "out")
    assert again() == 0
    assert tree(tmp_path / "out") == first
    (tmp_path / "out" / "leg" / "overlay.png").write_bytes(b"")
    assert again() == 1
    assert tree(tmp_path / "out") == first
    (tmp_path / "in" / "arm.png").write_bytes(drawn(7))
    assert again() == 1
    assert again("--method", "layercam") == 4
    assert again("--method", "layercam") == 0


class Killed(BaseException):
    """Ends a run where it stands, whatever it would still do about it."""


def test_broken_off_at_any_moment_it_ends_with_the_same_files(
    tmp_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each thing that is done to the disk, and halfway through each that is written."""
    monkeypatch.setattr(app_cli, "_load", lambda *_: classifier)
    (tmp_path / "a.zip").write_bytes(packed({"arm.png": drawn(1)}))
    calls = {
        name: getattr(Path, name) for name in ("mkdir", "rename", "replace", "unlink", "write_bytes", "write_text")
    }
    left = [0]

    def run(out: Path, moments: int) -> None:
        left[0] = moments
        result = runner.invoke(app_cli.cli, ["batch", str(tmp_path / "a.zip"), "--out", str(out)])
        assert result.exit_code == 0, result.output

    def step(name: str) -> object:
        def called(path: Path, *args: object, **kwargs: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                if name.startswith("write"):
                    calls[name](path, args[0][: len(args[0]) // 2], **kwargs)
                raise Killed
            return calls[name](path, *args, **kwargs)

        return called

    for name in calls:
        monkeypatch.setattr(Path, name, step(name))
    run(tmp_path / "whole", 10**6)
    moments = 10**6 - left[0]
    whole = tree(tmp_path / "whole")
    assert whole.keys() == {"results.csv", *(f"arm/{name}" for name in ("overlay.png", "heatmap.png", SUMMARY))}
    for moment in range(1, moments + 1):
        out = tmp_path / f"out{moment}"
        with pytest.raises(Killed):
            run(out, moment)
        run(out, 10**6)
        assert tree(out) == whole, moment


def test_a_zip_file_that_is_none_is_a_row(tmp_path: Path, classifier: Classifier) -> None:
    (tmp_path / "a.zip").write_bytes(b"no zip file")
    (outcome,) = explained([tmp_path / "a.zip"], classifier)
    assert outcome.row == Row("a.zip", "failed", "This zip file is damaged or incomplete.")
    with zipfile.ZipFile(tmp_path / "a.zip", "w"):
        pass
    assert explained([tmp_path / "a.zip"], classifier) == []
