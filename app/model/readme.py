"""The card for people of a model that is not this project's own: what ``card.json`` says, as Markdown.

Sections follow the model cards of the Hugging Face hub (Mitchell et al., 2019, "Model cards for model reporting").
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.model.ood import FOLDER
from app.model.weights import ModelCard, percent, with_interval

__all__ = ["readme", "write_readme"]


def write_readme(card: ModelCard, target: Path) -> None:
    """Writes ``README.md`` into a model's folder, beside its card and, where it has one, its detector."""
    (target / "README.md").write_text(readme(card, target), encoding="utf-8")


def readme(card: ModelCard, target: Path) -> str:
    """The card as Markdown, with the hub's metadata in front; what was not measured is said to be missing."""
    front = ["---", "library_name: pytorch", "pipeline_tag: image-classification", "---"]
    head = [f"# {card.subject.title}: {card.title}", f"**{card.intended_use}**"]
    parts = (_model(card), _data(card), _accuracy(card), _calibration(card), _detector(target), _limits(card))
    return "\n\n".join(["\n".join(front), *head, *(line for part in parts for line in part)]) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _table(rows: list[list[str]]) -> str:
    head, *body = [[_cell(cell) for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def _model(card: ModelCard) -> Iterator[str]:
    training, initial = card.training, card.initial
    rows = [
        ["", ""],
        ["architecture", card.architecture],
        ["classes", ", ".join(kind.name for kind in card.classes)],
        ["sees", f"{'colours' if card.colour else 'shades of grey'}, letterboxed to {card.size} px"],
        ["maps", _maps(card)],
        ["weights", f"`{card.weights.file}`, SHA-256 {card.weights.sha256[:16]}..."],
        ["made", card.date],
    ]
    if "source" in initial:
        fresh = ", ".join(initial["fresh"]) or "none"
        rows.append(["first layers", f"{initial['source']}; random at the start: {fresh}"])
    if "epochs" in training:
        rows.append(["trained", f"{training['epochs']} epochs, {training['minutes']} minutes, {training['device']}"])
    yield from ("## Model", _table(rows))


def _maps(card: ModelCard) -> str:
    if card.maps == "exact":
        return "exact: a class's map adds up to its score"
    return "Grad-CAM: features weighted by the score's gradients, no part of the score"


def _data(card: ModelCard) -> Iterator[str]:
    yield "## Data"
    its, parts = card.data, card.data.get("parts")
    if not parts:
        yield "Nothing is known here of the images it learnt from."
        return
    counts = ", ".join(f"{parts[name]['images']} {name}" for name in ("train", "validation", "test"))
    yield (
        f"{its['title']}; licence: {its['licence']}. Images: {counts}; {parts['leaked']['images']} left out as "
        f"near-duplicates of others. {its['groups']} are different ({its['duplicates']} search for near-duplicates); "
        "near-duplicates lie on one side. Labels are as given; nobody has checked them here."
    )


def _accuracy(card: ModelCard) -> Iterator[str]:
    yield "## How good is it?"
    judged = [(_judged_on(part, its), its) for part in PARTS if (its := card.metrics.get(part))]
    if not judged:
        yield "Not measured."
        return
    rows = [["images", "top-1 accuracy", "top-3 accuracy", "always the commonest class"]]
    rows += [
        [on, with_interval(its["accuracy"]), with_interval(its["top3"]), percent(its["chance_accuracy"], 1)]
        for on, its in judged
    ]
    yield _table(rows)
    on, its = judged[-1]
    classes = [["class", f"images, {on}", "precision", "recall"]]
    for row in its["per_class"]:
        classes.append([row["name"], str(row["images"]), percent(row["precision"], 1), percent(row["recall"], 1)])
    yield _table(classes)
    for _, its in judged:
        if its.get("pointing_game"):
            yield f"The predicted class's map peaks in a box in {with_interval(its['pointing_game'])} of boxed images."


PARTS = ("cross_validation", "test")


def _judged_on(part: str, figures: dict[str, Any]) -> str:
    if part == "test":
        return part
    return "held out" if figures.get("held_out") else "out of fold"


def _calibration(card: ModelCard) -> Iterator[str]:
    yield "## Calibration"
    its = card.calibration
    if not its:
        yield "Not calibrated: nobody has checked whether its probabilities are as high as they should be."
        return
    yield (
        f"{its['method'].capitalize()} (n = {its['images']}): temperature {card.temperature:.2f}. Expected "
        f"calibration error {its['error_before']:.3f} before, {its['error_after']:.3f} after, with temperatures fitted "
        "on the other half of the images."
    )
    found = card.metrics.get("cross_validation", {}).get("sets", {})
    if card.sets and card.sets.score in found:
        coverage, size = (found[card.sets.score][key]["value"] for key in ("coverage", "size"))
        yield (
            f"Prediction sets are to hold the label in {percent(card.sets.level)} of images. Calibrated on half of the "
            f"images and judged on the other, many times, they did in {percent(coverage, 1)} and named {size:.1f} "
            "classes on average."
        )


def _detector(target: Path) -> Iterator[str]:
    yield "## What it rejects"
    path = target / FOLDER / "detector.json"
    if not path.is_file():
        yield "Nothing of its own is known of pictures unlike those it learnt from."
        return
    found = json.loads(path.read_text(encoding="utf-8"))["metrics"]
    yield (
        "Images whose features lie further from those of the reference set than nearly all of its own do. The "
        f"threshold keeps {with_interval(found['kept_out_of_fold'])} of them out of fold, which also chose it."
    )
    if found["kept_test"]:
        yield f"Of test images it keeps {with_interval(found['kept_test'])}."
    made = ", ".join(f"{name} {with_interval(share)}" for name, share in found["rejected"].items())
    yield f"Pictures of nothing that it rejects: {made}. How it does on other real pictures was not measured."


def _limits(card: ModelCard) -> Iterator[str]:
    yield "## What it cannot do"
    always = f"It always names one of its {len(card.classes)} classes, whatever the image shows."
    yield "\n".join(f"- {limit}" for limit in (*card.limits, always))
