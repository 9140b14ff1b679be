from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM, HiResCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torchvision import models

from app.network import ARCHITECTURES, FractureNetwork, build_network

CLASSES = 10


def awake(network: FractureNetwork) -> FractureNetwork:
    """Batch statistics moved off their initial values, so that a forgotten layer shows."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def untouched(name: str, network: FractureNetwork) -> tuple[nn.Module, nn.Module]:
    """Torchvision's own network with the same weights, and its last layer before pooling."""
    if name == "vgg16":
        plain = nn.Sequential(
            models.vgg16(weights=None).features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES)
        )
        plain[0].load_state_dict(network.body.features.state_dict())
        plain[3].load_state_dict(network.head.state_dict())
        for module in plain.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
        return plain.eval(), plain[0][-1]
    plain = getattr(models, name)(weights=None, num_classes=CLASSES)
    state = {**network.body.state_dict(), **{f"fc.{k}": v for k, v in network.head.state_dict().items()}}
    plain.load_state_dict(state)
    return plain.eval(), plain.layer4[-1]


@pytest.mark.parametrize("stride", [16, 32])
@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_maps_average_to_the_logits(name: str, stride: int) -> None:
    torch.manual_seed(0)
    network = awake(build_network(name, CLASSES, stride=stride))
    with torch.inference_mode():
        logits, maps = network(torch.randn(2, 3, 64, 96))
    assert logits.shape == (2, CLASSES)
    assert maps.shape == (2, CLASSES, 64 // stride, 96 // stride)
    torch.testing.assert_close(maps.mean(dim=(2, 3)) + network.head.bias, logits)
    assert logits.std() > 1e-3


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_agrees_with_pytorch_grad_cam_on_the_untouched_network(name: str) -> None:
    torch.manual_seed(1)
    network = awake(build_network(name, CLASSES))
    nn.init.normal_(network.head.weight, std=10.0)
    plain, last = untouched(name, network)
    pixels = torch.randn(1, 3, 128, 128)
    with torch.inference_mode():
        logits, maps = network(pixels)
        torch.testing.assert_close(plain(pixels), logits, rtol=1e-4, atol=1e-5)
    targets = maps[0].amax(dim=(1, 2)).topk(3).indices.tolist()
    for method in (GradCAM, HiResCAM):
        for target in targets:
            with method(model=plain, target_layers=[last]) as cam:
                theirs = cam(pixels, [ClassifierOutputTarget(target)])[0]
            # Grad-CAM's weights are gradients of the mean over places, hence the division by their number.
            positive = maps[0, target].clamp(min=0) / maps[0, target].numel()
            assert positive.max() > positive.min()
            # The package stretches every map twice: as a layer's, and once more after merging layers.
            ours = scale_cam_image(scale_cam_image(positive[None].numpy(), (128, 128)))[0]
            assert np.abs(ours - theirs).max() < 1e-5


def test_dropping_channels_keeps_the_sum_while_training() -> None:
    torch.manual_seed(2)
    network = build_network("resnet18", CLASSES, dropout=0.5).train()
    logits, maps = network(torch.randn(4, 3, 64, 64))
    torch.testing.assert_close(maps.mean(dim=(2, 3)) + network.head.bias, logits)
    again, _ = network(torch.randn(4, 3, 64, 64))
    assert not torch.equal(logits, again)


def test_bodies_take_torchvisions_own_names() -> None:
    for name in ("resnet18", "vgg16"):
        theirs = set(getattr(models, name)(weights=None).state_dict())
        assert set(build_network(name, CLASSES).body.state_dict()) <= theirs


def test_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="resnet18"):
        build_network("resnet19", CLASSES)
    with pytest.raises(ValueError, match="stride"):
        build_network("resnet18", CLASSES, stride=8)
