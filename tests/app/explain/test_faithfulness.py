"""Tests of faithfulness, tested: a right map must win, a wrong one lose."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from app.errors import Cancelled, Progress
from app.explain.checks import pointing
from app.explain.faithfulness import SHARES, Curves, Faithfulness, _filled, measure_faithfulness, surrogate
from app.explain.methods import METHODS, MapRequest, draw, map_request, with_square
from app.explain.sanity import (
    rank_correlation,
    stability,
)
from app.imaging.examples import draw as phantom
from app.imaging.letterbox import Placement
from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier

PLACEMENT = Placement.fit(96, 96, 96)


@pytest.mark.slow
def test_a_right_map_wins_and_its_opposite_loses(question: MapRequest) -> None:
    right = draw(question)
    assert np.unravel_index(right.argmax(), right.shape)[0] in (3, 4, 5)
    won = measure_faithfulness(question, right, PLACEMENT, random=4)
    assert won.beaten() == {"deletion": 4, "insertion": 4, "ROAD": 4}
    assert min(won.margins().values()) > 0.02
    lost = measure_faithfulness(question, right.max() - right, PLACEMENT, random=4)
    assert lost.beaten() == {"deletion": 0, "insertion": 0, "ROAD": 0}
    assert max(lost.margins().values()) < 0.0


def test_curves_begin_and_end_where_they_must(question: MapRequest) -> None:
    told = []
    watched = MapRequest(**{**vars(question), "watch": Progress(tell=told.append)})
    found = measure_faithfulness(watched, draw(question), PLACEMENT, random=2)
    for curves in (found.real, *found.random):
        assert curves.deletion.shape == curves.insertion.shape == SHARES.shape
        assert curves.deletion[0] == pytest.approx(curves.insertion[-1], abs=1e-5)
        assert curves.deletion[-1] == pytest.approx(curves.insertion[0], abs=1e-5)
        assert 0.0 <= curves.deletion_area <= 1.0
    assert told == pytest.approx([1 / 3, 2 / 3, 1.0])
    flat = Curves(np.full(11, 0.4), np.full(11, 0.7), 0.0)
    assert flat.deletion_area == pytest.approx(0.4)
    assert flat.insertion_area == pytest.approx(0.7)


def test_only_the_film_is_blurred(seeing: Classifier) -> None:
    tall = Radiograph(phantom("spiral", height=120, width=60), (0, 255))
    asked = map_request(seeing, tall, "spiral")
    heat = np.zeros((12, 12), np.float32)
    heat[:, 0] = 1.0
    placement = Placement.fit(120, 60, seeing.card.size)
    in_padding = measure_faithfulness(asked, heat, placement, random=1).real
    nothing = measure_faithfulness(asked, np.zeros_like(heat), placement, random=1).real
    np.testing.assert_allclose(in_padding.deletion, nothing.deletion, atol=1e-6)
    np.testing.assert_allclose(in_padding.insertion, nothing.insertion, atol=1e-6)


def test_the_margin_round_a_film_is_the_same_in_every_picture(
    seeing: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[np.ndarray] = []

    def kept(classifier: Classifier, squares: Sequence[np.ndarray], target: int) -> np.ndarray:
        asked.extend(squares)
        return np.full(len(squares), 0.5)

    monkeypatch.setattr("app.explain.faithfulness._probabilities", kept)
    question = map_request(seeing, Radiograph(phantom("spiral", height=120, width=60), (0, 255)), "spiral")
    measure_faithfulness(question, draw(question), Placement.fit(120, 60, seeing.card.size), random=1)
    margin = question.square == 0.0
    margin[:, 24:72] = False
    assert margin.sum() == 96 * 48
    assert len(asked) == 2 + 2 * 28
    assert not any(square[margin].any() for square in asked)


def test_a_random_map_has_the_smoothness_but_not_the_position() -> None:
    rng = np.random.default_rng(1)

    def roughness(values: np.ndarray) -> float:
        return float(np.square(np.diff(values, axis=0)).mean() + np.square(np.diff(values, axis=1)).mean())

    spots = cv2.GaussianBlur(rng.random((28, 28)).astype(np.float32), (0, 0), 2.0)
    few = np.zeros((20, 20), np.float32)
    few[5:11, 8:14] = cv2.GaussianBlur(rng.random((6, 6)).astype(np.float32), (0, 0), 1.0)
    for found in (spots, np.maximum(spots - spots.mean(), 0.0), few):
        drawn = [surrogate(found, rng) for _ in range(200)]
        assert all(np.isin(random, found).all() for random in drawn)
        assert np.mean(drawn, axis=0) == pytest.approx(found.mean(), rel=0.5)
        assert np.mean([roughness(each) for each in drawn]) == pytest.approx(roughness(found), rel=0.15)
        assert abs(np.mean([rank_correlation(found, each) for each in drawn])) < 0.2


@pytest.mark.slow
def test_other_films_meet_other_random_maps_and_the_same_film_the_same(
    question: MapRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[np.ndarray] = []

    def kept(found: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        drawn.append(surrogate(found, rng))
        return drawn[-1]

    monkeypatch.setattr("app.explain.faithfulness.surrogate", kept)
    found = draw(question)
    for square in (question.square, question.square, 0.9 * question.square):
        measure_faithfulness(with_square(question, square.astype(np.float32)), found, PLACEMENT, random=1)
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_what_is_filled_in_tells_nothing_of_what_was_there() -> None:
    square = np.random.default_rng(0).random((192, 192)).astype(np.float32)
    removed = np.zeros(square.shape, bool)
    removed[51:120, 51:120] = True
    changed = np.where(removed, 1.0 - square, square)
    told = [_filled(each, removed, np.random.default_rng(0)) for each in (square, changed)]
    np.testing.assert_allclose(told[0], told[1], atol=1e-6)
    assert np.array_equal(told[0][~removed], square[~removed])


def faithfulness_of(deletion: float, insertion: float, road: float) -> Faithfulness:
    """Four random maps of areas and ROAD 0.30 to 0.33, and a map of these."""
    random = tuple(Curves(np.full(11, v), np.full(11, v), v) for v in (0.30, 0.31, 0.32, 0.33))
    return Faithfulness(Curves(np.full(11, deletion), np.full(11, insertion), road), random)


@pytest.mark.parametrize(
    ("found", "kind", "words"),
    [
        (faithfulness_of(0.1, 0.5, 0.4), "good", "It points at what the score needs."),
        (faithfulness_of(0.1, 0.5, 0.2), "mixed", "by two measures of three"),
        (faithfulness_of(0.305, 0.325, 0.325), "mixed", "some of them do as well"),
        (faithfulness_of(0.1, 0.2, 0.2), "poor", "better than chance does"),
        (faithfulness_of(0.5, 0.1, 0.1), "poor", "better than chance does"),
    ],
)
def test_curves_are_put_into_words(found: Faithfulness, kind: str, words: str) -> None:
    told = pointing(found)
    assert told[0] == kind
    assert words in told[1]
    for margin in found.margins().values():
        assert f"margin {margin:+.3f}" in told[2]


def test_chance_alone_seldom_wins() -> None:
    """A random map among random maps is ahead of all of them once in as many times as there are maps."""
    rng = np.random.default_rng(0)

    def curves() -> Curves:
        return Curves(rng.random(11), rng.random(11), float(rng.random()))

    won = [Faithfulness(curves(), tuple(curves() for _ in range(8))).won() for _ in range(3000)]
    for measure in ("deletion", "insertion", "ROAD"):
        assert np.mean([measure in each for each in won]) == pytest.approx(1 / 9, abs=0.02)
    assert np.mean([len(each) == 3 for each in won]) < 0.01


def test_a_test_of_faithfulness_stops_when_told(question: MapRequest) -> None:
    watch = Progress()
    watch.stop()
    stopped = MapRequest(**{**vars(question), "watch": watch})
    found = draw(question)
    for slow in (
        lambda: measure_faithfulness(stopped, found, PLACEMENT),
        lambda: stability(stopped, "gradcam", found),
    ):
        with pytest.raises(Cancelled):
            slow()


@pytest.mark.slow
def test_every_method_can_be_tested(classifier: Classifier, film: Radiograph) -> None:
    asked = map_request(classifier, film)
    for name in (name for name, how in METHODS.items() if how.cost == "instant"):
        found = measure_faithfulness(asked, draw(asked, name), Placement.fit(film.height, film.width, 96), random=1)
        assert np.isfinite(list(found.margins().values())).all()
