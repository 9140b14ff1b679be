"""The one way in: an image to a ``Result``, for the page, the command line, the API and Python.

    result = explain_image("wrist.dcm", method="layercam")
    result.save(Path("out"))

``Result.as_json`` is the one answer for programs, an ``app.document.Document``.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image

from app.document import OOD, SCHEMA, Document, Fracture, Map, Model, PredictedType, SourceImage, Square, Type
from app.errors import ChoiceError, ImageError, Progress
from app.explain import DEFAULT, METHODS, methods
from app.explain.overlay import levels, overlay, palette, panel
from app.imaging.dicom import is_dicom, parse
from app.imaging.letterbox import Placement
from app.imaging.radiograph import MAX_BYTES, Radiograph, decode, dicom_image, load
from app.model.classifier import (
    IN_WORDS,
    LIKENESS_WARNINGS,
    Classifier,
    Explanation,
    FractureFinding,
    possible_types,
    presence,
)
from app.model.engines import Choice
from app.model.ood import Likeness
from app.model.reliability import how_sure
from app.model.weights import ModelCard, known
from app.result_folders import SUMMARY, UNFINISHED, Source

__all__ = [
    "CAPTURE",
    "HEATMAP",
    "MAP",
    "OVERLAY",
    "RAW_MAP",
    "REPORT",
    "Document",
    "OpenedImage",
    "Result",
    "explain_image",
    "heatmap_png",
    "load_classifier",
    "open_image",
    "png",
]

OVERLAY, HEATMAP = "overlay.png", "heatmap.png"
MAP, RAW_MAP, REPORT, CAPTURE = "map16.png", "map.npy", "report.pdf", "secondary-capture.dcm"
PARTS = (OVERLAY, HEATMAP, MAP, RAW_MAP, REPORT, CAPTURE)
"""Every file that may lie beside the JSON of a result."""


@dataclass(frozen=True, eq=False)
class OpenedImage:
    """A decoded image, where it came from, and the file's bytes where it is DICOM."""

    radiograph: Radiograph
    source: Source
    dicom: bytes | None = None


@dataclass(frozen=True, eq=False)
class Result:
    """Everything that is known of one image.

    Attributes:
        explanation: prediction and every type's evidence.
        card: of the model.
        source: where the image came from.
        ood: whether the image is like those of the reference set.
        target: the type that is explained.
        against: the type it is told from, by methods that need one.
        method: a key of ``METHODS``.
        square: the image as the model saw it, float32 (S, S) in 0..1.
        found: the method's map over the square, float32 (h, w), at least 0; None for the default method, whose map is
            the explanation's.
    """

    explanation: Explanation
    card: ModelCard
    source: Source
    ood: OOD
    target: str
    against: str | None
    method: str
    square: np.ndarray
    found: np.ndarray | None

    @cached_property
    def heat(self) -> np.ndarray:
        """The map on the image: float32 (H, W) in 0..1."""
        if self.found is None:
            return self.explanation.heat(self.target)
        return methods.heat(self.found, self.explanation.placement)

    @property
    def finding(self) -> FractureFinding | None:
        """Whether a fracture is seen, of whatever type; None from models that were not taught to tell."""
        return presence(self.explanation, self.card.presence)

    def overlay(self) -> np.ndarray:
        """The image with the map over it, and its scale where it has one: RGB uint8 (H, W or more, 3)."""
        if self.found is None:
            return panel(self.explanation, self.target)
        return overlay(self.explanation.radiograph.shown(), self.heat)

    @property
    def raw(self) -> np.ndarray:
        """The map as the method gave it over the model's square: float32 (h, w), in logits or the method's own unit."""
        return self.explanation.evidence(self.target) if self.found is None else self.found

    @property
    def scale(self) -> float:
        """What heat 1 stands for, in the unit of ``raw``."""
        return self.explanation.full_colour if self.found is None else max(0.0, float(self.found.max()))

    def as_json(self, files: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The result as ``docs/explanation.schema.json`` lays it out.

        Args:
            files: SHA-256 of what is written beside it, by name.
        """
        explanation, card, radiograph = self.explanation, self.card, self.explanation.radiograph
        document = Document(
            schema=SCHEMA,
            notice=card.intended_use,
            source=SourceImage(
                **asdict(self.source),
                height=radiograph.height,
                width=radiograph.width,
                modality=radiograph.modality or None,
                notes=list(radiograph.notes),
            ),
            model=Model(
                name=card.name,
                title=card.title,
                sha256=card.weights.sha256,
                engine=explanation.engine,
                precision=explanation.precision,
            ),
            ood=self.ood,
            fracture=Fracture(
                finding=self.finding, words=card.subject.retell(IN_WORDS[self.finding]) if self.finding else None
            ),
            prediction=_predicted(explanation, card),
            map=Map(
                target=self.target,
                against=self.against,
                method=self.method,
                full_colour=explanation.full_colour if self.found is None else None,
                scale=self.scale,
                square=_square(explanation.placement),
            ),
            files=dict(files or {}),
        )
        return document.model_dump(mode="json", by_alias=True)

    def files(self, more: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
        """Both pictures, further parts as ``app.bundle`` makes them, and last the JSON with their SHA-256, by name."""
        parts = {OVERLAY: png(self.overlay()), HEATMAP: heatmap_png(self.heat), **(more or {})}
        document = self.as_json({name: hashlib.sha256(data).hexdigest() for name, data in parts.items()})
        return {**parts, SUMMARY: (json.dumps(document, indent=1) + "\n").encode()}

    def save(self, folder: Path, more: Mapping[str, bytes] | None = None) -> None:
        """Writes ``files`` into a folder, made where need be; parts of an earlier result there are deleted first.

        Raises:
            OSError: it cannot be written.
        """
        files = self.files(more)
        folder.mkdir(parents=True, exist_ok=True)
        # Whatever breaks this off, no summary lies beside parts of another run.
        for name in (SUMMARY, *PARTS):
            (folder / name).unlink(missing_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        (folder / UNFINISHED).unlink(missing_ok=True)


def png(picture: np.ndarray) -> bytes:
    """A picture, uint8 (H, W) or (H, W, 3) or uint16 (H, W), as a file.

    zlib looks for runs of bytes alone, which takes half the time of its lowest level for a file as large (measured on
    drawings to 2400 x 2000).
    """
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE])
    assert done
    return data.tobytes()


def heatmap_png(heat: np.ndarray) -> bytes:
    """Heat, float32 (H, W) in 0..1, as a file, transparent where there is none: a palette, and a byte a pixel."""
    picture, colours, file = Image.fromarray(levels(heat), "P"), palette(), io.BytesIO()
    picture.putpalette(colours[:, :3].tobytes())
    picture.save(file, "PNG", transparency=colours[:, 3].tobytes(), compress_level=1)
    return file.getvalue()


def _square(placement: Placement) -> Square:
    return Square(**{name: getattr(placement, name) for name in Square.model_fields})


def _predicted(explanation: Explanation, card: ModelCard) -> PredictedType:
    prediction = explanation.prediction
    probability = prediction.probability(prediction.best)
    return PredictedType(
        type=prediction.best,
        probability=probability,
        confidence=how_sure(probability),
        possible_types=list(possible_types(prediction, card.sets)) if card.sets else None,
        level=card.sets.level if card.sets else None,
        types=[
            Type(
                name=name,
                probability=prediction.probability(name),
                logit=float(prediction.logits[prediction.classes.index(name)]),
                peak_evidence=explanation.peak(name),
                has_evidence=explanation.has_evidence(name),
                evidence_outside_image=explanation.padding_share(name),
            )
            for name in prediction.ranking
        ],
    )


def explain_image(
    source: str | Path | bytes | BinaryIO | Radiograph | OpenedImage,
    *,
    model: str | Classifier | None = None,
    method: str = DEFAULT,
    target: str | None = None,
    against: str | None = None,
    frame: int | None = None,
    window: str | None = None,
    anyway: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Reads an image, checks it, names its fracture type and maps the evidence.

    Args:
        source: path, file, the bytes of one, or an image that is decoded already.
        model: a model or its name; the best one where absent.
        method: a key of ``METHODS``.
        target: type to explain; the predicted one where absent.
        against: type to tell it from, for methods that need one; the likeliest other one where absent.
        frame: which picture of a DICOM file, from 1; the first where absent.
        window: which of a DICOM file's windows, by name; its own where absent.
        anyway: explain an image that is out of distribution too.
        progress: receives how far slow methods are, and may stop them.

    Raises:
        ImageError: the image cannot be read, or has no such frame; RejectedError where it is out of distribution.
        ChoiceError: no such method, type or window, or a frame of a file that has none.
        WeightsError: no such model, or one that cannot be used.
        Cancelled: ``progress`` stopped the work.
    """
    if method not in METHODS:
        raise ChoiceError(f"There is no method '{method}'. Known: {', '.join(METHODS)}.")
    classifier = model if isinstance(model, Classifier) else load_classifier(model)
    for name in (target, against):
        if name is not None and name not in classifier.classes:
            raise ChoiceError(f"'{name}' is not a type this model knows. Known: {', '.join(classifier.classes)}.")
    opened = open_image(source, frame=frame, window=window)
    boxed = classifier.boxed(opened.radiograph)
    likeness = classifier.check(opened.radiograph, anyway=anyway)
    ood = OOD(state=likeness, words=_warning(classifier, likeness))
    explanation = classifier.explain_boxed([opened.radiograph], [boxed])[0]
    target = target or explanation.prediction.best
    contrasts = METHODS[method].contrasts
    found = other = None
    if method != DEFAULT:
        try:
            request = methods.map_request(classifier, boxed[0], target, against if contrasts else None, progress)
        except ValueError as error:
            raise ChoiceError(str(error)) from None
        found = methods.draw(request, method)
        other = classifier.classes[request.against] if contrasts else None
    return Result(
        explanation=explanation,
        card=classifier.card,
        source=opened.source,
        ood=ood,
        target=target,
        against=other,
        method=method,
        square=boxed[0],
        found=found,
    )


def _warning(classifier: Classifier, likeness: Likeness | None) -> str | None:
    words = LIKENESS_WARNINGS.get(likeness) if likeness else None
    return classifier.card.subject.retell(words) if words else None


def load_classifier(name: str | None = None, *, engine: Choice = "torch") -> Classifier:
    """A model by name, the best one where none is given; the one asked for last is kept.

    Raises:
        WeightsError: there is none, or it cannot be used; see ``Classifier.load``, also for ``engine``.
    """
    return _loaded(name or known()[0], engine=engine)


_loaded = lru_cache(maxsize=1)(Classifier.load)


def open_image(
    source: str | Path | bytes | BinaryIO | Radiograph | OpenedImage,
    *,
    name: str | None = None,
    frame: int | None = None,
    window: str | None = None,
) -> OpenedImage:
    """Reads and decodes an image.

    Args:
        source: as for ``explain_image``; a pipe or a file object is read once, and no further than need be.
        name: what to call it; its file name where absent.
        frame, window: as for ``explain_image``.

    Raises:
        ImageError: it cannot be read.
        ChoiceError: there is no such frame or window.
    """
    if isinstance(source, (Radiograph, OpenedImage)):
        if frame is not None or window is not None:
            raise ChoiceError("This image is decoded already, so that no frame or window can be chosen.")
        return source if isinstance(source, OpenedImage) else OpenedImage(source, Source(name=name))
    if isinstance(source, bytes):
        data = source
    elif isinstance(source, (str, Path)):
        data, name = _bytes(Path(source)), name or _name(source)
    else:
        data = _limited(source)
        own = getattr(source, "name", None)  # a number where the file was opened by its descriptor
        name = name or (_name(own) if isinstance(own, str) else None)
    where = Source(name=name, sha256=hashlib.sha256(data).hexdigest(), frame=frame or 1, window=window)
    return OpenedImage(_decoded(data, frame, window), where, data if is_dicom(data) else None)


def _decoded(data: bytes, frame: int | None, window: str | None) -> Radiograph:
    if frame in (None, 1) and window is None:
        return decode(data)
    if frame is not None and frame < 1:
        raise ChoiceError("Frames are counted from 1.")
    if len(data) > MAX_BYTES or not is_dicom(data):
        decode(data)  # says what is wrong with the file, if anything is
        wanted = f"frame {frame}" if frame is not None else f"window '{window}'"
        raise ChoiceError(
            f"There is no {wanted}: frames and windows can be chosen in DICOM files only, and this is none."
        )
    file = parse(data)
    if window is not None and window not in file.windows:
        raise ChoiceError(f"There is no window '{window}'. Known: {', '.join(file.windows) or 'none'}.")
    return dicom_image(file, (frame or 1) - 1, window)


def _name(path: str | Path) -> str:
    """The file's name as text; the folders it lies in may name a person and are nobody's business."""
    return os.fsencode(Path(path).name or path).decode("utf-8", "replace")


def _bytes(path: Path) -> bytes:
    """A whole file, or all that comes out of a pipe, which can be read once only."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            with path.open("rb") as stream:
                return _limited(stream)
    except OSError:
        raise ImageError("It cannot be opened; perhaps it may not be read.") from None
    return load(path)


def _limited(stream: BinaryIO) -> bytes:
    data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ImageError(f"More than {MAX_BYTES // 2**20} MB came in, which is more than can be read.")
    return data
