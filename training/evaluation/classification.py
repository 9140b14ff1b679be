"""The final figure of a model, on the official test images: ``python -m training evaluate MODEL --data FOLDER``.

The committed weights are judged by the path the app takes, from file to probability, so that anyone with the images can
check the card. Nothing may be chosen by these images.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from scipy.special import softmax
from sklearn.metrics import ConfusionMatrixDisplay

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from app.model.classifier import Classifier
from app.model.readme import write_readme
from app.model.weights import ModelCard, with_interval, write_card
from training.data.datamodule import TypedData
from training.data.image import CACHE
from training.evaluation.metrics import bootstrap, expected_calibration_error, holds, report
from training.recipe import Recipe
from training.release.export import explain_part


def evaluate(name: str, data: Path, weights: Path, cache: Path = CACHE) -> ModelCard:
    """Judges a model on the official test images and writes card and plots.

    Returns:
        The card with ``metrics["test"]``.

    Raises:
        ValueError: the images are not the ones the model was split on, so that training images might be among them.
    """
    classifier = Classifier.load(name, weights)
    card = classifier.card
    films = TypedData(Recipe.model_validate(card.recipe), data, cache)
    found = films.as_card()["parts"]
    for part in ("train", "validation", "test"):
        if found[part]["sha256"] != card.data["parts"][part]["sha256"]:
            raise ValueError(
                f"the {part} images under {data} are not those in the card of {name}; a figure on them would not be "
                "the model's, and might include images it was trained on"
            )
    if not len(films.split.test):
        raise ValueError(f"{name} has no test images: its split holds none. Its card tells how it did on others.")
    _, logits, labels = explain_part(classifier, films, films.split.test)
    figures = report(
        logits, labels, [kind.name for kind in card.classes], card.temperature, films.groups[films.split.test]
    )
    if card.sets:
        probabilities = softmax(logits / card.temperature, axis=1)
        held = holds(probabilities, card.sets)
        figures["sets"] = {
            "coverage": bootstrap(held[np.arange(len(labels)), labels], films.groups[films.split.test]),
            "size": float(held.sum(axis=1).mean()),
        }
    before = expected_calibration_error(softmax(logits, axis=1), labels)
    card = card.model_copy(update={"metrics": {**card.metrics, "test": figures}})
    target = weights / name
    write_card(card, target)
    if not card.subject.ours:
        write_readme(card, target)
    folds = card.metrics["cross_validation"]
    plot_reliability(
        {
            "out of fold, after scaling by a temperature of these images": folds["expected_calibration_error"]["bins"],
            "test, before scaling": before["bins"],
            "test, after scaling": figures["expected_calibration_error"]["bins"],
        },
        target / "reliability.png",
    )
    _plot_curve(card.training["curve"], target / "curves.png")
    _plot_confusion(figures, [kind.title for kind in card.classes], target / "confusion.png")
    _plot_classes(figures, target / "per_class.png")
    return card


@contextmanager
def drawn(target: Path, **options: Any) -> Generator[Axes]:
    """Axes of a figure that is saved as PNG once they are filled."""
    figure, axes = plt.subplots(layout="constrained", **options)
    yield axes
    figure.savefig(target, dpi=110)
    plt.close(figure)


def plot_reliability(parts: dict[str, list[dict]], target: Path) -> None:
    """Confidence against accuracy (Niculescu-Mizil and Caruana, 2005), one line a part.

    Args:
        parts: bins by what they are of, as ``training.evaluation.metrics.expected_calibration_error`` gives them.
    """
    with drawn(target, figsize=(5.5, 5)) as axes:
        axes.plot([0, 1], [0, 1], color="grey", linewidth=1, label="as sure as right")
        for name, bins in parts.items():
            filled = [row for row in bins if row["images"]]
            films = sum(row["images"] for row in filled)
            error = sum(row["images"] * abs(row["confidence"] - row["accuracy"]) for row in filled) / films
            points = [(row["confidence"], row["accuracy"]) for row in filled]
            axes.plot(*zip(*points, strict=True), marker="o", label=f"{name}: {films} images, error {error:.3f}")
            for row, point in zip(filled, points, strict=True):
                axes.annotate(str(row["images"]), point, fontsize=7, alpha=0.7)
        axes.set_xlabel("confidence")
        axes.set_ylabel("share right (numbers: images in the bin)")
        axes.legend(frameon=False, fontsize=8)


def _plot_curve(rows: list[dict], target: Path) -> None:
    with drawn(target, figsize=(5.5, 3.5)) as axes:
        for name in sorted({key for row in rows for key in row} - {"epoch"}):
            points = [(row["epoch"] + 1, row[name]) for row in rows if name in row]
            axes.plot(*zip(*points, strict=True), label=name.replace("_", " "))
        axes.set_xlabel("epoch")
        axes.set_ylabel("loss")
        axes.legend(frameon=False)


def _plot_confusion(figures: dict, titles: list[str], target: Path) -> None:
    with drawn(target, figsize=(8.5, 7.5)) as axes:
        shown = ConfusionMatrixDisplay(np.array(figures["confusion"]), display_labels=titles)
        shown.plot(ax=axes, cmap="Blues", colorbar=False, xticks_rotation=45)
        axes.set_xlabel("predicted")
        axes.set_ylabel("labelled")
        axes.set_title(f"{figures['images']} test images, top-1 accuracy {with_interval(figures['accuracy'])}")


def _plot_classes(figures: dict, target: Path) -> None:
    rows = figures["per_class"]
    heights = np.arange(len(rows))
    with drawn(target, figsize=(8.5, 4.5)) as axes:
        for offset, metric in ((-0.2, "precision"), (0.2, "recall")):
            axes.barh(heights + offset, [row[metric] for row in rows], 0.38, label=metric)
        axes.set_yticks(heights, [f"{row['name']} ({row['images']})" for row in rows])
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel("on test images; their number in brackets")
        axes.legend()
