from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM, HiResCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torchvision import models

from app.model.backbones import ARCHITECTURES
from app.model.network import FractureNetwork, Head, build_network

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
    kind = network.head.weight.dtype
    if name == "vgg16":
        plain = nn.Sequential(
            models.vgg16(weights=None).features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES)
        ).to(kind)
        plain[0].load_state_dict(network.body.features.state_dict())
        plain[3].load_state_dict(network.head.state_dict())
        for module in plain.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
        return plain.eval(), plain[0][-1]
    if name == "mobilenet-v2":
        plain = models.mobilenet_v2(weights=None, num_classes=CLASSES).to(kind)
        head = {f"classifier.1.{k}": v for k, v in network.head.state_dict().items()}
        plain.load_state_dict({**network.body.state_dict(), **head})
        return plain.eval(), plain.features[-1]
    plain = getattr(models, name)(weights=None, num_classes=CLASSES).to(kind)
    state = {**network.body.state_dict(), **{f"fc.{k}": v for k, v in network.head.state_dict().items()}}
    plain.load_state_dict(state)
    return plain.eval(), plain.layer4[-1]


@pytest.mark.parametrize("head", ["mean", "attended"])
@pytest.mark.parametrize(("name", "stride"), [(name, s) for name, a in ARCHITECTURES.items() for s in a.strides])
def test_maps_average_to_the_logits(name: str, stride: int, head: Head) -> None:
    torch.manual_seed(0)
    network = awake(build_network(name, CLASSES, stride=stride, head=head, places=head == "attended"))
    with torch.inference_mode():
        logits, maps, fracture = network(torch.randn(2, 3, 64, 96))
    assert (fracture is None) == (head == "mean")
    assert logits.shape == (2, CLASSES)
    assert maps.shape == (2, CLASSES, 64 // stride, 96 // stride)
    torch.testing.assert_close(maps.mean(dim=(2, 3)) + network.head.bias, logits)
    assert logits.std() > 1e-3


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16", "mobilenet-v2"])
def test_agrees_with_pytorch_grad_cam_on_the_untouched_network(name: str) -> None:
    torch.manual_seed(1)
    # In doubles, so that what is compared is the formula and not the order in which a processor adds.
    network = awake(build_network(name, CLASSES)).double()
    nn.init.normal_(network.head.weight, std=10.0)
    plain, last = untouched(name, network)
    pixels = torch.randn(1, 3, 128, 128, dtype=torch.float64)
    with torch.inference_mode():
        logits, maps, _ = network(pixels)
        torch.testing.assert_close(plain(pixels), logits, rtol=1e-9, atol=1e-9)
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
    logits, maps, _ = network(torch.randn(4, 3, 64, 64))
    torch.testing.assert_close(maps.mean(dim=(2, 3)) + network.head.bias, logits)
    again, _, _ = network(torch.randn(4, 3, 64, 64))
    assert not torch.equal(logits, again)


def test_bodies_take_torchvisions_own_names() -> None:
    for name in ("resnet18", "vgg16", "mobilenet-v2"):
        theirs = set(getattr(models, name.replace("-", "_"))(weights=None).state_dict())
        assert set(build_network(name, CLASSES).body.state_dict()) <= theirs


def test_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="resnet18"):
        build_network("resnet19", CLASSES)
    with pytest.raises(ValueError, match="stride"):
        build_network("resnet18", CLASSES, stride=8)
    with pytest.raises(ValueError, match="fracture map"):
        build_network("resnet18", CLASSES, head="attended")


def test_the_attended_head_looks_where_the_fracture_map_points() -> None:
    torch.manual_seed(3)
    network = build_network("resnet18", CLASSES, stride=16, head="attended", places=True).eval()
    features = torch.randn(1, 512, 6, 6)
    assert network.attended is not None
    assert network.places is not None
    with torch.inference_mode():
        # Features along the map's own direction make one place a fracture beyond doubt.
        direction = network.places.weight[0] / network.places.weight.norm() ** 2
        features[0, :, 2, 4] += 40.0 * direction
        logits, maps, fracture = network.judge(features)
        assert fracture.flatten(1).argmax().item() == 2 * 6 + 4
        alone = network.head(features.mean(dim=(2, 3))) + network.attended(features[:, :, 2, 4])
    torch.testing.assert_close(logits, alone, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(maps.mean(dim=(2, 3)) + network.head.bias, logits, rtol=1e-4, atol=1e-4)


def test_the_pre_activation_body_loads_the_published_names() -> None:
    names = set(build_network("resnet50v2", CLASSES, stride=16).body.state_dict())
    assert {"bn0.weight", "conv0.weight", "stage1.0.downsample.weight", "stage3.5.conv3.weight"} <= names
