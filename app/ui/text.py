"""What the page says in words; every number is the model's or its card's."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

from app.explain import DEFAULT, METHODS
from app.explain.checks import Finding
from app.explain.overlay import NO_EVIDENCE, gradient
from app.explain.regions import Region, where
from app.explain.shortcuts import mark_boxes
from app.imaging.dicom import trained_on
from app.model.classifier import (
    IN_WORDS,
    LIKENESS_WARNINGS,
    Explanation,
    FractureFinding,
    Prediction,
    possible_types,
    presence,
)
from app.model.ood import Likeness
from app.model.reliability import (
    confidence,
    false_alarm,
    false_alarms,
    false_alarms_elsewhere,
    how_sure,
    missed,
    missed_elsewhere,
    misses,
    track_record,
    where_judged,
)
from app.model.weights import ModelCard, PredictionSets, percent
from app.sentence import Sentence
from app.ui.languages import digits, marked, said, say

__all__ = [
    "alternative",
    "always",
    "bars",
    "belief",
    "describe",
    "details",
    "errors_of",
    "legend",
    "line",
    "paragraphs",
    "point",
    "record_at",
    "rejection",
    "short_titles",
    "shown",
    "shows",
    "table",
    "test_figures",
    "titles",
    "verdict",
    "wrong_in_short",
]

OURS = "Something went wrong on our side, and nothing about the X-ray was written down. Please try again."
NO_XRAY = "No X-ray yet: drop one in under “Explain” first."
FORGOTTEN = "This X-ray has been forgotten. Please drop it in again."
CANCELLED = "Cancelled."
TOO_LARGE = "What was painted is larger than the X-ray on the page. Please load the X-ray again."
FOREIGN = "That file was not uploaded here. Please drop it in again."
NOT_TAKEN = "That could not be taken in. Please drop it in again."
LETTERS = "Outlined in amber: possible letters. Make sure they name nobody."
LABELLED_RIGHT = "Labelled: {type}; the model is right."
LABELLED_WRONG = "Labelled: {type}; the model is wrong."
POINT = (
    "Evidence at this point: {evidence}. "
    "Averaged over all that the model sees, plus a constant, it is a type's score, in logits."
)
TANGENT = (
    "Evidence at this point: {evidence}. "
    "Averaged over all that the model sees, plus what the map leaves out, it is a type's score, in logits."
)
"""Of maps that follow a gradient."""
UNCALIBRATED = "Not calibrated"
POSSIBLE = "Low confidence: {count} types possible"
WORTH_SAYING = 0.1
"""Share of evidence outside the image from which on the page mentions it."""

GLOSSARY: dict[str, str] = {
    "avulsion": "A tendon or ligament has torn off the piece of bone it holds on to.",
    "comminuted": "The bone is broken into three or more pieces.",
    "fracture-dislocation": "A bone is broken and the joint beside it has come out of place.",
    "greenstick": "A child's soft bone is bent and cracked on one side only, like a green twig.",
    "hairline": "A thin crack without displacement, often from repeated strain; easy to miss.",
    "impacted": "One end of the broken bone has been driven into the other.",
    "longitudinal": "The break runs along the length of the bone.",
    "oblique": "The break crosses the shaft at a slant.",
    "pathological": "The bone broke under little force because disease had weakened it.",
    "spiral": "The break winds around the shaft, the mark of a twisting force.",
}
"""A line on each fracture type; a model's card says which of them it knows."""


def line(sentence: str, **values: Any) -> str:
    """A sentence as HTML, in the visitor's language where it is known there; its values are put in."""
    return f"<p class='line'>{marked(sentence, **values)}</p>"


def paragraphs(kind: str, sentences: Iterable[str]) -> str:
    """Sentences as HTML, each a paragraph of a CSS class, in the visitor's language where they are known there."""
    return "".join(f"<p class='{kind}'>{marked(sentence)}</p>" for sentence in sentences)


def details(summary: str, body: str) -> str:
    """HTML that is closed until somebody asks for it."""
    return f"<details><summary>{html.escape(summary)}</summary>{body}</details>"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Text as an HTML table that scrolls by itself where it is too wide, also by the keyboard.

    The last cell of a row that is shorter than the head takes what is left.
    """
    columns = "".join(f"<th scope='col'>{html.escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{_cells(row, len(head))}</tr>" for row in rows)
    rows_in_all = f"<thead><tr>{columns}</tr></thead><tbody>{body}</tbody>"
    return f"<div class='scroll' tabindex='0'><table>{rows_in_all}</table></div>"


def _cells(row: list[str], columns: int) -> str:
    left = columns - len(row) + 1
    last = f"<td colspan='{left}'>" if left > 1 else "<td>"
    return "".join(f"<td>{html.escape(cell)}</td>" for cell in row[:-1]) + f"{last}{html.escape(row[-1])}</td>"


def titles(card: ModelCard) -> dict[str, str]:
    """Types as people read them, by name."""
    return {kind.name: say(kind.title) if card.subject.ours else kind.title for kind in card.classes}


def short_titles(card: ModelCard) -> dict[str, str]:
    """The same, where it goes without saying that they are fractures."""
    if not card.subject.ours:
        return titles(card)
    return {kind.name: say(kind.title.removesuffix(" fracture")) for kind in card.classes}


def _says(method: str, card: ModelCard) -> str:
    how = METHODS[method]
    return how.says if card.maps == "exact" else how.says_of_gradients or how.says


def shows(method: str, card: ModelCard) -> str:
    """What a method shows of this model, and what it cannot, in English, for programs."""
    return card.subject.retell(_says(method, card))


def shown(method: str, card: ModelCard) -> str:
    """The same as HTML, for people."""
    return marked(_says(method, card))


READING = (
    "Colour marks what speaks for the chosen type; no colour: nothing does. The white line encloses the hottest "
    "regions, the blue one where the model sees a fracture of any type, dashed for a suspicion. All types share one "
    "colour scale: faint colour is weak evidence. The heatmap shows what the model used, not where the fracture is."
)
"""How to read the picture."""


def verdict(
    card: ModelCard, explanation: Explanation, label: str | None = None, likeness: Likeness | None = None
) -> str:
    """The card with the predicted type, the confidence and whether a fracture is seen; how reliable that is, closed.

    Args:
        card: of the model.
        explanation: by it.
        label: the type the X-ray is labelled with, where that is known.
        likeness: to the reference set, where that is known.
    """
    prediction, names = explanation.prediction, titles(card)
    best, probability = prediction.best, prediction.probability(prediction.best)
    seen = presence(explanation, card.presence)
    image, notes = explanation.radiograph, list(explanation.radiograph.notes)
    warnings = [words] if likeness and (words := LIKENESS_WARNINGS.get(likeness)) else []
    if not trained_on(image.modality) and notes:
        warnings.append(notes.pop(0))
    muted = " muted" if seen == "none" or warnings else ""
    sure = _sure(card, prediction, bool(muted))
    # How far to believe a finding: how often it is wrong. The type's confidence would be taken for that.
    wrong = wrong_in_short(card, seen) if seen else None
    finding = [f"<p class='presence {seen}'>{said(IN_WORDS[seen])}</p>"] if seen else []
    finding += [f"<p class='sure'>{marked(wrong)}</p>"] if wrong else []
    # Beside a finding, only the type's name is left to say.
    name = f"{said('Type:')} {html.escape(short_titles(card)[best].lower())}" if seen else html.escape(names[best])
    found = [f"<p class='kind{muted}'><b>{name}</b> <span>{digits(percent(probability))}</span></p>"]
    # Nobody knows how often an answer about a picture unlike all others is right.
    if likeness != "out-of-distribution":
        found.append(f"<p class='sure{muted}'>{marked(sure)}</p>")
    if label is not None:
        word, sentence = ("right", LABELLED_RIGHT) if label == best else ("wrong", LABELLED_WRONG)
        labelled = f"<strong>{html.escape(names[label])}</strong>"
        found.append(f"<p class='label {word}'>{said(sentence, type=labelled)}</p>")
    if image.modality and mark_boxes(image.display()):
        notes.append(LETTERS)
    told = "".join(f"<li>{marked(each)}</li>" for each in _reliability(card, explanation, seen, bool(muted)))
    if seen == "none":
        # A type and its share would be taken for the chance of such a fracture.
        found = [details(say("If there is one: which type?"), f"{''.join(found)}<ul>{told}</ul>")]
    else:
        found.append(details(say("How reliable?"), f"<ul>{told}</ul>"))
    return (
        f"<div class='verdict' aria-live='polite'>{paragraphs('warning', warnings)}{''.join(finding)}"
        f"<div class='which'>{''.join(found)}</div>{paragraphs('note', notes)}</div>"
    )


def _sure(card: ModelCard, prediction: Prediction, doubtful: bool) -> str:
    """How far to believe the likeliest type, in a line.

    Where another one is likelier, its name alone would say too much: it is one of the prediction set, which promises
    nothing of images unlike those it was calibrated on.
    """
    if not card.calibrated:
        return UNCALIBRATED
    words = confidence(prediction.probability(prediction.best))
    if words == confidence(0.0) and card.sets is not None and not doubtful:
        possible = possible_types(prediction, card.sets)
        if len(possible) > 1:
            return Sentence(POSSIBLE, count=str(len(possible)))
    return words.capitalize()


def _reliability(
    card: ModelCard, explanation: Explanation, seen: FractureFinding | None, doubtful: bool
) -> Iterable[Sentence]:
    """What was measured of such a verdict, a short sentence each, about fractures on X-rays whatever the images are."""
    prediction = explanation.prediction
    probability = prediction.probability(prediction.best)
    if card.calibrated:
        share, words = percent(probability), Sentence(how_sure(probability))
        yield Sentence("{share} in words: {words}.", share=share, words=words)
    else:
        yield Sentence("Nobody has checked whether its probabilities are as high as they should be.")
    if record := record_at(card, probability):
        yield record
    if card.sets is not None:
        possible = _possible(card, card.sets, explanation.prediction)
        # The sets were calibrated on fractured images like those it learnt from, and promise nothing of others.
        only = Sentence("If this is a fracture like those it learnt from: {rest}", rest=possible)
        yield only if doubtful else possible
    if seen is not None and (errors := errors_of(card, seen)):
        yield errors
    yield from test_figures(card, prediction.best)
    yield always(card)


def record_at(card: ModelCard, probability: float) -> Sentence | None:
    """How often the model was right when about this sure; None where that was not measured."""
    record = track_record(card, probability)
    if record is None:
        return None
    right, count = map(str, record)
    judged = Sentence(where_judged(card))
    known = "{judged} it was right on {right} of {count} X-rays when about this sure."
    if not record[1]:
        return Sentence("{judged} it was never this sure.", judged=judged)
    return Sentence(known, judged=judged, right=right, count=count)


def wrong_in_short(card: ModelCard, seen: FractureFinding) -> Sentence | None:
    """How often such a finding is a mistake, as short as it stands beside it; None where that was not measured.

    From the best to the worst source: nobody knows which of them an X-ray is like.
    """
    told, shares = "Flags {share} of normal X-rays too", [false_alarm(card, seen), *false_alarms_elsewhere(card, seen)]
    if seen == "none":
        told, shares = "Misses {share} of fractures", [missed(card), *missed_elsewhere(card)]
    known = [f"{100.0 * share:.0f}" for share in sorted(share for share in shares if share is not None)]
    return Sentence(told, share="\N{EN DASH}".join(dict.fromkeys((known[0], known[-1]))) + " %") if known else None


def errors_of(card: ModelCard, seen: FractureFinding) -> Sentence | None:
    """How often such a finding is a mistake; None where that was not measured."""
    told, found = "False alarms: {shares}.", false_alarms(card, seen)
    if seen == "none":
        told, found = "It misses {shares}.", misses(card)
    return Sentence(told, shares=Sentence.listed("{one}, {other}", found)) if found else None


def always(card: ModelCard) -> Sentence:
    """What the model cannot say."""
    count = str(len(card.classes))
    if card.presence or not card.subject.finding:
        return Sentence("It always names one of {count} types.", count=count)
    if card.subject.ours:
        return Sentence("It always names one of {count} types; it cannot say that no bone is broken.", count=count)
    return Sentence("It always names one of {count} types; it cannot say that there is no fracture.", count=count)


def _possible(card: ModelCard, sets: PredictionSets, prediction: Prediction) -> Sentence:
    """The prediction set in words."""
    short = short_titles(card)
    types = [short[name].lower() for name in possible_types(prediction, sets)]
    level, listed, count = percent(sets.level), say(", ").join(types), str(len(types))
    if len(types) == len(card.classes):
        return Sentence("A list that holds the right type {level} of the time: all {count}.", level=level, count=count)
    return Sentence("A list that holds the right type {level} of the time: {types}.", level=level, types=listed)


def test_figures(card: ModelCard, best: str) -> Iterable[Sentence]:
    """How the model did on test images, and when it said what it says now."""
    test = card.metrics.get("test")
    if not test:
        yield Sentence("This model has not been tested on test images.")
        return
    accuracy = test["accuracy"]
    share, low, high = (f"{100.0 * accuracy[key]:.1f}" for key in ("value", "low", "high"))
    yield Sentence(
        "Top-1 accuracy on test X-rays: {share} (95 % CI {low} to {high}, n = {count}).",
        share=f"{share} %",
        low=low,
        high=high,
        count=f"{accuracy['n']:,}",
    )
    column = [kind.name for kind in card.classes].index(best)
    named = sum(row[column] for row in test["confusion"])
    yield Sentence(
        "It said {type} on {count} of them and was right on {right}.",
        type=short_titles(card)[best].lower(),
        count=str(named),
        right=str(test["confusion"][column][column]),
    )


def rejection(sentence: str, notes: Sequence[str] = ()) -> str:
    """Why an X-ray is not classified, and what else there is to know of it."""
    return f"<div class='verdict rejected' role='alert'><p>{marked(sentence)}</p>{paragraphs('note', notes)}</div>"


def bars(card: ModelCard, explanation: Explanation) -> tuple[list[tuple[str, str]], str]:
    """Types by probability as choices, and the style that turns each choice into a bar of that length."""
    prediction, names = explanation.prediction, short_titles(card)
    choices, rules = [], []
    for rank, name in enumerate(prediction.ranking, start=1):
        probability = prediction.probability(name)
        choices.append((f"{names[name]} {digits(percent(probability))}", name))
        rules.append(f"#types label:nth-of-type({rank}) {{ --share: {probability:.2%}; }}")
    return choices, f"<style>{''.join(rules)}</style>"


def belief(findings: Sequence[Finding]) -> str:
    """Quick checks of the heatmap: how many it passed, and what they found on demand."""
    if not findings:
        return ""
    told = "".join(
        f"<li class='{found.kind}'>{marked(found.words)} <small>{marked(found.figures)}</small></li>"
        for found in findings
    )
    passed, count = str(sum(found.kind == "good" for found in findings)), str(len(findings))
    summary = said("Heatmap checks: {passed} of {count}", passed=passed, count=count)
    told = (
        f"<ul class='checks'>{told}</ul><p>{said('These are the quick checks of the map of the predicted type.')} "
        f"<a href='#' data-tab='tab-test'>{said('Run the full test')}</a></p>"
    )
    return f"<details class='belief'><summary>{summary}</summary>{told}</details>"


def point(card: ModelCard, evidence: dict[str, float]) -> str:
    """What stands at a point of the X-ray, type by type: the three strongest, and the one most against."""
    names = short_titles(card)
    kinds = list(evidence)
    shown = [*kinds[:3], *kinds[3:][-1:]]
    told = " · ".join(f"{html.escape(names[name])} {digits(f'{evidence[name]:+.1f}')}" for name in shown)
    evidence_told = f"<strong>{told}</strong>"
    words = said(POINT, evidence=evidence_told) if card.maps == "exact" else said(TANGENT, evidence=evidence_told)
    return f"<p class='line'>{words}</p>"


def alternative(card: ModelCard, name: str, regions: Sequence[Region]) -> str:
    """The picture's finding for those who cannot see it."""
    title = titles(card)[name].lower()
    if not regions:
        return say("The X-ray. The heatmap for {type} has no hot region.", type=title)
    told = "The X-ray with the heatmap for {type}, hottest in the {place} of the picture."
    return say(told, type=title, place=say(where(regions[0])))


def describe(card: ModelCard, explanation: Explanation, name: str, method: str, regions: Sequence[Region]) -> str:
    """Which type's heatmap is shown, what the type is, and what to know of this map; closed until it matters."""
    title = f"<strong>{html.escape(titles(card)[name].lower())}</strong>"
    meaning = f" {marked(GLOSSARY[name])}" if card.subject.ours and name in GLOSSARY else ""
    told = f"<p>{said('Heatmap for {type}.', type=title)}{meaning}</p>"
    told += f"<p>{said(METHODS[method].title)}: {shown(method, card)}</p>"
    if len(regions) > 1:
        shares = [(said(where(region)), digits(percent(region.share))) for region in regions]
        listed = "".join(
            f"<li>{said('{place}: {share} of the heat', place=place, share=share)}</li>" for place, share in shares
        )
        told += f"<p>{said('Hottest regions:')}</p><ul>{listed}</ul>"
    outside, warning = explanation.padding_share(name), ""
    if method == DEFAULT and not explanation.has_evidence(name):
        warning = line(f"The model finds {NO_EVIDENCE} for {{type}} here.", type=titles(card)[name].lower())
    elif method == DEFAULT and outside >= WORTH_SAYING:
        warning = line("{share} of evidence off the X-ray.", share=digits(percent(outside)))
    return f"{warning}{details(say('Help'), f'{told}<p>{marked(READING)}</p>')}"


OUTLINED = {
    "hottest": "hottest",
    "definite": "fracture seen",
    "suspicious": "possible fracture",
    "none": "Colour does not mean a fracture.",
}
"""What an outline means, or that there is none."""


def legend(
    card: ModelCard,
    explanation: Explanation,
    name: str,
    method: str,
    colour_map: str,
    opacity: float,
    outlines: Sequence[str] = (),
) -> str:
    """Which type's heatmap is shown, its colour bar, and what its outlines mean.

    Methods but the default have no common unit.

    Args:
        outlines: what is outlined: "hottest", "definite" or "suspicious"; "none" where no fracture is seen.
    """
    colours = ", ".join(f"rgb{colour}" for colour in gradient(colour_map, opacity))
    logits = digits(f"{explanation.full_colour:.0f}")
    unit = said("{count} logits", count=logits) if method == DEFAULT else said("this map's own maximum")
    scale = said("Colour scale of the heatmap: from none to {unit}", unit=unit)
    rings = "".join(
        f"<span class='{'aside' if each == 'none' else f'ring {each}'}'>{said(OUTLINED[each])}</span>"
        for each in outlines
    )
    kind = short_titles(card)[name]
    title = said("If {type}:", type=html.escape(kind.lower())) if "none" in outlines else f"{html.escape(kind)}:"
    return (
        f"<div class='legend'><strong>{title}</strong>"
        f"<span class='scale' role='img' aria-label='{scale}' title='{unit}'>{said('none')}"
        f"<i style='background: linear-gradient(to right, {colours})'></i>{said('strong')}</span>{rings}</div>"
    )
