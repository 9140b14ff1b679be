from __future__ import annotations

import logging
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models
from torchvision.models._api import WeightsEnum

from app.model.network import build_network
from training.fitting.initial import load_initial


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
