"""What the page's figures show of data and sources, gathered from what audits, splits and studies committed.

The page ships without files of ``training``, so ``python -m training report`` writes these few numbers beside the
weights: ``weights/data.json``, and ``weights/NAME/sources.json`` for models that were judged on several sources.
"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from app.model.weights import ModelCard
from training import read_json

__all__ = ["AUDITED", "data_facts", "source_facts"]

AUDITED = ("bone-break", "fracatlas", "multi-region")
PARTS = ("test", "unseen", "validation")
"""Of a source; the first that was judged is told: what chose nothing comes first."""
LEAK = "leak-resnet18-random"
"""The replication whose two sides differ in nothing but the leak, on a split as others draw it."""


def _rows(root: Path, name: str) -> list[dict[str, str]]:
    path = root / "training" / "splits" / f"{name}.csv"
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.is_file() else []


def _share(count: int, of: int) -> dict[str, Any]:
    """With Wilson's interval (Wilson, 1927), which holds for few images and for none that agree."""
    low, high = binomtest(count, of).proportion_ci(method="wilson")
    return {"value": count / of, "low": float(low), "high": float(high), "n": of}


def _types(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    counts = Counter((row["class"], row["part"]) for row in rows)
    parts = {"train": "train", "left_out": "leaked", "test": "test"}
    return [
        {"name": name, **{key: counts[name, part] for key, part in parts.items()}}
        for name in dict.fromkeys(row["class"] for row in rows)
    ]


def _set(audit: dict[str, Any], rows: list[dict[str, str]]) -> dict[str, Any]:
    near, part = audit["near_duplicates"], "test" if "test" in audit["by_part"] else "validation"
    learnt = {row["group"] for row in rows if row["part"] == "train"}
    judging = [row["group"] for row in rows if row["part"] == "test"]
    right, looked = zip(*(map(int, told.split(" of ")) for told in near["looked_at"].values()), strict=True)
    return {
        "title": audit["title"],
        "images": audit["images"],
        "different": near["different_images"],
        "marked": audit["marks"]["images_with_letters_or_arrows"],
        "links": {"confirmed": sum(right), "looked_at": sum(looked)},
        "published": {
            "part": part,
            "images": audit["by_part"][part],
            "related": near["across_parts"].get(f"{part} images with a near-duplicate in train", 0),
        },
        "ours": {"part": "test", "images": len(judging), "related": sum(group in learnt for group in judging)},
    }


def _labels(agreement: dict[str, Any], titles: dict[str, str]) -> list[dict[str, Any]]:
    """How often two labels of one X-ray agree, where both could differ: kappa is not defined elsewhere."""
    itself = agreement["bone-break_with_itself"]
    rows: list[dict[str, Any]] = [
        {"about": "type", "sets": ["bone-break"], "agree": itself["agree"], "n": itself["groups"]}
    ]
    for key, about in (("types", "type"), ("presence", "presence")):
        rows += [{"about": about, **row} for row in agreement[key] if row["kappa"]]
    return [
        {
            "about": row["about"],
            "sets": [titles[name] for name in row["sets"]],
            "same": _share(row["agree"], row["n"]),
        }
        for row in rows
    ]


def _titles(root: Path) -> dict[str, str]:
    """Data sets as people know them, by name."""
    audits = map(read_json, sorted((root / "training" / "data" / "audits").glob("*.json")))
    return {audit["set"]: audit["title"] for audit in audits}


def data_facts(root: Path) -> dict[str, Any] | None:
    """Whether the data is sound, in numbers.

    Args:
        root: of the repository.

    Returns:
        "types": X-rays a type that train, test or are left out since a test X-ray is related; "sets": each set's
        counts, and how many images that judge have a near-duplicate in training, as published and in our split;
        "labels": shares of X-rays that carry the same label twice; "leak": accuracy on a random split and without the
        leak. None where something was not measured.
    """
    audits = [read_json(root / "training" / "data" / "audits" / f"{name}.json") for name in AUDITED]
    splits = [_rows(root, name) for name in AUDITED]
    agreement = read_json(root / "training" / "results" / "agreement.json")
    leak = (read_json(root / "training" / "recipes" / "replications" / "results.json") or {}).get(LEAK)
    if not (all(audits) and all(splits) and agreement and leak):
        return None
    return {
        "types": _types(splits[0]),
        "sets": [_set(audit, rows) for audit, rows in zip(audits, splits, strict=True)],
        "labels": _labels(agreement, _titles(root)),
        "leak": {side: leak[side]["accuracy"] for side in ("published", "leak_free")},
    }


def source_facts(card: ModelCard, root: Path) -> list[dict[str, Any]]:
    """How often a model's heatmap peaks in a fracture box, by source.

    Args:
        card: of the model.
        root: of the repository.

    Returns:
        "source" as people know it, "part" of it that judged, and the share "inside"; empty where these weights were
        not judged.
    """
    results, titles = root / "training" / "results" / "sources", _titles(root)
    found = [read_json(path) for path in results.glob(f"{card.name}-*.json")]
    found = [its for its in found if its["model"] == card.name and its["weights"] == card.weights.sha256]
    if not found:
        return []
    its = min(found, key=lambda its: PARTS.index(its["part"]))
    return [
        {"source": titles[name], "part": its["part"], "inside": row["page"]["inside"]}
        for name, row in its["sources"].items()
        if "page" in row
    ]
