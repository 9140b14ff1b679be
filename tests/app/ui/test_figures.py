"""Figures show what the card and the JSON beside it say, and nothing that was not measured."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from app.model.classifier import Classifier
from app.model.weights import DEFAULT_FOLDER, available, load_card, percent, with_interval
from app.ui.figures import confusion, figures, pointing, reliability

SHIPPED = available(DEFAULT_FOLDER)


def texts(figure: str) -> list[str]:
    return [part.text or "" for part in ElementTree.fromstring(figure).iter("text")]


@pytest.mark.parametrize("name", SHIPPED)
def test_counts_and_shares_are_the_cards(name: str) -> None:
    card = load_card(name)
    matrix = confusion(card)
    counts = sorted(int(text) for text in texts(matrix) if text.isdigit())
    assert counts == sorted(count for row in card.metrics["test"]["confusion"] for count in row if count)
    assert with_interval(card.metrics["test"]["accuracy"]) in matrix
    bins = card.metrics["cross_validation"]["expected_calibration_error"]["bins"]
    assert reliability(card).count("<circle") == sum(each["images"] > 0 for each in bins)
    maps = json.loads((DEFAULT_FOLDER / name / "localisation.json").read_text())["maps"]
    drawn = pointing(maps)
    assert any(text.endswith(percent(maps["fracture map"]["inside"]["value"])) for text in texts(drawn))
    assert "mirror" not in drawn
    whole = ElementTree.fromstring(figures(card, DEFAULT_FOLDER / name))
    assert len(whole.findall("figure")) == 3
    assert all(svg.get("aria-label") for svg in whole.iter("svg"))


def test_what_was_not_measured_is_not_drawn(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> None:
    card = classifier.card
    assert confusion(card) == reliability(card) == ""
    assert figures(card, tmp_path_factory.mktemp("empty")) == "<div class='charts'></div>"
