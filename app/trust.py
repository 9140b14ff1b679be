"""What may honestly be said of a verdict: whether there is a fracture at all, and which types remain possible."""

from __future__ import annotations

from typing import Literal

import numpy as np

from app.classifier import Explanation, Prediction
from app.weights import PredictionSets, PresencePoints

__all__ = ["Seen", "possible_types", "presence"]

Seen = Literal["none", "suspicious", "definite"]


def presence(explanation: Explanation, points: PresencePoints | None) -> Seen | None:
    """Whether a fracture is seen at the model's two operating points; None where it was not taught to tell."""
    if points is None or explanation.presence is None:
        return None
    if explanation.presence < points.sensitive:
        return "none"
    return "definite" if explanation.presence >= points.specific else "suspicious"


def possible_types(prediction: Prediction, sets: PredictionSets) -> tuple[str, ...]:
    """The types that together hold the label as often as ``sets`` says, likeliest first.

    LAC leaves out what is less likely than its limit (Sadinle et al., 2019); APS stops once the likelier types have
    reached its limit (Romano et al., 2020). The likeliest type is always in.
    """
    ranked = prediction.ranking
    shares = np.array([prediction.probability(name) for name in ranked])
    scores = 1.0 - shares if sets.score == "LAC" else np.cumsum(shares)
    inside = max(1, int((scores <= sets.limit).sum()))
    return tuple(ranked[:inside])
