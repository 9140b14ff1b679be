"""Methods that need the pixels equal the packages' own, and values counted out by hand."""

from __future__ import annotations

import math
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

from app.errors import Progress
from app.explain import perturbation
from app.model.backbones import ARCHITECTURES
from app.model.network import build_network
from tests.app.model.test_network import CLASSES, awake, untouched


@pytest.mark.slow
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
    ours = perturbation.score_cam(network, pixels, target, Progress())
    stretched = scale_cam_image(scale_cam_image(ours[None], (64, 64)))[0]
    assert np.abs(stretched - theirs).max() < 1e-3
    with FullGrad(model=plain, target_layers=[]) as cam:
        theirs = cam(pixels.clone().requires_grad_(True), [ClassifierOutputTarget(target)])[0]
    assert np.abs(perturbation.fullgrad(network, pixels, target) - theirs).max() < 1e-3
    with GradCAM(model=plain, target_layers=[plain.layer3, plain.layer4]) as cam:
        theirs = cam(pixels, [ClassifierOutputTarget(target)])[0]
    fused = perturbation.layer_maps(network, pixels, target, ["layer3", "layer4"])
    assert np.abs(fused - theirs).max() < 1e-3


@pytest.mark.slow
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

    gradients = IntegratedGradients(plain).attribute(pixels, black, target=target, n_steps=perturbation.STEPS)
    agrees(perturbation.integrated_gradients(network, pixels, black, target, Progress()), gradients[0].sum(dim=0))
    windows = Occlusion(plain).attribute(
        pixels, sliding_window_shapes=(3, 8, 8), strides=(3, 4, 4), baselines=black, target=target
    )
    agrees(perturbation.occlusion(network, pixels, black, target, Progress()), windows[0, 0])


@pytest.mark.slow
def test_shap_comes_to_the_values_counted_out_over_all_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    network = awake(build_network("custom-cnn", CLASSES, stride=8)).requires_grad_(False)
    nn.init.normal_(network.head.weight, std=5.0)
    pixels, black = torch.randn(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
    square = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    monkeypatch.setattr(perturbation, "SUPERPIXELS", 4)
    monkeypatch.setattr(perturbation, "SAMPLES", 4000)
    patches = torch.from_numpy(perturbation.superpixels(square, 4))
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
    ours = perturbation.shap(network, pixels, black, square, target, Progress())
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
    fitted = perturbation._LeastSquares(1.0)
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
    drawn = perturbation.layer_maps(network, pixels, 0, ARCHITECTURES[name].stages[-2:])
    assert drawn.shape == (64, 64)


class Additive(nn.Module):
    """Ten scores that are sums over patches, so that every fair method must find the patches' own parts."""

    def __init__(self, patches: np.ndarray) -> None:
        super().__init__()
        self.patches = torch.from_numpy(patches)
        count = int(patches.max()) + 1
        self.parts = torch.randn(count, 10, generator=torch.Generator().manual_seed(3))

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        lit = [pixels[:, 0, self.patches == patch].mean(dim=1) for patch in range(len(self.parts))]
        return torch.stack(lit, dim=1) @ self.parts


def test_patches_get_their_own_share_of_an_additive_score() -> None:
    square = np.zeros((64, 64), np.float32)
    square[:, 32:] = 1.0
    patches = perturbation.superpixels(square, 48)
    network = Additive(patches)
    pixels, black = torch.ones(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    expected = network.parts[:, 4].clamp(min=0).numpy()[patches]
    fair = perturbation.shap(network, pixels, black, square, 4, Progress())  # ty: ignore[invalid-argument-type]
    np.testing.assert_allclose(fair, expected, atol=1e-3)
    near = perturbation.lime(network, pixels, black, square, 4, Progress())  # ty: ignore[invalid-argument-type]
    assert np.corrcoef(near.ravel(), expected.ravel())[0, 1] > 0.95


def test_superpixels_keep_to_edges_and_are_the_same_each_time() -> None:
    square = np.zeros((80, 80), np.float32)
    square[20:60, 20:60] = 1.0
    patches = perturbation.superpixels(square, 48)
    assert set(np.unique(patches)) == set(range(int(patches.max()) + 1))
    assert np.array_equal(patches, perturbation.superpixels(square, 48))
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
    found = perturbation.integrated_gradients(network, pixels, black, target, Progress())
    opposed = perturbation.integrated_gradients(_Negated(network), pixels, black, target, Progress())  # ty: ignore
    assert found.sum() - opposed.sum() == pytest.approx(float(rise[target]), rel=0.05, abs=0.05)


class _Negated(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        return -self.network(pixels).logits
