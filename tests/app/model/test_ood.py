from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save
from typer.testing import CliRunner

from app.cli import cli
from app.errors import ImageError, RejectedError, WeightsError
from app.imaging.examples import BREAKS, draw
from app.imaging.letterbox import letterbox, normalise
from app.imaging.pixels import IN_COLOUR
from app.imaging.radiograph import Radiograph, read
from app.model.backbones import ARCHITECTURES
from app.model.classifier import LIKENESS_WARNINGS, Classifier
from app.model.network import build_network
from app.model.ood import MEAN, STD, Detector, DetectorCard, backbone, pooled, stage_features
from app.model.weights import DEFAULT_FOLDER, load_card, ranked, with_interval
from app.pipeline import explain_image
from app.ui.about import whole_card
from app.ui.text import verdict

NOISE = Radiograph(np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8), (0, 255))
SIZE = 96


def phantom(seed: int) -> Radiograph:
    return Radiograph(draw(list(BREAKS)[seed % len(BREAKS)], seed=seed), (0, 255))


def squares(films: list[Radiograph]) -> np.ndarray:
    return np.stack([letterbox(film, SIZE)[0] for film in films])


@pytest.fixture(scope="module")
def detector() -> Detector:
    """Tells noise from drawn radiographs, by the difference between the two."""
    torch.manual_seed(0)
    network = backbone()
    card = DetectorCard(file="detector.safetensors", sha256="0" * 64, size=SIZE, warning=0.0, rejection=0.0)
    apart = Detector(network, torch.zeros(512), 0.0, card)
    means = [
        pooled(apart.extractor, normalise(torch.from_numpy(squares(its))[:, None], MEAN, STD)).mean(dim=0)
        for its in ([phantom(seed) for seed in range(6)], [NOISE])
    ]
    weight = means[1] - means[0]
    found = Detector(network, weight, 0.0, card)
    real = found.scores(squares([phantom(seed) for seed in range(6, 12)])).max()
    middle = float(real + found.scores(squares([NOISE]))[0]) / 2
    return Detector(network, weight, -middle, card)


@pytest.fixture(scope="module")
def choosy(classifier: Classifier, detector: Detector) -> Classifier:
    return Classifier(classifier.network, classifier.card, detector)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_the_stages_say_what_they_say_in_the_whole_body(name: str) -> None:
    torch.manual_seed(0)
    body = build_network(name, 10, stride=ARCHITECTURES[name].strides[0]).eval().body
    stages = ARCHITECTURES[name].stages[-2:]
    pixels = torch.randn(2, 3, 96, 96)
    said: dict[str, torch.Tensor] = {}
    hooks = [
        body.get_submodule(stage).register_forward_hook(lambda _m, _i, out, stage=stage: said.update({stage: out}))
        for stage in stages
    ]
    with torch.inference_mode():
        body(pixels)
    for hook in hooks:
        hook.remove()
    theirs = [part for its in said.values() for part in (its.mean(dim=(2, 3)), its.std(dim=(2, 3)))]
    torch.testing.assert_close(pooled(stage_features(body, stages), pixels), torch.cat(theirs, dim=1))


def test_what_is_no_radiograph_is_rejected_and_a_radiograph_is_not(choosy: Classifier) -> None:
    film = phantom(77)
    assert choosy.check(film) == "in-distribution"
    with pytest.raises(RejectedError, match="not look like any radiograph"):
        choosy.check(NOISE)
    assert choosy.check(NOISE, anyway=True) == "out-of-distribution"


def test_between_the_thresholds_people_are_warned_and_answered(classifier: Classifier, detector: Detector) -> None:
    easily = copy(detector)
    easily.card = detector.card.model_copy(update={"warning": -1e9})
    wary = Classifier(classifier.network, classifier.card, easily)
    result = explain_image(phantom(77), model=wary)
    assert result.as_json()["ood"] == {"state": "unusual", "words": LIKENESS_WARNINGS["unusual"]}
    assert LIKENESS_WARNINGS["unusual"] in verdict(wary.card, result.explanation, likeness="unusual")


def test_what_is_in_colour_is_rejected_where_others_are_warned_of(detector: Detector) -> None:
    easily = copy(detector)
    easily.card = detector.card.model_copy(update={"warning": -1e9})
    film = phantom(77)
    assert easily.likeness(film) == "unusual"
    assert easily.likeness(replace(film, notes=(IN_COLOUR,))) == "out-of-distribution"
    assert detector.likeness(replace(film, notes=(IN_COLOUR,))) == "in-distribution"


def test_without_a_detector_nothing_is_rejected(classifier: Classifier, tmp_path: Path) -> None:
    assert Detector.load(tmp_path) is None
    assert classifier.detector is None
    assert classifier.check(NOISE) is None


def test_scores_are_the_same_alone_together_and_at_once(detector: Detector) -> None:
    films = squares([phantom(seed) for seed in range(40, 48)])
    with ThreadPoolExecutor(8) as pool:
        alone = np.concatenate(list(pool.map(lambda one: detector.scores(one[None]), films)))
    np.testing.assert_allclose(detector.scores(films), alone, rtol=1e-3, atol=1e-3)


def test_a_detector_is_read_as_it_was_written_and_a_damaged_one_is_refused(detector: Detector, tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {key: its.half() if its.is_floating_point() else its for key, its in backbone().state_dict().items()}
    blob = save({**state, "weight": detector.weight, "bias": torch.tensor(detector.bias)})
    card = detector.card.model_copy(update={"sha256": hashlib.sha256(blob).hexdigest()})
    (tmp_path / "ood").mkdir()
    (tmp_path / "ood" / card.file).write_bytes(blob)
    (tmp_path / "ood" / "detector.json").write_text(card.model_dump_json())
    loaded = Detector.load(tmp_path)
    assert loaded is not None
    assert loaded.likeness(NOISE) == "out-of-distribution"
    assert loaded.likeness(phantom(77)) == "in-distribution"
    (tmp_path / "ood" / card.file).write_bytes(blob[:-1])
    with pytest.raises(WeightsError, match="damaged"):
        Detector.load(tmp_path)
    (tmp_path / "ood" / "detector.json").write_text("{}")
    with pytest.raises(WeightsError, match="cannot be used"):
        Detector.load(tmp_path)


def test_the_command_line_refuses_unless_told_otherwise(
    choosy: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli._load", lambda *_: choosy)
    path = tmp_path / "noise.png"
    cv2.imwrite(str(path), NOISE.pixels)
    arguments = ["explain", str(path), "--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(cli, arguments)
    assert refused.exit_code == 1
    assert "--anyway" in refused.output
    assert not [*tmp_path.rglob("explanation.json")]
    told = CliRunner().invoke(cli, [*arguments, "--anyway"])
    assert told.exit_code == 0
    assert (tmp_path / "out" / "noise" / "explanation.json").is_file()


@pytest.fixture(scope="module")
def shipped() -> Detector:
    found = Detector.load(DEFAULT_FOLDER)
    assert found is not None
    return found


def test_noise_and_a_page_of_text_are_rejected_by_what_ships(shipped: Detector) -> None:
    page = np.full((800, 600), 255, np.uint8)
    for line in range(20):
        cv2.putText(page, "the quick brown fox jumps over", (20, 40 + 38 * line), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 0, 2)
    assert shipped.likeness(NOISE) == "out-of-distribution"
    assert shipped.likeness(Radiograph(page, (0, 255))) == "out-of-distribution"


def test_figures_are_told_with_what_they_were_measured_on(shipped: Detector) -> None:
    text = whole_card(load_card(ranked()[0]))
    others = shipped.card.metrics["others"]["rejected"]
    assert with_interval(others) in text
    assert others["value"] >= 0.95
    for name, its in shipped.card.metrics["radiographs"].items():
        assert name in text
        assert its["kept"]["value"] > 0.97


@pytest.mark.skipif("FRACTURE_DATA" not in os.environ, reason="FRACTURE_DATA names no folder with images")
def test_radiographs_are_answered_and_photographs_are_not(shipped: Detector) -> None:
    folder = Path(os.environ["FRACTURE_DATA"])
    for path in sorted((folder / "dicom").glob("RG3_*.dcm")):
        try:
            film = read(path)
        except ImageError:
            continue  # What cannot be decoded is the decoders' matter, and tested there.
        assert shipped.likeness(film) != "out-of-distribution", path.name
    others = [shipped.likeness(read(path)) for path in sorted((folder / "not-xray").glob("*"))]
    assert others.count("out-of-distribution") >= 0.95 * len(others)
