"""The tab that tells how sound the public data sets are, and what that does to published accuracies."""

from __future__ import annotations

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
counts come from <code>python -m training audit</code>; nobody is accused of anything, copies creep in easily.</p>
"""
PEERS = """
<h3>What the leak does to accuracy</h3>
<p>Recipes others published, run again here: on their own split, and on one that keeps near-duplicates together. Runs
are short, so compare the two columns with each other rather than with the claim. Rows called &ldquo;leak alone&rdquo;
are ours: same network, same pretrained layers, only the split differs.</p>
"""


def _crossing(counts: dict[str, int]) -> str:
    return "; ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"


def _suspicion(found: dict[str, Any]) -> str:
    return f"{found['suspected']:,}, says a judge who is right on {found['accuracy_of_the_judge']:.0%}"


def _set_table(audits: list[dict[str, Any]]) -> str:
    rows = [
        ["Films", *(f"{audit['films']:,}" for audit in audits)],
        [
            "Files that are byte for byte another one",
            *(f"{audit['exact_copies']['files_that_are_copies']:,}" for audit in audits),
        ],
        [
            "Different films, near-duplicates counted once",
            *(f"{audit['near_duplicates']['different_films']:,}" for audit in audits),
        ],
        [
            "Near-duplicates across the published split",
            *(_crossing(audit["near_duplicates"]["across_parts"]) for audit in audits),
        ],
        [
            "One film under different labels",
            *(f"{len(audit['near_duplicates']['contradictory_groups'])} groups" for audit in audits),
        ],
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
    different = f", {share['groups']} different" if share.get("groups", share["n"]) < share["n"] else ""
    return f"{share['value']:.1%} ({share['low']:.1%} to {share['high']:.1%}), {share['n']} films{different}"


def _peer_table(rows: list[dict[str, Any]]) -> str:
    cells = []
    for row in rows:
        claimed = "" if row["claimed"] is None else f"{row['claimed']:.1%}"
        run = row["published"]
        start = "from scratch" if run and run["start"] == "from scratch" else "from ImageNet layers"
        how = f"{run['epochs']} epochs {start}" if run else ""
        cells.append([row["title"], claimed, _accuracy(run), _accuracy(row["leak_free"]), how])
    return table(["Recipe", "Claimed", "On its own split", "Without the leak", "Run here"], cells)


def describe(folder: Path = TRAINING) -> str:
    """Audits and re-runs as HTML; every figure is from the committed JSON."""
    audits = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("data/audits/*.json"))]
    results = folder / "recipes" / "peers" / "results.json"
    parts = ["<h2>Is this data sound?</h2>", INTRO]
    parts.append(_set_table(audits) if audits else "<p>No audit is at hand.</p>")
    if results.is_file():
        parts += [PEERS, _peer_table(list(json.loads(results.read_text(encoding="utf-8")).values()))]
    return f"<article class='about wide'>{''.join(parts)}</article>"


def build() -> None:
    """Lays out the tab inside the current Blocks."""
    gr.HTML(describe())
