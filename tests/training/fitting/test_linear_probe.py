"""Linear probes, on drawn images and on features whose answer is known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.torch import save_file

from tests.training.toys import PROBE
from training.fitting.cross_validation import REFERENCE, cross_validate, read_folds, record, seeds
from training.fitting.fit import fit, network_of
from training.fitting.linear_probe import SHOWN, linear_probe
from training.recipe import Frozen, Recipe
from training.studies.comparisons import WHOLE, ensemble

LAST = PROBE.model_copy(update={"frozen": Frozen(stages=("layer4",))})


def test_the_read_out_finds_what_tells_types_apart_and_every_type_weighs_alike() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), [40, *[10] * 9])
    centres = rng.normal(0.0, 4.0, (10, 30))
    features = (centres[labels] + rng.normal(0.0, 1.0, (2, len(labels), 30))).astype(np.float32) * 7.0 + 3.0
    asked = (centres[None] + rng.normal(0.0, 1.0, (2, 10, 30))).astype(np.float32) * 7.0 + 3.0
    logits = linear_probe(features, labels, asked, 0.001)
    assert logits.shape == (2, 10, 10)
    assert (logits.argmax(axis=2) == np.arange(10)).all()
    noise = np.zeros_like(features)
    alike = linear_probe(noise, labels, noise[:, :1], 0.001)
    assert np.ptp(alike) < 0.05
    strict = linear_probe(features, labels, asked, 10.0)
    assert np.ptp(strict) < 0.2 * np.ptp(logits)


def test_a_probe_is_judged_like_a_network(drawn_set: Path, tmp_path: Path, cache: Path) -> None:
    layers = tmp_path / "layers.safetensors"
    body = network_of(PROBE).body.state_dict()
    save_file({k: v.contiguous() for k, v in body.items() if not k.startswith("layer4")}, layers)
    with pytest.raises(ValueError, match="random layers"):
        cross_validate(LAST, drawn_set, tmp_path / "last", init=layers, cache=cache)
    found = cross_validate(PROBE, drawn_set, tmp_path / "folds/probe", init=layers, cache=cache)
    assert found.views.shape[0] == len(SHOWN) == 2
    assert np.array_equal(found.views[0], found.logits)
    assert len(np.unique(found.films)) == len(found.films)
    stored = tmp_path / "folds/probe/features.npz"
    with np.load(stored) as known:
        assert known["features"].shape[2] == 2 * (128 + 256)
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
    assert rows[f"probe{WHOLE}"]["cross_validation"]["types"]["films"] > len(found.films)


def test_what_is_frozen_is_not_trained(drawn_set: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="linear probe"):
        fit(PROBE, drawn_set, tmp_path)
    with pytest.raises(ValidationError, match="labels alone"):
        Recipe.model_validate({**PROBE.model_dump(), "places": {}})
