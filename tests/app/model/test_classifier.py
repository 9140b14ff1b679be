from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from app.explain.methods import map_request
from app.imaging.examples import draw
from app.imaging.letterbox import letterbox
from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier


def test_a_prediction_is_a_distribution_over_the_cards_classes(classifier: Classifier, film: Radiograph) -> None:
    prediction = classifier.explain([film])[0].prediction
    assert prediction.classes == classifier.classes
    assert prediction.probabilities.sum() == pytest.approx(1.0, abs=1e-6)
    assert list(prediction.ranking) == sorted(prediction.classes, key=lambda n: -prediction.probability(n))
    assert prediction.best == prediction.classes[int(prediction.logits.argmax())]


def test_maps_add_up_to_the_logits(classifier: Classifier, films: list[Radiograph]) -> None:
    for explanation in classifier.explain(films):
        total = explanation.maps.mean(axis=(1, 2)) + explanation.biases
        assert np.allclose(total, explanation.prediction.logits, atol=1e-5)


def test_alone_and_in_a_batch_agree(classifier: Classifier, films: list[Radiograph]) -> None:
    together = classifier.explain(films, batch_size=4)
    for film, batched in zip(films, together, strict=True):
        alone = classifier.explain([film])[0]
        assert np.abs(alone.prediction.logits - batched.prediction.logits).max() < 1e-4
        assert np.abs(alone.maps - batched.maps).max() < 1e-4
        assert alone.placement == batched.placement


def test_a_card_that_says_so_has_films_equalised(classifier: Classifier, film: Radiograph) -> None:
    card = classifier.card.model_copy(update={"equalise": True})
    equalised = Classifier(classifier.network, card)
    square, _ = letterbox(film, card.size, equalise=True)
    again = Radiograph(np.round(square * 255).astype(np.uint8), (0, 255))
    expected = classifier.explain([again])[0].prediction.logits
    found = equalised.explain([film])[0].prediction.logits
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(found - classifier.explain([film])[0].prediction.logits).max() > 1e-4
    plain, ours = (map_request(each, film).last for each in (classifier, equalised))
    assert not torch.equal(plain, ours)


def test_no_films_no_explanations(classifier: Classifier) -> None:
    assert classifier.explain([]) == []


def test_eight_threads_give_the_serial_maps(classifier: Classifier) -> None:
    films = [Radiograph(draw("jagged", seed=i, height=150 + i, width=110), (0, 255)) for i in range(12)]
    serial = [classifier.explain([film])[0] for film in films]
    with ThreadPoolExecutor(8) as pool:
        rounds = list(pool.map(lambda _: [classifier.explain([film])[0] for film in films], range(8)))
    for parallel in rounds:
        for one, other in zip(serial, parallel, strict=True):
            assert np.array_equal(one.maps, other.maps)
            assert np.array_equal(one.prediction.logits, other.prediction.logits)
    assert len({explanation.maps.tobytes() for explanation in serial}) == len(films)


def test_heat_has_the_films_size_and_one_scale(classifier: Classifier, films: list[Radiograph]) -> None:
    for film, explanation in zip(films, classifier.explain(films), strict=True):
        heats = {name: explanation.heat(name) for name in classifier.classes}
        assert all(heat.shape == film.pixels.shape for heat in heats.values())
        assert all(heat.min() >= 0.0 and heat.max() <= 1.0 for heat in heats.values())
        peaks = {name: explanation.peak(name) for name in classifier.classes}
        warmest = max(peaks, key=lambda name: peaks[name])
        assert explanation.full_colour == max(peaks[warmest], explanation.typical_evidence)
        for name, heat in heats.items():
            expected = max(0.0, peaks[name] / explanation.full_colour) if explanation.has_evidence(name) else 0.0
            assert heat.max() <= expected + 0.35
            if not explanation.has_evidence(name):
                assert heat.max() == 0.0
            half = explanation.heat(name, 2.0 * explanation.full_colour)
            assert np.allclose(half[heat < 1.0], heat[heat < 1.0] / 2.0, atol=1e-6)


def test_faint_maps_are_not_blown_up(classifier: Classifier, film: Radiograph) -> None:
    from dataclasses import replace

    explanation = classifier.explain([film])[0]
    faint = replace(explanation, typical_evidence=1000.0 * explanation.full_colour)
    assert not any(faint.has_evidence(name) for name in classifier.classes)
    assert all(faint.heat(name).max() == 0.0 for name in classifier.classes)


def test_tells_how_much_evidence_lies_off_the_film(classifier: Classifier) -> None:
    square = Radiograph(draw(height=200, width=200), (0, 255))
    narrow = Radiograph(draw(height=400, width=60), (0, 255))
    on, off = classifier.explain([square, narrow])
    assert all(on.padding_share(name) == 0.0 for name in classifier.classes)
    assert any(off.padding_share(name) > 0.1 for name in classifier.classes)


@pytest.mark.parametrize("shape", [(32, 3000), (3000, 32)])
def test_slivers_are_explained_too(classifier: Classifier, shape: tuple[int, int]) -> None:
    film = Radiograph(draw(height=shape[0], width=shape[1]), (0, 255))
    explanation = classifier.explain([film])[0]
    assert explanation.heat(explanation.prediction.best).shape == shape


def test_screen_size_changes_the_film_and_nothing_else(classifier: Classifier) -> None:
    film = Radiograph(draw(height=900, width=600), (0, 255))
    explanation = classifier.explain([film])[0]
    small = explanation.at_screen_size(300)
    name = explanation.prediction.best
    assert small.heat(name).shape == (300, 200)
    assert small.peak(name) == pytest.approx(explanation.peak(name), rel=0.02)
    assert small.prediction is explanation.prediction
    assert explanation.at_screen_size(900) is explanation
