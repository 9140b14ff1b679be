"""Maps and trivial baselines are judged by boxes, methods image by image, and what ignores the model is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from app.explain.faithfulness import HEAD, REST, beats_random, measured, objection
from app.explain.methods import DEFAULT, METHODS
from app.imaging.letterbox import Placement
from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier, Explanation, Prediction
from app.ui import trial
from training.evaluation.heatmaps import ASKED, BASELINES, faithfulness, with_mirrored
from training.studies.report import render

BIASES = np.array([0.1, 0.0, -0.1], np.float32)


def test_a_mirror_image_counts_as_much_as_the_image_and_its_maps_are_turned_back() -> None:
    rng = np.random.default_rng(1)
    film = Radiograph(np.zeros((40, 40), np.uint8), (0, 255))

    def explained(maps: np.ndarray, fracture: np.ndarray) -> Explanation:
        logits = maps.mean(axis=(1, 2)) + BIASES
        said = Prediction(("a", "b", "c"), logits, logits)
        return Explanation(film, Placement.fit(40, 40, 40), said, maps, BIASES, fracture, 1.0, "m")

    maps = rng.normal(size=(3, 5, 5)).astype(np.float32)
    fracture = rng.normal(size=(5, 5)).astype(np.float32)
    told = explained(maps, fracture)
    alike = with_mirrored(told, explained(maps[:, :, ::-1], fracture[:, ::-1]))
    np.testing.assert_allclose(
        alike[f"{ASKED}, mirror image asked too"], told.evidence(told.prediction.best), rtol=1e-6
    )
    assert alike["fracture map, mirror image asked too"].argmax() == fracture.argmax()
    other = told.prediction.classes.index(told.prediction.ranking[1])
    swayed = np.zeros_like(maps)
    swayed[other] = 50.0
    swayed[other, 2, 0] = 100.0
    both = with_mirrored(told, explained(swayed, fracture))[f"{ASKED}, mirror image asked too"]
    assert np.unravel_index(both.argmax(), both.shape) == (2, 4)


def test_baselines_know_nothing_but_their_rule() -> None:
    rng = np.random.default_rng(0)
    square = np.zeros((160, 160), np.uint8)
    square[:16, :16] = 255
    maps = {name: draw(square, (10, 10), rng) for name, draw in BASELINES.items()}
    assert {found.shape for found in maps.values()} == {(10, 10)}
    assert maps["the image's brightness"].argmax() == 0
    assert np.unravel_index(maps["centred Gaussian"].argmax(), (10, 10)) in {(4, 4), (4, 5), (5, 4), (5, 5)}
    assert not np.array_equal(maps["random"], BASELINES["random"](square, (10, 10), rng))


def test_localisation_knows_maps_baselines_regions_and_sizes(repository: Path) -> None:
    found = json.loads((repository / "weights/resnet18/localisation.json").read_text())
    assert found["part"] == "validation"
    instant = {how.title for name, how in METHODS.items() if how.cost == "instant" and name != DEFAULT}
    taught = {f"{name}{how}" for name in (ASKED, "fracture map") for how in ("", ", mirror image asked too")}
    assert set(found["maps"]) == {*taught, *BASELINES, *instant}
    for row in found["maps"].values():
        assert row["inside"]["n"] == found["images"] > 0
        assert row["inside"]["value"] <= row["near"]["value"]
        for kind in ("by_region", "by_size"):
            assert sum(its["inside"]["n"] for its in row[kind].values()) == found["images"]


@pytest.mark.slow
def test_methods_are_judged_image_by_image_and_an_interrupted_run_goes_on(
    repository: Path, drawn_atlas: Path, tmp_path: Path, cache: Path
) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(repository / "weights", weights)
    options = {"images": 3, "runs": tmp_path / "runs", "cache": cache}
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
    options["runs"] = tmp_path / "elsewhere"
    one = faithfulness("resnet18", drawn_atlas, weights, methods=["eigencam"], **options)
    assert list(one["methods"]) == ["gradcam", "layercam", "eigencam"]
    assert one["methods"]["layercam"] == again["methods"]["layercam"]
    fewer = faithfulness("resnet18", drawn_atlas, weights, methods=["eigencam"], **{**options, "images": 2})
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
    assert [(objection(its) or "").partition(":")[0] for its in methods.values()] == [
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
