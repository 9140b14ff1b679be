"""The report and the model cards say what was measured and what was not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import yaml

from app.model.weights import load_card, with_interval
from benchmarks.record import keep
from training.studies.report import model_card, report

RATIOS = (
    "ours, prediction and ten maps in bfloat16",
    "torchvision + torch-cam, one map",
    "torchvision + pytorch-grad-cam, one map",
)


def test_costs_are_told_as_the_benchmarks_kept_them(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository / "weights", tmp_path / "weights")
    report(tmp_path)
    page = tmp_path / "docs" / "results.md"
    assert "What does it cost?" not in page.read_text()
    folder = tmp_path / "benchmarks" / "results"
    keep(
        "cost",
        {
            "networks": {
                "resnet18": dict(zip(RATIOS, (0.52, 1.1, 3.2), strict=True)),
                "large": dict.fromkeys(RATIOS, 9.0),
            },
            "methods": {"bare forward": 1.0, "Some-CAM, ours": 31.4},
            "model": "resnet18",
            "precision": "float32",
            "folder": {"480": {"folder": 4.5, "network": 5.0, "share": 0.9}},
            "start": {"help": 0.2, "page": 7.0, "first explanation": 8.1, "MiB": 1234.0},
        },
        folder,
    )
    keep(
        "cost-float32",
        {
            "networks": {"resnet18": dict(zip(RATIOS, (0.93, 1.2, 3.3), strict=True))},
            "model": "resnet18",
            "engine": "openvino",
            "folder": {"480": {"folder": 3.5, "network": 5.0, "share": 0.7}},
            "image": {"480": {"network": 0.75, "PNG": 0.25}},
        },
        folder,
    )
    keep(
        "fuzz",
        {
            "megapixels": 40,
            "bound_mib": 1024.0,
            "largest_files_mib": {"a small one": 70, "a large one": 700},
            "damaged_files": 9,
            "outcomes": {"an image": 4, "a sentence": 5},
            "damaged_files_mib": 99,
        },
        folder,
    )
    report(tmp_path)
    told = page.read_text()
    assert f"| {RATIOS[0]} | 0.52 | 9.00 |\n" in told
    assert f"| {RATIOS[0]} | 0.93 |\n" in told
    assert "3.5 images a second of 480 px, 70 % of what resnet18 alone does (openvino)." in told
    assert "on one thread, network takes 75.0 %, PNG takes 25.0 %." in told
    assert "| Some-CAM, ours | 31.4 | |\n" in told
    assert "4.5 images a second of 480 px, 90 % of what resnet18 alone does in batches." in told
    assert "Of 9 damaged pictures" in told
    assert "4 gave an image, 5 gave a sentence" in told
    assert "700 MiB (a large one)" in told


def test_the_report_says_what_was_measured_and_what_was_not(repository: Path) -> None:
    (repository / "README.md").write_text("<!-- report: headline -->\n<!-- end -->\n")
    written = report(repository)
    text = (repository / "docs" / "results.md").read_text()
    card = json.loads((repository / "weights/resnet18/card.json").read_text())
    accuracy = with_interval(card["metrics"]["test"]["accuracy"])
    assert accuracy in text
    assert f"test images | {accuracy} |" in (repository / "README.md").read_text()
    assert "Not a medical device" in text
    assert "No set has been audited" in (repository / "docs" / "data.md").read_text()
    assert "resnet18 + resnet18" in text
    for part in ("folds", "whole"):
        found = json.loads((repository / f"training/results/{part}/resnet18.json").read_text())
        assert found["folds"] == [0, 1]
        row = next(
            line
            for line in text.splitlines()
            if "(`resnet18`)" in line and with_interval(found["types"]["accuracy"]) in line
        )
        assert "| all 2 folds |" in row
    assert (repository / "docs" / "reliability-resnet18.png").is_file()
    first = [path.read_text() for path in written]
    assert (repository / "weights/resnet18/README.md").read_text() == model_card(
        load_card("resnet18", repository / "weights"), repository
    )
    report(repository)
    assert [path.read_text() for path in written] == first


def test_the_model_card_says_what_was_measured_and_what_was_not(repository: Path, tmp_path: Path) -> None:
    card = load_card("resnet18", repository / "weights")
    text = model_card(card, repository)
    front = yaml.safe_load(text.split("---\n")[1])
    accuracy = front["model-index"][0]["results"][0]["metrics"][0]
    assert accuracy == {"type": "accuracy", "value": round(card.metrics["test"]["accuracy"]["value"], 4)}
    assert card.intended_use in text
    for row in card.metrics["cross_validation"]["per_class"]:
        assert f"| {row['name']} | {row['images']} |" in text
    assert "## What it rejects\n\nNot measured." in text
    assert "has not been audited" in text
    untested = card.model_copy(
        update={"metrics": {"cross_validation": card.metrics["cross_validation"]}, "presence": None}
    )
    bare = model_card(untested, tmp_path)
    assert "Not evaluated on test images" in bare
    assert "cannot tell whether a bone is broken" in bare
    assert "model-index" not in bare


def test_failures_are_picked_by_what_was_measured(repository: Path) -> None:
    card = load_card("resnet18", repository / "weights")
    folds = card.metrics["cross_validation"]
    names = [kind.name for kind in card.classes]
    confusion = np.diag([10] * len(names))
    confusion[0, 0], confusion[0, 3] = 1, 9
    rows = [{**row, "recall": float(confusion[i, i] / 10)} for i, row in enumerate(folds["per_class"])]
    spoilt = {**folds, "confusion": confusion.tolist(), "per_class": rows}
    text = model_card(card.model_copy(update={"metrics": {"cross_validation": spoilt}}), repository)
    assert f"out of fold: {names[0]} (10.0 %)." in text
    assert f"90.0 % of {names[0]} called {names[3]}" in text
