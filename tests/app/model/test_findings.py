from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier, Prediction, possible_types, presence
from app.model.reliability import confidence, how_sure
from app.model.weights import PredictionSets, PresencePoints
from app.ui.text import verdict

CLASSES = ("a", "b", "c", "d")


def said(*shares: float) -> Prediction:
    probabilities = np.array(shares, np.float32)
    return Prediction(CLASSES, np.log(probabilities), probabilities)


@pytest.mark.parametrize(
    ("score", "limit", "expected"),
    [
        ("LAC", 0.75, ("b", "a")),
        ("LAC", 0.10, ("b",)),
        ("LAC", 1.0, ("b", "a", "d", "c")),
        ("APS", 0.85, ("b", "a")),
        ("APS", 0.30, ("b",)),
        ("APS", float("inf"), ("b", "a", "d", "c")),
    ],
)
def test_the_possible_types_are_the_likeliest(score: str, limit: float, expected: tuple[str, ...]) -> None:
    sets = PredictionSets(score=score, level=0.9, limit=limit)  # ty: ignore[invalid-argument-type]
    assert possible_types(said(0.30, 0.5, 0.05, 0.15), sets) == expected


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        (1.0, "very likely"),
        (0.9, "very likely"),
        (0.89, "likely"),
        (0.5, "more likely than not"),
        (0.4, "about as likely as not"),
        (0.2, "best guess, more likely wrong"),
    ],
)
def test_words_follow_the_probability(probability: float, words: str) -> None:
    assert how_sure(probability) == words


def test_the_verdict_is_said_in_words(classifier: Classifier, film: Radiograph) -> None:
    explained = classifier.explain([film])[0]
    told = verdict(classifier.card, explained)
    probability = explained.prediction.probability(explained.prediction.best)
    assert confidence(probability).capitalize() in told
    assert f"{how_sure(probability)}." in told


def test_the_odds_of_a_fracture_are_the_sum_of_the_places_odds(classifier: Classifier, film: Radiograph) -> None:
    explained = classifier.explain([film])[0]
    assert explained.presence is None
    assert presence(explained, PresencePoints(sensitive=0.0, specific=1.0)) is None
    places = replace(explained, fracture=np.log(np.array([[0.5, 1.5], [0.25, 0.75]], np.float32)))
    assert np.exp(places.presence) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("odds", "state", "words"),
    [(-3.0, "none", "No fracture seen"), (0.5, "suspicious", "Possible fracture"), (4.0, "definite", "Fracture seen")],
)
def test_the_verdict_says_first_whether_there_is_a_fracture(
    classifier: Classifier, film: Radiograph, odds: float, state: str, words: str
) -> None:
    points = PresencePoints(sensitive=0.0, specific=2.0)
    explained = replace(classifier.explain([film])[0], fracture=np.full((1, 1), odds, np.float32))
    assert presence(explained, points) == state
    rate = {"sensitivity": {"value": 0.9}, "specificity": {"value": 0.8}}
    card = classifier.card.model_copy(
        update={"presence": points, "metrics": {"presence": {"sensitive": rate, "specific": rate}}}
    )
    told = verdict(card, explained)
    assert words in told
    assert ("muted" in told) == (state == "none")
    assert "that no bone is broken" not in told
    assert "that no bone is broken" in verdict(classifier.card, explained)
    assert ("10 %" in told) == (state == "none")


def test_a_mark_that_many_whole_hands_reach_says_so(classifier: Classifier, film: Radiograph) -> None:
    def rates(whole: float, films: int) -> dict:
        shares = {"sensitivity": {"value": 0.9}, "specificity": {"value": whole, "n": films}}
        return {"sensitive": shares, "specific": shares}

    figures = {
        **rates(0.6, 200),
        "by_region": {"hand": rates(0.19, 120), "leg": rates(0.77, 260), "hip": rates(0.0, 5)},
    }
    points = PresencePoints(sensitive=0.0, specific=2.0)
    explained = replace(classifier.explain([film])[0], fracture=np.full((1, 1), 0.5, np.float32))
    card = classifier.card.model_copy(update={"presence": points, "metrics": {"presence": figures}})
    assert "False alarms: 40 % of normal test X-rays, 81 % of those of the hand." in verdict(card, explained)


def test_the_verdict_names_the_types_that_remain(classifier: Classifier, film: Radiograph) -> None:
    explained = classifier.explain([film])[0]
    some = classifier.card.model_copy(update={"sets": PredictionSets(score="APS", level=0.9, limit=0.5)})
    assert "A list that holds the right type 90 % of the time: " in verdict(some, explained)
    everything = classifier.card.model_copy(update={"sets": PredictionSets(score="LAC", level=0.9, limit=1.0)})
    assert "A list that holds the right type 90 % of the time: all 10." in verdict(everything, explained)
