"""What was asked and what was reached: told by value and interval, from committed figures alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from app.bars import load
from training.bars import bars, chance_error, markdown, verdict
from training.metrics import expected_calibration_error

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("value", "low", "high", "told"),
    [
        (0.5, 0.45, 0.55, "reached"),
        (0.5, 0.35, 0.65, "reached; the interval does not exclude less"),
        (0.35, 0.3, 0.39, "not reached"),
        (0.35, 0.25, 0.45, "not reached; the interval does not exclude it"),
    ],
)
def test_a_verdict_is_by_value_and_interval(value: float, low: float, high: float, told: str) -> None:
    assert verdict({"value": value, "low": low, "high": high}, 0.4) == told


def test_chance_error_is_what_calibrated_answers_show_on_so_few_films() -> None:
    rng = np.random.default_rng(3)
    errors, floors = [], []
    for _ in range(200):
        sure = rng.uniform(0.5, 1.0, 150)
        labels = (rng.random(150) >= sure).astype(int)
        found = expected_calibration_error(np.stack([sure, 1.0 - sure], axis=1), labels)
        errors.append(found["value"])
        floors.append(chance_error(found["bins"], 200))
    assert np.mean(floors) == pytest.approx(np.mean(errors), rel=0.1)
    many = [{"films": 10_000_000, "confidence": 0.5}, {"films": 0, "confidence": None}]
    assert chance_error(many) < 0.001


def test_the_committed_table_is_what_the_committed_figures_say() -> None:
    found = bars(ROOT)
    assert load(ROOT / "weights") == found
    seeds = json.loads((ROOT / "training/results/seeds/resnet18.json").read_text())
    text = markdown(found)
    assert f"{100 * seeds['mean']:.1f} % ± {100 * seeds['spread']:.1f}" in text
    for page in ("README.md", "docs/report.md", "weights/vgg16/README.md"):
        assert text in (ROOT / page).read_text(encoding="utf-8"), page


def test_a_table_that_is_missing_or_damaged_is_no_table(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    (tmp_path / "bars.json").write_text('{"rows": [{"asked": "x"}]}')
    assert load(tmp_path) is None
