"""From initial layers to a run that was stopped and resumed."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision import models
from torchvision.models._api import WeightsEnum

from app.model.network import build_network
from tests.training.toys import JOINT, TINY
from training.fitting import fit as fitting
from training.fitting.fit import fit, load_initial, load_task


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


def in_two_matrices(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint as it was written when the halves of an attending head were two matrices."""
    state = checkpoint["state_dict"]
    for owner in ("network", "average.module"):
        if f"{owner}.head.weight" in state:
            halves = state[f"{owner}.head.weight"].split(128, dim=1)
            state[f"{owner}.head.weight"], state[f"{owner}.attended.weight"] = halves
    (optimiser,) = checkpoint["optimizer_states"]
    numbers = optimiser["param_groups"][0]["params"]
    (at,) = (i for i, number in enumerate(numbers) if optimiser["state"][number]["exp_avg"].shape == (10, 256))
    first = optimiser["state"][numbers[at]]
    # The second matrix stood behind the first one and its bias.
    added = 1 + max(number for group in optimiser["param_groups"] for number in group["params"])
    numbers.insert(at + 2, added)
    optimiser["state"][added] = second = dict(first)
    for moment in ("exp_avg", "exp_avg_sq"):
        first[moment], second[moment] = first[moment].split(128, dim=1)
    return checkpoint


def test_a_run_begun_with_two_matrices_goes_on_alike(drawn_atlas: Path, tmp_path: Path) -> None:
    """It loads and goes on, optimiser and moving average included, as the same run with one matrix does."""
    options = {"precision": "32-true", "cache": tmp_path / "cache", "progress": False}
    recipe = JOINT.model_copy(update={"average": 0.9})
    begun = fit(recipe, drawn_atlas, tmp_path / "one", **options)
    shutil.copytree(begun.parent, tmp_path / "two")
    older = in_two_matrices(torch.load(begun, weights_only=False))
    torch.save(older, tmp_path / "two" / "last.ckpt")
    task, _, _ = load_task(tmp_path / "two", drawn_atlas, tmp_path / "cache")
    expected, _, _ = load_task(tmp_path / "one", drawn_atlas, tmp_path / "cache")
    assert all(torch.equal(tensor, task.state_dict()[name]) for name, tensor in expected.state_dict().items())
    longer = recipe.model_copy(update={"tune_epochs": 2})
    states = [
        torch.load(fit(longer, drawn_atlas, tmp_path / name, resume=True, **options), weights_only=False)
        for name in ("one", "two")
    ]
    for name, tensor in states[0]["state_dict"].items():
        torch.testing.assert_close(states[1]["state_dict"][name], tensor)
    assert not torch.equal(states[0]["state_dict"]["network.head.weight"], expected.state_dict()["network.head.weight"])
