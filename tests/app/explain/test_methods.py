"""Every method on every road: right where it can be checked, alone with its state, stoppable."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import permutations

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, KernelShap, Occlusion
from pytorch_grad_cam import FullGrad, GradCAM, ScoreCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from sklearn.linear_model import Ridge
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from app.errors import Cancelled, Progress
from app.explain import perturbation as attribution
from app.explain.methods import DEFAULT, METHODS, ask, draw
from app.imaging.phantom import draw as phantom
from app.imaging.radiograph import Radiograph
from app.model.backbones import ARCHITECTURES
from app.model.classifier import Classifier
from app.model.network import Evidence, build_network
from tests.app.model.test_network import CLASSES, awake, untouched

FEW = 48


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer samples than users get, which changes no rule."""
    monkeypatch.setattr(attribution, "SAMPLES", FEW)
    monkeypatch.setattr(attribution, "STEPS", 4)
    monkeypatch.setattr(attribution, "SUPERPIXELS", 9)


@pytest.mark.parametrize("method", list(METHODS))
def test_a_map_is_a_map_and_nothing_is_left_behind(
    method: str, classifier: Classifier, film: Radiograph, quick: None
) -> None:
    before = {name: tensor.clone() for name, tensor in classifier.network.state_dict().items()}
    told = []
    question = ask(classifier, film, watch=Progress(tell=told.append))
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
        found = draw(ask(classifier, film, name))
        np.testing.assert_allclose(found, np.maximum(explanation.evidence(name), 0.0), rtol=1e-4, atol=1e-5)
    titles = [method.title for method in METHODS.values()]
    assert DEFAULT == "gradcam"
    assert METHODS[DEFAULT].title == "Grad-CAM"
    assert len(set(titles)) == len(titles)


def test_eight_users_with_mixed_methods_get_the_serial_maps(classifier: Classifier, quick: None) -> None:
    films = [Radiograph(phantom("jagged", seed=i, height=150 + i, width=110), (0, 255)) for i in range(2)]
    jobs = [(film, method) for film in films for method in METHODS]
    serial = [draw(ask(classifier, film), method) for film, method in jobs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda job: draw(ask(classifier, job[0]), job[1]), jobs))
    for (_, method), one, other in zip(jobs, serial, together, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * float(one.max()), err_msg=method)


def test_classes_that_are_none_are_refused(classifier: Classifier, film: Radiograph) -> None:
    with pytest.raises(ValueError, match="not a type"):
        ask(classifier, film, "sprain")
    with pytest.raises(ValueError, match="told from itself"):
        ask(classifier, film, "spiral", "spiral")
    question = ask(classifier, film)
    order = classifier.explain([film])[0].prediction.ranking
    assert (classifier.classes[question.target], classifier.classes[question.against]) == order[:2]


@pytest.mark.parametrize("method", ["scorecam", "occlusion", "lime", "shap", "integrated-gradients"])
def test_slow_methods_stop_when_told_and_when_late(
    method: str, classifier: Classifier, film: Radiograph, quick: None
) -> None:
    watch = Progress()
    watch.stop()
    with pytest.raises(Cancelled, match="stopped"):
        draw(ask(classifier, film, watch=watch), method)
    with pytest.raises(Cancelled, match="longer than"):
        draw(ask(classifier, film, watch=Progress(seconds=0.0)), method)
    for module in classifier.network.modules():
        assert not module._forward_hooks


def test_score_cam_and_fullgrad_equal_the_package_on_the_whole_network() -> None:
    torch.manual_seed(1)
    network = awake(build_network("resnet18", CLASSES)).requires_grad_(False)
    nn.init.normal_(network.head.weight, std=5.0)
    plain, last = untouched("resnet18", network)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        target = int(network(pixels).logits[0].argmax())
    with ScoreCAM(model=plain, target_layers=[last]) as cam:
        theirs = cam(pixels, [ClassifierOutputTarget(target)])[0]
    ours = attribution.score_cam(network, pixels, target, Progress())
    stretched = scale_cam_image(scale_cam_image(ours[None], (64, 64)))[0]
    assert np.abs(stretched - theirs).max() < 1e-3
    with FullGrad(model=plain, target_layers=[]) as cam:
        theirs = cam(pixels.clone().requires_grad_(True), [ClassifierOutputTarget(target)])[0]
    assert np.abs(attribution.fullgrad(network, pixels, target) - theirs).max() < 1e-3
    with GradCAM(model=plain, target_layers=[plain.layer3, plain.layer4]) as cam:
        theirs = cam(pixels, [ClassifierOutputTarget(target)])[0]
    fused = attribution.layer_maps(network, pixels, target, ["layer3", "layer4"])
    assert np.abs(fused - theirs).max() < 1e-3


def test_pixel_methods_equal_captum_on_the_whole_network() -> None:
    torch.manual_seed(2)
    network = awake(build_network("resnet18", CLASSES)).requires_grad_(False)
    nn.init.normal_(network.head.weight, std=5.0)
    plain, _ = untouched("resnet18", network)
    pixels, black = torch.randn(1, 3, 64, 64), torch.full((1, 3, 64, 64), -2.0)
    target = int(plain(pixels)[0].argmax())

    def agrees(ours: np.ndarray, theirs: torch.Tensor) -> None:
        expected = theirs.detach().numpy().clip(min=0)
        np.testing.assert_allclose(ours, expected, atol=1e-3 * float(expected.max()))

    gradients = IntegratedGradients(plain).attribute(pixels, black, target=target, n_steps=attribution.STEPS)
    agrees(attribution.integrated_gradients(network, pixels, black, target, Progress()), gradients[0].sum(dim=0))
    windows = Occlusion(plain).attribute(
        pixels, sliding_window_shapes=(3, 8, 8), strides=(3, 4, 4), baselines=black, target=target
    )
    agrees(attribution.occlusion(network, pixels, black, target, Progress()), windows[0, 0])


def test_shap_comes_to_the_values_counted_out_over_all_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    network = awake(build_network("custom-cnn", CLASSES, stride=8)).requires_grad_(False)
    nn.init.normal_(network.head.weight, std=5.0)
    pixels, black = torch.randn(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
    square = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    monkeypatch.setattr(attribution, "SUPERPIXELS", 4)
    monkeypatch.setattr(attribution, "SAMPLES", 4000)
    patches = torch.from_numpy(attribution.superpixels(square, 4))
    count = int(patches.max()) + 1
    with torch.inference_mode():
        target = int((network(pixels).logits - network(black).logits)[0].argmax())

        @cache
        def score(left: frozenset[int]) -> float:
            lit = torch.isin(patches, torch.tensor(sorted(left)))
            return float(network(torch.where(lit, pixels, black)).logits[0, target])

        fair = np.zeros(count)
        for order in permutations(range(count)):
            for place, patch in enumerate(order):
                fair[patch] += score(frozenset(order[: place + 1])) - score(frozenset(order[:place]))
    fair /= math.factorial(count)
    ours = attribution.shap(network, pixels, black, square, target, Progress())
    np.testing.assert_allclose(ours, fair.clip(min=0)[patches.numpy()], atol=0.03 * np.abs(fair).max())
    theirs = KernelShap(lambda film: network(film).logits).attribute(
        pixels, baselines=black, target=target, feature_mask=patches[None, None], n_samples=4000
    )
    np.testing.assert_allclose(ours, theirs[0, 0].clamp(min=0).numpy(), atol=0.06 * np.abs(fair).max())


def test_least_squares_are_scikit_learn_s_ridge() -> None:
    rng = np.random.default_rng(0)
    seen = rng.integers(0, 2, (200, 12)).astype(np.float32)
    score = (seen @ rng.normal(size=12) + 0.1 * rng.normal(size=200) + 2.0).astype(np.float32)
    weight = rng.random(200).astype(np.float32)
    fitted = attribution._LeastSquares(1.0)
    fitted.fit(DataLoader(TensorDataset(*map(torch.from_numpy, (seen, score, weight))), batch_size=50))
    expected = Ridge(alpha=1.0).fit(seen, score, sample_weight=weight)
    np.testing.assert_allclose(fitted.representation()[0].numpy(), expected.coef_, rtol=1e-3)
    np.testing.assert_allclose(fitted(torch.from_numpy(seen)).numpy(), expected.predict(seen), rtol=1e-3)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_every_body_has_stages_to_draw_at(name: str) -> None:
    network = build_network(name, CLASSES, stride=ARCHITECTURES[name].strides[0]).eval()
    pixels = torch.randn(1, 3, 64, 64)
    sides = []
    for stage in ARCHITECTURES[name].stages:
        hook = network.body.get_submodule(stage).register_forward_hook(lambda *seen: sides.append(seen[2].shape[-1]))
        with torch.inference_mode():
            features = network.body(pixels)
        hook.remove()
    # A pyramid's last stage carries what the coarser ones found back to a finer grid.
    coarser = sides[:-1] if name.endswith("pyramid") else sides
    assert coarser == sorted(coarser, reverse=True)
    assert sides[-1] in (features.shape[-1], 2 * features.shape[-1])
    drawn = attribution.layer_maps(network, pixels, 0, ARCHITECTURES[name].stages[-2:])
    assert drawn.shape == (64, 64)


class Additive(nn.Module):
    """Ten scores that are sums over patches, so that every fair method must find the patches' own parts."""

    def __init__(self, patches: np.ndarray) -> None:
        super().__init__()
        self.patches = torch.from_numpy(patches)
        count = int(patches.max()) + 1
        self.parts = torch.randn(count, 10, generator=torch.Generator().manual_seed(3))

    def forward(self, pixels: torch.Tensor) -> Evidence:
        lit = [pixels[:, 0, self.patches == patch].mean(dim=1) for patch in range(len(self.parts))]
        return Evidence(torch.stack(lit, dim=1) @ self.parts, torch.zeros(len(pixels), 10, 1, 1))


def test_patches_get_their_own_share_of_an_additive_score() -> None:
    square = np.zeros((64, 64), np.float32)
    square[:, 32:] = 1.0
    patches = attribution.superpixels(square, 48)
    network = Additive(patches)
    pixels, black = torch.ones(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    expected = network.parts[:, 4].clamp(min=0).numpy()[patches]
    fair = attribution.shap(network, pixels, black, square, 4, Progress())  # ty: ignore[invalid-argument-type]
    np.testing.assert_allclose(fair, expected, atol=1e-3)
    near = attribution.lime(network, pixels, black, square, 4, Progress())  # ty: ignore[invalid-argument-type]
    assert np.corrcoef(near.ravel(), expected.ravel())[0, 1] > 0.95


def test_superpixels_keep_to_edges_and_are_the_same_each_time() -> None:
    square = np.zeros((80, 80), np.float32)
    square[20:60, 20:60] = 1.0
    patches = attribution.superpixels(square, 48)
    assert set(np.unique(patches)) == set(range(int(patches.max()) + 1))
    assert np.array_equal(patches, attribution.superpixels(square, 48))
    mixed = [square[patches == patch].mean() for patch in range(int(patches.max()) + 1)]
    assert np.mean([min(share, 1 - share) < 0.1 for share in mixed]) > 0.8
    assert math.isclose(len(mixed), 48, rel_tol=0.35)


def test_integrated_gradients_add_up_to_the_difference() -> None:
    torch.manual_seed(2)
    network = awake(build_network("custom-cnn", CLASSES, stride=8)).requires_grad_(False)
    pixels, black = torch.rand(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
    with torch.inference_mode():
        rise = (network(pixels).logits - network(black).logits)[0]
    target = int(rise.argmax())
    found = attribution.integrated_gradients(network, pixels, black, target, Progress())
    opposed = attribution.integrated_gradients(_Negated(network), pixels, black, target, Progress())  # ty: ignore
    assert found.sum() - opposed.sum() == pytest.approx(float(rise[target]), rel=0.05, abs=0.05)


class _Negated(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> Evidence:
        found = self.network(pixels)
        return Evidence(-found.logits, found.maps)
