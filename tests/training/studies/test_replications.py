"""Replications run on the sides they say, and a source is judged across."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from training import write_json
from training.data import SETS, splits
from training.data.image import DataSet
from training.data.splits import leak_free, published
from training.recipe import load_replications
from training.studies.replications import NETWORKS, RECIPE, cross_source, load_initial, load_rows, run

RECIPES = load_replications()


def test_every_claim_has_a_recipe_that_can_be_built() -> None:
    assert {r.claimed for r in RECIPES.values()} >= {0.172, 0.298, 0.416, 0.886, 0.513, 0.98}
    for recipe in RECIPES.values():
        assert recipe.network in NETWORKS
        assert recipe.data in ("bone-break", "multi-region")


@pytest.mark.parametrize("name", list(NETWORKS))
def test_networks_answer(name: str) -> None:
    with torch.inference_mode():
        assert NETWORKS[name](10, 0.1).eval()(torch.randn(1, 3, 64, 64)).shape == (1, 10)


@pytest.mark.slow
def test_a_run_learns_from_what_it_is_given(dealt: tuple[DataSet, np.ndarray]) -> None:
    """Images whose brightness is their class are told apart; shuffled labels are not."""
    labels = np.arange(160) % 2
    squares = np.where(labels[:, None, None] == 1, 200, 30) * np.ones((160, 32, 32))
    squares = np.clip(squares + np.random.default_rng(0).normal(0, 10, squares.shape), 0, 255).astype(np.uint8)
    recipe = RECIPES["custom-cnn-pytorch"].model_copy(update={"epochs": 4, "size": 32, "batch_size": 16})
    sides = published(replace(dealt[0], images=dealt[0].images[:160]), "random", np.arange(160), 0.2)
    told = run(recipe, squares, labels, np.arange(160), sides, None, "32-true")
    assert told["accuracy"]["value"] > 0.9
    assert told["start"] == "from scratch"
    mixed = recipe.model_copy(update={"mixup": 0.2, "focal": 2.0, "flip_judging": True, "class_weighted": True})
    assert run(mixed, squares, labels, np.arange(160), sides, None, "32-true")["accuracy"]["value"] > 0.8
    shuffled = np.random.default_rng(3).permutation(labels)
    assert run(recipe, squares, shuffled, np.arange(160), sides, None, "32-true")["accuracy"]["value"] < 0.8


def test_initial_layers_of_another_network_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"other": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="nothing for this network"):
        load_initial(NETWORKS["custom-cnn"](10, 0.1), tmp_path / "other.safetensors")


def test_what_was_not_run_says_so(tmp_path: Path) -> None:
    path = tmp_path / "recipes" / "replications" / "results.json"
    rows = load_rows(RECIPES, path)
    assert all(row["published"] is None and row["leak_free"] is None for row in rows.values())
    share = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 99}
    rows["convnext-tiny"]["published"] = {"accuracy": share, "epochs": 3, "start": "from scratch"}
    write_json(path, rows)
    assert load_rows(RECIPES, path) == rows


def test_committed_runs_were_made_on_the_sides_that_a_run_would_use_now() -> None:
    folder = os.environ.get("FRACTURE_DATA")
    if not folder:
        pytest.skip("FRACTURE_DATA is not set")
    data = {name: SETS[name].load(Path(folder)) for name in ("bone-break", "multi-region")}
    rows = load_rows(RECIPES)
    ran = {row["data"] for row in rows.values() if row["published"] and row["leak_free"]}
    assert ran == {"bone-break", "multi-region"}
    for name, row in rows.items():
        known = splits.committed(data[row["data"]])
        assert known is not None
        recipe = RECIPES[name]
        for kind, sides in (("published", published), ("leak_free", leak_free)):
            if row[kind]:
                now = sides(data[row["data"]], recipe.protocol, known[0], recipe.judged)
                assert row[kind]["sides_sha256"] == now.digest(data[row["data"]]), (name, kind)
                assert row[kind]["accuracy"]["n"] == len(now.judge), (name, kind)
                if kind == "leak_free" or "groups" in row[kind]["accuracy"]:
                    assert row[kind]["accuracy"]["groups"] == len(np.unique(known[0][now.judge])), (name, kind)


@pytest.mark.usefixtures("grouped")
@pytest.mark.slow
def test_either_source_judges_both(three_sources: Path, tmp_path: Path, cache: Path) -> None:
    fields = yaml.safe_load(RECIPE.read_text()) | {"network": "custom-cnn", "size": 32, "epochs": 1, "batch_size": 4}
    recipe = tmp_path / "short.yaml"
    recipe.write_text(yaml.safe_dump(fields))
    results = tmp_path / "results.json"
    found = cross_source(
        three_sources,
        None,
        precision="32-true",
        recipe=recipe,
        results=results,
        listed=tmp_path / "list.csv",
        cache=cache,
    )
    assert json.loads(results.read_text()) == found
    for row in found["auroc"].values():
        assert set(row) == {"fracatlas", "multi-region"}
        for judging, area in row.items():
            films = found["images"][judging]
            assert area["n"] == films["judge" if judging == "fracatlas" else "images"]
            assert 0.0 <= area["low"] <= area["value"] <= area["high"] <= 1.0
