"""From initial layers to a run that was stopped and resumed."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision import models
from torchvision.models._api import WeightsEnum

from app.model.network import build_network
from tests.training.toys import TINY
from training.fitting import fit as fitting
from training.fitting.fit import load_initial


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
    network = build_network("resnet18", 10)
    with caplog.at_level(logging.WARNING):
        initial = load_initial(network, "resnet18", None)
    assert initial.source == "random"
    assert "RANDOM" in caplog.text
    assert set(initial.fresh) == {name for name, _ in network.body.named_parameters()}


def test_the_download_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    state = models.resnet18(weights=None).state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, **options: state)
    network = build_network("resnet18", 10)
    initial = load_initial(network, "resnet18", None)
    assert initial.source == "ResNet18_Weights.IMAGENET1K_V1"
    assert initial.fresh == ()
    assert torch.equal(network.body.state_dict()["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])


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


def test_phase_one_trains_only_what_is_new(drawn_set: Path, stem: Path, tmp_path: Path, cache: Path) -> None:
    fitting.fit(
        TINY.model_copy(update={"tune_epochs": 0}),
        drawn_set,
        tmp_path,
        init=stem,
        precision="32-true",
        cache=cache,
        progress=False,
    )
    trained = torch.load(tmp_path / "last.ckpt", weights_only=False)["state_dict"]
    for name, tensor in load_file(stem).items():
        assert torch.equal(tensor, trained[f"network.body.{name}"]), name
