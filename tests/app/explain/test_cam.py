from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from pytorch_grad_cam import AblationCAM, FinerCAM
from pytorch_grad_cam.ablation_layer import AblationLayer
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget, FinerWeightedTarget
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection
from torch import nn

from app.explain.cam import EIGEN, FORMULAS, ablation_cam, finer_cam, last_layer_map
from app.model.network import FractureNetwork, Logits, Pooling, build_network
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
    plain, layer = untouched("resnet18", network)
    with torch.inference_mode():
        last, _ = network.features(pixels)
        logits = network.head(last)
    for target in logits[0].topk(2).indices.tolist():
        with FORMULAS[method](model=plain, target_layers=[layer]) as cam:
            theirs = cam(pixels, [ClassifierOutputTarget(target)])[0]
        ours = last_layer_map(network.head, last, target, method)
        assert ours.shape == (4, 4)
        assert ours.min() >= 0
        stretched = scale_cam_image(scale_cam_image(ours[None], (128, 128)))[0]
        assert np.abs(stretched - theirs).max() < 1e-3


@pytest.mark.parametrize("stride", [16, 32])
def test_the_strongest_pattern_is_the_packages_and_high_where_features_are(stride: int, pixels: torch.Tensor) -> None:
    torch.manual_seed(9)
    network = awake(build_network("resnet18", CLASSES, stride=stride))
    nn.init.normal_(network.head.weight, std=5.0)
    with torch.inference_mode():
        last, _ = network.features(pixels)
    strength = last[0].norm(dim=0).numpy()
    leaf = last.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(network.head(leaf)[0, 2], leaf)
    for method, patterns in (("eigencam", last), ("eigengradcam", leaf.detach() * gradient)):
        theirs = get_2d_projection(patterns.numpy())[0]
        if np.corrcoef(theirs.ravel(), strength.ravel())[0, 1] < 0.0:
            theirs = -theirs
        ours = last_layer_map(network.head, last, 2, method)
        assert np.abs(ours - np.maximum(theirs, 0.0)).max() < 1e-3 * np.abs(theirs).max()


@pytest.mark.parametrize("method", list(FORMULAS))
@pytest.mark.parametrize(("name", "stride"), [("resnet18", 16), ("resnet18-pyramid", 8)])
def test_equals_the_package_on_the_whole_attended_network(
    name: str, stride: int, method: str, pixels: torch.Tensor
) -> None:
    torch.manual_seed(8)
    attended = awake(build_network(name, CLASSES, stride=stride, head="attended", places=True))
    nn.init.normal_(attended.head.weight, std=5.0)
    with torch.inference_mode():
        last, _ = attended.features(pixels)
        target = int(attended.head(last)[0].argmax())
    with FORMULAS[method](model=Logits(attended), target_layers=[attended.gate]) as cam:
        theirs = cam(pixels, [ClassifierOutputTarget(target)])[0]
    ours = last_layer_map(attended.head, last, target, method)
    stretched = scale_cam_image(scale_cam_image(ours[None], (128, 128)))[0]
    assert np.abs(stretched - theirs).max() < 1e-3


@pytest.mark.parametrize("head", ["mean", "attended"])
def test_methods_that_a_linear_head_makes_grad_cam_are_the_class_map(head: Pooling, pixels: torch.Tensor) -> None:
    torch.manual_seed(9)
    network = awake(build_network("resnet18", CLASSES, head=head, places=head == "attended"))
    nn.init.normal_(network.head.weight, std=5.0)
    with torch.inference_mode():
        last, _ = network.features(pixels)
        maps = network.head.maps(last)[0]
    positive = maps[3].clamp(min=0).numpy() / maps[3].numel()
    for method in ("hirescam", "xgradcam"):
        ours = last_layer_map(network.head, last, 3, method)
        np.testing.assert_allclose(ours, positive, rtol=1e-3, atol=1e-5 * positive.max())


def test_nothing_is_left_behind_and_threads_agree(network: FractureNetwork, pixels: torch.Tensor) -> None:
    with torch.inference_mode():
        last, _ = network.features(pixels)
    serial = {method: last_layer_map(network.head, last, 2, method) for method in (*FORMULAS, *EIGEN)}
    with pytest.raises(KeyError):
        last_layer_map(network.head, last, 2, "tea-leaves")
    with pytest.raises(IndexError):
        last_layer_map(network.head, last, CLASSES, "hirescam")
    for module in network.modules():
        assert not module._forward_hooks
        assert not module._backward_hooks
    assert all(parameter.grad is None for parameter in network.parameters())
    jobs = [method for method in serial for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        drawings = pool.map(lambda method: last_layer_map(network.head, last, 2, method), jobs)
        for method, drawn in zip(jobs, drawings, strict=True):
            assert np.array_equal(drawn, serial[method])


def test_finer_cam_equals_the_package_on_the_whole_network(network: FractureNetwork, pixels: torch.Tensor) -> None:
    plain, layer = untouched("resnet18", network)
    with torch.inference_mode():
        last, _ = network.features(pixels)
        ranking = network.head(last)[0].argsort(descending=True).tolist()
    first, second = ranking[:2]
    with FinerCAM(model=plain, target_layers=[layer]) as cam:
        theirs = cam(pixels, [FinerWeightedTarget(first, [second], 1.0)])[0]
    ours = finer_cam(network.head, last, first, second)
    stretched = scale_cam_image(scale_cam_image(ours[None], (128, 128)))[0]
    assert np.abs(stretched - theirs).max() < 1e-3
    assert not np.allclose(ours, finer_cam(network.head, last, second, first))


@pytest.mark.slow
def test_ablation_cam_equals_the_package_where_the_score_is_positive(
    network: FractureNetwork, pixels: torch.Tensor
) -> None:
    plain, layer = untouched("resnet18", network)
    with torch.inference_mode():
        last, _ = network.features(pixels)
        logits = network.head(last)[0]
    target = int(logits.argmax())
    assert logits[target] > 0
    with AblationCAM(model=plain, target_layers=[layer], ablation_layer=AblationLayer(), batch_size=64) as cam:
        theirs = cam(pixels, [ClassifierOutputTarget(target)])[0]
    ours = ablation_cam(network.head, last, target)
    stretched = scale_cam_image(scale_cam_image(ours[None], (128, 128)))[0]
    assert np.abs(stretched - theirs).max() < 1e-3


@pytest.mark.parametrize("head", ["mean", "attended"])
def test_ablation_cam_is_what_leaving_out_each_feature_gives(head: Pooling, pixels: torch.Tensor) -> None:
    torch.manual_seed(6)
    network = awake(build_network("custom-cnn", CLASSES, stride=8, head=head, places=head == "attended"))
    nn.init.normal_(network.head.weight, std=0.5)
    with torch.inference_mode():
        last = network.features(pixels)[0].clamp(min=0)
        scores = network.head(last)[0]
        target = int(scores.argmin())
        falls = []
        for channel in range(last.shape[1]):
            without = last.clone()
            without[0, channel] = 0.0
            falls.append(scores[target] - network.head(without)[0, target])
        weights = torch.stack(falls) / scores[target].abs()
        expected = torch.einsum("k,khw->hw", weights, last[0]).clamp(min=0).numpy()
    np.testing.assert_allclose(ablation_cam(network.head, last, target), expected, rtol=1e-3, atol=1e-4)
