"""Operating points reach what they were chosen for, and are judged on images that chose nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from app.model.classifier import Classifier
from app.model.weights import load_card
from tests.training.toys import lesson
from training.data.lessons import lessons
from training.evaluation.metrics import area
from training.evaluation.presence import Answers, ask, by_source, operating_points, presence, summary
from training.release.export import write_card


def test_operating_points_reach_what_they_were_chosen_for() -> None:
    rng = np.random.default_rng(0)
    fractured = rng.random(2000) < 0.3
    scores = rng.normal(size=2000) + 1.5 * fractured
    points = operating_points(scores, fractured)
    assert 0.9 <= (scores[fractured] >= points.sensitive).mean() < 0.91
    assert 0.95 <= (scores[~fractured] < points.specific).mean() < 0.96
    apart = operating_points(np.where(fractured, 5.0, -5.0), fractured)
    assert apart.sensitive == apart.specific
    assert -5.0 < apart.specific < 5.0
    found = area(scores, fractured)
    assert found["low"] < found["value"] < found["high"]
    assert found["high"] - found["low"] < 0.1


def test_presence_is_judged_on_images_that_chose_nothing(
    repository: Path, drawn_atlas: Path, tmp_path: Path, cache: Path
) -> None:
    shutil.copytree(repository / "weights", tmp_path / "weights")
    found = presence("resnet18", drawn_atlas, tmp_path / "weights", cache)
    assert found == json.loads((tmp_path / "weights/resnet18/presence.json").read_text())
    card = load_card("resnet18", tmp_path / "weights")
    assert card.presence.model_dump() == found["points"]
    for part in ("validation", "test"):
        assert sum(its["images"] for its in found[part]["by_region"].values()) == found[part]["images"]
    assert found["validation"]["sensitive"]["sensitivity"]["value"] >= 0.9
    assert card.metrics["presence"]["images"] == found["test"]["images"]
    assert card.metrics["presence"]["elsewhere"]["bone-break"]["sensitive"]["sensitivity"]["n"] == 10
    whole = card.model_copy(update={"data": {**card.data, "places": {**card.data["places"], "sha256": "0" * 64}}})
    write_card(whole, tmp_path / "weights" / "resnet18")
    with pytest.raises(ValueError, match="not those"):
        presence("resnet18", drawn_atlas, tmp_path / "weights", cache)


def test_figures_by_source_ask_only_what_a_source_may_tell() -> None:
    asked = [lesson("veda", f"v{i}", group=i, fractured=i % 2 == 0) for i in range(10)]
    asked += [lesson("ca1len", f"c{i}", group=20 + i, presence=False) for i in range(4)]
    boxed = np.array([bool(each.film.boxes) for each in asked])
    inside = np.where(boxed[:, None], [[1.0, 0.0]], np.nan)
    odds = np.array([1.0 if each.fractured else -1.0 for each in asked])
    found = summary(asked, Answers(odds, inside, inside), None)
    assert found["veda"]["auroc"]["value"] == 1.0
    assert "auroc" not in found["ca1len"]
    inside = {"value": 1.0, "low": 0.025 ** (1 / 4), "high": 1.0, "n": 4, "groups": 4}
    assert found["ca1len"]["page"]["inside"] == pytest.approx(inside)
    assert found["veda"]["fracture map"]["inside"]["value"] == 0.0
    assert found["veda"]["boxed"] == 5


@pytest.mark.slow
def test_a_part_is_judged_by_source(many_shipped: Path, many_data: Path) -> None:
    made = load_card("many", many_shipped)
    found = by_source(made.name, many_data, many_shipped, "test", ("veda",))
    asked = lessons(many_data, "test", ("veda",))
    odds = ask(Classifier.load(made.name, many_shipped), asked).odds
    fractured = np.array([lesson.fractured for lesson in asked])
    assert len(asked) == 12 == found["sources"]["veda"]["images"]
    assert found["sources"]["veda"]["auroc"]["value"] == pytest.approx(roc_auc_score(fractured, odds))
    assert found["weights"] == made.weights.sha256
