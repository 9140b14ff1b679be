"""Other programs answer as torch does, and are asked only where they are faster."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import pytest
import torch
from typer.testing import CliRunner

from app import cli, pipeline
from app.batch import same
from app.document import SCHEMA
from app.errors import WeightsError
from app.imaging.examples import BREAKS, draw
from app.imaging.radiograph import Radiograph
from app.model import engines
from app.model.classifier import Classifier, prepare
from app.model.engines import OnnxNetwork, OpenVinoNetwork, ReducedNetwork, changes, chosen
from app.model.weights import load_card, ranked
from tests.conftest import SHIPPED

DEFAULT = ranked()[0]
KINDS = {"onnx": OnnxNetwork, "openvino": OpenVinoNetwork, "torch": ReducedNetwork}


def seen(classifier: Classifier, *seeds: int) -> list[torch.Tensor]:
    drawn = [draw(kind, seed=seed) for kind, seed in zip(BREAKS, seeds, strict=False)]
    return [classifier.pixels([classifier.boxed(Radiograph(each, window=(0, 255)))[0]]) for each in drawn]


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> dict[type, float]:
    """Seconds that calls seem to take, by the class of what is called; the network itself takes one."""
    seconds: dict[type, float] = {}

    def timed(network: Callable[[torch.Tensor], object], pixels: torch.Tensor) -> float:
        network(pixels)
        return seconds.get(type(network), 1.0)

    monkeypatch.setattr(engines, "_timed", timed)
    monkeypatch.setattr(engines, "computes_bfloat16", lambda: True)
    return seconds


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
@pytest.mark.parametrize(
    "name", [each if each == DEFAULT else pytest.param(each, marks=pytest.mark.slow) for each in SHIPPED]
)
def test_shipped_models_say_and_draw_the_same_alone_and_in_a_batch(name: str, engine: engines.Choice) -> None:
    asked, usual = Classifier.load(name, engine=engine), Classifier.load(name)
    images = [Radiograph(draw(kind, seed=3), window=(0, 255)) for kind in list(BREAKS)[:2]]
    for one, other in zip(asked.explain(images), usual.explain(images), strict=True):
        assert (one.engine, one.precision) == (engine, "float32")
        assert (other.engine, other.precision) == ("torch", "float32")
        assert one.prediction.probabilities == pytest.approx(other.prediction.probabilities, abs=1e-4)
        assert one.maps == pytest.approx(other.maps, abs=1e-4 * float(abs(other.maps).max()))
        assert one.maps.mean(axis=(1, 2)) + one.biases == pytest.approx(one.prediction.logits, abs=1e-4)
        assert one.presence == pytest.approx(other.presence, abs=1e-3)


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_threads_that_ask_at_once_get_their_own_answers(classifier: Classifier, engine: engines.Choice) -> None:
    images = seen(classifier, 1, 2, 3, 4)
    made = chosen(classifier.network, images[:1], 1.0, engine)
    assert made is not None
    alone = [made(pixels).maps.clone() for pixels in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda number: made(images[number % 4]).maps, range(24)))
    for number, found in enumerate(together):
        torch.testing.assert_close(found, alone[number % 4], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("seconds", "wins"),
    [
        ({ReducedNetwork: 0.5, OnnxNetwork: 0.6, OpenVinoNetwork: 0.7}, ReducedNetwork),
        ({ReducedNetwork: 0.9, OnnxNetwork: 0.6, OpenVinoNetwork: 0.7}, OnnxNetwork),
        ({ReducedNetwork: 9.0, OnnxNetwork: 0.8, OpenVinoNetwork: 0.7}, OpenVinoNetwork),
        ({ReducedNetwork: 9.0, OnnxNetwork: 0.97, OpenVinoNetwork: 1.1}, None),
    ],
)
def test_the_fastest_is_asked_and_torch_itself_where_none_is_much_faster(
    seconds: dict[type, float], wins: type | None, classifier: Classifier, paced: dict[type, float]
) -> None:
    paced.update(seconds)
    found = chosen(classifier.network, seen(classifier, 1, 2), classifier.card.temperature, "auto")
    assert (None if found is None else type(found)) is wins


def test_what_is_not_installed_is_not_tried(
    classifier: Classifier, paced: dict[type, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "openvino" else there(name))
    paced.update({ReducedNetwork: 9.0, OnnxNetwork: 0.9, OpenVinoNetwork: 0.1})
    assert isinstance(chosen(classifier.network, seen(classifier, 1), 1.0, "auto"), OnnxNetwork)


def test_bfloat16_is_not_tried_where_it_is_emulated(
    classifier: Classifier, paced: dict[type, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "computes_bfloat16", lambda: False)
    paced.update({ReducedNetwork: 0.1, OnnxNetwork: 0.9, OpenVinoNetwork: 0.8})
    assert isinstance(chosen(classifier.network, seen(classifier, 1), 1.0, "auto"), OpenVinoNetwork)


@pytest.mark.parametrize("least", [0.5, 1.0])
def test_what_is_faster_for_the_first_model_computes_the_others(
    least: float, tiny_weights: Path, paced: dict[type, float]
) -> None:
    paced.update({ReducedNetwork: 9.0, OnnxNetwork: least, OpenVinoNetwork: 9.0})
    measured: list[object] = []
    seconds = engines._seconds
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "_seconds", lambda *args: measured.append(args) or seconds(*args))
        found = Classifier.load_all(["tiny", "tiny"], tiny_weights, engine="auto")
    assert {each.prepared and each.prepared.engine for each in found} == {"onnx" if least < 1.0 else None}
    assert len(measured) == 4, "the network and three engines, once"


def test_what_says_something_else_is_not_asked_by_itself_and_refused_where_wanted(
    classifier: Classifier, paced: dict[type, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    paced.update(dict.fromkeys(KINDS.values(), 0.5))
    monkeypatch.setattr(engines, "LEAST_CORRELATION", 1.1)
    assert chosen(classifier.network, seen(classifier, 1), 1.0, "auto") is None
    with pytest.raises(WeightsError, match="says something else than torch"):
        chosen(classifier.network, seen(classifier, 1), 1.0, "onnx")


def test_changes_are_seen() -> None:
    maps = torch.arange(8.0).view(1, 2, 2, 2)
    before = engines.Evidence(torch.tensor([[0.0, 2.0]]), maps)
    after = engines.Evidence(torch.tensor([[0.0, 0.0]]), maps.flip(3).flip(2))
    moved, alike = changes(before, after, temperature=1.0)
    assert moved == pytest.approx([0.3808], abs=1e-4)
    assert alike == pytest.approx([-1.0])
    flat = engines.Evidence(before.logits, torch.ones_like(maps))
    assert changes(before, flat, 1.0)[1] == pytest.approx([1.0])


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        ("auto", ("torch", "bfloat16")),
        ("torch", ("torch", "float32")),
        ("onnx", ("onnx", "float32")),
        ("openvino", ("openvino", "float32")),
    ],
)
def test_a_result_says_what_computed_it(
    asked: str,
    used: tuple[str, str],
    tiny_weights: Path,
    tmp_path: Path,
    paced: dict[type, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paced[ReducedNetwork] = 0.1
    monkeypatch.setattr(engines, "LARGEST_CHANGE", 1.0)
    monkeypatch.setattr(
        pipeline, "load_classifier", lambda _, *, engine: Classifier.load("tiny", tiny_weights, engine=engine)
    )
    cv2.imwrite(str(tmp_path / "arm.png"), draw("oblique", seed=1))
    call = ["batch", str(tmp_path / "arm.png"), "--out", str(tmp_path / "out"), "--engine", asked]
    called = CliRunner().invoke(cli.cli, call)
    assert called.exit_code == 0, called.output
    told = json.loads((tmp_path / "out" / "arm" / "explanation.json").read_text(encoding="utf-8"))
    assert (told["model"]["engine"], told["model"]["precision"]) == used


@pytest.mark.parametrize(("engine", "package"), [("onnx", "onnx"), ("onnx", "onnxruntime"), ("openvino", "onnx")])
def test_an_engine_that_is_not_installed_is_told_with_the_command_that_installs_it(
    engine: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == package else there(name))
    cv2.imwrite(str(tmp_path / "arm.png"), draw("oblique", seed=1))
    call = ["batch", str(tmp_path / "arm.png"), "--out", str(tmp_path / "out"), "--engine", engine]
    called = CliRunner().invoke(cli.cli, call)
    assert called.exit_code == 1
    assert f"--engine {engine} needs {package}. In the clone: python -m pip install '.[{engine}]'." in called.output
    assert "Traceback" not in called.output


def test_what_cannot_be_exported_is_computed_by_torch_or_refused(
    classifier: Classifier, paced: dict[type, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> bytes:
        raise RuntimeError("no such layer")

    monkeypatch.setattr(engines, "_written", fails)
    paced.update({ReducedNetwork: 9.0, OnnxNetwork: 0.1, OpenVinoNetwork: 0.1})
    assert chosen(classifier.network, seen(classifier, 1), 1.0, "auto") is None
    with pytest.raises(WeightsError, match="cannot compute this network"):
        chosen(classifier.network, seen(classifier, 1), 1.0, "openvino")


def test_no_engine_is_named_for_maps_that_need_gradients(classifier: Classifier) -> None:
    card = classifier.card.model_copy(update={"maps": "gradient", "architecture": "timm:elsewhere"})
    asked = Classifier(classifier.network, card)
    prepare([asked], "auto")
    assert asked.prepared is None
    with pytest.raises(WeightsError, match="need gradients, which only torch computes"):
        prepare([asked], "onnx")


def test_a_named_engine_makes_anew_what_another_one_made(tiny_weights: Path) -> None:
    summary = {
        "schema": SCHEMA,
        "model": {"sha256": load_card("tiny", tiny_weights).weights.sha256, "engine": "torch", "precision": "bfloat16"},
        "prediction": {"type": "oblique"},
        "ood": {"state": None},
        "map": {"method": "gradcam", "target": "oblique"},
    }
    for engine, kept in {"auto": True, "torch": False, "onnx": False}.items():
        asked = {"model": Classifier.load("tiny", tiny_weights, engine=engine), "method": "gradcam", "anyway": False}
        assert same(asked, summary) is kept
        assert same(asked, {**summary, "model": {**summary["model"], "engine": engine, "precision": "float32"}})
