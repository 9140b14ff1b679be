from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from app import cli
from app.errors import WeightsError
from app.explain.methods import METHODS, draw, map_request
from app.imaging.radiograph import read
from app.model.classifier import Classifier
from app.model.imported import plain
from app.model.importing import read_classes
from app.model.weights import load_card, together
from app.ui import text
from tests.app.model.test_imported import theirs_and_ours

NAMES = ("daisy", "rose", "tulip", "aster", "iris")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), cv2.resize(rng.integers(0, 255, (9, 7, 3)).astype(np.uint8), (140, 180)))
    return path


def asked(folder: Path, state: dict[str, torch.Tensor], architecture: str, *more: str, file: str = "net.pt") -> str:
    """What the command says of a state dict."""
    torch.save(state, folder / file) if file.endswith(".pt") else save_file(state, folder / file)
    (folder / "classes.txt").write_text("\n".join(NAMES), encoding="utf-8")
    named = ["--name", "mine", "--architecture", architecture, "--classes", str(folder / "classes.txt")]
    where = ["--title", "Flowers", "--image", "photo", "--weights", str(folder / "weights"), "--size", "128"]
    found = CliRunner().invoke(cli.cli, ["import-model", str(folder / file), *named, *where, *more])
    assert "Traceback" not in found.output
    return found.output


@pytest.mark.parametrize(
    ("architecture", "last", "maps"),
    [
        ("torchvision:resnet50", lambda whole: whole.layer4[-1], "exact"),
        ("timm:resnet26", lambda whole: whole.layer4[-1], "exact"),
        ("timm:mobilenetv3_small_050", lambda whole: whole.blocks[-1], "gradient"),
    ],
)
def test_an_imported_model_is_served_with_the_maps_of_pytorch_grad_cam(
    tmp_path: Path, photo: Path, architecture: str, last: Callable[[nn.Module], nn.Module], maps: str
) -> None:
    whole, _ = theirs_and_ours(architecture)
    assert "is ready" in asked(tmp_path, whole.state_dict(), architecture)
    assert together(tmp_path / "weights") == ["mine"]
    classifier = Classifier.load("mine", tmp_path / "weights")
    card = classifier.card
    assert (card.maps, card.architecture, card.stride) == (maps, architecture, 32)
    (explanation,) = classifier.explain([read(photo)])
    request = map_request(classifier, read(photo))
    logits = whole(request.pixels).detach().numpy()[0]
    close = 1e-4 * float(np.abs(logits).max())
    assert np.allclose(explanation.prediction.logits, logits, atol=close)
    for index, name in enumerate(classifier.classes):
        with GradCAM(model=whole, target_layers=[last(whole)]) as cam:
            theirs = cam(request.pixels.clone(), [ClassifierOutputTarget(index)])[0]
        ours = np.maximum(explanation.evidence(name), 0.0)[None]
        assert np.abs(scale_cam_image(scale_cam_image(ours, (128, 128)))[0] - theirs).max() < 1e-5
        parts = explanation.terms(name)
        assert sum(parts) == pytest.approx(float(explanation.prediction.logits[index]), abs=close)
    for method in ("gradcam-earlier", "gradcam-fused", "ablationcam", "finercam", "gradcam++"):
        assert draw(request, method).min() >= 0
    told = text.verdict(card, explanation)
    assert "Nobody has checked whether its probabilities" in told
    assert "Not calibrated" in told
    assert "confidence" not in told
    assert ("adds up" in text.shows("gradcam", card)) == (maps == "exact")
    assert text.shows("occlusion", card) == METHODS["occlusion"].says
    page = (tmp_path / "weights" / "mine" / "README.md").read_text(encoding="utf-8")
    assert "Not calibrated" in page
    assert "fractur" not in page


def test_safetensors_are_taken_too_and_grey_is_said(tmp_path: Path) -> None:
    state = plain("torchvision:resnet18", 5).state_dict()
    assert "is ready" in asked(tmp_path, state, "torchvision:resnet18", "--grey", file="net.safetensors")
    card = json.loads((tmp_path / "weights" / "mine" / "card.json").read_text())
    assert not card["colour"]
    assert card["subject"] == {"title": "Flowers", "image": "photo", "finding": ""}


@pytest.mark.parametrize(
    ("architecture", "state", "told"),
    [
        ("torchvision:vit_b_16", None, "no class activation map can be drawn"),
        ("keras:vgg16", {}, "write torchvision:NAME, timm:NAME or onnx"),
        ("torchvision:resnet18", {"epoch": torch.zeros(1)}, "conv1.weight is missing"),
        ("torchvision:resnet18", {"model": "resnet18"}, "holds no state_dict"),
    ],
)
def test_what_cannot_be_served_is_refused_in_a_sentence(
    tmp_path: Path, architecture: str, state: dict | None, told: str
) -> None:
    more = ("--size", "224") if state is None else ()
    state = plain(architecture, 5).state_dict() if state is None else state
    found = asked(tmp_path, state, architecture, *more)
    assert told in " ".join(found.split())
    assert not (tmp_path / "weights" / "mine").exists()


def test_a_pickled_network_is_not_run(tmp_path: Path) -> None:
    torch.save(plain("torchvision:resnet18", 5), tmp_path / "whole.pt")
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    where = ["--title", "Flowers", "--weights", str(tmp_path / "weights"), "--classes", str(tmp_path / "classes.txt")]
    named = ["--name", "mine", "--architecture", "torchvision:resnet18"]
    found = CliRunner().invoke(cli.cli, ["import-model", str(tmp_path / "whole.pt"), *named, *where])
    assert found.exit_code == 1
    assert "holds more than tensors" in found.output


@pytest.mark.parametrize("held", [b"brick\ngrass\ngravel\ntissue\n", b""])
def test_a_file_of_no_weights_is_refused_in_a_sentence(tmp_path: Path, held: bytes) -> None:
    (tmp_path / "mine.pt").write_bytes(held)
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    where = ["--title", "Flowers", "--weights", str(tmp_path / "weights"), "--classes", str(tmp_path / "classes.txt")]
    named = ["--name", "mine", "--architecture", "torchvision:resnet18"]
    found = CliRunner().invoke(cli.cli, ["import-model", str(tmp_path / "mine.pt"), *named, *where])
    assert found.exit_code == 1
    assert "is no file of weights" in " ".join(found.output.split())


def test_classes_are_read_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("\ufeffdaisy\n\nwild rose \n", encoding="utf-8")
    assert read_classes(tmp_path / "classes.txt") == ("daisy", "wild rose")
    for names in ("daisy\n", "daisy\ndaisy\n"):
        (tmp_path / "classes.txt").write_text(names)
        with pytest.raises(WeightsError, match="two classes or more"):
            read_classes(tmp_path / "classes.txt")


def test_a_model_of_this_project_is_not_overwritten(tmp_path: Path, tiny_weights: Path) -> None:
    state = plain("torchvision:resnet18", 5).state_dict()
    found = asked(tmp_path, state, "torchvision:resnet18", "--weights", str(tiny_weights), "--name", "tiny")
    assert "was not imported" in found
    assert load_card("tiny", tiny_weights).architecture == "resnet18"
