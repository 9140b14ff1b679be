"""Figures, intervals, prediction sets and the pointing game, against counting and other implementations."""

from __future__ import annotations

import numpy as np
import pytest
from mapie.classification import SplitConformalClassifier
from mapie.conformity_scores.sets.aps import APSConformityScore
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import cohen_kappa_score, roc_auc_score, top_k_accuracy_score

from app.imaging.letterbox import Placement
from app.model.classifier import Prediction, possible_types
from app.model.weights import PredictionSets
from tests.training.toys import film
from training.evaluation import metrics
from training.evaluation.metrics import (
    LEVEL,
    SCORES,
    area,
    bootstrap,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    hit,
    holds,
    judge_sets,
    kappa,
    kappa_of_counts,
    merged_classes,
    quantile,
    report,
)

NAMES = [f"type{i}" for i in range(10)]


@pytest.fixture
def judged() -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of 400 films whose true chances are softmax(logits / 2)."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (4000, 10))
    chances = softmax(logits / 2, axis=1)
    return logits, np.array([rng.choice(10, p=p) for p in chances])


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer resamples than figures are made with, where hundreds of intervals or thousands of images are judged."""
    monkeypatch.setattr(metrics, "RESAMPLES", 1000)


@pytest.mark.usefixtures("few")
def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(200):
        share = bootstrap(rng.random(140) < 0.4, seed=trial)
        covered += share["low"] <= 0.4 <= share["high"]
    assert 0.90 <= covered / 200 <= 0.99


@pytest.mark.parametrize("right", [False, True])
def test_nothing_is_certain_after_few_images(right: bool) -> None:
    """Where every image is right, or none, resampling sees no doubt; scipy's exact interval does."""
    share = bootstrap(np.full(60, right), np.repeat(np.arange(20), 3))
    exact = binomtest(20 * right, 20).proportion_ci(method="exact")
    assert (share["low"], share["high"]) == pytest.approx((exact.low, exact.high))
    assert share["value"] == float(right)


def test_copies_make_no_interval_narrower() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(60) < 0.5
    once, copied = bootstrap(right), bootstrap(np.repeat(right, 20), np.repeat(np.arange(60), 20))
    assert copied["groups"] == once["n"] == 60
    assert copied["n"] == 1200
    assert copied["high"] - copied["low"] == pytest.approx(once["high"] - once["low"], rel=0.05)
    blind = bootstrap(np.repeat(right, 20))
    assert blind["high"] - blind["low"] < 0.3 * (once["high"] - once["low"])


@pytest.mark.usefixtures("few")
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


def test_right_answers_alone_make_nobody_certain() -> None:
    labels = np.arange(64) % 4
    logits = np.where(labels[:, None] == np.arange(4), 2.0, 0.0)
    sure = softmax(logits / fit_temperature(logits, labels), axis=1).max(axis=1)
    assert sure == pytest.approx(65 / 66, abs=0.001)


def test_calibration_error_is_small_only_when_calibrated(judged: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = judged
    good = expected_calibration_error(softmax(logits / 2, axis=1), labels)
    bad = expected_calibration_error(softmax(logits, axis=1), labels)
    assert good["value"] < 0.03
    assert bad["value"] > 0.1
    assert sum(row["images"] for row in good["bins"]) == len(labels)


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.65, 0.35], [0.65, 0.35]])
    error = expected_calibration_error(probabilities, np.array([0, 1, 0, 0]))
    assert error["value"] == pytest.approx(0.5 * abs(0.95 - 0.5) + 0.5 * abs(0.65 - 1.0))


@pytest.mark.usefixtures("few")
def test_the_report_agrees_with_counting(judged: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = judged
    figures = report(logits, labels, NAMES, temperature=2.0)
    assert figures["accuracy"]["value"] == pytest.approx((logits.argmax(1) == labels).mean())
    assert figures["top3"]["value"] == pytest.approx(top_k_accuracy_score(labels, logits, k=3))
    confusion = np.array(figures["confusion"])
    assert confusion.sum() == len(labels)
    assert figures["balanced_accuracy"] == pytest.approx((confusion.diagonal() / confusion.sum(1)).mean())
    assert figures["per_class"][3]["images"] == (labels == 3).sum()


def test_near_duplicates_make_no_area_look_surer() -> None:
    rng = np.random.default_rng(0)
    fractured = rng.random(60) < 0.4
    scores = (rng.normal(size=60) + fractured).round(1)
    alone = area(scores, fractured)
    assert alone["value"] == pytest.approx(roc_auc_score(fractured, scores), abs=1e-12)
    twice = np.repeat(np.arange(60), 5)
    blind = area(scores[twice], fractured[twice])
    told = area(scores[twice], fractured[twice], twice)
    assert alone["value"] == pytest.approx(told["value"])
    assert told["groups"] == 60
    width = {name: its["high"] - its["low"] for name, its in (("alone", alone), ("blind", blind), ("told", told))}
    assert width["blind"] < 0.7 * width["alone"]
    assert width["told"] == pytest.approx(width["alone"], rel=0.15)


CLASSES = 6


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are right as often as they say, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(CLASSES, 0.6), count)
    labels = np.array([rng.choice(CLASSES, p=row) for row in probabilities])
    return probabilities, labels


class Known(ClassifierMixin, BaseEstimator):
    """A classifier whose features are its answers."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> Known:
        self.classes_ = np.arange(CLASSES)
        self.is_fitted_ = True
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return X

    def predict(self, X: np.ndarray) -> np.ndarray:
        return X.argmax(axis=1)


@pytest.mark.filterwarnings("ignore")
def test_sets_of_the_least_ambiguous_kind_are_those_of_mapie() -> None:
    probabilities, labels = drawn(400, 0)
    asked, _ = drawn(200, 1)
    library = SplitConformalClassifier(
        Known().fit(probabilities, labels), confidence_level=LEVEL, conformity_score="lac", prefit=True
    )
    library.conformalize(probabilities, labels)
    _, sets = library.predict_set(asked)
    shipped = PredictionSets(
        score="LAC", level=LEVEL, limit=quantile(SCORES["LAC"](probabilities)[np.arange(len(labels)), labels])
    )
    names = tuple(map(str, range(CLASSES)))
    for row, wanted in zip(asked, sets[:, :, 0], strict=True):
        ours = possible_types(Prediction(names, np.log(row), row), shipped)
        assert set(ours) == {names[i] for i in np.flatnonzero(wanted)} | {names[row.argmax()]}


def test_adaptive_scores_are_those_of_mapie_before_it_draws_lots() -> None:
    probabilities, labels = drawn(400, 0)
    theirs, _ = APSConformityScore.get_true_label_cumsum_proba(labels, probabilities, np.arange(CLASSES))
    ours = SCORES["APS"](probabilities)[np.arange(len(labels)), labels]
    np.testing.assert_allclose(ours, theirs[:, 0])


def test_sets_cover_what_they_say_on_new_images() -> None:
    probabilities, labels = drawn(1500, 2)
    sets, judged = calibrate(probabilities, labels, np.arange(1500))
    for its in judged.values():
        assert 0.88 <= its["coverage"]["value"] <= 0.92
        assert its["coverage"]["low"] < its["coverage"]["value"] < its["coverage"]["high"]
        assert 1.0 < its["size"]["value"] < CLASSES
    new, truth = drawn(1500, 3)
    scores = SCORES[sets.score](new)
    assert 0.87 <= (scores[np.arange(1500), truth] <= sets.limit).mean() <= 0.93


def test_near_duplicates_on_both_sides_would_look_surer_than_they_are() -> None:
    probabilities, labels = drawn(60, 4)
    copies = np.repeat(np.arange(60), 10)
    apart = judge_sets(probabilities[copies], labels[copies], np.arange(600))["LAC"]["coverage"]
    together = judge_sets(probabilities[copies], labels[copies], copies)["LAC"]["coverage"]
    assert together["high"] - together["low"] > 1.5 * (apart["high"] - apart["low"])


def test_too_few_images_leave_every_type_possible() -> None:
    assert quantile(np.array([0.1, 0.2, 0.3])) == float("inf")
    assert quantile(np.linspace(0.1, 1.0, 10), 0.5) == pytest.approx(0.6)


@pytest.mark.parametrize("score", list(SCORES))
def test_sets_that_are_judged_are_those_people_see(score: str) -> None:
    probabilities, _ = drawn(50, 3)
    probabilities = probabilities.astype(np.float32)
    for limit in (0.2, 0.7, 0.95):
        sets = PredictionSets(score=score, level=0.9, limit=limit)  # ty: ignore[invalid-argument-type]
        names = tuple("abcdef")
        held = holds(probabilities, sets)
        for row, inside in zip(probabilities, held, strict=True):
            seen = possible_types(Prediction(names, np.log(row), row), sets)
            assert {names[i] for i in np.flatnonzero(inside)} == set(seen)


def test_a_peak_is_inside_near_or_far() -> None:
    placement = Placement.fit(160, 160, 160)
    boxed = film((0.25, 0.25, 0.1, 0.1))

    def peak(row: int, column: int) -> np.ndarray:
        found = np.zeros((160, 160), np.float32)
        found[row, column] = 1.0
        return found

    assert hit(peak(40, 40), boxed, placement) == (True, True, 1.0)
    assert hit(peak(53, 40), boxed, placement) == (False, True, 0.0)
    assert hit(peak(120, 120), boxed, placement) == (False, False, 0.0)
    assert hit(np.full((160, 160), -1.0, np.float32), boxed, placement).energy == 0.0
    flat = hit(np.ones((10, 10), np.float32), boxed, placement)
    assert flat.energy == pytest.approx(0.01, rel=0.15)
    with pytest.raises(ValueError, match="no box"):
        hit(peak(1, 1), film(), placement)


def test_heat_in_the_padding_is_no_peak() -> None:
    placement = Placement.fit(160, 80, 160)
    found = np.zeros((160, 160), np.float32)
    found[80, 5] = 9.0
    found[80, 80] = 1.0
    assert hit(found, film((0.5, 0.5, 0.1, 0.1)), placement).inside


def test_kappa_is_agreement_beyond_chance() -> None:
    one, other = np.array(["a", "a", "b", "b", "c"]), np.array(["a", "b", "b", "a", "c"])
    nothing = np.array([])
    assert kappa(one[:2], one[:2]) is kappa(nothing, nothing) is None
    found = kappa(one, other, np.array([0, 0, 1, 2, 3]))
    assert found is not None
    assert found["value"] == pytest.approx(cohen_kappa_score(one, other))
    assert found["low"] <= found["value"] <= found["high"]
    assert (found["n"], found["groups"]) == (5, 4)
    # Half of four agree, as by chance; all of four leave nothing to draw otherwise.
    by_chance, perfect = kappa(one[:4], other[:4]), kappa(one, one)
    assert by_chance is not None
    assert perfect is not None
    assert by_chance["value"] == pytest.approx(0.0)
    assert perfect["value"] == perfect["low"] == perfect["high"] == 1.0


def test_kappa_of_counts_is_that_of_the_images() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    predictions = np.where(rng.random(200) < 0.5, labels, rng.integers(0, 4, 200))
    counts = np.zeros((4, 4), int)
    np.add.at(counts, (labels, predictions), 1)
    assert kappa_of_counts(counts)["value"] == pytest.approx(cohen_kappa_score(labels, predictions))
    halves = kappa_of_counts(counts, [[0, 3], [1, 2]])
    belongs = np.array([0, 1, 1, 0])
    assert halves["value"] == pytest.approx(cohen_kappa_score(belongs[labels], belongs[predictions]))
    assert halves["n"] == 200


def test_classes_that_are_taken_for_each_other_are_merged_first() -> None:
    counts = [[5, 5, 0, 0], [5, 5, 0, 0], [0, 0, 9, 1], [0, 0, 1, 9]]
    first, last = merged_classes(counts)
    assert sorted(map(sorted, first)) == [[0, 1], [2], [3]]
    assert sorted(map(sorted, last)) == [[0, 1], [2, 3]]
    assert kappa_of_counts(counts, last)["value"] == 1.0
    assert kappa_of_counts(counts)["value"] < kappa_of_counts(counts, first)["value"] < 1.0
