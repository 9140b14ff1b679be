"""In bfloat16 the answers are what they are in float32, or bfloat16 is not used."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from app import cli, pipeline
from app.imaging.examples import BREAKS, draw
from app.imaging.radiograph import Radiograph
from app.model import precision
from app.model.classifier import Classifier
from app.model.precision import LARGEST_CHANGE, LEAST_CORRELATION, ReducedNetwork, changes, reduced
from tests.conftest import SHIPPED


def seen(classifier: Classifier, *seeds: int) -> list[torch.Tensor]:
    drawn = [draw(kind, seed=seed) for kind, seed in zip(BREAKS, seeds, strict=False)]
    return [classifier.pixels([classifier.boxed(Radiograph(each, window=(0, 255)))[0]]) for each in drawn]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_models_say_the_same_and_draw_the_same(name: str) -> None:
    classifier = Classifier.load(name)
    again = ReducedNetwork(classifier.network)
    with torch.inference_mode():
        for pixels in seen(classifier, 3, 4):
            found = again(pixels)
            moved, alike = changes(classifier.network(pixels), found, classifier.card.temperature)
            assert moved.max() <= LARGEST_CHANGE
            assert alike.min() >= LEAST_CORRELATION
            assert found.logits.dtype == found.maps.dtype == torch.float32
            added_up = found.maps.mean(dim=(2, 3)) + classifier.network.head.bias
            torch.testing.assert_close(added_up, found.logits, atol=1e-4, rtol=1e-4)


def test_it_rounds_all_convolutions_but_those_of_pixels_and_of_the_first_stage(classifier: Classifier) -> None:
    again = ReducedNetwork(classifier.network)
    dtypes: dict[str, torch.dtype] = {}
    for name, module in again.body.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _its, _given, made, name=name: dtypes.update({name: made.dtype}))
    with torch.inference_mode():
        again(seen(classifier, 1)[0])
    early = {name for name in dtypes if name.startswith(("conv1", "layer1."))}
    assert len(early) == 5
    assert {dtypes.pop(name) for name in early} == {torch.float32}
    assert set(dtypes.values()) == {torch.bfloat16}


def test_the_network_itself_is_left_as_it_was(classifier: Classifier) -> None:
    pixels = seen(classifier, 1)[0]
    with torch.inference_mode():
        before = classifier.network(pixels)
        ReducedNetwork(classifier.network)(pixels)
        after = classifier.network(pixels)
    assert torch.equal(before.logits, after.logits)
    assert torch.equal(before.maps, after.maps)


def test_it_is_used_where_it_is_faster_and_not_where_it_is_slower_or_says_something_else(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seconds(of_reduced: float) -> None:
        def timed(network: nn.Module, pixels: torch.Tensor) -> tuple[object, float]:
            return network(pixels), of_reduced if isinstance(network, ReducedNetwork) else 1.0

        monkeypatch.setattr(precision, "_timed", timed)

    tried = seen(classifier, 1, 2)
    seconds(0.5)
    assert isinstance(reduced(classifier.network, tried, classifier.card.temperature), ReducedNetwork)
    seconds(1.5)
    assert reduced(classifier.network, tried, classifier.card.temperature) is None
    seconds(0.5)
    monkeypatch.setattr(precision, "LEAST_CORRELATION", 1.1)
    assert reduced(classifier.network, tried, classifier.card.temperature) is None


def test_changes_are_seen() -> None:
    maps = torch.arange(8.0).view(1, 2, 2, 2)
    before = precision.Evidence(torch.tensor([[0.0, 2.0]]), maps)
    after = precision.Evidence(torch.tensor([[0.0, 0.0]]), maps.flip(3).flip(2))
    moved, alike = changes(before, after, temperature=1.0)
    assert moved == pytest.approx([0.3808], abs=1e-4)
    assert alike == pytest.approx([-1.0])
    flat = precision.Evidence(before.logits, torch.ones_like(maps))
    assert changes(before, flat, 1.0)[1] == pytest.approx([1.0])


@pytest.mark.parametrize(("asked", "used"), [("auto", "bfloat16"), ("float32", "float32")])
def test_a_result_says_how_it_was_computed(
    asked: str, used: str, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(network: nn.Module, pixels: torch.Tensor) -> tuple[object, float]:
        return network(pixels), 0.0 if isinstance(network, ReducedNetwork) else 1.0

    monkeypatch.setattr(precision, "_timed", timed)
    monkeypatch.setattr(precision, "LARGEST_CHANGE", 1.0)
    monkeypatch.setattr(
        pipeline, "load_classifier", lambda _, *, fastest: Classifier.load("tiny", tiny_weights, fastest=fastest)
    )
    cv2.imwrite(str(tmp_path / "arm.png"), draw("oblique", seed=1))
    call = ["batch", str(tmp_path / "arm.png"), "--out", str(tmp_path / "out"), "--precision", asked]
    called = CliRunner().invoke(cli.cli, call)
    assert called.exit_code == 0, called.output
    told = json.loads((tmp_path / "out" / "arm" / "explanation.json").read_text(encoding="utf-8"))
    assert told["model"]["precision"] == used
