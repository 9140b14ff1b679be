"""What may honestly be said of a verdict: fractured at all, how sure in words, and which types remain possible."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from app.model.classifier import Explanation, Prediction
from app.model.weights import ModelCard, PredictionSets, PresencePoints

__all__ = [
    "IN_WORDS",
    "UNLIKE",
    "FractureFinding",
    "answers",
    "confidence",
    "false_alarms",
    "how_sure",
    "missed",
    "possible_types",
    "presence",
    "track_record",
]

FractureFinding = Literal["none", "suspicious", "definite"]

IN_WORDS: dict[FractureFinding, str] = {
    "none": "No fracture seen",
    "suspicious": "Suspicious of a fracture",
    "definite": "Fracture seen",
}

UNLIKE = "Unlike any X-ray the model knows: do not believe this."

WORDS = ((0.9, "very likely"), (0.66, "likely"), (0.5, "more likely than not"), (0.33, "about as likely as not"))


def presence(explanation: Explanation, points: PresencePoints | None) -> FractureFinding | None:
    """Whether a fracture is seen at the model's two operating points; None where it was not taught to tell."""
    if points is None or explanation.presence is None:
        return None
    if explanation.presence < points.sensitive:
        return "none"
    return "definite" if explanation.presence >= points.specific else "suspicious"


def how_sure(probability: float) -> str:
    """A calibrated probability, 0 to 1, in words.

    The bounds are those of the Intergovernmental Panel on Climate Change (Mastrandrea et al., 2010, "Guidance note on
    consistent treatment of uncertainties"); what is under a third is no more than the best of the guesses.
    """
    return next((words for bound, words in WORDS if probability >= bound), "best guess, more likely wrong")


def confidence(probability: float) -> str:
    """A calibrated probability, 0 to 1, in two words, for where there is no room for ``how_sure``; of its bounds."""
    return f"{'high' if probability >= 0.66 else 'moderate' if probability >= 0.33 else 'low'} confidence"


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


ENOUGH = 30
"""Normal images of a region from which on it is told apart."""


def track_record(card: ModelCard, probability: float) -> tuple[int, int] | None:
    """Right answers, and all answers, in cross-validation at about this probability; None where unmeasured."""
    bins = card.metrics.get("cross_validation", {}).get("expected_calibration_error", {}).get("bins")
    if not bins:
        return None
    its = bins[min(int(probability * len(bins)), len(bins) - 1)]
    return (round(its["films"] * its["accuracy"]), its["films"]) if its["films"] else (0, 0)


def missed(card: ModelCard) -> float | None:
    """Share of fractured test images in which no fracture is seen, 0 to 1; None where that was not measured."""
    figures = card.metrics.get("presence")
    return 1.0 - figures["sensitive"]["sensitivity"]["value"] if figures else None


def false_alarms(card: ModelCard, seen: FractureFinding) -> list[tuple[str, float]]:
    """Shares of normal images, 0 to 1, that are called ``seen`` or worse, and whose; empty where nobody measured them.

    Of all of the test set, of the region and of the external set where there are most of them.
    """
    figures = card.metrics.get("presence")
    if not figures:
        return []
    point = "specific" if seen == "definite" else "sensitive"
    found = [("normal test X-rays", 1.0 - figures[point]["specificity"]["value"])]
    regions = [(region, its[point]["specificity"]) for region, its in figures.get("by_region", {}).items()]
    alarms = [(1.0 - its["value"], region) for region, its in regions if its and its["n"] >= ENOUGH]
    if len(alarms) > 1:
        share, region = max(alarms)
        found.append((f"those of the {region}", share))
    elsewhere = figures.get("elsewhere", {}).values()
    if external := [1.0 - its[point]["specificity"]["value"] for its in elsewhere if "auroc" in its]:
        found.append(("those of another source", max(external)))
    return found


def answers(card: ModelCard, explanation: Explanation, *, unlike: bool) -> dict[str, Any]:
    """What programs are told beside the probabilities; what a model was not taught or calibrated for is None.

    Args:
        card: of the model.
        explanation: by it.
        unlike: whether the picture is like no film the model knows, and somebody insisted.

    Returns:
        "unlike" and "notes": why not to believe the rest; "fracture": "none", "suspicious" or "definite"; "how_sure":
        of the predicted type, in words; "possible_types" and "level": the types that hold the label with that
        probability.
    """
    prediction = explanation.prediction
    return {
        "unlike": unlike,
        "notes": list(explanation.radiograph.notes),
        "fracture": presence(explanation, card.presence),
        "how_sure": how_sure(prediction.probability(prediction.best)),
        "possible_types": list(possible_types(prediction, card.sets)) if card.sets else None,
        "level": card.sets.level if card.sets else None,
    }
