"""The tabs about the models and the public data: what each model is, how well it does, and how sound the data is."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from app.model.ood import Detector, real_images_kept
from app.model.weights import DEFAULT_FOLDER, ModelCard, percent, with_interval
from app.ui.text import details, table

__all__ = ["AboutTab", "DataTab", "compare", "describe", "describe_data", "whole_card"]

TRAINING = Path(__file__).resolve().parents[2] / "training"

INTRO = """
<p>A model that is judged on X-rays it was trained on looks better than it is. In the public sets many X-rays are there
twice: byte for byte, mirrored, turned or cropped, often on both sides of the published split.</p>
"""
COUNTS = """
<p>Made by <code>python -m training audit</code> on scaled copies of the sets. The search for near-duplicates errs:
groups are chained from pair to pair, so the number of different X-rays is a lower bound, and what rests on groups an
upper one. Nobody is accused of anything: copies creep in easily.</p>
"""
LEAK = """
<h3>What the leak does to accuracy</h3>
<p>Published networks, trained here twice: on their own split, and on one that keeps near-duplicates and X-rays of one
case together. Compare the two columns with each other, not with the claim.</p>
"""
RUNS = """
<p>With our own optimiser and augmentation. Each run is short and was made once (the two custom CNNs differ by chance
alone), so small differences mean nothing. &ldquo;Cases&rdquo; are counted where copies or views of one case are among
the X-rays judged. &ldquo;Leak alone&rdquo; rows are ours: the same network, first layers and number of training X-rays
on both sides. An epoch is one pass over the training X-rays; a network &ldquo;from scratch&rdquo; had learnt nothing
before, one &ldquo;from ImageNet layers&rdquo; had seen a million photographs.</p>
"""


def describe(card: ModelCard) -> str:
    """A model's card as HTML; every figure is the card's."""
    parts = [f"<h2>{html.escape(card.title)}</h2>", f"<p><strong>{html.escape(card.intended_use)}</strong></p>"]
    if folds := card.metrics.get("cross_validation"):
        parts.append(
            f"<p>Top-1 accuracy in cross-validation: {with_interval(folds['accuracy'])}{_share(card, folds)}. Each "
            "X-ray was judged by a network that had not seen it, a near-duplicate or an X-ray of the same case.</p>"
        )
    parts.append(_test_tables(card) if "test" in card.metrics else "<p>This model has not been evaluated.</p>")
    if rows := answer_rows(card):
        parts.append(details("What else it says, and how far to trust that", table(["Answer", "Measured"], rows)))
    limits = "".join(f"<li>{html.escape(limit)}</li>" for limit in card.limits)
    parts.append(f"<h3>What it cannot do</h3><ul>{limits}</ul>{_learnt_from(card)}")
    return f"<article class='about'>{''.join(parts)}</article>"


def _test_tables(card: ModelCard) -> str:
    test = card.metrics["test"]
    count, left_out = test["films"], _images(card, "leaked")
    figures = [
        ["Top-1 accuracy", with_interval(test["accuracy"])],
        ["Top-3 accuracy", with_interval(test["top3"])],
        ["Always naming the commonest type", percent(test["chance_accuracy"], 1)],
        ["Balanced accuracy", percent(test["balanced_accuracy"], 1)],
        ["Macro precision", percent(test["macro_precision"], 1)],
        ["Macro recall", percent(test["macro_recall"], 1)],
        ["Macro F1", percent(test["macro_f1"], 1)],
        ["Macro one-vs-rest AUROC", f"{test['macro_auroc']:.2f}"],
        ["Expected calibration error", f"{test['expected_calibration_error']['value']:.3f}"],
    ]
    by_type = [
        [row["name"], str(row["films"]), percent(row["precision"]), percent(row["recall"]), _auroc(row["auroc"])]
        for row in test["per_class"]
    ]
    return (
        f"<h3>How good is it?</h3>{table(['Measure', f'{count} test X-rays'], figures)}"
        f"<p>These X-rays chose nothing about the model; {left_out} training X-rays with a near-duplicate or an X-ray "
        "of the same case among them were left out.</p>"
        f"{details('By fracture type', table(['Type', 'X-rays', 'Precision', 'Recall', 'AUROC'], by_type))}"
    )


def _auroc(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _learnt_from(card: ModelCard) -> str:
    boxed = card.data.get("places")
    located = (
        f", and where fractures lie from {boxed['films']} FracAtlas X-rays, {boxed['fractured']} of them fractured"
        if boxed
        else ""
    )
    training = card.training
    words = (
        f"{_images(card, 'train')} training X-rays of {card.data.get('title', 'an unnamed set')}{located}. No "
        "near-duplicates that our search finds, and no X-rays of one case as far as names tell, straddle training and "
        f"test. {_start(card)} Trained on {card.date} for {training.get('epochs', '?')} epochs "
        f"({training.get('minutes', '?')} minutes, {training.get('device', '?')}), seed {card.seed}."
    )
    return details("What it learnt from", f"<p>{html.escape(words)}</p>")


def answer_rows(card: ModelCard) -> list[list[str]]:
    """Fractured or not, the prediction set, out-of-distribution: each with its figure, if it was measured."""
    rows = _presence_rows(card.metrics["presence"]) if "presence" in card.metrics else []
    if card.sets and (sets := card.metrics.get("cross_validation", {}).get("sets")):
        its, level = sets[card.sets.score], percent(card.sets.level)
        rows.append([f"{level} sets hold the label, cross-validation", with_interval(its["coverage"])])
        rows.append(["Types in such a set", f"{its['size']['value']:.1f} of {len(card.classes)}"])
        if tested := card.metrics.get("test", {}).get("sets"):
            rows.append([f"{level} sets hold the label, test X-rays", with_interval(tested["coverage"])])
    return rows


def _presence_rows(figures: dict[str, Any]) -> list[list[str]]:
    images = f"{figures['films']:,} FracAtlas test X-rays, {figures['fractured']} of them fractured"
    rows = [[f"Fractured or not: AUROC, {images}", with_interval(figures["auroc"])]]
    for point, words in (("sensitive", "Suspicious"), ("specific", "Fracture seen")):
        its = figures[point]
        rows.append([f"{words}: sensitivity", with_interval(its["sensitivity"])])
        rows.append([f"{words}: specificity", with_interval(its["specificity"])])
    for name, far in figures["elsewhere"].items():
        if "auroc" in far:
            rows.append([f"Fractured or not: AUROC, external set ({name})", with_interval(far["auroc"])])
        its = far["sensitive"]
        rows.append([f"Suspicious: sensitivity, external set ({name})", with_interval(its["sensitivity"])])
        if its.get("specificity"):
            rows.append([f"Suspicious: specificity, external set ({name})", with_interval(its["specificity"])])
    return rows


def _share(card: ModelCard, folds: dict) -> str:
    of = card.recipe.get("folds", 0)
    judged = len(folds.get("folds", []))
    return f" ({judged} of {of} folds, which are not equally hard)" if 0 < judged < of else ""


def _start(card: ModelCard) -> str:
    source = str(card.initial.get("source", "unknown"))
    fresh = ", ".join(card.initial.get("fresh", [])) or "none"
    text = f"First layers: {source}; random at the start: {fresh} and the head."
    if source == "random":
        text = "All of it was random at the start."
    if teacher := (card.recipe.get("distil") or {}).get("teacher"):
        text += f" Beside the labels it learnt from what {teacher} says and sees."
    return text


def _images(card: ModelCard, part: str) -> str:
    return str(card.data.get("parts", {}).get(part, {}).get("films", "unknown"))


def compare(cards: Sequence[ModelCard]) -> str:
    """Models beside each other as HTML; what was not measured says so."""

    def figure(card: ModelCard, part: str, key: str) -> str:
        found = card.metrics.get(part)
        if not found:
            return "not measured"
        return with_interval(found[key]) + (_share(card, found) if part == "cross_validation" else "")

    columns = (("cross_validation", "accuracy"), ("cross_validation", "top3"), ("test", "accuracy"))
    head = ["Model", "Top-1, cross-validation", "Top-3, cross-validation", "Top-1, test X-rays"]
    rows = [[card.title, *(figure(card, *column) for column in columns)] for card in cards]
    return f"<article class='about wide'><h2>The models</h2>{table(head, rows)}</article>"


def whole_card(name: str, folder: Path = DEFAULT_FOLDER) -> str | None:
    """The generated model card as Markdown, without the hub's metadata and the plots; None where there is none."""
    path = folder / name / "README.md"
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8").split("---\n", 2)[2]
    return "\n".join(line for line in text.splitlines() if not line.startswith("![")).strip()


def rejections(metrics: dict[str, Any]) -> str:
    """How often the detector rejects what is no radiograph, and real radiographs by source, as HTML."""
    others = metrics["others"]["rejected"]
    rows = [["Photographs, drawings and the like: rejected", with_interval(others)]]
    rows += [[f"{name}: not rejected", with_interval(its)] for name, its in real_images_kept(metrics).items()]
    return f"<article class='about'><h2>Is it a radiograph?</h2>{table(['Images', 'Measured'], rows)}</article>"


class AboutTab:
    """Lays itself out inside the current Blocks.

    Args:
        cards: of the models, the default first.
        detector: of what is no radiograph.
    """

    def __init__(self, cards: Sequence[ModelCard], detector: Detector | None = None) -> None:
        if len(cards) > 1:
            gr.HTML(compare(cards))
        for card in cards:
            gr.HTML(describe(card))
            if text := whole_card(card.name):
                with gr.Accordion(f"The whole model card of {card.title}", open=False):
                    gr.Markdown(text, elem_classes="card")
        if detector is not None and detector.card.metrics:
            gr.HTML(rejections(detector.card.metrics))


def _crossing(counts: dict[str, int]) -> str:
    return "; ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"


def _suspicion(found: dict[str, Any]) -> str:
    right, commonest = found["accuracy_of_the_judge"], found["accuracy_of_naming_the_commonest"]
    if right <= commonest:
        return f"the judge is too weak: {percent(right)} agree with it, {percent(commonest)} with the commonest label"
    return f"{found['suspected']:,} of {found['judged']:,}, says a judge with whom {percent(right)} of the labels agree"


def _recall(found: dict[str, Any]) -> str:
    planted = found["recall_of_planted_copies"]
    whole = [kind for kind, share in planted.items() if share == "40 of 40"]
    words = [f"{kind}: {share}" for kind, share in planted.items() if kind not in whole]
    return "; ".join([*words, f"{'the other ' if words else ''}{len(whole)} kinds: all 40 of 40"])


def _overlooked(found: dict[str, Any]) -> str:
    checked = found["brute_force"]
    return f"{checked['missed_by_search']} of {checked['twins']} pairs among a tenth of the X-rays"


def _looked_at(found: dict[str, Any]) -> str:
    words = (f"{share} found by {measure}" for measure, share in found.get("looked_at", {}).items())
    return "; ".join(words) or "not looked at"


ROWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "X-rays": lambda audit: f"{audit['films']:,}",
    "Files that are byte for byte another one": lambda audit: (
        f"{audit['exact_copies']['files_that_are_copies']:,} ({audit['exact_copies']['compared']})"
    ),
    "Different X-rays, near-duplicates counted once, at least": lambda audit: (
        f"{audit['near_duplicates']['different_films']:,}"
    ),
    "Near-duplicates across the published split, up to": lambda audit: _crossing(
        audit["near_duplicates"]["across_parts"]
    ),
    "One X-ray under different labels, up to": lambda audit: (
        f"{len(audit['near_duplicates']['contradictory_groups'])} groups; byte for byte "
        f"{audit['exact_copies']['with_different_labels']}"
    ),
    "X-rays of one case without being near-duplicates, by their names": lambda audit: (
        f"{audit['same_case']['films_in_them']:,}"
    ),
    "Of near-duplicates looked at by eye, one X-ray": lambda audit: _looked_at(audit["near_duplicates"]),
    "What the search overlooked": lambda audit: _overlooked(audit["near_duplicates"]),
    "Copies planted to test it, and found": lambda audit: _recall(audit["near_duplicates"]),
    "With letters or arrows (estimate)": lambda audit: f"{audit['marks']['films_with_letters_or_arrows']:,}",
    "With colour": lambda audit: f"{audit['marks']['films_with_colour']:,}",
    "Labels that look wrong (suspicion)": lambda audit: _suspicion(audit["suspected_labels"]),
}
"""What the table says of each audit."""


def _accuracy(run: dict[str, Any] | None) -> str:
    if run is None:
        return "not run"
    share = run["accuracy"]
    different = f" of {share['groups']} cases" if share.get("groups", share["n"]) < share["n"] else ""
    label = f", commonest label {percent(run['commonest'])}" if "commonest" in run else ""
    return f"{with_interval(share)}{different}{label}"


def _replication_table(rows: list[dict[str, Any]]) -> str:
    cells = []
    for row in rows:
        claimed = "" if row["claimed"] is None else percent(row["claimed"], 1)
        run = row["published"]
        start = "from scratch" if run and run["start"] == "from scratch" else "from ImageNet layers"
        how = f"{run['epochs']} epoch{'s' * (run['epochs'] > 1)} {start}" if run else ""
        cells.append([row["title"], row["data"], claimed, _accuracy(run), _accuracy(row["leak_free"]), how])
    claims = "".join(
        f"<li><strong>{html.escape(row['title'])}</strong>: {html.escape(row['claim'])}</li>" for row in rows
    )
    found = table(["Network", "Data set", "Claimed", "On its own split", "Without the leak", "Run here"], cells)
    return f"{found}{details('How to read this table', RUNS)}{details('What each network is', f'<ul>{claims}</ul>')}"


def describe_data(folder: Path = TRAINING) -> str:
    """Audits and replications as HTML; every figure is from the committed JSON."""
    audits = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("data/audits/*.json"))]
    results = folder / "recipes" / "replications" / "results.json"
    parts = ["<h2>Is this data sound?</h2>", INTRO]
    rows = [[title, *(words(audit) for audit in audits)] for title, words in ROWS.items()]
    head = ["", *(audit["title"] for audit in audits)]
    parts.append(table(head, rows) if audits else "<p>No audit is at hand.</p>")
    parts.append(details("How these counts were made", COUNTS))
    if results.is_file():
        parts += [LEAK, _replication_table(list(json.loads(results.read_text(encoding="utf-8")).values()))]
    return f"<article class='about wide'>{''.join(parts)}</article>"


class DataTab:
    """Lays itself out inside the current Blocks."""

    def __init__(self) -> None:
        gr.HTML(describe_data())
