"""What is duplicated, leaked or contradictory in a data set: ``python -m training audit NAME --out DIR``.

``DIR/index.html`` shows it with thumbnails and stays on the user's disk; ``training/data/audits/NAME.json`` holds
counts and names only, is the same from run to run, and is committed.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import track

from app.explain.shortcuts import mark_boxes
from app.imaging.letterbox import letterbox
from app.imaging.radiograph import Radiograph
from training.data.cache import CACHE
from training.data.grouping import Grouping, find_groups
from training.data.image import DataSet, readable
from training.studies.search_check import brute_force, recall_of_planted
from training.studies.suspects import out_of_fold, pooled_features, suspects

__all__ = ["AUDITS", "Audit", "audit", "looked_at"]

AUDITS = Path(__file__).resolve().parents[1] / "data" / "audits"


@dataclass(frozen=True)
class Audit:
    """A data set, what was found in it, and the summary that is committed."""

    data: DataSet
    decoded: list[Radiograph]
    grouping: Grouping
    suspected: np.ndarray
    probabilities: np.ndarray
    summary: dict[str, Any]


def is_coloured(picture: np.ndarray) -> bool:
    """Whether a visible share of an RGB picture, uint8 (H, W, 3), is tinted rather than grey."""
    spread = picture.max(axis=2).astype(np.int16) - picture.min(axis=2)
    return float((spread > 24).mean()) > 0.005


def _crossing(data: DataSet, sets: Sequence[np.ndarray], tie: str) -> dict[str, int]:
    """How films of the publisher's parts are tied to other parts by being in one of ``sets`` together."""
    tied: Counter[str] = Counter()
    for members in sets:
        parts = {data.films[i].part for i in members} - {""}
        for i in members:
            for other in parts - {data.films[i].part}:
                if data.films[i].part:
                    tied[f"{data.films[i].part} films with {tie} in {other}"] += 1
    return dict(sorted(tied.items()))


def looked_at(name: str, folder: Path = AUDITS) -> dict[str, str]:
    """How far links between films are to be believed: what a person said of some, from ``pairs-NAME.csv``.

    Returns:
        By measure, how many pairs are one film and how many were looked at, as "20 of 24"; empty where nobody looked.
    """
    target = folder / f"pairs-{name}.csv"
    if not target.is_file():
        return {}
    with target.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    right = Counter(row["measure"] for row in rows if row["one film"] == "yes")
    return {measure: f"{right[measure]} of {n}" for measure, n in Counter(row["measure"] for row in rows).items()}


def audit(data: DataSet, init: Path | None = None, cache: Path = CACHE) -> Audit:
    """Everything that is wrong with a data set, as far as it can be counted.

    Args:
        data: as its loader gives it.
        init: pretrained layers for the label check; torchvision's download where absent.
        cache: where links between films are kept.
    """
    data, decoded = readable(data)
    grouping = find_groups(data, decoded, cache)
    labels = np.array([film.label for film in data.films])
    members = [np.flatnonzero(grouping.groups == number) for number in np.unique(grouping.groups)]
    several = [group for group in members if len(group) > 1]
    contradictory = [group for group in several if len(set(labels[group])) > 1]
    families = [np.flatnonzero(grouping.families == number) for number in np.unique(grouping.families)]
    related = [family for family in families if len(set(grouping.groups[family])) > 1]
    exact = [np.array(copies) for copies in grouping.copies]
    once = np.sort([int(group[0]) for group in members])
    marked = [len(mark_boxes(film.display())) > 0 for film in track(decoded, "Looking for marks")]
    coloured = [is_coloured(np.asarray(Image.open(film.path).convert("RGB"))) for film in data.films]
    squares = np.stack([np.round(letterbox(decoded[i], 160)[0] * 255.0).astype(np.uint8) for i in once])
    features, initial = pooled_features(squares, init)
    probabilities = out_of_fold(features, labels[once], grouping.families[once])
    suspected = suspects(labels[once], probabilities)
    summary = {
        "set": data.name,
        "title": data.title,
        "films": len(data.films),
        "by_class": {name: int((labels == index).sum()) for index, name in enumerate(data.classes)},
        "by_part": dict(sorted(Counter(film.part or "none given" for film in data.films).items())),
        "problems": [{"film": problem.image, "what": problem.what} for problem in data.problems],
        "exact_copies": {
            "compared": "originals, by the publisher's checksums"
            if all(film.sha256 for film in data.films)
            else "files as they are at hand",
            "files_that_are_copies": int(sum(len(copies) - 1 for copies in exact)),
            "sets_of_copies": len(exact),
            "with_different_labels": sum(len(set(labels[copies].tolist())) > 1 for copies in exact),
            "across_parts": _crossing(data, exact, "a copy"),
        },
        "near_duplicates": {
            "method": str(data.thresholds),
            "links": dict(sorted(Counter(link.measure for link in grouping.links).items())),
            "different_films": len(members),
            "groups_of_several": len(several),
            "films_in_groups_of_several": int(sum(len(group) for group in several)),
            "largest_groups": sorted((len(group) for group in members), reverse=True)[:10],
            "across_parts": _crossing(data, several, "a near-duplicate"),
            "contradictory_groups": [
                {
                    "films": [data.films[i].name for i in group],
                    "labels": sorted({data.classes[labels[i]] for i in group}),
                }
                for group in contradictory
            ],
            "brute_force": brute_force(decoded, grouping.groups, data.thresholds),
            "recall_of_planted_copies": recall_of_planted(decoded, data.thresholds),
        },
        "same_case": {
            "method": "file names that share eight hexadecimal digits: cut from one picture, or from one article",
            "pairs_of_names": len(data.kin),
            "families_of_several_groups": len(related),
            "films_in_them": int(sum(map(len, related))),
            "across_parts": _crossing(data, related, "a film of the same case"),
        },
        "marks": {"films_with_letters_or_arrows": int(sum(marked)), "films_with_colour": int(sum(coloured))},
        "suspected_labels": {
            "method": "confident learning on grouped 5-fold logistic regression over pooled ResNet-18 features, "
            "one film a group",
            "features": initial.source,
            "judged": len(once),
            "accuracy_of_the_judge": float((probabilities.argmax(axis=1) == labels[once]).mean()),
            "accuracy_of_naming_the_commonest": float(np.bincount(labels[once]).max() / len(once)),
            "suspected": len(suspected),
            "most_doubtful": [
                {
                    "film": data.films[once[i]].name,
                    "label": data.classes[labels[once[i]]],
                    "judged": data.classes[int(probabilities[i].argmax())],
                }
                for i in suspected[:20]
            ],
        },
    }
    return Audit(data, decoded, grouping, once[suspected], probabilities, json.loads(json.dumps(summary)))
