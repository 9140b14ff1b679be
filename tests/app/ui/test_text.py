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
    assert ("Misses" if odds < 0.0 else "confidence") in words
    assert {"Fracture", "fracture"} & set(words)
    assert len(words) <= 25, words
    assert "(95 % CI" in told
    assert "CI" not in words


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
