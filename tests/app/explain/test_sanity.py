"""Sanity checks, checked: a map that does not depend on the model must be caught, and a stable one be called so."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from app.explain.checks import dependence
from app.explain.methods import MapRequest, draw, map_request
from app.explain.sanity import (
    CHANGES,
    HEAD,
    REST,
    Randomised,
    _shuffle,
    fair_changes,
    randomise_weights,
    rank_correlation,
    stability,
)
from app.imaging.radiograph import Radiograph
from app.model.backbones import ARCHITECTURES
from app.model.classifier import Classifier
from app.model.network import build_network


@pytest.mark.slow
def test_weight_randomisation_catches_a_method_that_ignores_the_model(
    classifier: Classifier, film: Radiograph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.explain.sanity.REPEATS", {"instant": 2, "seconds": 1, "slow": 1})
    before = {name: tensor.clone() for name, tensor in classifier.network.state_dict().items()}
    asked = map_request(classifier, film)
    blind = randomise_weights(asked, "eigencam", draw(asked, "eigencam"))
    seeing = randomise_weights(asked, "gradcam", draw(asked, "gradcam"))
    assert [step.down_to for step in blind] == ["head", "layer4", "layer3", "layer2", "layer1", REST]
    assert blind[0].correlation == pytest.approx(1.0)
    assert len(seeing[0].correlations) == 2
    assert seeing[0].correlation < 0.8
    slow = randomise_weights(asked, "gradcam-earlier", draw(asked, "gradcam-earlier"))
    assert [step.down_to for step in slow] == [HEAD, REST]
    assert all(torch.equal(before[name], tensor) for name, tensor in classifier.network.state_dict().items())


@pytest.mark.parametrize(
    "architecture",
    ["resnet18", *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet18-pyramid", "vgg16-bn"))],
)
def test_no_weight_stays_in_its_place(architecture: str) -> None:
    torch.manual_seed(0)
    stride = ARCHITECTURES[architecture].strides[0]
    network = build_network(architecture, 10, stride=stride, head="attended", places=True)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.normal_()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    done: set[str] = set()
    generator = torch.Generator().manual_seed(0)
    for part in ("head", *ARCHITECTURES[architecture].stages, REST):
        _shuffle(network, part, done, generator)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and tensor.numel() > 1:
            assert not torch.equal(tensor, before[name]), name
            assert torch.equal(tensor.flatten().sort().values, before[name].flatten().sort().values), name


def test_a_map_turned_into_its_opposite_has_kept_what_it_shows() -> None:
    assert Randomised(HEAD, np.ones((2, 2)), (-0.9, 0.9)).correlation == pytest.approx(0.9)


@pytest.mark.slow
def test_networks_that_leave_no_heat_are_not_called_different(classifier: Classifier, film: Radiograph) -> None:
    network = copy.deepcopy(classifier.network)
    network.head.weight.fill_(-1.0)
    asked = map_request(Classifier(network, classifier.card), film)
    found = draw(map_request(classifier, film))
    for step in randomise_weights(asked, "gradcam", found):
        assert step.correlations == ()
        assert step.correlation is None
        assert np.ptp(step.found) == 0.0


def steps(head: tuple[float, ...], last: tuple[float, ...]) -> tuple[Randomised, Randomised]:
    flat = np.zeros((2, 2), np.float32)
    return Randomised(HEAD, flat, head), Randomised(REST, flat, last)


@pytest.mark.parametrize(
    ("head", "last", "kind", "words"),
    [
        ((0.5, -0.4), (0.1, -0.2), "good", "It changes with the model, as it should."),
        ((), (0.1,), "good", "It changes with the model, as it should."),
        ((0.5,), (-0.5, 0.4), "poor", "It does not depend on the model: a red flag."),
        ((0.99,), (0.1,), "poor", "It depends on the model, but not on the type asked about."),
        ((0.5,), (), "mixed", "Whether it depends on the model cannot be said."),
    ],
)
def test_weight_randomisation_is_put_into_words(
    head: tuple[float, ...], last: tuple[float, ...], kind: str, words: str
) -> None:
    told = dependence(steps(head, last))
    assert told[:2] == (kind, words)
    if last:
        assert f"{np.mean(np.abs(last)):.2f}" in told[2]


def test_maps_of_what_is_there_are_stable_and_chance_is_not(question: MapRequest) -> None:
    found = stability(question, "gradcam", draw(question))
    assert [each.title for each in found] == [change.title for change in CHANGES]
    by_title = {each.title: each.correlation for each in found}
    assert by_title["mirrored"] == pytest.approx(1.0, abs=0.02)
    rng = np.random.default_rng(0)
    noise = stability(question, "gradcam", rng.random(draw(question).shape).astype(np.float32))
    assert np.mean([each.correlation for each in noise]) < 0.3 < np.mean(list(by_title.values()))


def test_a_model_that_learnt_that_sides_differ_is_not_asked_for_the_mirror(classifier: Classifier) -> None:
    assert fair_changes(classifier.card) == CHANGES
    sided = classifier.card.model_copy(update={"recipe": {"augment": {"flip": False}}})
    assert [change.title for change in fair_changes(sided)] == [change.title for change in CHANGES[1:]]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.title)
def test_changes_are_small_and_go_back(change: object) -> None:
    square = np.zeros((90, 90), np.float32)
    square[20:50, 30:70] = 0.6
    there = change.there(square)  # ty: ignore[unresolved-attribute]
    assert there.dtype == np.float32
    assert there.min() >= 0.0
    assert there.max() <= 1.0
    again = change.back(there)  # ty: ignore[unresolved-attribute]
    assert np.corrcoef(again.ravel(), square.ravel())[0, 1] > 0.95


def test_measures_of_likeness() -> None:
    rng = np.random.default_rng(2)
    one = rng.random((40, 40)).astype(np.float32)
    assert rank_correlation(one, one**3) == pytest.approx(1.0)
    assert rank_correlation(one, -one) == pytest.approx(-1.0)
    assert rank_correlation(one, np.ones_like(one)) == 0.0
