"""Every method on every road: right where it can be checked, alone with its state, stoppable."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from app.errors import Cancelled, Progress
from app.explain import perturbation
from app.explain.methods import DEFAULT, METHODS, draw, map_request
from app.imaging.examples import draw as phantom
from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier
from app.model.network import build_network

FEW = 48


@pytest.fixture(scope="module")
def classifier(classifier: Classifier) -> Classifier:
    """A network of few channels, since Score-CAM takes a forward for each."""
    torch.manual_seed(5)
    network = build_network("custom-cnn", len(classifier.classes), stride=8).eval().requires_grad_(False)
    return Classifier(network, classifier.card.model_copy(update={"architecture": "custom-cnn", "stride": 8}))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer samples than users get, which changes no rule."""
    monkeypatch.setattr(perturbation, "SAMPLES", FEW)
    monkeypatch.setattr(perturbation, "STEPS", 4)
    monkeypatch.setattr(perturbation, "SUPERPIXELS", 9)


@pytest.mark.parametrize("method", list(METHODS))
def test_a_map_is_a_map_and_nothing_is_left_behind(
    method: str, classifier: Classifier, film: Radiograph, quick: None
) -> None:
    before = {name: tensor.clone() for name, tensor in classifier.network.state_dict().items()}
    told = []
    question = map_request(classifier, film, watch=Progress(tell=told.append))
    found = draw(question, method)
    assert found.ndim == 2
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert found.min() >= 0.0
    # To a network that has learnt nothing a black film may score higher, and then no patch speaks for the class.
    assert found.max() > 0.0 or method in ("lime", "shap")
    assert told == sorted(told)
    assert (len(told) > 0) == (METHODS[method].cost == "slow" or method == "integrated-gradients")
    if told:
        assert told[-1] == pytest.approx(1.0, abs=0.1)
    for module in classifier.network.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
    assert all(p.grad is None and not p.requires_grad for p in classifier.network.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in classifier.network.state_dict().items())


def test_the_default_map_is_what_the_page_draws_and_stands_in_the_list_once(
    classifier: Classifier, film: Radiograph
) -> None:
    explanation = classifier.explain([film])[0]
    for name in explanation.prediction.ranking[:3]:
        found = draw(map_request(classifier, film, name))
        np.testing.assert_allclose(found, np.maximum(explanation.evidence(name), 0.0), rtol=1e-4, atol=1e-5)
    titles = [method.title for method in METHODS.values()]
    assert DEFAULT == "gradcam"
    assert METHODS[DEFAULT].title == "Grad-CAM"
    assert len(set(titles)) == len(titles)


@pytest.mark.slow
def test_eight_users_with_mixed_methods_get_the_serial_maps(classifier: Classifier, quick: None) -> None:
    films = [Radiograph(phantom("jagged", seed=i, height=150 + i, width=110), (0, 255)) for i in range(2)]
    # The slow ones on one film alone: they ask the network hundreds of times.
    jobs = [(film, name) for film in films for name, how in METHODS.items() if film is films[0] or how.cost != "slow"]
    serial = [draw(map_request(classifier, film), method) for film, method in jobs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda job: draw(map_request(classifier, job[0]), job[1]), jobs))
    for (_, method), one, other in zip(jobs, serial, together, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * float(one.max()), err_msg=method)


def test_classes_that_are_none_are_refused(classifier: Classifier, film: Radiograph) -> None:
    with pytest.raises(ValueError, match="not a type"):
        map_request(classifier, film, "sprain")
    with pytest.raises(ValueError, match="told from itself"):
        map_request(classifier, film, "spiral", "spiral")
    question = map_request(classifier, film)
    order = classifier.explain([film])[0].prediction.ranking
    assert (classifier.classes[question.target], classifier.classes[question.against]) == order[:2]


@pytest.mark.parametrize("method", ["scorecam", "occlusion", "lime", "shap", "integrated-gradients"])
def test_slow_methods_stop_when_told_and_when_late(
    method: str, classifier: Classifier, film: Radiograph, quick: None
) -> None:
    watch = Progress()
    watch.stop()
    with pytest.raises(Cancelled, match="stopped"):
        draw(map_request(classifier, film, watch=watch), method)
    with pytest.raises(Cancelled, match="longer than"):
        draw(map_request(classifier, film, watch=Progress(seconds=0.0)), method)
    for module in classifier.network.modules():
        assert not module._forward_hooks
