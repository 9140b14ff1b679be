"""What the page says about a film in words; every number is the model's or its card's."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from app.explain.overlay import NO_EVIDENCE, gradient
from app.explain.shortcuts import mark_boxes
from app.imaging.dicom import trained_on
from app.model.classifier import Explanation, Prediction
from app.model.trust import IN_WORDS, UNLIKE, FractureFinding, how_sure, possible_types, presence
from app.model.weights import ModelCard
from app.ui.glossary import GLOSSARY

__all__ = ["bars", "describe", "legend", "refusal", "verdict"]

LETTERS = (
    "Outlined in amber: what may be letters in the picture itself. Make sure that they name nobody before you show it "
    "to others."
)
ENOUGH = 30
"""Whole bones of a region from which on it is told apart."""
WORTH_SAYING = 0.1
"""Share of evidence outside the film from which on the page mentions it."""


def verdict(card: ModelCard, explanation: Explanation, truth: str | None = None, insisted: bool = False) -> str:
    """The predicted type, how sure, and how often such a verdict was right; the label too where it is known.

    Args:
        card: of the model.
        explanation: by it.
        truth: the label.
        insisted: the picture had been refused as unlike any film.
    """
    prediction = explanation.prediction
    titles = {kind.name: kind.title for kind in card.classes}
    best, second = prediction.ranking[:2]
    probability = prediction.probability(best)
    seen = presence(explanation, card.presence)
    lines = [f"<p class='truth wrong'><strong>{UNLIKE}</strong></p>"]
    lines = lines if insisted else []
    film, notes = explanation.radiograph, list(explanation.radiograph.notes)
    if strange := not trained_on(film.modality) and bool(notes):
        lines.append(f"<p class='truth wrong'><strong>{html.escape(notes.pop(0))}</strong></p>")
    if seen is not None:
        lines.append(_broken(card, seen))
    muted = " muted" if seen == "none" or strange or insisted else ""
    lines += [
        f"<p class='kind{muted}'>{html.escape(titles[best])}<span>{probability:.0%}</span></p>",
        f"<p class='sure{muted}'>{how_sure(probability).capitalize()}</p>",
        f"<p class='next{muted}'>Next: {html.escape(titles[second].lower())}, {prediction.probability(second):.0%}. "
        f"{html.escape(_track_record(card, probability))}</p>",
    ]
    if card.sets is not None:
        # The sets were calibrated on fractured films like those it learnt from, and promise nothing of others.
        only = "Only if this is a fracture like those it learnt from: " if muted else ""
        lines.append(f"<p class='next{muted}'>{only}{_possible(card, prediction)}</p>")
    if truth is not None:
        word = "right" if truth == best else "wrong"
        label = html.escape(titles[truth])
        lines.append(f"<p class='truth {word}'>Labelled: <strong>{label}</strong> &ndash; the model is {word}.</p>")
    lines += [f"<p class='note'>{html.escape(note)}</p>" for note in notes]
    if film.modality and mark_boxes(film.display()):
        lines.append(f"<p class='note'>{LETTERS}</p>")
    lines.append(f"<p class='record'>{html.escape(_record(card, best))}</p>")
    return f"<div class='verdict' aria-live='polite'>{''.join(lines)}</div>"


def _broken(card: ModelCard, seen: FractureFinding) -> str:
    """Whether a fracture is seen, and how often that is right, from the films that judged the operating points."""
    figures = card.metrics.get("presence", {})
    told = ""
    if figures and seen == "none":
        missed = 1.0 - figures["sensitive"]["sensitivity"]["value"]
        told = f"It overlooks {missed:.0%} of fractured test films so. If there is one nevertheless, it would be:"
    elif figures:
        point = "specific" if seen == "definite" else "sensitive"
        alarm = 1.0 - figures[point]["specificity"]["value"]
        told = (
            f"Of whole bones among the test films, {alarm:.0%} reach this mark too{_most_alarms(figures, point)}"
            f"{_alarms_elsewhere(figures, point)}."
        )
    return f"<p class='presence {seen}'><strong>{IN_WORDS[seen]}</strong> {html.escape(told)}</p>"


def _most_alarms(figures: dict[str, Any], point: str) -> str:
    """The region whose whole bones reach a point most often, where there are enough of them to say so."""
    shares = {
        region: its[point]["specificity"]
        for region, its in figures.get("by_region", {}).items()
        if its[point]["specificity"] and its[point]["specificity"]["n"] >= ENOUGH
    }
    if len(shares) < 2:
        return ""
    worst = min(shares, key=lambda region: shares[region]["value"])
    return f", of the {worst} {1.0 - shares[worst]['value']:.0%}"


def _alarms_elsewhere(figures: dict[str, Any], point: str) -> str:
    """The source it learnt nothing from whose whole bones reach a point most often; nothing where none was asked."""
    shares = [its[point]["specificity"]["value"] for its in figures.get("elsewhere", {}).values() if "auroc" in its]
    return f"; of those from another source, {1.0 - min(shares):.0%}" if shares else ""


def _possible(card: ModelCard, prediction: Prediction) -> str:
    """The prediction set in words."""
    assert card.sets is not None
    titles = {kind.name: kind.title.lower().removesuffix(" fracture") for kind in card.classes}
    types = [titles[name] for name in possible_types(prediction, card.sets)]
    if len(types) == 1:
        named = types[0]
    elif len(types) == len(card.classes):
        return f"{card.sets.level:.0%}: any of the {len(types)} types."
    else:
        named = f"one of {', '.join(types)}"
    return html.escape(f"{card.sets.level:.0%}: {named}.")


def _track_record(card: ModelCard, probability: float) -> str:
    """How often the model was right on films it had not seen when it was about this sure."""
    bins = card.metrics.get("cross_validation", {}).get("expected_calibration_error", {}).get("bins")
    if not bins:
        return ""
    place = min(int(probability * len(bins)), len(bins) - 1)
    films, accuracy = bins[place]["films"], bins[place]["accuracy"]
    if not films:
        return "In cross-validation it was never this sure, so there is no saying how often it is right then."
    return f"When it was about this sure in cross-validation, it was right on {round(films * accuracy)} of {films}."


def _record(card: ModelCard, best: str) -> str:
    unable = [] if card.presence else ["that a bone is whole"]
    unable += [] if card.refuses else ["that a picture is no X-ray"]
    missing = f"It always names one of {len(card.classes)} types"
    missing += f": it cannot say {' or '.join(unable)}." if unable else ", whatever it thinks of the rest."
    test = card.metrics.get("test")
    if not test:
        return f"This model has not been tested. {missing}"
    share = test["accuracy"]
    column = [kind.name for kind in card.classes].index(best)
    named = sum(row[column] for row in test["confusion"])
    right = test["confusion"][column][column]
    return (
        f"On {share['n']} test films it had never seen, it named the labelled type in {share['value']:.0%} "
        f"(95 % interval {share['low']:.0%} to {share['high']:.0%}); it said {best} on {named} of them and was right "
        f"on {right}. {missing}"
    )


def refusal(sentence: str, notes: Sequence[str] = ()) -> str:
    """Why a film was not judged, and what else there is to know of it."""
    told = "".join(f"<p class='note'>{html.escape(note)}</p>" for note in notes)
    return f"<div class='verdict refused' role='alert'><p>{html.escape(sentence)}</p>{told}</div>"


def bars(card: ModelCard, explanation: Explanation) -> tuple[list[tuple[str, str]], str]:
    """Types by probability as choices, and the style that turns each choice into a bar of that length."""
    prediction = explanation.prediction
    titles = {kind.name: kind.title for kind in card.classes}
    choices = []
    rules = [f"#types .wrap {{ --rows: {(len(card.classes) + 1) // 2}; }}"]
    for place, name in enumerate(prediction.ranking, start=1):
        probability = prediction.probability(name)
        choices.append((f"{titles[name]} · {probability:.0%}", name))
        rules.append(f"#types label:nth-of-type({place}) {{ --share: {probability:.2%}; }}")
    return choices, f"<style>{''.join(rules)}</style>"


def describe(card: ModelCard, explanation: Explanation, name: str) -> str:
    """Which type's evidence is shown, what the type is, and what to know of this map."""
    title = next(kind.title for kind in card.classes if kind.name == name)
    line = f"Evidence for <strong>{html.escape(title.lower())}</strong>. {GLOSSARY.get(name, '')}"
    outside = explanation.padding_share(name)
    if not explanation.has_evidence(name):
        line += f" <strong>On this film the model finds {NO_EVIDENCE} for it.</strong>"
    elif outside >= WORTH_SAYING:
        line += (
            f" <em>{outside:.0%} of the evidence for it lies outside the film, in the black margin that fills the "
            "model's square.</em>"
        )
    return f"<p class='glossary'>{line}</p>"


def legend(explanation: Explanation, colour_map: str, opacity: float) -> str:
    """The colour bar of the overlay."""
    colours = ", ".join(f"rgb{colour}" for colour in gradient(colour_map, opacity))
    return (
        "<div class='legend' role='img' aria-label='Colour scale of the evidence'><span>none</span>"
        f"<i style='background: linear-gradient(to right, {colours})'></i>"
        f"<span>strong ({explanation.full_colour:.0f} logits)</span></div>"
    )
