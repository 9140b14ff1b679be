from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier
from app.model.weights import PredictionSets, PresencePoints, load_card
from app.ui import text
from tests.conftest import SHIPPED

POINTS = PresencePoints(sensitive=0.0, specific=2.0)


def before_a_click(told: str) -> list[str]:
    """The words of HTML that are seen while nothing is opened."""
    closed = re.sub(r"(<details><summary>.*?</summary>).*?</details>", r"\1", told, flags=re.DOTALL)
    return re.sub(r"<[^>]+>", " ", closed).split()


@pytest.mark.parametrize("odds", [-3.0, 0.5, 4.0])
@pytest.mark.parametrize("name", SHIPPED)
def test_the_verdict_is_at_most_25_words_before_a_click(
    classifier: Classifier, film: Radiograph, odds: float, name: str
) -> None:
    card = load_card(name)
    explained = replace(classifier.explain([film])[0], fracture=np.full((1, 1), odds, np.float32))
    told = text.verdict(card, explained)
    words = before_a_click(told)
    assert ("Misses" if odds < 0.0 else "confidence") in {word.strip(":") for word in words}
    assert {"Fracture", "fracture"} & set(words)
    assert len(words) <= 25, words
    assert "(95 % CI" in told
    assert "CI" not in words


def rates(sensitivity: float, specificity: float) -> dict[str, dict[str, dict[str, float]]]:
    points = {"sensitivity": {"value": sensitivity}, "specificity": {"value": specificity, "n": 100}}
    return {"sensitive": points, "specific": points}


def test_how_often_a_finding_is_wrong_spans_the_best_and_the_worst_source(classifier: Classifier) -> None:
    figures = {"presence": rates(0.93, 0.98)}
    card = classifier.card.model_copy(update={"metrics": figures, "presence": POINTS})
    assert text.wrong_in_short(card, "none") == "Misses 7 % of fractures"
    assert text.wrong_in_short(card, "definite") == "Flags 2 % of normal X-rays too"
    assert text.errors_of(card, "none") == "It misses 7 % of fractured test X-rays."
    # A source of fractures alone tells nothing of how sure to be.
    others = {
        name: {**rates(*found), "auroc": 0.7} for name, found in {"near": (0.8, 0.9), "far": (0.57, 0.75)}.items()
    }
    others["fractures alone"] = rates(0.1, 0.1)
    card = card.model_copy(update={"metrics": {**figures, "left_out": others}})
    assert text.wrong_in_short(card, "none") == "Misses 7\u201343 % of fractures"
    assert text.wrong_in_short(card, "suspicious") == "Flags 2\u201325 % of normal X-rays too"
    told = "It misses 7 % of fractured test X-rays, 43 % of fractured ones of another source."
    assert text.errors_of(card, "none") == told
    assert text.wrong_in_short(classifier.card, "none") is None


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ((0.38, 0.31, 0.31), "Low confidence: 3 types possible"),
        ((0.4, 0.32, 0.28), "Low confidence: 2 types possible"),
        ((0.49, 0.255, 0.255), "Low confidence"),
        ((0.5, 0.4, 0.1), "Moderate confidence"),
        ((0.7, 0.2, 0.1), "High confidence"),
    ],
)
def test_a_type_less_likely_than_the_others_is_one_of_the_prediction_set(
    classifier: Classifier, film: Radiograph, shares: tuple[float, ...], words: str
) -> None:
    card = classifier.card.model_copy(update={"sets": PredictionSets(score="LAC", level=0.9, limit=0.7)})
    probabilities = np.zeros(len(card.classes), np.float32)
    probabilities[:3] = shares
    explained = classifier.explain([film])[0]
    explained = replace(explained, prediction=replace(explained.prediction, probabilities=probabilities))
    assert f">{words}<" in text.verdict(card, explained)
    # The sets promise nothing of what they were not calibrated on.
    assert ">Low confidence<" in text.verdict(card, explained, likeness="unusual") or shares[0] >= 0.5


def test_warnings_stay_visible(classifier: Classifier, film: Radiograph) -> None:
    film = Radiograph(film.display(), (0, 255), notes=("This is a CT slice.",), modality="CT")
    told = before_a_click(text.verdict(classifier.card, classifier.explain([film])[0], likeness="out-of-distribution"))
    assert {"Unlike", "CT"} <= set(told)


def test_how_reliable_a_verdict_is_is_told_in_short_lines(classifier: Classifier, film: Radiograph) -> None:
    bins = [{"images": 8, "accuracy": 0.25}, {"images": 0, "accuracy": None}] * 5
    folds = {"expected_calibration_error": {"bins": bins}}
    sets = PredictionSets(score="APS", level=0.9, limit=0.5)
    card = classifier.card.model_copy(update={"metrics": {"cross_validation": folds}, "sets": sets, "presence": POINTS})
    explained = classifier.explain([film])[0]
    probability = explained.prediction.probability(explained.prediction.best)
    told = text.verdict(card, explained)
    even = int(probability * 10) % 2 == 0
    assert ("In cross-validation it was right on 2 of 8 X-rays when about this sure." in told) == even
    assert ("In cross-validation it was never this sure." in told) != even
    assert "A list that holds the right type 90 % of the time" in told
    assert max(len(line.split()) for line in re.findall(r"<li>(.*?)</li>", told)) <= 25
