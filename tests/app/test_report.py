from __future__ import annotations

import logging
import re
import zlib
from dataclasses import replace

import numpy as np
import pytest

from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier
from app.model.weights import ModelCard, PredictionSets, PresencePoints, load_card, with_interval
from app.pipeline import Result, explain_image
from app.report import LETTERS, report
from tests.conftest import SHIPPED

EVERYTHING = "".join(map(chr, [*range(1, 0x2100), *range(0x4E00, 0x4E20), 0xD800, 0x1F9B4, 0x10FFFF]))


@pytest.fixture
def result(film: Radiograph, classifier: Classifier) -> Result:
    return explain_image(film, model=classifier)


def words(page: bytes) -> str:
    """Every text that a page shows, in the order it is written, with one blank between."""
    streams = re.findall(rb"stream\n(.*?)\nendstream", page, re.S)
    plain = [zlib.decompress(each) for each in streams if each[:1] == b"\x78"]
    shown = b" ".join(b" ".join(re.findall(rb"\(((?:\\.|[^\\)])*)\) Tj", each)) for each in plain)
    return re.sub(rb"\\(.)", rb"\1", shown).decode("latin-1")


def heights(page: bytes) -> list[float]:
    """How far above the page's lower edge its texts lie, in points, the lowest first."""
    plain = [zlib.decompress(each) for each in re.findall(rb"stream\n(.*?)\nendstream", page, re.S) if each[:1] == b"x"]
    return sorted({float(y) for each in plain for y in re.findall(rb"BT [\d.]+ ([\d.-]+) Td", each)})


def pages(page: bytes) -> int:
    return len(re.findall(rb"/Type /Page\b(?!s)", page))


def test_the_page_says_what_the_model_says(result: Result) -> None:
    prediction = result.explanation.prediction
    found = words(report(result))
    titles = {kind.name: kind.title for kind in result.card.classes}
    for name in prediction.ranking[:3]:
        assert f"{titles[name]}  {100 * prediction.probability(name):.0f} %" in found
    assert found.count("not for diagnosis") == 1
    assert "Grad-CAM" in found
    assert "not measured" in found
    assert pages(report(result)) == 1


@pytest.mark.parametrize("name", SHIPPED)
def test_figures_are_the_card_s(result: Result, name: str) -> None:
    card = load_card(name)
    found = words(report(replace(result, card=card)))
    for part, key in (("test", "accuracy"), ("test", "top3"), ("cross_validation", "accuracy")):
        assert with_interval(card.metrics[part][key]) in found
    assert ("AUROC" in found) == ("presence" in card.metrics)


@pytest.mark.parametrize(("seen", "words_of"), [(-9.0, "No fracture seen"), (0.0, "Possible"), (9.0, "Fracture seen")])
def test_the_finding_is_the_page_s(result: Result, seen: float, words_of: str) -> None:
    card = result.card.model_copy(update={"presence": PresencePoints(sensitive=-1.0, specific=1.0)})
    explanation = replace(result.explanation, fracture=np.full((1, 1), seen, np.float32))
    found = words(report(replace(result, card=card, explanation=explanation)))
    assert words_of in found
    assert ("If there is one" in found) == (seen < -1.0)


def test_the_same_result_makes_the_same_bytes(film: Radiograph, classifier: Classifier) -> None:
    first, second = (report(explain_image(film, model=classifier)) for _ in range(2))
    assert first == second
    assert report(explain_image(film, model=classifier), date="1 January 2026") != first


def test_a_name_and_a_date_are_there_when_asked_for_only(result: Result) -> None:
    named = replace(result, source=replace(result.source, name="Doe-Jane.png"))
    assert "Doe" not in words(report(named))
    assert "2026" not in words(report(named))
    found = words(report(named, name="M\u00f6ller.png", date="1 January 2026"))
    assert "M\u00f6ller.png" in found
    assert "1 January 2026" in found


def test_any_letter_can_be_written(result: Result, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for start in range(0, len(EVERYTHING), LETTERS):
            assert pages(report(result, name=EVERYTHING[start : start + LETTERS])) == 1
    assert "\u4e2d" not in caplog.text


def test_the_fullest_page_is_one_page(result: Result) -> None:
    """The tallest picture, the longest names and notes, every warning: nothing meets the line at the foot."""
    longest: ModelCard = max((load_card(name) for name in SHIPPED), key=lambda card: len(card.title))
    card = longest.model_copy(
        update={
            "presence": PresencePoints(sensitive=1e3, specific=2e3),
            "sets": PredictionSets(score="LAC", level=0.9, limit=1.0),
        }
    )
    notes = tuple("A sentence of which nobody knows why it is as long as it is. " * 4 for _ in range(9))
    image = replace(result.explanation.radiograph, notes=notes)
    explanation = replace(result.explanation, radiograph=image, fracture=np.zeros((1, 1), np.float32))
    warned = result.ood.model_copy(update={"words": "This picture is unlike the X-rays it learnt from. " * 3})
    page = report(replace(result, card=card, explanation=explanation, ood=warned), name="n" * 400, date="d" * 400)
    assert pages(page) == 1
    foot, last = heights(page)[:2]
    assert foot > 40.0
    assert last - foot > 12.0
