from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from app.cam import METHODS, last_layer_map
from app.network import FractureNetwork, build_network
from tests.app.test_network import CLASSES, awake, untouched


@pytest.fixture(scope="module")
def network() -> FractureNetwork:
    torch.manual_seed(4)
    network = awake(build_network("resnet18", CLASSES))
    nn.init.normal_(network.head.weight, std=5.0)
    return network


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("method", list(METHODS))
def test_equals_the_package_on_the_whole_network(method: str, network: FractureNetwork, pixels: torch.Tensor) -> None:
    plain, last = untouched("resnet18", network)
    with torch.inference_mode():
        features = network.body(pixels)
        logits = network.judge(features).logits
    for target in logits[0].topk(2).indices.tolist():
        with METHODS[method].formula(model=plain, target_layers=[last]) as cam:
            theirs = cam(pixels, [ClassifierOutputTarget(target)])[0]
        ours = last_layer_map(network, features, target, method)
        assert ours.shape == (4, 4)
        assert ours.min() >= 0
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
    serial = {method: last_layer_map(network, features, 2, method) for method in METHODS}
    with pytest.raises(KeyError):
        last_layer_map(network, features, 2, "tea-leaves")
    with pytest.raises(IndexError):
        last_layer_map(network, features, CLASSES, "gradcam")
    for module in network.modules():
        assert not module._forward_hooks
        assert not module._backward_hooks
    assert all(parameter.grad is None for parameter in network.parameters())
    jobs = [method for method in METHODS for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        for method, drawn in zip(jobs, pool.map(lambda m: last_layer_map(network, features, 2, m), jobs), strict=True):
            assert np.array_equal(drawn, serial[method])
