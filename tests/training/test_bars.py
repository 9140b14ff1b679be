"""What was asked and what was reached: told by value and interval, from committed figures alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from app.bars import Bar, load
from training.bars import BEST, SINGLE, bars, chance_error, markdown, over_trainings, verdict, why
from training.metrics import expected_calibration_error

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("value", "low", "high", "told"),
    [
        (0.5, 0.45, 0.55, "reached"),
        (0.5, 0.35, 0.65, "reached; the true figure may be lower"),
        (0.35, 0.3, 0.39, "not reached"),
        (0.35, 0.25, 0.45, "not reached; the true figure may be higher"),
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
    means, highs = zip(*((its["value"], its["high"]) for its in floors), strict=True)
    assert np.mean(means) == pytest.approx(np.mean(errors), rel=0.1)
    assert 0.9 < np.mean(np.array(errors) <= np.array(highs)) < 1.0
    many = [{"films": 10_000_000, "confidence": 0.5}, {"films": 0, "confidence": None}]
    assert chance_error(many)["high"] < 0.001


def test_more_trainings_do_not_tell_more_about_other_films() -> None:
    shares = [{"value": 0.3, "low": 0.2, "high": 0.4}, {"value": 0.4, "low": 0.32, "high": 0.52}]
    assert over_trainings(shares) == pytest.approx({"value": 0.35, "low": 0.25, "high": 0.47})


def test_a_bar_that_is_reached_is_not_said_to_be_missed() -> None:
    def row(bar: float, verdict: str) -> Bar:
        told = f"{100 * bar:.1f} % (published, x)"
        return Bar(asked="X: named, 9 films", bar=told, reached="30.0 % (20.0 to 40.0)", verdict=verdict, command="")

    assert "Neither was reached" in why([row(SINGLE, "not reached"), row(BEST, "not reached")], [], ROOT)[0]
    half = why([row(SINGLE, "not reached"), row(SINGLE, "reached"), row(BEST, "not reached")], [], ROOT)[0]
    assert "Neither" not in half


def test_the_committed_table_is_what_the_committed_figures_say() -> None:
    found = bars(ROOT)
    assert load(ROOT / "weights") == found
    seeds = json.loads((ROOT / "training/results/seeds/resnet18.json").read_text())
    text = markdown(found)
    assert f"{100 * seeds['mean']:.1f} % ± {100 * seeds['spread']:.1f}" in text
    for row in found.rows:
        for file in re.findall(r"training/recipes/\S+", row.command):
            assert (ROOT / file).is_file(), row.command
    for page in ("README.md", "docs/report.md", "weights/vgg16/README.md"):
        assert text in (ROOT / page).read_text(encoding="utf-8"), page


def test_a_table_that_is_missing_or_damaged_is_no_table(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    (tmp_path / "bars.json").write_bytes(b"\xff\xfe\x00")
    assert load(tmp_path) is None
    (tmp_path / "bars.json").write_text('{"rows": [{"asked": "x"}]}')
    assert load(tmp_path) is None
