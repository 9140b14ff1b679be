"""What JavaScript reads from the model's numbers is what Python reads from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from app.explain.overlay import hottest
from app.explain.regions import hot_regions, where
from app.imaging.examples import draw
from app.imaging.letterbox import Placement
from app.imaging.pixels import IN_COLOUR
from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier, Explanation, Prediction, possible_types, presence
from app.model.reliability import how_sure
from app.model.weights import PredictionSets, PresencePoints
from app.web_card import web_card

READ = """
import { Explanation, hotRegions, inWords, where } from "./explanation.js";
import { fit } from "./square.js";
const { card, probabilities, maps, fracture, height, width } = given;
const numbers = (list) => Float32Array.from(list);
const found = { probabilities: numbers(probabilities), maps: numbers(maps), h: 12, w: 12 };
found.fracture = fracture && numbers(fracture);
const it = new Explanation(card, found, fit(height, width, card.size));
const heat = it.ranking.map((c) => it.heat(c, height, width));
const regions = heat.map((each) => hotRegions(each, height, width, card.drawing));
const answer = {
  ranking: it.ranking, peaks: it.peaks, full: it.fullColour, seen: it.seen, possible: card.sets && it.possible,
  outside: it.ranking.map((c) => it.outside(c)), heat: heat.map((each) => [...each]),
  odds: fracture && [...it.fractureOdds(height, width)],
  regions: regions.map((each) => each.map((region) => ({ ...region, place: where(region) }))),
  at: it.ranking.map((c) => it.evidenceAt(c, 0.5, 0.4)),
  sure: inWords(card.sure, probabilities[it.ranking[0]]),
};
"""


def made(classifier: Classifier, seed: int, typical: float) -> Explanation:
    """An explanation of random numbers on an image of random size."""
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(60, 200, 2))
    logits = rng.normal(0.0, 2.0, len(classifier.classes)).astype(np.float32)
    maps = rng.normal(0.0, 6.0, (len(classifier.classes), 12, 12)).astype(np.float32)
    maps[0] -= 30.0  # no evidence
    return Explanation(
        radiograph=Radiograph(np.zeros((height, width), np.uint8), (0, 255)),
        placement=Placement.fit(height, width, classifier.card.size),
        prediction=Prediction(classifier.classes, logits, np.exp(logits) / np.exp(logits).sum()),
        maps=maps,
        biases=np.zeros(len(logits), np.float32),
        fracture=rng.normal(-6.0, 2.5, (12, 12)).astype(np.float32),
        typical_evidence=typical,
        model="tiny",
    )


@pytest.mark.parametrize("seed", range(6))
def test_both_read_the_same(in_node: Callable[..., Any], classifier: Classifier, seed: int) -> None:
    points = PresencePoints(sensitive=0.2, specific=1.1)
    sets = PredictionSets(score=("LAC", "APS")[seed % 2], level=0.9, limit=0.9)
    typical = (0.0, 40.0)[seed % 2]
    card = classifier.card.model_copy(update={"presence": points, "sets": sets, "typical_evidence": typical})
    ours = made(classifier, seed, typical)
    assert ours.fracture is not None
    height, width = ours.radiograph.height, ours.radiograph.width
    theirs = in_node(
        READ,
        card=web_card(Classifier(classifier.network, card)),
        probabilities=ours.prediction.probabilities.tolist(),
        maps=ours.maps.ravel().tolist(),
        fracture=ours.fracture.ravel().tolist(),
        height=height,
        width=width,
    )
    names = [ours.prediction.classes[c] for c in theirs["ranking"]]
    assert tuple(names) == ours.prediction.ranking
    assert theirs["full"] == pytest.approx(ours.full_colour, rel=1e-6)
    assert theirs["peaks"] == pytest.approx([ours.peak(name) for name in ours.prediction.classes], rel=1e-6)
    assert theirs["seen"] == presence(ours, points)
    assert [ours.prediction.classes[c] for c in theirs["possible"]] == list(possible_types(ours.prediction, sets))
    assert theirs["sure"] == how_sure(ours.prediction.probability(names[0]))
    assert np.reshape(theirs["odds"], (height, width)) == pytest.approx(ours.fracture_odds(), abs=1e-5)
    place = ours.placement
    for rank, name in enumerate(names):
        square = cv2.resize(ours.evidence(name), (place.size, place.size), interpolation=cv2.INTER_CUBIC)
        point = place.crop(square)[int(0.4 * place.height), place.width // 2]
        assert theirs["at"][rank] == pytest.approx(point, abs=1e-4)
        heat = ours.heat(name)
        assert np.reshape(theirs["heat"][rank], heat.shape) == pytest.approx(heat, abs=1e-5)
        assert theirs["outside"][rank] == pytest.approx(ours.padding_share(name), abs=1e-5)
        check_regions(theirs["regions"][rank], heat)


def check_regions(theirs: list[dict[str, Any]], heat: np.ndarray) -> None:
    ours = hot_regions(heat)
    assert [each["place"] for each in theirs[: len(ours)]] == [where(region) for region in ours]
    assert [each["share"] for each in theirs[: len(ours)]] == pytest.approx([region.share for region in ours], abs=1e-4)
    lines, _ = cv2.findContours(hottest(heat).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    # Rounding may put a pixel on the other side of the bound.
    points = {tuple(map(int, point)) for line in lines for point in line[:, 0]}
    found = {tuple(point) for each in theirs for point in each["line"]}
    assert len(points ^ found) <= 0.05 * len(points)


def test_likeness_is_judged_by_the_same_bounds(
    in_node: Callable[..., Any], shipped: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shipped.detector is not None
    card = shipped.detector.card
    lines = """
    import { likeness } from "./explanation.js";
    const answer = given.scores.map((score) => [false, true].map((tinted) => likeness(score, given.card, tinted)));
    """
    scores = [card.warning - 0.1, (card.warning + card.rejection) / 2, card.rejection + 0.1]
    found = in_node(lines, scores=scores, card=web_card(shipped)["ood"])
    for score, told in zip(scores, found, strict=True):
        monkeypatch.setattr(shipped.detector, "scores", lambda _, score=score: np.array([score]))
        films = [Radiograph(draw(), (0, 255), notes) for notes in ((), (IN_COLOUR,))]
        assert told == [shipped.detector.likeness(film) for film in films]
