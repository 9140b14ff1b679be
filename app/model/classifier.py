"""The one object everything else talks to: radiographs in, explanations out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from app.errors import RejectedError, WeightsError
from app.imaging.examples import BREAKS, draw
from app.imaging.letterbox import Placement, letterbox, normalise
from app.imaging.radiograph import Radiograph
from app.model.backbones import ARCHITECTURES
from app.model.engines import Choice, Engine, Prepared, chosen, like
from app.model.network import FractureNetwork, channels_last
from app.model.ood import Detector, Likeness
from app.model.precision import Precision
from app.model.subject import OURS
from app.model.weights import DEFAULT_FOLDER, ModelCard, PredictionSets, PresencePoints, load_network

__all__ = [
    "IN_WORDS",
    "LIKENESS_WARNINGS",
    "Classifier",
    "Explanation",
    "FractureFinding",
    "Prediction",
    "possible_types",
    "prepare",
    "presence",
]

FractureFinding = Literal["none", "suspicious", "definite"]

IN_WORDS: dict[FractureFinding, str] = {
    "none": "No fracture seen",
    "suspicious": "Possible fracture",
    "definite": "Fracture seen",
}

REJECTED = "This does not look like any radiograph known here, so there is no prediction."

LIKENESS_WARNINGS: dict[Likeness, str] = {
    "out-of-distribution": "Unlike any radiograph known here: do not believe this.",
    "unusual": "An unusual radiograph: believe this even less than usual.",
}

FAINT = 0.1
"""Share of full colour up to which a map counts as showing nothing: that little paint cannot be seen, and stretching it
to full colour would turn noise into a finding."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model predicts for one image.

    Attributes:
        classes: names, in the order of the arrays.
        logits: float32 (C,).
        probabilities: float32 (C,), softmax of logits / temperature; they sum to 1.
    """

    classes: tuple[str, ...]
    logits: np.ndarray
    probabilities: np.ndarray

    @cached_property
    def ranking(self) -> tuple[str, ...]:
        """Class names, the most probable first."""
        return tuple(self.classes[i] for i in np.argsort(-self.probabilities, kind="stable"))

    @property
    def best(self) -> str:
        return self.ranking[0]

    def probability(self, name: str) -> float:
        """Raises ValueError for a class the model does not have."""
        return float(self.probabilities[self.classes.index(name)])


@dataclass(frozen=True, eq=False)
class Explanation:
    """One image, what was predicted, and the evidence behind every class.

    Attributes:
        radiograph: as decoded.
        placement: where the image lies in the model's square.
        prediction: over all classes.
        maps: float32 (C, h, w), in logits: the mean of a class's map plus its bias is its logit.
        biases: float32 (C,).
        fracture: float32 (h, w), logits of a fracture lying in each cell; None from models without a fracture map.
        typical_evidence: of the model, from its card; the least that is drawn in full colour.
        model: name of the model.
        engine: what computed all this.
        precision: in which the backbone was computed.
    """

    radiograph: Radiograph
    placement: Placement
    prediction: Prediction
    maps: np.ndarray
    biases: np.ndarray
    fracture: np.ndarray | None
    typical_evidence: float
    model: str
    engine: Engine = "torch"
    precision: Precision = "float32"

    def evidence(self, name: str) -> np.ndarray:
        """A class's map, float32 (h, w), in logits."""
        return self.maps[self.prediction.classes.index(name)]

    def terms(self, name: str) -> tuple[float, float, float]:
        """Evidence for a class, evidence against it (at most 0) and the bias, in logits: they add up to its logit."""
        found = self.evidence(name)
        bias = float(self.biases[self.prediction.classes.index(name)])
        return float(np.clip(found, 0.0, None).mean()), float(np.clip(found, None, 0.0).mean()), bias

    @cached_property
    def presence(self) -> float | None:
        """Log odds of a fracture anywhere: the odds of all cells add up to its own. None without a fracture map."""
        return None if self.fracture is None else float(np.logaddexp.reduce(self.fracture, axis=None))

    def fracture_odds(self) -> np.ndarray | None:
        """Odds of a fracture relative to the likeliest cell: float32 (image height, image width) up to 1."""
        if self.fracture is None:
            return None
        return np.clip(self.placement.onto_image(np.exp(self.fracture - self.fracture.max())), 0.0, 1.0)

    @cached_property
    def _image_share(self) -> np.ndarray:
        return 1.0 - self.placement.padding(*self.maps.shape[1:])

    def peak(self, name: str) -> float:
        """A class's strongest evidence in a cell that shows more of the image than padding, in logits."""
        share = self._image_share
        return float(self.evidence(name)[share >= min(0.5, float(share.max()))].max())

    @cached_property
    def full_colour(self) -> float:
        """Evidence drawn in full colour, in logits, the same for all classes so that their maps can be compared."""
        strongest = max(self.typical_evidence, *(self.peak(name) for name in self.prediction.classes))
        return strongest if strongest > 0.0 else 1.0

    def has_evidence(self, name: str) -> bool:
        """Whether anything on the image speaks for the class strongly enough to be drawn."""
        return self.peak(name) > FAINT * self.full_colour

    def heat(self, name: str, full_colour: float | None = None) -> np.ndarray:
        """The heatmap on the image: float32 in 0..1, (image height, image width).

        Zero where there is no positive evidence, one at ``full_colour``, the image's own or another's, so that two
        images can be drawn on one scale. All zero without evidence.
        """
        positive = np.clip(self.evidence(name) / (full_colour or self.full_colour), 0.0, None)
        if not self.has_evidence(name):
            positive = np.zeros_like(positive)
        return np.clip(self.placement.onto_image(positive), 0.0, 1.0)

    def padding_share(self, name: str) -> float:
        """Share of a class's positive evidence that lies outside the image, 0 to 1: heat nobody gets to see."""
        positive = np.clip(self.evidence(name), 0.0, None)
        total = float(positive.sum())
        return float((positive * (1.0 - self._image_share)).sum()) / total if total > 0 else 0.0

    def at_screen_size(self, longest: int) -> Explanation:
        """The same explanation over a smaller copy of the image, for pages that would not show the rest anyway.

        Args:
            longest: longest side wanted, in pixels; images that are smaller stay as they are.
        """
        if max(self.radiograph.height, self.radiograph.width) <= longest:
            return self
        radiograph = self.radiograph.scaled(longest)
        placement = Placement.fit(radiograph.height, radiograph.width, self.placement.size)
        return replace(self, radiograph=radiograph, placement=placement)


def presence(explanation: Explanation, points: PresencePoints | None) -> FractureFinding | None:
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


class Classifier:
    """A network with its card.

    Calls share nothing but the weights, which never change: any number of threads may explain at once.

    Args:
        network: in evaluation mode.
        card: the one the network was made for.
        detector: tells what is no radiograph; without one nothing is rejected.
        prepared: the network ready for an engine, to predict and to draw exact maps with; what needs gradients, or
            asks many times, asks the network itself.

    Attributes:
        engine: what was asked for to compute predictions.
    """

    def __init__(
        self,
        network: FractureNetwork,
        card: ModelCard,
        detector: Detector | None = None,
        prepared: Prepared | None = None,
    ) -> None:
        self.network = channels_last(network)
        self.prepared = prepared
        self.engine: Choice = "torch"
        self.card = card
        self.detector = detector
        self.classes = tuple(kind.name for kind in card.classes)

    @classmethod
    def load(cls, name: str, folder: Path = DEFAULT_FOLDER, *, engine: Choice = "torch") -> Classifier:
        """One model, and the detector beside it; otherwise as ``load_all``.

        Raises:
            WeightsError: the model or the detector cannot be used.
        """
        return cls.load_all([name], folder, engine=engine)[0]

    @classmethod
    def load_all(
        cls, names: Sequence[str], folder: Path = DEFAULT_FOLDER, *, engine: Choice = "torch"
    ) -> list[Classifier]:
        """Several models; those of X-rays without a detector of their own share the one beside them.

        Args:
            names: folders under ``folder``.
            engine: what computes predictions, as of ``prepare``, also in what that raises.

        Raises:
            WeightsError: a model or a detector cannot be used.
        """
        shared = Detector.load(folder)
        found = []
        for name in names:
            network, card = load_network(name, folder)
            detector = Detector.load(folder / name) or (shared if card.subject.image == OURS.image else None)
            found.append(cls(network, card, detector))
        prepare(found, engine)
        return found

    def tried(self) -> list[torch.Tensor]:
        """Drawn radiographs as the network takes them, to compare engines on."""
        drawn = [Radiograph(draw(kind, seed=7), window=(0, 255)) for kind in list(BREAKS)[:2]]
        return [self.pixels([self.boxed(each)[0]]) for each in drawn]

    def boxed(self, radiograph: Radiograph) -> tuple[np.ndarray, Placement]:
        """An image in the model's square, float32 (S, S), in colour (S, S, 3), in 0..1, and where it lies there."""
        return letterbox(radiograph, self.card.size, self.card.equalise, self.card.colour)

    def check(self, radiograph: Radiograph, *, anyway: bool = False) -> Likeness | None:
        """Whether an image is like those of the reference set; None without a detector.

        Raises:
            RejectedError: it is out of distribution, and nobody wants the verdict anyway.
        """
        likeness = self.detector.likeness(radiograph) if self.detector else None
        if likeness == "out-of-distribution" and not anyway:
            raise RejectedError(self.card.subject.retell(REJECTED))
        return likeness

    def explain(self, radiographs: Sequence[Radiograph], batch_size: int = 4) -> list[Explanation]:
        """Predictions and every class's map, one forward a batch.

        An image's logits and maps do not depend on its company: alone and in a batch they agree within 1e-4, the
        rounding of float32 convolutions summed in another order.

        Args:
            radiographs: of any sizes.
            batch_size: images in one forward, at least 1.

        Returns:
            One Explanation an image, in order.
        """
        explained: list[Explanation] = []
        for start in range(0, len(radiographs), batch_size):
            batch = radiographs[start : start + batch_size]
            explained += self.explain_boxed(batch, [self.boxed(radiograph) for radiograph in batch])
        return explained

    def pixels(self, squares: Sequence[np.ndarray]) -> torch.Tensor:
        """Letterboxed images, each as of ``boxed``, as the network takes them: float (N, 3, S, S)."""
        stacked = torch.from_numpy(np.stack(squares))
        brightness = stacked.permute(0, 3, 1, 2) if self.card.colour else stacked[:, None]
        return normalise(brightness, self.card.mean, self.card.std).contiguous(memory_format=torch.channels_last)

    @property
    def computed_by(self) -> tuple[Engine, Precision]:
        """What computes predictions, and how precisely."""
        return (self.prepared.engine, self.prepared.precision) if self.prepared else ("torch", "float32")

    def explain_boxed(
        self, radiographs: Sequence[Radiograph], boxed: Sequence[tuple[np.ndarray, Placement]]
    ) -> list[Explanation]:
        """``explain`` in one forward for images whose squares, of ``boxed``, are at hand."""
        engine, precision = self.computed_by
        with torch.inference_mode():
            logits, maps, fracture = (self.prepared or self.network)(self.pixels([square for square, _ in boxed]))
            probabilities = (logits / self.card.temperature).softmax(dim=1)
        # What the maps leave of the logits: the head's bias or, where its maps are a tangent, whatever the rest is.
        bias = self.network.head.bias
        biases = (logits - maps.mean(dim=(2, 3)) if bias is None else bias.expand_as(logits)).numpy()
        return [
            Explanation(
                radiograph=radiograph.seen_in(self.card.colour),
                placement=placement,
                prediction=Prediction(self.classes, logits[i].numpy(), probabilities[i].numpy()),
                maps=maps[i].contiguous().numpy(),
                biases=biases[i],
                fracture=None if fracture is None else fracture[i].contiguous().numpy(),
                typical_evidence=self.card.typical_evidence,
                model=self.card.name,
                engine=engine,
                precision=precision,
            )
            for i, (radiograph, (_, placement)) in enumerate(zip(radiographs, boxed, strict=True))
        ]


def prepare(classifiers: Sequence[Classifier], engine: Choice) -> None:
    """Chooses what computes predictions, before anybody asks; ``engine`` and what is raised are those of ``chosen``.

    What is faster for the first model is taken for the others, whose answers are still compared: measuring all would
    take longer than it ever saves. Imported networks stay with torch unless an engine is named: torch prints the
    whole graph of what it cannot export.
    """
    for each in classifiers:
        each.engine = engine
        if engine not in ("auto", "torch") and each.card.maps != "exact":
            raise WeightsError(f"The maps of {each.card.name} need gradients, which only torch computes.")
    ours = [each for each in classifiers if each.card.architecture in ARCHITECTURES]
    for number, each in enumerate({"auto": ours, "torch": []}.get(engine, classifiers)):
        how = (each.network, each.tried(), each.card.temperature)
        if number == 0 or engine != "auto":
            each.prepared = chosen(*how, engine)
        elif first := ours[0].prepared:
            each.prepared = like(first.engine, first.precision, *how)
