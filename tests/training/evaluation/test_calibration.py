"""Prediction sets: they cover what they say, and agree with a library's."""

from __future__ import annotations

import numpy as np
import pytest
from mapie.classification import SplitConformalClassifier
from mapie.conformity_scores.sets.aps import APSConformityScore
from sklearn.base import BaseEstimator, ClassifierMixin

from app.model.classifier import Prediction, possible_types
from app.model.weights import PredictionSets
from training.evaluation.calibration import LEVEL, SCORES, calibrate, holds, judge_sets, quantile

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


def test_sets_cover_what_they_say_on_new_films() -> None:
    probabilities, labels = drawn(1500, 2)
    sets, judged = calibrate(probabilities, labels, np.arange(1500))
    for its in judged.values():
        assert 0.88 <= its["coverage"]["value"] <= 0.92
        assert its["coverage"]["low"] < its["coverage"]["value"] < its["coverage"]["high"]
        assert 1.0 < its["size"]["value"] < CLASSES
    new, truth = drawn(1500, 3)
    scores = SCORES[sets.score](new)
    assert 0.87 <= (scores[np.arange(1500), truth] <= sets.limit).mean() <= 0.93


def test_twins_on_both_sides_would_look_surer_than_they_are() -> None:
    probabilities, labels = drawn(60, 4)
    copies = np.repeat(np.arange(60), 10)
    apart = judge_sets(probabilities[copies], labels[copies], np.arange(600))["LAC"]["coverage"]
    together = judge_sets(probabilities[copies], labels[copies], copies)["LAC"]["coverage"]
    assert together["high"] - together["low"] > 1.5 * (apart["high"] - apart["low"])


def test_too_few_films_leave_every_type_possible() -> None:
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
