"""The report says what was measured and what was not."""

from __future__ import annotations

import json
from pathlib import Path

from app.model.weights import load_card
from benchmarks.record import keep
from training.release.model_card import model_card
from training.studies.report import report, tables
from training.studies.report_tables import costs


def test_costs_are_told_as_the_benchmarks_kept_them(tmp_path: Path) -> None:
    assert costs(tmp_path) == []
    keep("cam", {"gradcam, some network": {"bare forward": 1.0, "ours": 1.04}}, tmp_path)
    keep(
        "fuzz",
        {
            "megapixels": 40,
            "bound_mib": 1024.0,
            "largest_files_mib": {"a large one": 700},
            "damaged_files": 9,
            "outcomes": {"a film": 4, "a sentence": 5},
            "damaged_files_mib": 99,
        },
        tmp_path,
    )
    told = "\n".join(costs(tmp_path))
    assert "| gradcam, some network | ours | 1.04 x |" in told
    assert "Of 9 damaged pictures" in told
    assert "4 were a film, 5 were a sentence" in told
    assert "| a large one | 700 MiB |" in told


def test_the_report_says_what_was_measured_and_what_was_not(repository: Path) -> None:
    (repository / "README.md").write_text("<!-- report: figures -->\n<!-- end -->\n")
    page = report(repository)
    text = page.read_text()
    card = json.loads((repository / "weights/resnet18/card.json").read_text())
    assert f"{100 * card['metrics']['test']['accuracy']['value']:.1f} %" in text
    assert "Not a medical device" in text
    assert "not run" in text
    assert "resnet18 + resnet18" in text
    for part in ("folds", "whole"):
        found = json.loads((repository / f"training/results/{part}/resnet18.json").read_text())
        assert found["folds"] == [0, 1]
        assert f"2 folds, {found['types']['films']} films" in text
    assert (repository / "docs" / "reliability-resnet18.png").is_file()
    assert tables(repository)["figures"] in (repository / "README.md").read_text()
    first = text, (repository / "README.md").read_text()
    assert (repository / "weights/resnet18/README.md").read_text() == model_card(
        load_card("resnet18", repository / "weights"), repository
    )
    report(repository)
    assert (page.read_text(), (repository / "README.md").read_text()) == first
