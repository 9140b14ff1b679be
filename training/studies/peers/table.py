"""The peers' claims beside what their recipes reach here, with the leak and without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.studies.peers.recipe import FOLDER, ReplicationRecipe

__all__ = ["RESULTS", "load_rows", "markdown", "save"]

RESULTS = FOLDER / "results.json"


def load_rows(recipes: dict[str, ReplicationRecipe], path: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """One row a recipe: its claim, and what was run of it; "published" and "leak_free" are None where it was not."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    rows = {}
    for name, recipe in recipes.items():
        run = {kind: known.get(name, {}).get(kind) for kind in ("published", "leak_free")}
        rows[name] = {**recipe.model_dump(include={"title", "claim", "claimed", "data", "protocol"}), **run}
    return rows


def save(rows: dict[str, dict[str, Any]], path: Path = RESULTS) -> None:
    """Writes all rows, those that were not run too."""
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _cell(run: dict[str, Any] | None) -> str:
    if run is None:
        return "not run"
    share = run["accuracy"]
    low, high = (f"{100 * share[key]:.1f}" for key in ("low", "high"))
    films = f"{share['n']} films"
    if share.get("groups", share["n"]) < share["n"]:
        films += f" of {share['groups']} cases"
    if "commonest" in run:
        films += f"; commonest label {100 * run['commonest']:.0f} %"
    return f"{100 * share['value']:.1f} % ({low} to {high}; {films})"


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """The table, one line a row."""
    lines = [
        "| recipe | data set | claimed | its own split | without the leak | run here |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows.values():
        claimed = "" if row["claimed"] is None else f"{100 * row['claimed']:.1f} %"
        run = row["published"]
        start = "from scratch" if run and run["start"] == "from scratch" else "from ImageNet layers"
        how = f"{run['epochs']} epoch{'s' * (run['epochs'] > 1)} {start}" if run else ""
        lines.append(
            f"| {row['title']} | {row['data']} | {claimed} | {_cell(run)} | {_cell(row['leak_free'])} | {how} |"
        )
    return "\n".join(lines)
