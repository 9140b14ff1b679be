"""All tests of one heatmap in one go and in words, and what the model says once a region is hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np

from app.errors import NoHeat, Progress
from app.explain import shortcuts
from app.explain.faithfulness import SHARES, Faithfulness, measure, measure_faithfulness
from app.explain.methods import DEFAULT, METHODS, MapRequest, draw
from app.explain.overlay import hottest
from app.explain.sanity import (
    FEW,
    SAME_FOR_ANY_TYPE,
    UNCHANGED,
    Randomised,
    Stable,
    fair_changes,
    randomise_weights,
    stability,
)
from app.explain.shortcuts import KINDS, Shortcuts
from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier, Explanation, presence
from app.model.subject import OURS, Subject
from app.model.weights import ModelCard, percent
from app.sentence import Sentence

__all__ = ["Checks", "Finding", "Hidden", "chart", "check_heatmap", "dependence", "hide", "pointing", "quick_checks"]

STABLE = 0.6
"""Mean rank correlation under small changes from which on a map is called stable."""

HALF = 0.5
"""Share of a map's maximum from which on a place counts as hot when methods are compared."""

OTHERS = ("gradcam++", "layercam", "ablationcam")
"""Methods at the last layer that no linear head makes equal to Grad-CAM, and that were found to depend on the model."""

PARTS = (0.05, 0.55, 0.8, 1.0)
"""How far the whole is when the map, the curves, the randomisation and the stability are done."""


class Finding(NamedTuple):
    """What one test found: "good", "mixed" or "poor", a sentence for people, and the figures behind it.

    About fractures on X-rays, whatever the images show.
    """

    kind: str
    words: Sentence
    figures: Sentence


@dataclass(frozen=True)
class Checks:
    """What the tests of one heatmap found; ``found`` is the map over the model's square, float (h, w)."""

    found: np.ndarray
    curves: Faithfulness
    randomised: tuple[Randomised, ...]
    stable: tuple[Stable, ...]
    shortcuts: Shortcuts

    def findings(self, subject: Subject = OURS) -> tuple[Finding, ...]:
        """Whether the map points at what the score needs, depends on the model, is stable and avoids shortcuts.

        ``subject`` is the model's, for the words.
        """
        return (
            pointing(self.curves),
            dependence(self.randomised),
            _steadiness(self.stability, self.stable),
            _shortcuts(self.shortcuts, subject),
        )

    @property
    def stability(self) -> float:
        """Mean rank correlation of the maps under small changes, -1 to 1."""
        return float(np.mean([each.correlation for each in self.stable]))


def check_heatmap(request: MapRequest, method: str, explanation: Explanation) -> Checks:
    """Draws a map and tests it; the request's watch is told over all of it.

    Raises:
        NoHeat: the map is the same everywhere.
        Cancelled: the watch stopped it.
    """
    whole, subject = request.watch, request.classifier.card.subject

    def part(start: float, end: float) -> MapRequest:
        return replace(request, watch=Progress(tell=lambda share: whole.step(start + (end - start) * share)))

    found = draw(part(0.0, PARTS[0]), method)
    if np.ptp(found) == 0.0:
        raise NoHeat(subject.retell("This method finds no heat on this X-ray, so there is nothing to test."))
    changes = fair_changes(request.classifier.card)[: FEW if METHODS[method].cost == "slow" else None]
    return Checks(
        found,
        measure_faithfulness(part(PARTS[0], PARTS[1]), found, explanation.placement),
        randomise_weights(part(PARTS[1], PARTS[2]), method, found),
        stability(part(PARTS[2], PARTS[3]), method, found, changes),
        shortcuts.shortcut_shares(explanation.radiograph.display(), found, explanation.placement, subject),
    )


def quick_checks(request: MapRequest, explanation: Explanation) -> tuple[Finding, ...]:
    """What can be said of the default map of a request within one more forward pass: for the first look.

    Whether its heat avoids shortcuts, whether other methods peak where it is hot, and whether it stays under a mirror.
    Nothing where there is no heat. The whole is ``check_heatmap``.
    """
    found = draw(request)
    if np.ptp(found) == 0.0:
        return ()
    hot = found >= HALF * found.max()
    maps = {name: draw(request, name) for name in OTHERS}
    agree = [
        name for name, other in maps.items() if other.max() > 0.0 and hot[np.unravel_index(other.argmax(), hot.shape)]
    ]
    agreement = Finding(
        "good" if len(agree) == len(maps) else "mixed" if agree else "poor",
        Sentence(
            "{agree} of {count} other methods peak in the same place.", agree=str(len(agree)), count=str(len(maps))
        ),
        Sentence("{methods}: on heat of half its maximum.", methods=", ".join(METHODS[name].title for name in maps)),
    )
    (changed,) = stability(request, DEFAULT, found, fair_changes(request.classifier.card)[:1])
    subject = request.classifier.card.subject
    shares = shortcuts.shortcut_shares(explanation.radiograph.display(), found, explanation.placement, subject)
    meeting = _meeting(request.classifier.card, explanation)
    return (*([meeting] if meeting else []), _shortcuts(shares, subject), agreement, _same(changed))


def _meeting(card: ModelCard, explanation: Explanation) -> Finding | None:
    """Whether heatmap and fracture outline agree about where; None where no fracture is seen, or nothing is hot."""
    odds = explanation.fracture_odds()
    hot = hottest(explanation.heat(explanation.prediction.best))
    if odds is None or presence(explanation, card.presence) in (None, "none") or not hot.any():
        return None
    inside = float((odds[hot] >= 0.5).mean())
    told = Sentence("{share} of the hottest region lies inside the outline.", share=percent(inside))
    if inside > 0.0:
        return Finding("good", Sentence("The hottest region and the fracture outline meet."), told)
    apart = Sentence("The hottest region and the fracture outline do not meet: the model gives two answers.")
    return Finding("poor", apart, told)


def _same(changed: Stable) -> Finding:
    """Whether one change leaves the map as it was."""
    steady = changed.correlation >= STABLE
    if changed.title == "mirrored":
        same = Sentence("The mirrored X-ray gives a similar map.")
        other = Sentence("The mirrored X-ray gives another map.")
    else:
        same = Sentence("The slightly turned X-ray gives a similar map.")
        other = Sentence("The slightly turned X-ray gives another map.")
    return Finding(
        "good" if steady else "mixed" if changed.correlation > 0.0 else "poor",
        same if steady else other,
        Sentence(
            "Rank correlation {value}; {wanted} is wanted.", value=f"{changed.correlation:.2f}", wanted=str(STABLE)
        ),
    )


def chart(title: str, found: Faithfulness, which: str, ends: tuple[str, str]) -> str:
    """The curve of one measure among those of the random maps, as SVG; ``ends`` are those of its axis, as HTML."""
    width, height, margin = 300.0, 170.0, 28.0

    def curve(values: np.ndarray, style: str) -> str:
        points = " ".join(
            f"{margin + share * (width - margin - 6):.1f},{height - margin - value * (height - margin - 8):.1f}"
            for share, value in zip(SHARES, values, strict=True)
        )
        return f"<polyline points='{points}' class='{style}'/>"

    curves = "".join(curve(getattr(each, which), "random") for each in found.random)
    axis = (
        f"<path class='axis' d='M{margin} 8V{height - margin}H{width - 6}'/>"
        f"<text x='{margin}' y='{height - 8}'>{ends[0]}</text><text x='{width - 6}' y='{height - 8}' "
        f"text-anchor='end'>{ends[1]}</text><text x='{margin - 4}' y='16' text-anchor='end'>1</text>"
        f"<text x='{margin - 4}' y='{height - margin}' text-anchor='end'>0</text>"
    )
    return (
        f"<figure><svg viewBox='0 0 {width} {height}' role='img' aria-label='{title}'>{axis}{curves}"
        f"{curve(getattr(found.real, which), 'real')}</svg><figcaption dir='auto'>{title}</figcaption></figure>"
    )


def pointing(found: Faithfulness) -> Finding:
    """Whether the map points at what the score needs."""
    margins, beaten, count = found.margins(), found.beaten(), len(found.random)
    areas = {"deletion": found.real.deletion_area, "insertion": found.real.insertion_area, "ROAD": found.real.road}
    parts = [
        Sentence(
            "{measure} {area}, margin {margin}, ahead of {beaten} of {count}",
            measure=measure(name),
            area=f"{areas[name]:.3f}",
            margin=f"{margin:+.3f}",
            beaten=str(beaten[name]),
            count=str(count),
        )
        for name, margin in margins.items()
    ]
    words = Sentence(
        "Areas under the curves, and margins over random maps (this one moved elsewhere), in units of probability: "
        "{figures}. One random map in {count} is ahead of all others too.",
        figures=Sentence.listed("{one}; {other}", parts),
        count=str(count + 1),
    )
    won = len(found.won())
    if won == 3:
        return Finding("good", Sentence("It points at what the score needs."), words)
    if won == 2:
        return Finding("mixed", Sentence("It points at what the score needs by two measures of three."), words)
    if min(margins.values()) > 0.0:
        return Finding(
            "mixed", Sentence("It does better than random maps on average, but some of them do as well."), words
        )
    return Finding("poor", Sentence("It does not point at what the score needs better than chance does."), words)


def dependence(randomised: Sequence[Randomised]) -> Finding:
    """Whether the map shows what the model has learnt."""
    head, last = randomised[0].correlation, randomised[-1].correlation
    if last is None:
        words = Sentence("Randomised, the network leaves no heat to compare with.")
        return Finding("mixed", Sentence("Whether it depends on the model cannot be said."), words)
    figures = Sentence(
        "Rank correlation, whatever its sign, with maps of the fully randomised network: {value}, under {wanted} is "
        "wanted (mean of {count}). {head}",
        value=f"{last:.2f}",
        wanted=str(UNCHANGED),
        count=str(len(randomised[-1].correlations)),
        head=_alone(head),
    )
    if last >= UNCHANGED:
        return Finding("poor", Sentence("It does not depend on the model: a red flag."), figures)
    if head is not None and head >= SAME_FOR_ANY_TYPE:
        return Finding("poor", Sentence("It depends on the model, but not on the type asked about."), figures)
    return Finding("good", Sentence("It changes with the model, as it should."), figures)


def _alone(head: float | None) -> Sentence:
    """What is left once the head alone is randomised."""
    if head is None:
        return Sentence("With the head alone randomised no heat is left.")
    return Sentence(
        "With the head alone randomised: {value}; from {limit} on a map would be the same for any type.",
        value=f"{head:.2f}",
        limit=str(SAME_FOR_ANY_TYPE),
    )


def _steadiness(mean: float, stable: Sequence[Stable]) -> Finding:
    """One change that moves the map is not made good by others, as the quick check of one of them says too."""
    parts = [
        Sentence("{change} {value}", change=Sentence(each.title), value=f"{each.correlation:.2f}") for each in stable
    ]
    each_told = Sentence.listed("{one}; {other}", parts)
    figures = Sentence("Mean rank correlation {value}: {changes}.", value=f"{mean:.2f}", changes=each_told)
    moved = [Sentence(each.title) for each in stable if each.correlation < STABLE]
    if mean < STABLE:
        return Finding("poor", Sentence("Small changes of the X-ray change it."), figures)
    if moved:
        changes = Sentence.listed("{one}, {other}", moved)
        return Finding(
            "mixed", Sentence("It is stable, but not under these changes: {changes}.", changes=changes), figures
        )
    return Finding("good", Sentence("It is stable."), figures)


def _shortcuts(found: Shortcuts, subject: Subject) -> Finding:
    parts = [
        Sentence("{share} on {place}", share=percent(share), place=Sentence(KINDS[kind]))
        for kind, share in found.shares.items()
    ]
    figures = Sentence("Of its heat: {shares}.", shares=Sentence.listed("{one}; {other}", parts))
    where = Sentence(shortcuts.nowhere(subject))
    if found.warns:
        words = Sentence("{share} of its heat lies {where}.", share=percent(found.total), where=where)
        return Finding("poor", words, figures)
    return Finding("good", Sentence("Little of its heat lies {where}.", where=where), figures)


@dataclass(frozen=True)
class Hidden:
    """A model's answers to an image before and after a region of it was blurred; ``share`` is the region's, 0 to 1."""

    share: float
    before: Explanation
    after: Explanation

    @property
    def full_colour(self) -> float:
        """One scale for both maps, in logits, so that heat that fades is seen to fade."""
        return max(self.before.full_colour, self.after.full_colour)


def _as_radiograph(image: np.ndarray) -> Radiograph:
    if image.ndim == 2:
        return Radiograph(image, (0, 255))
    return Radiograph(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 255), colours=image)


def hide(classifier: Classifier, image: np.ndarray, layers: Sequence[np.ndarray]) -> Hidden | None:
    """Predicts an image with and without what is painted over.

    Args:
        classifier: the model.
        image: uint8 (H, W), or (H, W, 3) in colour.
        layers: what was painted, RGBA uint8 of any size; whatever is not transparent is hidden.

    Returns:
        None where nothing is painted.
    """
    hidden = np.zeros(image.shape[:2], bool)
    for layer in layers:
        hidden |= cv2.resize(layer[:, :, 3], hidden.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    if not hidden.any():
        return None
    blurred = cv2.GaussianBlur(image, (0, 0), max(hidden.shape) / 16.0)
    mixed = np.where(hidden if image.ndim == 2 else hidden[:, :, None], blurred, image)
    both = [_as_radiograph(each) for each in (image, mixed)]
    return Hidden(float(hidden.mean()), *classifier.explain(both))
