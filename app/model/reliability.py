"""How far to believe what a model says: what its card knows of such verdicts, in numbers and short sentences."""

from __future__ import annotations

from typing import Any

from app.model.classifier import FractureFinding
from app.model.weights import ModelCard, percent
from app.sentence import Sentence

__all__ = [
    "confidence",
    "false_alarm",
    "false_alarms",
    "false_alarms_elsewhere",
    "how_sure",
    "missed",
    "missed_elsewhere",
    "misses",
    "other_sources",
    "track_record",
    "where_judged",
]

WORDS = ((0.9, "very likely"), (0.66, "likely"), (0.5, "more likely than not"), (0.33, "about as likely as not"))


def how_sure(probability: float) -> str:
    """A calibrated probability, 0 to 1, in words.

    The bounds are those of the Intergovernmental Panel on Climate Change (Mastrandrea et al., 2010, "Guidance note on
    consistent treatment of uncertainties"); what is under a third is no more than the best of the guesses.
    """
    return next((words for bound, words in WORDS if probability >= bound), "best guess, more likely wrong")


def confidence(probability: float) -> str:
    """A calibrated probability, 0 to 1, in two words, for where there is no room for ``how_sure``; of its bounds."""
    return f"{'high' if probability >= 0.66 else 'moderate' if probability >= 0.5 else 'low'} confidence"


ENOUGH = 30
"""Normal images of a region from which on it is told apart."""


def track_record(card: ModelCard, probability: float) -> tuple[int, int] | None:
    """Right answers, and all answers, in cross-validation at about this probability; None where unmeasured."""
    bins = card.metrics.get("cross_validation", {}).get("expected_calibration_error", {}).get("bins")
    if not bins:
        return None
    its = bins[min(int(probability * len(bins)), len(bins) - 1)]
    return (round(its["images"] * its["accuracy"]), its["images"]) if its["images"] else (0, 0)


def where_judged(card: ModelCard) -> str:
    """On which images accuracy and calibration were judged, to begin a sentence with."""
    return "On held-out images" if card.metrics["cross_validation"].get("held_out") else "In cross-validation"


def missed(card: ModelCard) -> float | None:
    """Share of fractured test images in which no fracture is seen, 0 to 1; None where that was not measured."""
    figures = card.metrics.get("presence")
    return 1.0 - figures["sensitive"]["sensitivity"]["value"] if figures else None


def false_alarm(card: ModelCard, seen: FractureFinding) -> float | None:
    """Share of normal test images that are called ``seen`` or worse, 0 to 1; None where that was not measured."""
    figures = card.metrics.get("presence")
    return 1.0 - figures[_point(seen)]["specificity"]["value"] if figures else None


def _point(seen: FractureFinding) -> str:
    return "specific" if seen == "definite" else "sensitive"


def other_sources(card: ModelCard) -> dict[str, Any]:
    """Figures of the sources with fractured and normal images beside the first, by name.

    Those that were left out of a training where there are such, since the others may have taught the model.
    """
    found = card.metrics.get("left_out") or card.metrics.get("presence", {}).get("elsewhere", {})
    return {name: its for name, its in found.items() if "auroc" in its}


def missed_elsewhere(card: ModelCard) -> list[float]:
    """``missed`` of each of ``other_sources``."""
    return [1.0 - its["sensitive"]["sensitivity"]["value"] for its in other_sources(card).values()]


def false_alarms_elsewhere(card: ModelCard, seen: FractureFinding) -> list[float]:
    """``false_alarm`` of each of ``other_sources``."""
    return [1.0 - its[_point(seen)]["specificity"]["value"] for its in other_sources(card).values()]


def misses(card: ModelCard) -> list[Sentence]:
    """Shares of fractured images in which no fracture is seen, and whose; empty where nobody measured them.

    Of all of the test set, and of the source that it never learnt from where it misses most.
    """
    share, elsewhere = missed(card), missed_elsewhere(card)
    if share is None:
        return []
    found = [Sentence("{share} of fractured test X-rays", share=percent(share))]
    if elsewhere:
        found.append(Sentence("{share} of fractured ones of another source", share=percent(max(elsewhere))))
    return found


def false_alarms(card: ModelCard, seen: FractureFinding) -> list[Sentence]:
    """Shares of normal images that are called ``seen`` or worse, and whose; empty where nobody measured them.

    Of all of the test set, of the region and of the source that it never learnt from where there are most of them.
    """
    share, point = false_alarm(card, seen), _point(seen)
    if share is None:
        return []
    found = [Sentence("{share} of normal test X-rays", share=percent(share))]
    by_region = card.metrics["presence"].get("by_region", {})
    regions = [(region, its[point]["specificity"]) for region, its in by_region.items()]
    alarms = [(1.0 - its["value"], region) for region, its in regions if its and its["n"] >= ENOUGH]
    if len(alarms) > 1:
        most, region = max(alarms)
        found.append(Sentence("{share} of those of the {region}", share=percent(most), region=Sentence(region)))
    if external := false_alarms_elsewhere(card, seen):
        found.append(Sentence("{share} of those of another source", share=percent(max(external))))
    return found
