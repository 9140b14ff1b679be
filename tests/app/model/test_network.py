from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM, HiResCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from safetensors.torch import load_file
from torch import nn
from torchvision import models

from app.imaging.examples import draw
from app.imaging.letterbox import letterbox
from app.imaging.radiograph import Radiograph
from app.model.backbones import ARCHITECTURES
from app.model.classifier import Classifier
from app.model.network import FractureNetwork, Gate, Logits, Pooling, build_network
from app.model.weights import DEFAULT_FOLDER, available

CLASSES = 10

LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ("resnet50", "vgg16-bn")]
SHIPPED = [pytest.param(name, marks=[pytest.mark.slow] * (name == "vgg16")) for name in available(DEFAULT_FOLDER)]


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
    if name == "vgg16-bn":
        plain = nn.Sequential(
            models.vgg16_bn(weights=None).features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES)
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
@pytest.mark.parametrize(
    ("name", "stride"),
    [
        pytest.param(name, s, marks=[pytest.mark.slow] * (name == "vgg16-bn"))
        for name, a in ARCHITECTURES.items()
        for s in a.strides
    ],
)
def test_maps_average_to_the_logits(name: str, stride: int, head: Pooling) -> None:
    torch.manual_seed(0)
    network = awake(build_network(name, CLASSES, stride=stride, head=head, places=head == "attended"))
    with torch.inference_mode():
        logits, maps, fracture = network(torch.randn(2, 3, 64, 96))
    assert (fracture is None) == (head == "mean")
    assert logits.shape == (2, CLASSES)
    assert maps.shape == (2, CLASSES, 64 // stride, 96 // stride)
    torch.testing.assert_close(maps.mean(dim=(2, 3)) + network.head.bias, logits)
    assert logits.std() > 1e-3


@pytest.mark.parametrize("name", ["resnet18", *LARGE, "mobilenet-v2"])
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


def test_a_dropped_channel_is_missing_from_both_halves_and_attended_to_all_the_same() -> None:
    torch.manual_seed(2)
    gate = Gate(attends=True, dropout=0.5).train()
    features, fracture = torch.rand(4, 32, 6, 5) + 0.1, torch.randn(4, 6, 5)
    plain, weighted = gate(features, fracture).split(32, dim=1)
    lost = (plain == 0).all(dim=(2, 3))
    assert 0 < lost.sum() < lost.numel()
    assert torch.equal(lost, (weighted == 0).all(dim=(2, 3)))
    weight = fracture.flatten(1).softmax(dim=1).view(4, 1, 6, 5) * 30
    torch.testing.assert_close(weighted, weight * plain)
    torch.testing.assert_close(plain, features * 2.0 * ~lost[:, :, None, None])


@pytest.mark.parametrize("model", SHIPPED)
def test_the_packages_grad_cam_at_the_gate_is_the_shipped_models_map(model: str) -> None:
    classifier = Classifier.load(model)
    network = classifier.network
    film = Radiograph(draw("spiral", seed=4, height=300, width=210), (0, 255))
    square, _ = letterbox(film, classifier.card.size, classifier.card.equalise)
    pixels = classifier.pixels([square])
    with torch.inference_mode():
        logits, maps, _ = network(pixels)
    size = (classifier.card.size,) * 2
    with GradCAM(model=Logits(network), target_layers=[network.gate]) as cam:
        for target in logits[0].topk(3).indices.tolist():
            theirs = cam(pixels.clone().requires_grad_(True), [ClassifierOutputTarget(target)])[0]
            positive = maps[0, target].clamp(min=0).numpy()
            assert positive.max() > positive.min()
            assert np.abs(scale_cam_image(scale_cam_image(positive[None], size))[0] - theirs).max() < 1e-5
            # The map is scaled to its peak, so what the gradients themselves are is checked here.
            gradients = cam.activations_and_grads.gradients[0][0]
            expected = network.head.weight[target] / maps[0, target].numel()
            torch.testing.assert_close(gradients, expected[:, None, None].expand_as(gradients), rtol=1e-5, atol=1e-8)
    assert not network.gate._forward_hooks


@pytest.mark.parametrize("model", SHIPPED)
def test_shipped_logits_and_maps_are_those_of_the_formula_with_two_matrices(model: str) -> None:
    """The sum over both halves of the head, in doubles, is what the network must give."""
    classifier = Classifier.load(model)
    state = load_file(DEFAULT_FOLDER / model / classifier.card.weights.file)
    own = classifier.network.state_dict()
    film = Radiograph(draw("oblique", seed=9, height=240, width=300), (0, 255))
    pixels = classifier.pixels([letterbox(film, classifier.card.size, classifier.card.equalise)[0]])
    with torch.inference_mode():
        found = classifier.network(pixels)
        features = classifier.network.body(pixels)[0].double()
        head, places = state["head.weight"].double(), state["places.weight"].double()
        halves = (head, state["attended.weight"].double()) if "attended.weight" in state else head.chunk(2, dim=1)
        plain, weight = halves
        fracture = torch.einsum("k,khw->hw", places[0], features) + state["places.bias"].double()
        attention = fracture.flatten().softmax(dim=0).view_as(fracture) * fracture.numel()
        maps = torch.einsum("ck,khw->chw", plain, features) + attention * torch.einsum("ck,khw->chw", weight, features)
        logits = maps.mean(dim=(1, 2)) + state["head.bias"].double()
    assert torch.equal(own["head.weight"], torch.cat([plain, weight], dim=1).float())
    torch.testing.assert_close(found.logits[0].double(), logits, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(found.maps[0].double(), maps, rtol=1e-5, atol=1e-6 * float(maps.abs().max()))
    torch.testing.assert_close(found.fracture[0].double(), fracture, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head", ["mean", "attended"])
def test_weights_in_two_matrices_load_joined(head: Pooling) -> None:
    torch.manual_seed(5)
    network = build_network("custom-cnn", CLASSES, stride=8, head=head, places=head == "attended")
    state = network.state_dict()
    older = dict(state)
    if head == "attended":
        older["head.weight"], older["attended.weight"] = state["head.weight"].split(128, dim=1)
    again = build_network("custom-cnn", CLASSES, stride=8, head=head, places=head == "attended")
    again.load_state_dict(older)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in state.items())
    wrong = {**older, "attended.weight": torch.zeros(CLASSES, 7)}
    with pytest.raises(RuntimeError, match=r"head\.weight"):
        again.load_state_dict(wrong)
    with pytest.raises(RuntimeError, match=r"head\.weight"):
        again.load_state_dict({name: tensor for name, tensor in wrong.items() if name != "head.weight"})


@pytest.mark.parametrize("head", ["mean", "attended"])
def test_one_graph_without_python_gives_logits_maps_and_fracture_map(head: Pooling) -> None:
    torch.manual_seed(6)
    network = awake(build_network("resnet18-pyramid", CLASSES, stride=8, head=head, places=head == "attended"))
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(network, (torch.randn(2, 3, 64, 64),), dynamic_shapes={"pixels": {0: batch}})
    pixels = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        for one, other in zip(program.module()(pixels), network(pixels), strict=True):
            assert (one is None) == (other is None)
            if other is not None:
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_bodies_take_torchvisions_own_names() -> None:
    for name in ("resnet18", "vgg16-bn", "mobilenet-v2"):
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
    network.body = nn.Identity()
    assert network.places is not None
    with torch.inference_mode():
        # Features along the map's own direction make one place a fracture beyond doubt.
        direction = network.places.weight[0] / network.places.weight.norm() ** 2
        features[0, :, 2, 4] += 40.0 * direction
        logits, maps, fracture = network(features)
        assert fracture.flatten(1).argmax().item() == 2 * 6 + 4
        pooled = torch.cat([features.mean(dim=(2, 3)), features[:, :, 2, 4]], dim=1)
        alone = nn.functional.linear(pooled, network.head.weight, network.head.bias)
    torch.testing.assert_close(logits, alone, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(maps.mean(dim=(2, 3)) + network.head.bias, logits, rtol=1e-4, atol=1e-4)


def test_the_pre_activation_body_loads_the_published_names() -> None:
    names = set(build_network("resnet50v2", CLASSES, stride=16).body.state_dict())
    assert {"bn0.weight", "conv0.weight", "stage1.0.downsample.weight", "stage3.5.conv3.weight"} <= names
