"""What the page draws of the data is counted from committed files, and never where one is missing."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from app.model.weights import ModelCard, load_card, with_interval
from training.studies.soundness import AUDITED, data_facts, source_facts

ROOT = Path(__file__).resolve().parents[3]
READ = ("data/audits", "splits", "results", "recipes/replications")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for folder in READ:
        shutil.copytree(ROOT / "training" / folder, tmp_path / "training" / folder)
    return tmp_path


def test_counts_are_those_of_audits_and_splits(copied: Path) -> None:
    facts = data_facts(copied)
    assert facts
    for its, name in zip(facts["sets"], AUDITED, strict=True):
        audit = json.loads((copied / f"training/data/audits/{name}.json").read_text())
        assert (its["images"], its["different"]) == (audit["images"], audit["near_duplicates"]["different_images"])
        part = its["published"]["part"]
        across = audit["near_duplicates"]["across_parts"]
        assert its["published"]["related"] == across[f"{part} images with a near-duplicate in train"]
        pairs = list(csv.DictReader((copied / f"training/data/audits/pairs-{name}.csv").open()))
        assert its["links"] == {
            "confirmed": sum(pair["one image"] == "yes" for pair in pairs),
            "looked_at": len(pairs),
        }
        assert its["ours"]["related"] == 0
    audit = json.loads((copied / "training/data/audits/bone-break.json").read_text())
    assert {row["name"]: sum(row[key] for key in ("train", "left_out", "test")) for row in facts["types"]} == audit[
        "by_class"
    ]
    assert with_interval(facts["labels"][1]["same"]) == "0.0 % (95 % CI 0.0 to 43.4, n = 5)"


def test_a_test_image_related_to_training_is_counted(copied: Path) -> None:
    path = copied / "training" / "splits" / "bone-break.csv"
    rows = list(csv.DictReader(path.open()))
    alone = Counter(row["group"] for row in rows)
    test = next(row for row in rows if row["part"] == "test" and alone[row["group"]] == 1)
    test["group"] = next(row["group"] for row in rows if row["part"] == "train")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    facts = data_facts(copied)
    assert facts
    assert facts["sets"][0]["ours"] == {"part": "test", "images": 140, "related": 1}


@pytest.mark.parametrize(
    "missing", ["data/audits/fracatlas.json", "splits/multi-region.csv", "results/agreement.json", "recipes"]
)
def test_nothing_is_told_where_something_was_not_measured(copied: Path, missing: str) -> None:
    path = copied / "training" / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert data_facts(copied) is None


def test_sources_are_told_of_the_weights_they_were_judged_on(copied: Path) -> None:
    card = load_card("resnet18-pyramid", ROOT / "weights")
    path = copied / "training/results/sources/resnet18-pyramid-test.json"
    judged = json.loads(path.read_text())
    path.write_text(json.dumps({**judged, "weights": card.weights.sha256}))
    boxed = [row["page"]["inside"] for row in judged["sources"].values() if "page" in row]
    assert [its["inside"] for its in source_facts(card, copied)] == boxed
    other: ModelCard = card.model_copy(update={"weights": card.weights.model_copy(update={"sha256": "0" * 64})})
    assert source_facts(other, copied) == []
