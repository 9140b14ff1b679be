"""The search over recipes, on drawn films: goes on where it was, keeps to its ranges, stops what is hopeless."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest

from tests.training.fitting.test_teacher import SMALL as BRIEF
from training.recipe import load_recipe
from training.studies.tuning import suggest, tune

SMALL = BRIEF.model_copy(update={"tune_epochs": 2})


def test_a_stopped_search_goes_on_where_it_was(drawn_set: Path, tmp_path: Path, cache: Path) -> None:
    options = {"precision": "32-true", "results": tmp_path / "results", "cache": cache}
    tune(SMALL, drawn_set, tmp_path / "study", trials=2, **options)
    found = tune(SMALL, drawn_set, tmp_path / "study", trials=3, **options)
    assert [trial["number"] for trial in found["trials"]] == [0, 1, 2]
    assert found["trials"][1]["rotation"] != found["trials"][2]["rotation"]
    first = found["trials"][0]
    assert found["base"] == first
    assert 0.0 <= first["accuracy"] <= 1.0
    assert first["body_rate"] == pytest.approx(SMALL.body_rate)
    assert first["rotation"] == pytest.approx(SMALL.augment.rotation)
    assert found["best"]["loss"] == min(t["loss"] for t in found["trials"] if t["state"] == "complete")
    assert all(trial["epochs"] <= 2 for trial in found["trials"])
    assert json.loads((tmp_path / "results" / "small.json").read_text()) == found
    assert not list(tmp_path.rglob("last.ckpt"))


def test_the_recipe_itself_is_tried_although_the_first_trial_was_killed(
    drawn_set: Path, tmp_path: Path, cache: Path
) -> None:
    options = {"precision": "32-true", "results": tmp_path / "results", "cache": cache}

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("training.studies.tuning.fit", killed)
        with pytest.raises(KeyboardInterrupt):
            tune(SMALL, drawn_set, tmp_path / "study", trials=1, **options)
    found = tune(SMALL, drawn_set, tmp_path / "study", trials=1, **options)
    assert found["base"]["number"] == 1
    assert found["base"]["body_rate"] == pytest.approx(SMALL.body_rate)
    with pytest.raises(ValueError, match="another recipe or fold"):
        tune(SMALL.model_copy(update={"tune_epochs": 3}), drawn_set, tmp_path / "study", trials=2, **options)


@pytest.mark.parametrize("path", sorted(Path("training/recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_lies_within_what_is_searched(path: Path) -> None:
    from training.studies.tuning import _start

    base = load_recipe(path)
    start = _start(base)
    fixed = optuna.trial.FixedTrial(start)
    again = suggest(fixed, base)
    assert again == base
    for name, value in start.items():
        assert fixed.distributions[name]._contains(value), name
