from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from app.errors import WeightsError
from app.model.weights import DEFAULT_FOLDER, available, load_card, load_network, ranked
from tests.conftest import SHIPPED, write_tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny_model(tmp_path)
    return tmp_path


def change_card(folder: Path, **fields: object) -> None:
    path = folder / "tiny" / "card.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_loads_what_the_card_promises(folder: Path) -> None:
    network, card = load_network("tiny", folder)
    assert available(folder) == ["tiny"]
    assert not network.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in network.parameters())
    assert network.head.out_features == len(card.classes)


def test_models_are_ranked_by_cross_validation_not_by_name_or_test(folder: Path) -> None:
    for name, out_of_fold, test in (("a", 0.2, 0.9), ("b", 0.4, 0.1), ("c", 0.3, 0.5)):
        write_tiny_model(folder, name)
        path = folder / name / "card.json"
        figures = {"cross_validation": {"accuracy": {"value": out_of_fold}}, "test": {"accuracy": {"value": test}}}
        path.write_text(json.dumps({**json.loads(path.read_text()), "metrics": figures}))
    assert ranked(folder) == ["b", "c", "a", "tiny"]


def test_of_models_the_interval_does_not_tell_apart_the_one_that_points_best_comes_first(folder: Path) -> None:
    for name, value, peak in (("a", 0.30, 0.3), ("b", 0.29, 0.6), ("c", 0.20, 0.9)):
        write_tiny_model(folder, name)
        path = folder / name / "card.json"
        figures = {"accuracy": {"value": value, "low": value - 0.04}, "places": {"type_peak_in_box": {"value": peak}}}
        path.write_text(json.dumps({**json.loads(path.read_text()), "metrics": {"cross_validation": figures}}))
    assert ranked(folder) == ["b", "a", "c", "tiny"]


@pytest.mark.slow
def test_a_model_judged_on_an_easy_fold_alone_does_not_set_the_mark(folder: Path) -> None:
    for name, films, value, peak in (("a", 900, 0.30, 0.3), ("b", 900, 0.28, 0.6), ("c", 180, 0.40, 0.1)):
        write_tiny_model(folder, name)
        path = folder / name / "card.json"
        share = {"value": value, "low": value - 0.04, "n": films}
        figures = {"accuracy": share, "places": {"type_peak_in_box": {"value": peak}}}
        path.write_text(json.dumps({**json.loads(path.read_text()), "metrics": {"cross_validation": figures}}))
    assert ranked(folder) == ["b", "a", "c", "tiny"]


def test_a_damaged_file_is_told_apart(folder: Path) -> None:
    path = folder / "tiny" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"damaged.*SHA-256"):
        load_network("tiny", folder)


def test_a_lfs_pointer_is_recognised(folder: Path) -> None:
    (folder / "tiny" / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(WeightsError, match="git lfs pull"):
        load_network("tiny", folder)


def test_a_missing_file_is_said_to_be_missing(folder: Path) -> None:
    (folder / "tiny" / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="missing"):
        load_network("tiny", folder)


def test_an_unknown_model_names_the_known(folder: Path) -> None:
    with pytest.raises(WeightsError, match="Available: tiny"):
        load_card("other", folder)


@pytest.mark.parametrize("name", ["../tiny", "", "tiny/../tiny"])
def test_names_do_not_lead_out_of_the_folder(folder: Path, name: str) -> None:
    with pytest.raises(WeightsError):
        load_card(name, folder)


def test_a_foreign_architecture_is_refused(folder: Path) -> None:
    change_card(folder, architecture="transformer")
    with pytest.raises(WeightsError, match="transformer"):
        load_network("tiny", folder)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    change_card(folder, architecture="resnet50")
    with pytest.raises(WeightsError, match="do not fit"):
        load_network("tiny", folder)


def test_a_broken_card_is_refused(folder: Path) -> None:
    (folder / "tiny" / "card.json").write_text("{")
    with pytest.raises(WeightsError, match="card of model 'tiny'"):
        load_network("tiny", folder)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_models_load_and_are_small_enough(name: str) -> None:
    network, card = load_network(name)
    assert (DEFAULT_FOLDER / name / card.weights.file).stat().st_size <= 50_000_000
    assert network.head.out_features == 10
    assert card.metrics["test"]["images"] == 140
    assert "not for diagnosis" in card.intended_use


def test_a_model_is_shipped() -> None:
    assert available()
