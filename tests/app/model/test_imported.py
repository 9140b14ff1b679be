from __future__ import annotations

import copy

import numpy as np
import pytest
import timm
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torchvision import models

from app.errors import WeightsError
from app.explain.cam import FORMULAS, ablation_cam, last_layer_map
from app.explain.perturbation import layer_maps
from app.model.imported import TracedNetwork, cut, is_imported, plain, state_of
from app.model.network import FractureNetwork

CLASSES, SIDE = 5, 128


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


def theirs_and_ours(architecture: str) -> tuple[nn.Module, FractureNetwork]:
    """A package's own network with weights that tell classes apart, and the same one cut."""
    torch.manual_seed(3)
    network = plain(architecture, CLASSES)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        # Statistics of what it sees, without which random layers see nothing in it.
        network(torch.randn(4, 3, SIDE, SIDE))
    for norm in norms:
        norm.eval()
    return copy.deepcopy(network), cut(network, architecture, CLASSES, SIDE)


def stretched(found: np.ndarray) -> np.ndarray:
    return scale_cam_image(scale_cam_image(np.maximum(found, 0.0)[None], (SIDE, SIDE)))[0]


LAST = {
    "torchvision:resnet50": lambda network: network.layer4[-1],
    "torchvision:mobilenet_v2": lambda network: network.features[-1],
    "torchvision:mobilenet_v3_small": lambda network: network.features[-1],
    "torchvision:convnext_tiny": lambda network: network.features[-1],
    "timm:resnet26": lambda network: network.layer4[-1],
    "timm:efficientnet_lite0": lambda network: network.bn2,
    "timm:mobilenetv3_small_050": lambda network: network.blocks[-1],
}
"""Where pytorch-grad-cam is told to look in the packages' own networks."""


@pytest.mark.parametrize("architecture", [*LAST, "torchvision:densenet121", "torchvision:swin_t"])
def test_a_cut_network_says_what_the_whole_one_does(architecture: str) -> None:
    whole, ours = theirs_and_ours(architecture)
    for seed, count in ((0, 1), (1, 3)):
        noise = torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            want = whole(noise)
            evidence = ours(noise)
        scale = float(want.abs().max())
        assert torch.allclose(evidence.logits, want, atol=1e-4 * scale)
        assert torch.allclose(ours.logits(noise), want, atol=1e-4 * scale)
        if not isinstance(ours, TracedNetwork):
            assert torch.allclose(evidence.maps.mean(dim=(2, 3)) + ours.head.bias, want, atol=1e-4 * scale)
    assert isinstance(ours, TracedNetwork) == any(
        name in architecture for name in ("mobilenet_v3", "mobilenetv3", "convnext")
    )


@pytest.mark.parametrize("architecture", list(LAST))
def test_maps_are_those_of_pytorch_grad_cam(architecture: str, pixels: torch.Tensor) -> None:
    whole, ours = theirs_and_ours(architecture)
    with torch.inference_mode():
        maps = ours(pixels).maps[0]
    hot = []
    for target in range(CLASSES):
        with GradCAM(model=whole, target_layers=[LAST[architecture](whole)]) as cam:
            theirs = cam(pixels, [ClassifierOutputTarget(target)])[0]
        assert np.abs(stretched(maps[target].numpy()) - theirs).max() < 1e-5
        hot.append(theirs.max() > 0)
    assert any(hot)


@pytest.mark.parametrize("method", list(FORMULAS))
@pytest.mark.parametrize("architecture", ["timm:resnet26", "timm:mobilenetv3_small_050"])
def test_other_methods_are_those_of_the_package(architecture: str, method: str, pixels: torch.Tensor) -> None:
    whole, ours = theirs_and_ours(architecture)
    with torch.inference_mode():
        last, _ = ours.features(pixels)
    with FORMULAS[method](model=whole, target_layers=[LAST[architecture](whole)]) as cam:
        theirs = cam(pixels, [ClassifierOutputTarget(2)])[0]
    assert np.abs(stretched(last_layer_map(ours.head, last, 2, method)) - theirs).max() < 1e-3


def test_ablation_of_a_network_without_a_linear_head_leaves_each_channel_out(pixels: torch.Tensor) -> None:
    _, ours = theirs_and_ours("timm:mobilenetv3_small_050")
    with torch.inference_mode():
        last, _ = ours.features(pixels)
        logits = ours.head(last)[0]
        target = int(logits.argmax())
        want = torch.zeros(last.shape[2:])
        for channel in range(last.shape[1]):
            without = last.clone()
            without[:, channel] = 0.0
            want += (logits[target] - ours.head(without)[0, target]) / logits[target].abs() * last[0, channel]
    assert np.allclose(ablation_cam(ours.head, last, target), want.clamp(min=0).numpy(), atol=1e-4)
    assert want.max() > 0


@pytest.mark.parametrize("architecture", ["torchvision:resnet50", "timm:resnet26", "torchvision:densenet121"])
def test_maps_of_earlier_stages_are_those_of_the_package(architecture: str, pixels: torch.Tensor) -> None:
    whole, ours = theirs_and_ours(architecture)
    name = ours.stages[-2]
    assert name in ("layer3", "features.transition3")
    layer = whole.layer3 if name == "layer3" else whole.features.transition3.conv
    hot = []
    for target in range(CLASSES):
        with GradCAM(model=whole, target_layers=[layer]) as cam:
            theirs = cam(pixels, [ClassifierOutputTarget(target)])[0]
        assert np.abs(layer_maps(ours, pixels, target, [name]) - theirs).max() < 1e-3
        hot.append(theirs.max() > 0)
    assert any(hot)


@pytest.mark.parametrize("architecture", ["torchvision:vit_b_16", "timm:vit_tiny_patch16_224"])
def test_a_transformer_without_a_feature_map_is_refused(architecture: str) -> None:
    with pytest.raises(WeightsError, match="keeps no feature map"):
        cut(plain(architecture, CLASSES), architecture, CLASSES, 224)


def test_networks_that_cannot_be_taken_are_refused_in_a_sentence() -> None:
    assert is_imported("torchvision:resnet50")
    assert not is_imported("resnet50")
    assert not is_imported("keras:resnet50")
    for architecture in ("torchvision:resnet51", "timm:resnet51"):
        with pytest.raises(WeightsError, match="resnet51"):
            plain(architecture, CLASSES)
    one_channel = timm.create_model("resnet10t", in_chans=1, num_classes=CLASSES).eval()
    with pytest.raises(WeightsError, match="takes no three channels"):
        cut(one_channel, "timm:resnet10t", CLASSES, SIDE)


def test_a_state_dict_is_found_in_a_checkpoint() -> None:
    network = models.resnet18(weights=None, num_classes=CLASSES)
    state = network.state_dict()
    wrapped = {"state_dict": {f"model.{name}": value for name, value in state.items()}, "epoch": 3}
    for found in (state, wrapped, {"model": {f"module.{name}": value for name, value in state.items()}}):
        taken = state_of(found, network, "torchvision:resnet18")
        assert taken.keys() == state.keys()
        assert all(torch.equal(taken[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"epoch": 3}, "holds no state_dict"),
        (models.resnet18(weights=None, num_classes=4).state_dict(), r"fc.weight has shape \(4, 512\), not \(5, 512\)"),
        (models.resnet34(weights=None, num_classes=CLASSES).state_dict(), "layer1.2.conv1.weight is unknown"),
        ({"conv1.weight": torch.zeros(64, 3, 7, 7)}, "bn1.weight is missing"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(found: dict, told: str) -> None:
    network = models.resnet18(weights=None, num_classes=CLASSES)
    with pytest.raises(WeightsError, match=told):
        state_of(found, network, "torchvision:resnet18")
