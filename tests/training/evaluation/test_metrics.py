from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import top_k_accuracy_score

from training.evaluation.metrics import area, bootstrap, expected_calibration_error, fit_temperature, report

NAMES = [f"type{i}" for i in range(10)]


@pytest.fixture
def judged() -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of 400 films whose true chances are softmax(logits / 2)."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (4000, 10))
    chances = softmax(logits / 2, axis=1)
    return logits, np.array([rng.choice(10, p=p) for p in chances])


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(200):
        share = bootstrap(rng.random(140) < 0.4, seed=trial)
        covered += share["low"] <= 0.4 <= share["high"]
    assert 0.90 <= covered / 200 <= 0.99


def test_copies_make_no_interval_narrower() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(60) < 0.5
    once, copied = bootstrap(right), bootstrap(np.repeat(right, 20), np.repeat(np.arange(60), 20))
    assert copied["groups"] == once["n"] == 60
    assert copied["n"] == 1200
    assert copied["high"] - copied["low"] == pytest.approx(once["high"] - once["low"], rel=0.05)
    blind = bootstrap(np.repeat(right, 20))
    assert blind["high"] - blind["low"] < 0.3 * (once["high"] - once["low"])


def test_groups_of_any_size_are_covered_as_often_as_said() -> None:
    rng = np.random.default_rng(6)
    covered = 0
    for trial in range(200):
        sizes = rng.integers(1, 6, 120)
        share = bootstrap(np.repeat(rng.random(120) < 0.4, sizes), np.repeat(np.arange(120), sizes), seed=trial)
        covered += share["low"] <= 0.4 <= share["high"]
    assert 0.90 <= covered / 200 <= 0.99


def test_the_temperature_is_found(judged: tuple[np.ndarray, np.ndarray]) -> None:
    assert fit_temperature(*judged) == pytest.approx(2.0, rel=0.08)


def test_calibration_error_is_small_only_when_calibrated(judged: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = judged
    good = expected_calibration_error(softmax(logits / 2, axis=1), labels)
    bad = expected_calibration_error(softmax(logits, axis=1), labels)
    assert good["value"] < 0.03
    assert bad["value"] > 0.1
    assert sum(row["films"] for row in good["bins"]) == len(labels)


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.65, 0.35], [0.65, 0.35]])
    error = expected_calibration_error(probabilities, np.array([0, 1, 0, 0]))
    assert error["value"] == pytest.approx(0.5 * abs(0.95 - 0.5) + 0.5 * abs(0.65 - 1.0))


def test_the_report_agrees_with_counting(judged: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = judged
    figures = report(logits, labels, NAMES, temperature=2.0)
    assert figures["accuracy"]["value"] == pytest.approx((logits.argmax(1) == labels).mean())
    assert figures["top3"]["value"] == pytest.approx(top_k_accuracy_score(labels, logits, k=3))
    confusion = np.array(figures["confusion"])
    assert confusion.sum() == len(labels)
    assert figures["balanced_accuracy"] == pytest.approx((confusion.diagonal() / confusion.sum(1)).mean())
    assert figures["per_class"][3]["films"] == (labels == 3).sum()


def test_twins_make_no_area_look_surer() -> None:
    rng = np.random.default_rng(0)
    fractured = rng.random(60) < 0.4
    scores = rng.normal(size=60) + fractured
    alone = area(scores, fractured)
    twice = np.repeat(np.arange(60), 5)
    blind = area(scores[twice], fractured[twice])
    told = area(scores[twice], fractured[twice], twice)
    assert alone["value"] == pytest.approx(told["value"])
    assert told["groups"] == 60
    width = {name: its["high"] - its["low"] for name, its in (("alone", alone), ("blind", blind), ("told", told))}
    assert width["blind"] < 0.7 * width["alone"]
    assert width["told"] == pytest.approx(width["alone"], rel=0.15)
