"""What Keras writes, as a torch network channels last with a softmax at its end, is explained like the rest."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from torchvision import models
from typer.testing import CliRunner

from app import cli
from app.explain.methods import draw, map_request
from app.imaging.radiograph import read
from app.model.classifier import Classifier
from tests.app.model.test_importing import NAMES, photo

__all__ = ["photo"]


class LikeKeras(nn.Module):
    """Images channels last to probabilities, which is what ``tf2onnx`` makes of a Keras classifier."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images.permute(0, 3, 1, 2)).softmax(dim=1)


def averaged() -> nn.Module:
    features = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)).eval()


def flattened() -> nn.Module:
    features = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(8 * 16 * 16, 12), nn.ReLU(), nn.Linear(12, 5)).eval()


def written(network: nn.Module, file: Path, side: int = 64) -> Path:
    images = torch.rand(1, side, side, 3)
    torch.onnx.export(LikeKeras(network).eval(), (images,), file, opset_version=13, dynamo=False)
    return file


def asked(file: Path, folder: Path) -> str:
    (folder / "classes.txt").write_text("\n".join(NAMES), encoding="utf-8")
    named = ["--name", "mine", "--architecture", "onnx", "--classes", str(folder / "classes.txt"), "--size", "64"]
    scale = ["--mean", "0", "0", "0", "--std", "1", "1", "1", "--weights", str(folder / "weights")]
    found = CliRunner().invoke(cli.cli, ["import-model", str(file), *named, *scale, "--title", "Flowers"])
    assert "Traceback" not in found.output
    return " ".join(found.output.split())


@pytest.mark.parametrize(("make", "maps"), [(averaged, "exact"), (flattened, "gradient")])
def test_it_says_what_the_file_says_and_its_maps_are_drawn(
    tmp_path: Path,
    photo: Path,
    make: object,
    maps: str,
) -> None:
    torch.manual_seed(0)
    network = make()  # ty: ignore[call-non-callable]
    assert "is ready" in asked(written(network, tmp_path / "keras.onnx"), tmp_path)
    classifier = Classifier.load("mine", tmp_path / "weights")
    assert classifier.card.maps == maps
    assert classifier.card.title == "keras, 64 px"
    (found,) = classifier.explain([read(photo)])
    request = map_request(classifier, read(photo))
    with torch.inference_mode():
        logits = network(request.pixels)[0].numpy()
    assert np.allclose(found.prediction.logits, logits, atol=1e-5)
    if maps == "exact":
        assert np.allclose(found.maps.mean(axis=(1, 2)) + found.biases, logits, atol=1e-5)
        weights = network[-1].weight[:, :, None, None]
        with torch.inference_mode():
            expected = nn.functional.conv2d(network[:-3](request.pixels), weights)[0]
        assert np.allclose(found.maps, expected.numpy(), atol=1e-5)
    for method in ("gradcam", "layercam", "occlusion"):
        assert draw(request, method).min() >= 0


def test_a_published_network_keeps_its_exact_maps(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = models.mobilenet_v2(num_classes=5).eval()
    assert "its maps are exact" in asked(written(network, tmp_path / "mobile.onnx"), tmp_path)


def _one_node(kind: str, outputs: int, tmp_path: Path) -> Path:
    shape = [1, 3, 64, 64]
    node = helper.make_node(kind, ["x"], ["y"])
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", *"yz"[:outputs])]
    nodes = [node, *([helper.make_node("Relu", ["x"], ["z"])] if outputs == 2 else [])]
    graph = helper.make_graph(nodes, "g", made[:1], made[1:])
    path = tmp_path / f"{kind}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), path)
    return path


def test_what_cannot_be_served_is_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.onnx").write_text("no network")
    assert "cannot be read as ONNX" in asked(tmp_path / "text.onnx", tmp_path)
    assert "There is no file" in asked(tmp_path / "gone.onnx", tmp_path)
    assert "cannot be read (Is a directory)" in asked(tmp_path, tmp_path)
    assert "holds an operation that is not known here" in asked(_one_node("StringNormalizer", 1, tmp_path), tmp_path)
    assert "has to take one image and give one list" in asked(_one_node("Relu", 2, tmp_path), tmp_path)
    assert "does not give one score a class" in asked(_one_node("Relu", 1, tmp_path), tmp_path)
    monkeypatch.setitem(sys.modules, "onnx2torch", None)
    assert "pip install '.[onnx]'" in asked(tmp_path / "text.onnx", tmp_path)
    assert not (tmp_path / "weights" / "mine").exists()
