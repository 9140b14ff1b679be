"""What the Test tab says of a region that was hidden."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from app.explain.checks import Hidden
from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier
from app.model.weights import PresencePoints
from app.ui.trial import hidden_table

POINTS = PresencePoints(sensitive=0.0, specific=2.0)


@pytest.mark.parametrize(("after", "told"), [(-3.0, "“Fracture seen” becomes “No fracture seen”."), (4.0, "")])
def test_whether_a_fracture_is_still_seen_comes_first(
    classifier: Classifier, film: Radiograph, after: float, told: str
) -> None:
    explained = classifier.explain([film])[0]
    pair = [replace(explained, fracture=np.full((1, 1), odds, np.float32)) for odds in (4.0, after)]
    card = classifier.card.model_copy(update={"presence": POINTS})
    shown = hidden_table(Hidden(0.25, *pair), card, explained.prediction.best)
    assert ("becomes “No fracture seen”" in shown) == bool(told)
    assert told in shown
    assert "25 % of the X-ray hidden." in shown
    first = shown.partition("<tbody>")[2].partition("</tr>")[0]
    assert first.startswith("<tr><td>Fracture</td><td>Fracture seen</td>")


def test_a_model_that_was_not_taught_to_tell_says_nothing_of_it(classifier: Classifier, film: Radiograph) -> None:
    explained = classifier.explain([film])[0]
    shown = hidden_table(Hidden(0.25, explained, explained), classifier.card, explained.prediction.best)
    assert "Fracture seen" not in shown
