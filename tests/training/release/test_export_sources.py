"""What a run over many sources becomes, and what its card says judged it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from app.model.weights import load_card
from tests.training.toys import lesson
from training.evaluation.presence import Answers, points_over
from training.release.export import JUDGED_ON, export
from training.studies.report import model_card


def test_points_treat_sources_alike() -> None:
    """A hundred easy images of one source do not drown the ten hard ones of another."""
    asked, odds = [], []
    for source, count, shift in (("veda", 50, 0.0), ("fracatlas", 5, -10.0)):
        for number in range(count):
            for fractured in (True, False):
                asked.append(lesson(source, f"{source}{number}{fractured}", fractured=fractured))
                odds.append(shift + (5.0 if fractured else 0.0) + number / count)
    nothing = np.full((len(asked), 2), np.nan)
    points = points_over(asked, Answers(np.array(odds), nothing, nothing))
    of_few = np.array([each.source == "fracatlas" and each.fractured for each in asked])
    assert (np.array(odds)[of_few] >= points.sensitive).mean() >= 0.8
    assert points.sensitive <= points.specific
    with pytest.raises(ValueError, match="both kinds"):
        points_over([lesson()], Answers(np.zeros(1), nothing[:1], nothing[:1]))


@pytest.mark.slow
def test_the_card_says_what_judged(many_shipped: Path, many_run: Path) -> None:
    made = load_card("many", many_shipped)
    typed = made.metrics["cross_validation"]
    assert typed["folds"] == [0, 1]
    assert typed["images"] == made.calibration["images"] > 0
    assert made.presence is not None
    assert made.presence.sensitive <= made.presence.specific
    assert made.metrics["sources"]["veda"]["auroc"]["n"] == 12
    assert "auroc" not in made.metrics["sources"]["hbfmid"]
    assert made.data["sources"] == json.loads((many_run / "sources.json").read_text())
    assert any("MURA" in sentence for sentence in made.limits)


@pytest.mark.slow
def test_without_folds_images_that_none_learnt_from_judge(
    many_run: Path, many_data: Path, tmp_path: Path, cache: Path
) -> None:
    made = export(many_run, None, many_data, tmp_path, cache)
    typed = made.metrics["cross_validation"]
    assert typed["images"] == 24 == made.calibration["images"]
    assert typed["judged_on"] == JUDGED_ON
    assert f"24 images of {JUDGED_ON} are meant" in model_card(made, tmp_path.parent)
