"""The tab that tells how sound the public data sets are, and what that does to published accuracies."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import gradio as gr

from app.ui.about import table

__all__ = ["build", "describe"]

TRAINING = Path(__file__).resolve().parents[2] / "training"

INTRO = """
<p>A model that is judged on films it was trained on looks better than it is. In the public sets of fracture films many
films are there twice: byte for byte, mirrored, turned or cropped, and often on both sides of the published split. These
counts come from <code>python -m training audit</code> on scaled copies of the sets; nobody is accused of anything,
copies creep in easily. Near-duplicates are found by a search that errs: groups of them are chained from pair to pair,
so the number of different films is a lower bound, and what rests on groups an upper one.</p>
"""
PEERS = """
<h3>What the leak does to accuracy</h3>
<p>Networks as others described them, trained here with our own optimiser and augmentation: on their split, and on one
that keeps near-duplicates and films of one case together. Each run is short and was made once (the two custom CNNs
differ by chance alone), so compare the two columns with each other, not with the claim, and small differences not at
all. In brackets: 95 % interval, how many films judged and, where copies or views of one case are among them, of how
many cases, and what naming the commonest label would give. &ldquo;Leak alone&rdquo; rows are ours: the same network,
first layers and number of training films on both sides. An epoch is one pass over the training films; a network
&ldquo;from scratch&rdquo; had learnt nothing before, one &ldquo;from ImageNet layers&rdquo; had seen a million
photographs.</p>
"""


def _crossing(counts: dict[str, int]) -> str:
    return "; ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"


def _suspicion(found: dict[str, Any]) -> str:
    right, commonest = found["accuracy_of_the_judge"], found["accuracy_of_naming_the_commonest"]
    if right <= commonest:
        return f"the judge is too weak to say ({right:.0%} agree with it, {commonest:.0%} with the commonest label)"
    return f"{found['suspected']:,} of {found['judged']:,}, says a judge with whom {right:.0%} of the labels agree"


def _recall(found: dict[str, Any]) -> str:
    planted = found["recall_of_planted_copies"]
    whole = [kind for kind, share in planted.items() if share == "40 of 40"]
    told = [f"{kind}: {share}" for kind, share in planted.items() if kind not in whole]
    return "; ".join([*told, f"{'the other ' if told else ''}{len(whole)} kinds: all 40 of 40"])


def _overlooked(found: dict[str, Any]) -> str:
    checked = found["brute_force"]
    return f"{checked['missed_by_search']} of {checked['twins']} pairs among a tenth of the films"


def _looked_at(found: dict[str, Any]) -> str:
    told = (f"{right} of {count} found by {measure}" for measure, (right, count) in found.get("looked_at", {}).items())
    return "; ".join(told) or "not looked at"


def _set_table(audits: list[dict[str, Any]]) -> str:
    rows = [
        ["Films", *(f"{audit['films']:,}" for audit in audits)],
        [
            "Files that are byte for byte another one",
            *(
                f"{audit['exact_copies']['files_that_are_copies']:,} ({audit['exact_copies']['compared']})"
                for audit in audits
            ),
        ],
        [
            "Different films, near-duplicates counted once, at least",
            *(f"{audit['near_duplicates']['different_films']:,}" for audit in audits),
        ],
        [
            "Near-duplicates across the published split, up to",
            *(_crossing(audit["near_duplicates"]["across_parts"]) for audit in audits),
        ],
        [
            "One film under different labels, up to",
            *(
                f"{len(audit['near_duplicates']['contradictory_groups'])} groups; byte for byte "
                f"{audit['exact_copies']['with_different_labels']}"
                for audit in audits
            ),
        ],
        [
            "Films of one case without being near-duplicates, by their names",
            *(f"{audit['same_case']['films_in_them']:,}" for audit in audits),
        ],
        ["Of near-duplicates looked at by eye, one film", *(_looked_at(audit["near_duplicates"]) for audit in audits)],
        ["What the search overlooked", *(_overlooked(audit["near_duplicates"]) for audit in audits)],
        ["Copies planted to test it, and found", *(_recall(audit["near_duplicates"]) for audit in audits)],
        [
            "With letters or arrows (estimate)",
            *(f"{audit['marks']['films_with_letters_or_arrows']:,}" for audit in audits),
        ],
        ["With colour", *(f"{audit['marks']['films_with_colour']:,}" for audit in audits)],
        ["Labels that look wrong (suspicion)", *(_suspicion(audit["suspected_labels"]) for audit in audits)],
    ]
    return table(["", *(audit["title"] for audit in audits)], rows)


def _accuracy(run: dict[str, Any] | None) -> str:
    if run is None:
        return "not run"
    share = run["accuracy"]
    different = f" of {share['groups']} cases" if share.get("groups", share["n"]) < share["n"] else ""
    label = f", commonest label {run['commonest']:.0%}" if "commonest" in run else ""
    return f"{share['value']:.1%} ({share['low']:.1%} to {share['high']:.1%}), {share['n']} films{different}{label}"


def _peer_table(rows: list[dict[str, Any]]) -> str:
    cells = []
    for row in rows:
        claimed = "" if row["claimed"] is None else f"{row['claimed']:.1%}"
        run = row["published"]
        start = "from scratch" if run and run["start"] == "from scratch" else "from ImageNet layers"
        how = f"{run['epochs']} epoch{'s' * (run['epochs'] > 1)} {start}" if run else ""
        cells.append([row["title"], row["data"], claimed, _accuracy(run), _accuracy(row["leak_free"]), how])
    claims = "".join(
        f"<li><strong>{html.escape(row['title'])}</strong>: {html.escape(row['claim'])}</li>" for row in rows
    )
    found = table(["Recipe", "Data set", "Claimed", "On its own split", "Without the leak", "Run here"], cells)
    return f"{found}<h3>What each recipe is</h3><ul>{claims}</ul>"


def describe(folder: Path = TRAINING) -> str:
    """Audits and re-runs as HTML; every figure is from the committed JSON."""
    audits = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("data/audits/*.json"))]
    results = folder / "recipes" / "replications" / "results.json"
    parts = ["<h2>Is this data sound?</h2>", INTRO]
    parts.append(_set_table(audits) if audits else "<p>No audit is at hand.</p>")
    if results.is_file():
        parts += [PEERS, _peer_table(list(json.loads(results.read_text(encoding="utf-8")).values()))]
    return f"<article class='about wide'>{''.join(parts)}</article>"


def build() -> None:
    """Lays out the tab inside the current Blocks."""
    gr.HTML(describe())
