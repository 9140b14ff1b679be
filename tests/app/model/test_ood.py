from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save
from typer.testing import CliRunner

from app.cli import cli
from app.errors import RejectedError, WeightsError
from app.imaging.examples import BREAKS, draw
from app.imaging.letterbox import letterbox
from app.imaging.radiograph import Radiograph
from app.model.backbones import ARCHITECTURES
from app.model.classifier import Classifier
from app.model.network import build_network
from app.model.ood import OODDetector, pooled, stage_features
from app.model.weights import ReferenceSet

NOISE = Radiograph(np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8), (0, 255))


def phantoms(classifier: Classifier, seeds: range) -> torch.Tensor:
    films = [Radiograph(draw(list(BREAKS)[i % len(BREAKS)], seed=i), (0, 255)) for i in seeds]
    return classifier.pixels([letterbox(film, classifier.card.size)[0] for film in films])


@pytest.fixture(scope="module")
def knowing(classifier: Classifier) -> Classifier:
    """A model that knows twenty drawn films and refuses what is farther than any of ten others."""
    extractor = stage_features(classifier.network.body, ("layer2", "layer3"))
    typical = OODDetector(extractor, pooled(extractor, phantoms(classifier, range(20))), 5, 1.0)
    typical.limit = 1.2 * float(typical.distance(phantoms(classifier, range(20, 30))).max())
    return Classifier(classifier.network, classifier.card, typical)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_the_stages_say_what_they_say_in_the_whole_body(name: str) -> None:
    torch.manual_seed(0)
    body = build_network(name, 10, stride=ARCHITECTURES[name].strides[0]).eval().body
    pixels = torch.randn(2, 3, 96, 96)
    said: dict[str, torch.Tensor] = {}
    hooks = [
        body.get_submodule(stage).register_forward_hook(lambda _m, _i, out, stage=stage: said.update({stage: out}))
        for stage in ARCHITECTURES[name].middle
    ]
    with torch.inference_mode():
        body(pixels)
    for hook in hooks:
        hook.remove()
    theirs = [part for its in said.values() for part in (its.mean(dim=(2, 3)), its.std(dim=(2, 3)))]
    ours = pooled(stage_features(body, ARCHITECTURES[name].middle), pixels)
    torch.testing.assert_close(ours, torch.cat(theirs, dim=1))


def test_what_is_no_film_is_refused_and_a_film_is_not(knowing: Classifier, film: Radiograph) -> None:
    knowing.check(Radiograph(draw("oblique", seed=77), (0, 255)))
    with pytest.raises(RejectedError, match="not like any radiograph"):
        knowing.check(NOISE)


def test_a_model_that_knows_no_films_refuses_nothing(classifier: Classifier) -> None:
    classifier.check(NOISE)


def test_distances_are_the_same_alone_together_and_at_once(knowing: Classifier) -> None:
    assert knowing.typical is not None
    pixels = phantoms(knowing, range(40, 48))
    together = knowing.typical.distance(pixels)
    with ThreadPoolExecutor(8) as pool:
        alone = np.concatenate(list(pool.map(lambda one: knowing.typical.distance(one[None]), pixels)))
    np.testing.assert_allclose(together, alone, rtol=1e-3)


def test_a_damaged_bank_is_refused(classifier: Classifier, tmp_path: Path) -> None:
    blob = save({"features": torch.randn(10, 768).half()})
    (tmp_path / "typical.safetensors").write_bytes(blob)
    said = hashlib.sha256(blob).hexdigest()
    films = ReferenceSet(file="typical.safetensors", sha256=said, stages=("layer2", "layer3"), neighbours=3, limit=1.0)
    assert OODDetector.load(classifier.network.body, films, tmp_path).bank.shape == (10, 768)
    (tmp_path / "typical.safetensors").write_bytes(blob[:-1])
    with pytest.raises(WeightsError, match="damaged"):
        OODDetector.load(classifier.network.body, films, tmp_path)


def test_the_command_line_refuses_unless_told_otherwise(
    knowing: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli._load", lambda _model: knowing)
    path = tmp_path / "noise.png"
    cv2.imwrite(str(path), NOISE.pixels)
    arguments = ["explain", str(path), "--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(cli, arguments)
    assert refused.exit_code == 1
    assert "--anyway" in refused.output
    assert not any((tmp_path / "out").iterdir())
    told = CliRunner().invoke(cli, [*arguments, "--anyway"])
    assert told.exit_code == 0
    assert (tmp_path / "out" / "noise" / "explanation.json").is_file()
