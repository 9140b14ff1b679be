"""What the page without a server has to know and to say: figures, limits and sentences, as JSON.

The server makes its sentences for one picture at a time; a page alone has to have them all. They are made here by the
same functions, in English and in the words of the model's subject, so that both say the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from app.errors import ImageError
from app.explain import overlay, regions
from app.imaging import pixels, radiograph
from app.imaging.dicom import OTHERS, TRAINED_ON
from app.model import classifier as judging
from app.model import reliability
from app.model.classifier import Classifier, FractureFinding
from app.model.ood import Detector
from app.model.weights import ModelCard
from app.sentence import Sentence
from app.ui import text
from app.ui.languages import about, say
from app.ui.page import LEAD, heading
from app.ui.painted import DIMMED
from app.ui.session import SCREEN

__all__ = ["SOURCES", "web_card"]

SOURCES = Path(__file__).parent / "web"
OPACITY = 0.6
"""Of the heat in full colour, as on the served page before anybody changes it."""
FINDINGS: tuple[FractureFinding, ...] = ("none", "suspicious", "definite")


def _steps(words: Callable[[float], str]) -> list[tuple[float, str]]:
    """What is said of a probability, by the least one that it is said of, highest first; bounds are whole percents."""
    found = [(0.0, words(0.0))]
    for percent in range(1, 101):
        if (told := words(percent / 100)) != found[-1][1]:
            found.append((percent / 100, told))
    return found[::-1]


def _retold(card: ModelCard, words: dict[str, Any]) -> dict[str, Any]:
    """Sentences about fractures on X-rays, however deep, in the words of the model's subject."""
    return {
        key: _retold(card, told) if isinstance(told, dict) else card.subject.retell(told) for key, told in words.items()
    }


def _classes(card: ModelCard) -> list[dict[str, Any]]:
    titles, short = text.titles(card), text.short_titles(card)
    return [
        {
            "name": kind.name,
            "title": titles[kind.name],
            "short": short[kind.name],
            "meaning": text.GLOSSARY.get(kind.name, "") if card.subject.ours else "",
            "tested": [say(each) for each in text.test_figures(card, kind.name)],
        }
        for kind in card.classes
    ]


def _records(card: ModelCard) -> list[str]:
    """How often the model was right, by how sure it was, in as many parts as that was measured in."""
    calibration = card.metrics.get("cross_validation", {}).get("expected_calibration_error", {})
    parts = len(calibration.get("bins") or [])
    found = [text.record_at(card, (place + 0.5) / parts) for place in range(parts)]
    return [say(each) for each in found if each is not None]


def _errors(card: ModelCard, how: Callable[[ModelCard, FractureFinding], Sentence | None]) -> dict[str, str]:
    found = {seen: how(card, seen) for seen in FINDINGS} if card.presence else {}
    return {seen: say(told) for seen, told in found.items() if told is not None}


def _words(card: ModelCard) -> dict[str, Any]:
    """Sentences of the page's own, and those that the rest of the app has at hand."""
    own = json.loads((SOURCES / "words.json").read_text(encoding="utf-8"))
    ours = {
        "rejected": judging.REJECTED,
        "modalities": dict(OTHERS),
        "likeness": dict(judging.LIKENESS_WARNINGS),
        "found": dict(judging.IN_WORDS),
        "outlined": dict(text.OUTLINED),
        "no_evidence": overlay.NO_EVIDENCE,
        "in_colour": pixels.IN_COLOUR,
        "damaged": radiograph.DAMAGED,
        "blank": radiograph.BLANK,
        "empty": _refusal(b""),
        "reading": text.READING,
        "point": text.POINT,
        "uncalibrated": text.UNCALIBRATED,
        "failed": text.OURS,
    }
    return _retold(card, {**own, **ours})


def _refusal(data: bytes) -> str:
    try:
        radiograph.decode(data)
    except ImageError as error:
        return str(error)
    raise AssertionError("only what cannot be read is asked for")


def _detector(detector: Detector | None) -> dict[str, Any] | None:
    if detector is None:
        return None
    card = detector.card
    return {
        "size": card.size,
        "colour": card.colour,
        "warning": card.warning,
        "rejection": card.rejection,
        "distance": detector.precision is not None,
    }


def _inferno() -> list[list[int]]:
    """The 256 colours of heat, RGB."""
    levels = np.arange(256, dtype=np.uint8)[None]
    return cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)[0].tolist()


def web_card(model: Classifier) -> dict[str, Any]:
    """All that the page without a server knows of a model, to be written as JSON."""
    card = model.card
    with about(card.subject):
        return {
            "name": card.name,
            "title": card.title,
            "heading": heading(card),
            "lead": say(LEAD, count=str(len(card.classes))),
            "intended_use": card.intended_use,
            "sha256": card.weights.sha256,
            "classes": _classes(card),
            "size": card.size,
            "colour": card.colour,
            "typical_evidence": card.typical_evidence,
            "presence": card.presence.model_dump() if card.presence else None,
            "sets": card.sets.model_dump() if card.sets else None,
            "calibrated": card.calibrated,
            "ood": _detector(model.detector),
            "confidence": _steps(reliability.confidence),
            "sure": _steps(reliability.how_sure),
            "records": _records(card),
            "errors": _errors(card, text.errors_of),
            "wrong": _errors(card, text.wrong_in_short),
            "always": say(text.always(card)),
            "words": _words(card),
            "radiographs": sorted(TRAINED_ON),
            "limits": {
                "bytes": radiograph.MAX_BYTES,
                "pixels": radiograph.MAX_PIXELS,
                "side": radiograph.MIN_SIDE,
                "ratio": radiograph.MAX_RATIO,
                "screen": SCREEN,
                "pale": radiograph.PALE,
                "chroma": pixels.CHROMA,
                "share": pixels.SHARE,
            },
            "drawing": {
                "colours": _inferno(),
                "opacity": OPACITY,
                "faint": judging.FAINT,
                "hottest": overlay.HOTTEST,
                "visible": overlay.VISIBLE,
                "regions": regions.MOST,
                "outside": text.WORTH_SAYING,
                "contour": overlay.CONTOUR_COLOUR,
                "edge": overlay.CONTOUR_EDGE,
                "fracture": overlay.FRACTURE_COLOUR,
                "legend": overlay.gradient("inferno", OPACITY),
                "dimmed": DIMMED,
                "legend_dimmed": overlay.gradient("inferno", DIMMED * OPACITY),
            },
        }
