"""Regions are those of the outline, and what stands at a point is the map itself."""

from __future__ import annotations

import numpy as np
import pytest

from app.explain.overlay import hottest
from app.explain.regions import Region, evidence_at, hot_regions, where
from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier


def two_spots() -> np.ndarray:
    heat = np.zeros((60, 90), np.float32)
    heat[5:15, 5:15] = 1.0
    heat[40:45, 70:80] = 0.8
    heat[30, 30] = 0.1
    return heat


def test_regions_are_those_outlined_the_warmest_first() -> None:
    heat = two_spots()
    first, second = hot_regions(heat)
    assert first.share == pytest.approx(100 / 140.1, abs=1e-5)
    assert second.share == pytest.approx(40 / 140.1, abs=1e-5)
    assert hottest(heat).sum() == 150
    assert where(first) == "upper left"
    assert where(second) == "lower right"
    assert where(Region(1.0, (0.5, 0.5))) == "centre"
    assert where(Region(1.0, (0.1, 0.5))) == "middle left"


def test_a_faint_map_has_no_region() -> None:
    assert hot_regions(np.zeros((9, 9), np.float32)) == ()
    assert hot_regions(two_spots() * 0.1) == ()


def test_the_evidence_at_a_point_is_the_maps(classifier: Classifier, film: Radiograph) -> None:
    explanation = classifier.explain([film])[0]
    found = evidence_at(explanation, 80, 30)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    for name, value in found.items():
        assert value == pytest.approx(float(explanation.placement.onto_image(explanation.evidence(name))[30, 80]))
    for x, y in ((-1, 0), (0, -1), (film.width, 0), (0, film.height)):
        with pytest.raises(ValueError, match="outside"):
            evidence_at(explanation, x, y)
