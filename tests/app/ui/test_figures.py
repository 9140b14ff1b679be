"""Figures show what the card and the JSON beside it say, and nothing that was not measured."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest

from app.model.classifier import Classifier
from app.model.weights import DEFAULT_FOLDER, available, load_card, percent, with_interval
from app.ui.figures import SIDE, Share, confusion, figures, pointing, reliability, shares

SHIPPED = available(DEFAULT_FOLDER)


def texts(figure: str) -> list[str]:
    return [part.text or "" for part in ElementTree.fromstring(figure).iter("text")]


@pytest.mark.parametrize("name", SHIPPED)
def test_counts_and_shares_are_the_cards(name: str) -> None:
    card = load_card(name)
    matrix = confusion(card)
    counts = sorted(int(text) for text in texts(matrix) if text.isdigit())
    table = card.metrics["test"]["confusion"]
    shown = [count for row, its in enumerate(table) for column, count in enumerate(its) if count or row == column]
    assert counts == sorted(shown)
    assert with_interval(card.metrics["test"]["accuracy"]) in matrix
    bins = card.metrics["cross_validation"]["expected_calibration_error"]["bins"]
    assert reliability(card).count("<circle") == sum(each["images"] > 0 for each in bins)
    maps = json.loads((DEFAULT_FOLDER / name / "localisation.json").read_text())["maps"]
    drawn = pointing(maps, [])
    for key in ("evidence for the predicted type", "centred Gaussian"):
        share = maps[key]["inside"]
        assert f"{percent(share['value'])} of {share['n']}" in texts(drawn)
        assert with_interval(share) in drawn
    assert drawn.count("<circle") == 2
    whole = ElementTree.fromstring(figures(card, DEFAULT_FOLDER / name))
    assert len(whole.findall("figure")) == 3
    assert all(svg.get("aria-label") for svg in whole.iter("svg"))


def test_what_was_not_measured_is_not_drawn(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> None:
    card = classifier.card
    assert confusion(card) == reliability(card) == ""
    assert figures(card, tmp_path_factory.mktemp("empty")) == "<div class='figures'></div>"


def test_the_heatmap_is_told_by_source() -> None:
    share = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 40}
    maps = {name: {"inside": share} for name in ("evidence for the predicted type", "centred Gaussian")}
    part = {"source": "Elsewhere", "inside": {**share, "value": 0.3}}
    drawn = pointing(maps, [{**part, "part": part_of} for part_of in ("unseen", "test", "validation")])
    assert texts(drawn).count("Elsewhere") == 2, "validation images also chose the model"
    assert "On sources it never saw: 30 % to 30 %." in drawn
    assert "never saw" not in pointing(maps, [{**part, "part": "test"}])


def test_a_dot_lies_at_its_share_and_a_line_on_its_interval() -> None:
    share = {"value": 0.5, "low": 0.25, "high": 1.0, "n": 40}
    drawn = ElementTree.fromstring(shares("Why?", "Because.", [Share("Half", ["of all"], share)]))
    dot = next(part for part in drawn.iter("circle"))
    assert float(dot.get("cx") or 0) == SIDE / 2
    track, interval = (
        [float(edge) for edge in re.findall(r"[MH]([\d.]+)", part.get("d") or "")] for part in drawn.iter("path")
    )
    assert interval == [track[0] + (track[1] - track[0]) / 4, track[1]]
    assert next(drawn.iter("svg")).get("aria-label") == (
        "Because. Half, of all: 50.0 % (95 % CI 25.0 to 100.0, n = 40)."
    )
