"""Maps and trivial baselines, judged by boxes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from app.explain.methods import DEFAULT, METHODS
from app.imaging.letterbox import Placement
from app.imaging.radiograph import Radiograph
from app.model.classifier import Explanation, Prediction
from training.evaluation.localisation import ASKED, BASELINES, with_mirrored

BIASES = np.array([0.1, 0.0, -0.1], np.float32)


def test_a_mirror_image_counts_as_much_as_the_film_and_its_maps_are_turned_back() -> None:
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
    assert maps["the film's brightness"].argmax() == 0
    assert np.unravel_index(maps["centred Gaussian"].argmax(), (10, 10)) in {(4, 4), (4, 5), (5, 4), (5, 5)}
    assert not np.array_equal(maps["random"], BASELINES["random"](square, (10, 10), rng))


def test_localisation_knows_maps_baselines_regions_and_sizes(repository: Path) -> None:
    found = json.loads((repository / "weights/resnet18/localisation.json").read_text())
    assert found["part"] == "validation"
    instant = {how.title for name, how in METHODS.items() if how.cost == "instant" and name != DEFAULT}
    taught = {f"{name}{how}" for name in (ASKED, "fracture map") for how in ("", ", mirror image asked too")}
    assert set(found["maps"]) == {*taught, *BASELINES, *instant}
    for row in found["maps"].values():
        assert row["inside"]["n"] == found["films"] > 0
        assert row["inside"]["value"] <= row["near"]["value"]
        for kind in ("by_region", "by_size"):
            assert sum(its["inside"]["n"] for its in row[kind].values()) == found["films"]
