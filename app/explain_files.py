"""What ``python -m app explain`` does with a file: read it, check it, classify it, draw the map, write the results."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import unicodedata
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer
from PIL import Image

from app.errors import ImageError, RejectedError
from app.explain import methods
from app.explain.method_list import DEFAULT, METHODS
from app.explain.overlay import heatmap, overlay, panel
from app.imaging.dicom import is_dicom, parse
from app.imaging.radiograph import MAX_BYTES, Radiograph, decode, dicom_image, load
from app.model.classifier import Classifier, Explanation
from app.model.trust import IN_WORDS, UNLIKE, answers, presence
from app.model.weights import ModelCard
from app.result_folders import SUMMARY, ResultFolders, Source
from app.watch import Progress

__all__ = ["STDIN", "Wanted", "explain_file", "printable"]

STDIN = "-"
OVERLAY, HEATMAP = "overlay.png", "heatmap.png"
DISCLAIMER = "For study, not for diagnosis. Not a medical device."


@dataclass(frozen=True)
class Wanted:
    """What to explain and how.

    Attributes:
        target: type to explain; the predicted one where absent.
        against: type to tell it from; the likeliest other one where absent.
        method: a key of ``METHODS``.
        frame: which of a file's pictures, from 1.
        anyway: explain pictures unlike any radiograph as well.
    """

    target: str | None = None
    against: str | None = None
    method: str = DEFAULT
    frame: int = 1
    anyway: bool = False


def explain_file(classifier: Classifier, path: str, wanted: Wanted, folders: ResultFolders) -> bool:
    """Explains one image into a folder of its own; one line goes to the output, what else is to be said to the errors.

    Args:
        classifier: the model.
        path: of a file or a pipe, or ``-`` for the standard input.
        wanted: what to explain and how.
        folders: where to write.

    Returns:
        Whether the results are written.
    """

    def warn(sentence: str) -> None:
        typer.echo(f"{printable(path)}: {sentence}", err=True)

    try:
        data = _bytes(path)
        film = _film(data, wanted.frame)
        for note in film.notes:
            warn(note)
        unlike = classifier.check(film, anyway=wanted.anyway)
        explanation = classifier.explain([film])[0]
        target = wanted.target or explanation.prediction.best
        heat = _heat(classifier, explanation, target, wanted)
    except RejectedError as error:
        warn(f"{error} --anyway explains it nevertheless.")
        return False
    except ValueError as error:  # a ImageError, or types that cannot be told apart
        warn(str(error))
        return False
    source = Source(_name(path), hashlib.sha256(data).hexdigest(), wanted.frame)
    told = answers(classifier.card, explanation, unlike=unlike)
    try:
        _write(source, told, explanation, target, wanted.method, heat, folders.claim(source))
    except OSError as error:
        warn(f"cannot write the results ({error.strerror or 'unknown reason'}).")
        return False
    typer.echo(f"{printable(path)}: {_line(classifier.card, explanation, target)}")
    if unlike:
        warn(UNLIKE)
    return True


def printable(path: str) -> str:
    """A path as one line of text: what would steer a terminal, or is no text at all, is a replacement character."""
    unsafe = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in unsafe else c for c in path)


def _name(path: str) -> str:
    """The file's name as text; the folders it lies in may name a person and are nobody's business."""
    return os.fsencode(Path(path).name or path).decode("utf-8", "replace")


def _bytes(path: str) -> bytes:
    """A whole file, or all that comes out of a pipe, which can be read once only."""
    try:
        if path == STDIN:
            if sys.stdin is None:
                raise ImageError("The standard input is closed.")
            return _limited(sys.stdin.buffer.read(MAX_BYTES + 1))
        place = Path(path)
        if place.exists() and not place.is_file() and not place.is_dir():
            with place.open("rb") as stream:
                return _limited(stream.read(MAX_BYTES + 1))
    except OSError:
        raise ImageError("It cannot be opened; perhaps it may not be read.") from None
    return load(path)


def _limited(data: bytes) -> bytes:
    if len(data) > MAX_BYTES:
        raise ImageError(f"More than {MAX_BYTES // 2**20} MB came in, which is more than can be read.")
    return data


def _film(data: bytes, frame: int) -> Radiograph:
    if frame == 1:
        return decode(data)
    if not is_dicom(data):
        raise ImageError(f"There is no frame {frame}: frames can be chosen in DICOM files only, and this is none.")
    return dicom_image(parse(data), frame - 1)


def _heat(classifier: Classifier, explanation: Explanation, target: str, wanted: Wanted) -> np.ndarray:
    if wanted.method == DEFAULT:
        return explanation.heat(target)
    # To standard error, so that what is piped onwards is the verdicts alone.
    with typer.progressbar(length=100, label=METHODS[wanted.method].title, file=sys.stderr) as bar:
        watch = Progress(tell=lambda share: bar.update(max(0, round(100 * share) - bar.pos)))
        question = methods.map_request(classifier, explanation.radiograph, target, wanted.against, watch)
        return methods.heat(methods.draw(question, wanted.method), explanation.placement)


def _line(card: ModelCard, explanation: Explanation, target: str) -> str:
    prediction = explanation.prediction
    seen = presence(explanation, card.presence)
    first = "" if seen is None else f"{IN_WORDS[seen].lower()}; "
    top = ", ".join(f"{name} {prediction.probability(name):.0%}" for name in prediction.ranking[:3])
    shown = f"map of {target}" if explanation.has_evidence(target) else f"no positive evidence for {target}"
    return f"{first}{top}; {shown}"


def _summary(
    source: Source, told: dict[str, Any], explanation: Explanation, target: str, method: str
) -> dict[str, Any]:
    prediction = explanation.prediction
    return {
        "notice": DISCLAIMER,
        "file": asdict(source),
        "model": explanation.model,
        "predicted": prediction.best,
        **told,
        "explained": target,
        "method": method,
        "film": {
            "height": explanation.radiograph.height,
            "width": explanation.radiograph.width,
        },
        "full_colour": explanation.full_colour,
        "types": [
            {
                "name": name,
                "probability": prediction.probability(name),
                "logit": float(prediction.logits[prediction.classes.index(name)]),
                "peak_evidence": explanation.peak(name),
                "has_evidence": explanation.has_evidence(name),
                "evidence_outside_film": explanation.padding_share(name),
            }
            for name in prediction.ranking
        ],
    }


def _write(
    source: Source,
    told: dict[str, Any],
    explanation: Explanation,
    target: str,
    method: str,
    heat: np.ndarray,
    folder: Path,
) -> None:
    # The disk may be full halfway: pictures of an earlier run must not lie beside a summary of this one.
    for name in (OVERLAY, HEATMAP):
        (folder / name).unlink(missing_ok=True)
    summary = json.dumps(_summary(source, told, explanation, target, method), indent=1)
    (folder / SUMMARY).write_text(summary + "\n", encoding="utf-8")
    painted = panel(explanation, target) if method == DEFAULT else overlay(explanation.radiograph.display(), heat)
    Image.fromarray(painted).save(folder / OVERLAY)
    Image.fromarray(heatmap(heat)).save(folder / HEATMAP)
