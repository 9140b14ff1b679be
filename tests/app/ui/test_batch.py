from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import pytest
from gradio.components.file import ListFiles
from gradio.data_classes import FileData
from gradio.utils import get_upload_folder
from PIL import Image

from app.batch import Row
from app.imaging.examples import draw
from app.model.classifier import Classifier
from app.model.weights import ModelCard
from app.ui import batch as tab_module
from app.ui.batch import MOST, ORDERS, BatchTab, Shown, ordered
from tests.app.imaging.test_archive import packed

NAME = "Doe^Jane"


def drawn(seed: int) -> bytes:
    return cv2.imencode(".png", draw("oblique", seed=seed, height=96, width=72))[1].tobytes()


@pytest.fixture(scope="module")
def tab(classifier: Classifier) -> BatchTab:
    with gr.Blocks():
        return BatchTab([classifier])


@pytest.fixture
def uploaded(tmp_path: Path) -> Callable[..., list[tuple[str, str]]]:
    def put(**files: bytes) -> list[tuple[str, str]]:
        places = []
        for number, (name, data) in enumerate(files.items()):
            path = tmp_path / f"upload{number}"
            path.write_bytes(data)
            places.append((str(path), name))
        return places

    return put


def last(tab: BatchTab, files: list[tuple[str, str]], order: str = "As sent") -> dict[Any, Any]:
    *_, final = tab.explain(files, next(iter(tab.models)), order)
    return final


def row(name: str, kind: str, probability: float, fracture: str) -> Shown:
    return Shown(Row(name, "explained", "", kind, probability, fracture=fracture), f"{name}.png")


def test_nobody_calls_an_uncalibrated_probability_high(tab: BatchTab, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = [row("a", "oblique", 0.99, "")]
    assert "99 %, high" in tab._rows(shown, "As sent")
    monkeypatch.setattr(ModelCard, "calibrated", False)
    assert "99 %, Not calibrated" in tab._rows(shown, "As sent")


def test_orders_put_first_what_they_promise() -> None:
    found = [
        row("a", "spiral", 0.5, "none"),
        Shown(Row("b", "failed", "It is damaged.")),
        row("c", "oblique", 0.2, "suspicious"),
        row("d", "oblique", 0.9, "definite"),
        row("e", "spiral", 0.3, "definite"),
    ]

    def names(order: str) -> str:
        return "".join(each.row.name for each in ordered(found, order))

    assert {order: names(order) for order in ORDERS} == {
        "As sent": "abcde",
        "Most doubtful first": "ceadb",
        "By type": "dcaeb",
        "By fracture finding": "decab",
    }


def test_a_picture_without_a_fracture_is_not_called_one(tab: BatchTab) -> None:
    found = [row("a", "spiral", 0.5, "none"), row("b", "oblique", 0.2, "suspicious"), row("c", "oblique", 0.3, "")]
    captions = [caption for _, caption in tab.sorted(found, "As sent")[tab.gallery]]
    assert captions == ["No fracture seen · a", "Possible fracture · Oblique 20 % · b", "Oblique 30 % · c"]
    assert "<td>if there is one: spiral fracture</td>" in tab.sorted(found, "As sent")[tab.table]


def test_why_there_is_nothing_takes_the_rest_of_its_row(tab: BatchTab) -> None:
    found = [row("a", "spiral", 0.5, "none"), Shown(Row("b", "failed", "It is damaged."))]
    assert "<td>b</td><td colspan='3'>Failed: It is damaged.</td></tr>" in tab.sorted(found, "As sent")[tab.table]


def test_files_that_arrive_answer_the_request_for_them(tab: BatchTab) -> None:
    assert tab.ready(()) == ""
    assert tab.ready([row("a", "spiral", 0.5, "none")]) == gr.skip(), "what was said of these stays beside them"


def test_files_and_a_zip_file_become_pictures_and_a_table(tab: BatchTab, uploaded: Callable[..., Any]) -> None:
    files = uploaded(**{f"{NAME}.png": drawn(1), "day.zip": packed({"leg.png": drawn(2), "bad.png": b"no picture"})})
    final = last(tab, files)
    assert "3 X-rays: 2 explained, 1 failed." in final[tab.state]
    assert [caption.rpartition(" · ")[2] for _, caption in final[tab.gallery]] == [f"{NAME}.png", "leg.png"]
    assert "day.zip/bad.png" in final[tab.table]
    table, overlays = (Path(final[button]["value"]) for button in (tab.csv, tab.zip))
    rows = list(csv.DictReader(io.StringIO(table.read_bytes().decode("utf-8-sig"))))
    assert [each["state"] for each in rows] == ["explained", "explained", "failed"]
    with zipfile.ZipFile(overlays) as archive:
        assert archive.namelist() == [f"01-{NAME}.png", "02-leg.png"]
        assert Image.open(io.BytesIO(archive.read("02-leg.png"))).size == (72, 96)
    paths = [table, overlays, *(Path(path) for path, _ in final[tab.gallery])]
    assert len({path.parent for path in paths}) == len(paths)
    for path in paths:
        assert path.is_relative_to(get_upload_folder())
        assert NAME not in str(path)
        assert len(path.parent.name) == 40, "nobody can guess it"


def test_more_than_may_be_sent_is_a_sentence(
    tab: BatchTab, uploaded: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tab_module, "explain_batch", lambda *_args, **_kwargs: pytest.fail("nothing is explained"))
    many = packed({f"{number}.png": b"any" for number in range(MOST)})
    final = last(tab, uploaded(**{"one.png": drawn(1), "many.zip": many}))
    assert f"These are {MOST + 1} images; at most {MOST}" in final[tab.state]
    for files, words in (([], "No X-rays yet"), (uploaded(**{"a.zip": packed({"a.txt": b"1"})}), "There is no X-ray")):
        assert words in last(tab, files)[tab.state]


def test_what_is_done_stays_when_it_is_stopped(tab: BatchTab, uploaded: Callable[..., Any]) -> None:
    steps = tab.explain(uploaded(**{f"{number}.png": drawn(number) for number in range(3)}), "tiny", "As sent")
    found = [step[tab.found] for _, step in zip(range(3), steps, strict=False)][-1]
    assert len(found) == 2
    steps.close()
    stopped = tab.stopped(found, "As sent")
    assert "Cancelled. 2 X-rays: 2 explained." in stopped[tab.state]
    assert len(stopped[tab.gallery]) == 2
    assert tab.stopped((), "As sent")[tab.results] == gr.update(visible=False)
    assert "forgotten" in tab.sorted((), "As sent")[tab.table]


def test_an_error_of_ours_tells_no_name(
    tab: BatchTab, uploaded: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError(NAME)

    monkeypatch.setattr(tab_module, "explain_batch", broken)
    final = last(tab, uploaded(**{f"{NAME}.png": drawn(1)}))
    assert "went wrong on our side" in final[tab.state]
    assert "RuntimeError" in caplog.text
    assert NAME not in caplog.text


def test_only_single_uploads_are_taken(tab: BatchTab, tmp_path: Path) -> None:
    """Not the folder of uploads, in which those of others lie, and no file of the server."""
    folder = Path(get_upload_folder()) / "somebody"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.png").write_bytes(drawn(1))
    (tmp_path / "a.png").write_bytes(drawn(1))

    def taken(path: Path, name: str) -> list[tuple[str, str]]:
        return tab.files.preprocess(ListFiles(root=[FileData(path=str(path), orig_name=name)]))

    assert taken(folder / "a.png", "x" * 500 + ".png") == [(str(folder / "a.png"), "x" * 76 + ".png")]
    for path in (folder, Path(get_upload_folder()), folder / "none.png", tmp_path / "a.png", tmp_path):
        with pytest.raises(gr.Error, match="not uploaded here"):
            taken(path, "a.png")
