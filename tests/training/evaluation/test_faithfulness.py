"""Methods are judged image by image, and what does not depend on the model is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from app.explain.faithfulness import HEAD, REST, beats_random, measured, objection
from app.model.classifier import Classifier
from app.ui import trial
from training.evaluation.faithfulness import faithfulness
from training.studies.tables import render


@pytest.mark.slow
def test_methods_are_judged_film_by_film_and_an_interrupted_run_goes_on(
    repository: Path, drawn_atlas: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(repository / "weights", weights)
    options = {"images": 3, "runs": tmp_path / "runs"}
    first = faithfulness("resnet18", drawn_atlas, weights, methods=["gradcam", "eigencam"], **options)
    kept = next((tmp_path / "runs").glob("*.json"))
    known = json.loads(kept.read_text())
    assert len(known) == 3
    rows = [film["eigencam"] for film in known.values()]
    margin = first["methods"]["eigencam"]["margins"]["ROAD"]
    assert margin["value"] == pytest.approx(np.mean([row["margins"]["ROAD"] for row in rows]))
    assert margin["n"] == 3
    lost = next(iter(known))
    seconds = {name: film["gradcam"]["seconds"] for name, film in known.items()}
    kept.write_text(json.dumps({name: film for name, film in known.items() if name != lost}))
    again = faithfulness("resnet18", drawn_atlas, weights, methods=["gradcam", "eigencam", "layercam"], **options)
    judged = json.loads(kept.read_text())
    assert {n for n, film in judged.items() if film["gradcam"]["seconds"] != seconds[n]} == {lost}
    assert set(again["methods"]) == {"gradcam", "eigencam", "layercam"}
    for measure in ("deletion", "insertion", "road", "inside"):
        assert again["methods"]["gradcam"][measure] == first["methods"]["gradcam"][measure]
    assert measured("resnet18", weights) == again
    one = faithfulness("resnet18", drawn_atlas, weights, methods=["eigencam"], images=3, runs=tmp_path / "elsewhere")
    assert list(one["methods"]) == ["gradcam", "layercam", "eigencam"]
    assert one["methods"]["layercam"] == again["methods"]["layercam"]
    fewer = faithfulness("resnet18", drawn_atlas, weights, methods=["eigencam"], images=2, runs=tmp_path / "elsewhere")
    assert list(fewer["methods"]) == ["eigencam"]


def test_a_method_that_stays_when_weights_are_shuffled_is_named() -> None:
    def row(correlation: float, low: float, head: float = 0.5) -> dict:
        share = {"value": 0.1, "low": low, "high": 0.2, "n": 9}
        return {
            "seconds": 0.1,
            "margins": dict.fromkeys(("deletion", "insertion", "ROAD"), share),
            "inside": share,
            "near": share,
            "stability": share,
            "scrambled": {HEAD: {**share, "value": head}, REST: {**share, "value": correlation}},
        }

    methods = {"gradcam": row(0.1, 0.05), "eigencam": row(0.6, -0.1), "fullgrad": row(0.1, 0.05, 0.95)}
    beside = {"mine": {"faithfulness": {"methods": methods, "threads": 1}, "localisation": None}}
    page = render("faithfulness", beside=beside, shipped=SimpleNamespace(name="mine", title="Mine"))
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")][2:]
    assert [cells[-2] for cells in rows] == [
        "0.10 (95 % CI 0.05 to 0.20, n = 9)",
        "0.60 (95 % CI -0.10 to 0.20, n = 9), does not depend on the model",
        "0.10 (95 % CI 0.05 to 0.20, n = 9), does not depend on the type",
    ]
    assert all(beats_random(methods["gradcam"]).values())
    assert not any(beats_random(methods["eigencam"]).values())
    assert [objection(its).partition(":")[0] for its in methods.values()] == [
        "",
        "Does not depend on the model",
        "Does not depend on the type",
    ]


def test_the_page_warns_of_a_default_map_no_better_than_random_ones(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(low: float) -> dict:
        return {"methods": {"gradcam": {"margins": {key: {"low": low} for key in ("deletion", "insertion", "ROAD")}}}}

    for its, warned in ((found(0.01), False), (found(-0.01), True), (None, False)):
        monkeypatch.setattr(trial, "measured", lambda name, its=its: its)
        assert ("does not beat random maps by deletion, insertion, ROAD" in trial.warnings([classifier])) == warned
