"""The final figure of a model, on the official test films: ``python -m training evaluate MODEL --data FOLDER``.

The committed weights are judged by the path the app takes, from file to probability, so that anyone with the films can
check the card. Nothing may be chosen by these films.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from scipy.special import softmax

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from app.model.classifier import Classifier
from app.model.weights import ModelCard, write_card
from training.data.bone_break import CLASSES
from training.data.cache import CACHE
from training.data.datamodule import BoneBreakData
from training.evaluation.calibration import holds
from training.evaluation.metrics import bootstrap, expected_calibration_error, report
from training.recipe import Recipe
from training.release.export import explain_part

__all__ = ["evaluate", "plot_reliability"]


def evaluate(name: str, data: Path, weights: Path, cache: Path = CACHE) -> ModelCard:
    """Judges a model on the official test films and writes card and plots.

    Args:
        name: folder under ``weights``.
        data: folder with the bone-break set.
        weights: folder of models.

    Returns:
        The card with ``metrics["test"]``.

    Raises:
        ValueError: the films are not the ones the model was split on, so that training films might be among them.
    """
    classifier = Classifier.load(name, weights)
    card = classifier.card
    films = BoneBreakData(Recipe.model_validate(card.recipe), data, cache)
    found = films.as_card()["parts"]
    for part in ("train", "validation", "test"):
        if found[part]["sha256"] != card.data["parts"][part]["sha256"]:
            raise ValueError(
                f"the {part} films under {data} are not those in the card of {name}; a figure on them would not be the "
                "model's, and might include films it was trained on"
            )
    _, logits, labels = explain_part(classifier, films, films.split.test)
    figures = report(logits, labels, list(CLASSES), card.temperature, films.groups[films.split.test])
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
    folds = card.metrics["cross_validation"]
    plot_reliability(
        {
            "out of fold, after scaling by a temperature of these films": folds["expected_calibration_error"]["bins"],
            "test, before scaling": before["bins"],
            "test, after scaling": figures["expected_calibration_error"]["bins"],
        },
        target / "reliability.png",
    )
    _plot_curve(card.training["curve"], target / "curves.png")
    _plot_confusion(figures, [kind.title for kind in card.classes], target / "confusion.png")
    _plot_classes(figures, target / "per_class.png")
    return card


def plot_reliability(parts: dict[str, list[dict]], target: Path) -> None:
    """Confidence against accuracy (Niculescu-Mizil and Caruana, 2005), one line a part.

    Args:
        parts: bins by what they are of, as ``training.evaluation.metrics.expected_calibration_error`` gives them.
        target: PNG to write.
    """
    figure, axes = plt.subplots(figsize=(5.5, 5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, label="as sure as right")
    for name, bins in parts.items():
        filled = [row for row in bins if row["films"]]
        films = sum(row["films"] for row in filled)
        error = sum(row["films"] * abs(row["confidence"] - row["accuracy"]) for row in filled) / films
        axes.plot(
            [row["confidence"] for row in filled],
            [row["accuracy"] for row in filled],
            marker="o",
            label=f"{name}: {films} films, error {error:.3f}",
        )
        for row in filled:
            axes.annotate(str(row["films"]), (row["confidence"], row["accuracy"]), fontsize=7, alpha=0.7)
    axes.set_xlabel("confidence")
    axes.set_ylabel("share right (numbers: films in the bin)")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(target, dpi=110)
    plt.close(figure)


def _plot_curve(rows: list[dict], target: Path) -> None:
    figure, axes = plt.subplots(figsize=(5.5, 3.5), layout="constrained")
    for name in sorted({key for row in rows for key in row} - {"epoch"}):
        points = [(row["epoch"] + 1, row[name]) for row in rows if name in row]
        axes.plot(*zip(*points, strict=True), label=name.replace("_", " "))
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.legend(frameon=False)
    figure.savefig(target, dpi=110)
    plt.close(figure)


def _plot_confusion(figures: dict, titles: list[str], target: Path) -> None:
    counts = np.array(figures["confusion"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = plt.subplots(figsize=(8.5, 7.5), layout="constrained")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        if counts[row, column]:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=colour)
    axes.set_xticks(range(len(titles)), titles, rotation=45, ha="right")
    axes.set_yticks(range(len(titles)), titles)
    axes.set_xlabel("predicted")
    axes.set_ylabel("labelled")
    accuracy = figures["accuracy"]
    axes.set_title(
        f"{figures['films']} test films, accuracy {accuracy['value']:.1%} "
        f"(95 % interval {accuracy['low']:.1%} to {accuracy['high']:.1%})"
    )
    figure.savefig(target, dpi=110)
    plt.close(figure)


def _plot_classes(figures: dict, target: Path) -> None:
    rows = figures["per_class"]
    places = np.arange(len(rows))
    figure, axes = plt.subplots(figsize=(8.5, 4.5), layout="constrained")
    for offset, metric in ((-0.2, "precision"), (0.2, "recall")):
        axes.barh(places + offset, [row[metric] for row in rows], 0.38, label=metric)
    axes.set_yticks(places, [f"{row['name']} ({row['films']})" for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("on test films; their number in brackets")
    axes.legend()
    figure.savefig(target, dpi=110)
    plt.close(figure)
