"""The overlay as the page shows it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier
from app.model.weights import PresencePoints
from app.ui.painted import DIMMED, paint

POINTS = PresencePoints(sensitive=0.0, specific=2.0)


@pytest.mark.parametrize(
    ("odds", "outlines"), [(-3.0, ("none",)), (0.5, ("hottest", "suspicious")), (4.0, ("hottest", "definite"))]
)
def test_rings_are_drawn_where_a_fracture_is_seen_and_heat_is_dimmed_elsewhere(
    classifier: Classifier, film: Radiograph, odds: float, outlines: tuple[str, ...]
) -> None:
    explained = replace(classifier.explain([film])[0], fracture=np.full((1, 1), odds, np.float32))
    card = classifier.card.model_copy(update={"presence": POINTS})
    heat = np.zeros((film.height, film.width), np.float32)
    heat[: film.height // 4, : film.width // 4] = 1.0
    found = paint(explained, card, heat)
    assert found.outlines == outlines
    assert found.opacity == (0.6 * DIMMED if odds < 0.0 else 0.6)
    untaught = paint(explained, classifier.card, heat)
    assert untaught.outlines == ("hottest",)
    # Opacity is how far the colour is on its way from the image to that of the strongest heat.
    hot = np.s_[film.height // 8, film.width // 8]
    bare = np.atleast_1d(film.shown()[hot]).astype(float)
    changed = [np.abs(each.picture[hot] - bare).sum() for each in (found, untaught)]
    assert changed[0] == pytest.approx(changed[1] * (DIMMED if odds < 0.0 else 1.0), abs=3.0)
