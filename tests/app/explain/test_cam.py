from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from pytorch_grad_cam import AblationCAM, FinerCAM
from pytorch_grad_cam.ablation_layer import AblationLayer
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget, FinerWeightedTarget
from torch import nn

from app.explain.cam import FORMULAS, ablation_cam, finer_cam, last_layer_map
from app.explain.perturbation import Logits
from app.model.network import FractureNetwork, Head, build_network
from tests.app.model.test_network import CLASSES, awake, untouched


@pytest.fixture(scope="module")
def network() -> FractureNetwork:
    torch.manual_seed(4)
    network = awake(build_network("resnet18", CLASSES))
    nn.init.normal_(network.head.weight, std=5.0)
    return network


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("method", list(FORMULAS))
def test_equals_the_package_on_the_whole_network(method: str, network: FractureNetwork, pixels: torch.Tensor) -> None:
    plain, last = untouched("resnet18", network)
    with torch.inference_mode():
        features = network.body(pixels)
        logits = network.judge(features).logits
    for target in logits[0].topk(2).indices.tolist():
        with FORMULAS[method](model=plain, target_layers=[last]) as cam:
            theirs = cam(pixels, [ClassifierOutputTarget(target)])[0]
        ours = last_layer_map(network, features, target, method)
        assert ours.shape == (4, 4)
        assert ours.min() >= 0
        stretched = scale_cam_image(scale_cam_image(ours[None], (128, 128)))[0]
        assert np.abs(stretched - theirs).max() < 1e-3


@pytest.mark.parametrize("method", list(FORMULAS))
@pytest.mark.parametrize(("name", "stride"), [("resnet18", 16), ("resnet18-pyramid", 8)])
def test_equals_the_package_on_the_whole_attended_network(
    name: str, stride: int, method: str, pixels: torch.Tensor
) -> None:
    torch.manual_seed(8)
    attended = awake(build_network(name, CLASSES, stride=stride, head="attended", places=True))
    for layer in (attended.head, attended.attended):
        nn.init.normal_(layer.weight, std=5.0)
    with torch.inference_mode():
        features = attended.body(pixels)
        target = int(attended.judge(features).logits[0].argmax())
    # A pyramid's features are joined from several stages, so the last layer is the body as a whole.
    with FORMULAS[method](model=Logits(attended), target_layers=[attended.body]) as cam:
        theirs = cam(pixels, [ClassifierOutputTarget(target)])[0]
    ours = last_layer_map(attended, features, target, method)
    stretched = scale_cam_image(scale_cam_image(ours[None], (128, 128)))[0]
    assert np.abs(stretched - theirs).max() < 1e-3


def test_the_mean_heads_grad_cam_is_its_evidence(network: FractureNetwork, pixels: torch.Tensor) -> None:
    with torch.inference_mode():
        features = network.body(pixels)
        maps = network.judge(features).maps[0]
    for method in ("gradcam", "hirescam"):
        ours = last_layer_map(network, features, 3, method)
        positive = maps[3].clamp(min=0).numpy() / maps[3].numel()
        np.testing.assert_allclose(ours, positive, rtol=1e-3, atol=1e-6)


def test_nothing_is_left_behind_and_threads_agree(network: FractureNetwork, pixels: torch.Tensor) -> None:
    with torch.inference_mode():
        features = network.body(pixels)
    serial = {method: last_layer_map(network, features, 2, method) for method in FORMULAS}
    with pytest.raises(KeyError):
        last_layer_map(network, features, 2, "tea-leaves")
    with pytest.raises(IndexError):
        last_layer_map(network, features, CLASSES, "gradcam")
    for module in network.modules():
        assert not module._forward_hooks
        assert not module._backward_hooks
    assert all(parameter.grad is None for parameter in network.parameters())
    jobs = [method for method in FORMULAS for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        for method, drawn in zip(jobs, pool.map(lambda m: last_layer_map(network, features, 2, m), jobs), strict=True):
            assert np.array_equal(drawn, serial[method])


def test_finer_cam_equals_the_package_on_the_whole_network(network: FractureNetwork, pixels: torch.Tensor) -> None:
    plain, last = untouched("resnet18", network)
    with torch.inference_mode():
        features = network.body(pixels)
        ranking = network.judge(features).logits[0].argsort(descending=True).tolist()
    first, second = ranking[:2]
    with FinerCAM(model=plain, target_layers=[last]) as cam:
        theirs = cam(pixels, [FinerWeightedTarget(first, [second], 1.0)])[0]
    ours = finer_cam(network, features, first, second)
    stretched = scale_cam_image(scale_cam_image(ours[None], (128, 128)))[0]
    assert np.abs(stretched - theirs).max() < 1e-3
    assert not np.allclose(ours, finer_cam(network, features, second, first))


def test_ablation_cam_equals_the_package_where_the_score_is_positive(
    network: FractureNetwork, pixels: torch.Tensor
) -> None:
    plain, last = untouched("resnet18", network)
    with torch.inference_mode():
        features = network.body(pixels)
        logits = network.judge(features).logits[0]
    target = int(logits.argmax())
    assert logits[target] > 0
    with AblationCAM(model=plain, target_layers=[last], ablation_layer=AblationLayer(), batch_size=64) as cam:
        theirs = cam(pixels, [ClassifierOutputTarget(target)])[0]
    ours = ablation_cam(network, features, target)
    stretched = scale_cam_image(scale_cam_image(ours[None], (128, 128)))[0]
    assert np.abs(stretched - theirs).max() < 1e-3


@pytest.mark.parametrize("head", ["mean", "attended"])
def test_ablation_cam_is_what_leaving_out_each_feature_gives(head: Head, pixels: torch.Tensor) -> None:
    torch.manual_seed(6)
    network = awake(build_network("custom-cnn", CLASSES, stride=8, head=head, places=head == "attended"))
    for layer in (network.head, network.attended, network.places):
        if layer is not None:
            nn.init.normal_(layer.weight, std=0.5)
    with torch.inference_mode():
        features = network.body(pixels).clamp(min=0)
        scores = network.judge(features).logits[0]
        target = int(scores.argmin())
        falls = []
        for channel in range(features.shape[1]):
            without = features.clone()
            without[0, channel] = 0.0
            falls.append(scores[target] - network.judge(without).logits[0, target])
        weights = torch.stack(falls) / scores[target].abs()
        expected = torch.einsum("k,khw->hw", weights, features[0]).clamp(min=0).numpy()
    np.testing.assert_allclose(ablation_cam(network, features, target), expected, rtol=1e-3, atol=1e-4)
