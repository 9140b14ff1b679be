"""What is optimised: ten types and, where the recipe says so, where fractures lie, as a Lightning module.

A student also learns from a teacher (Hinton et al., 2015, "Distilling the knowledge in a neural net"), which was
trained on the same images and judged on the same others, so that nothing of a fold leaks through it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from app.imaging.letterbox import normalise
from app.model.network import Evidence, FractureNetwork
from training.data.augmentation import augment, augment_with_masks
from training.recipe import Distil, Places, Recipe

KEPT = "kept.safetensors"
"""A run's weights in float16, which stay when its checkpoint goes."""


def keep(network: FractureNetwork, run: Path) -> None:
    """Writes a trained network's weights into its run's folder."""
    halved = {name: t.half() if t.is_floating_point() else t for name, t in network.state_dict().items()}
    save_file({name: tensor.contiguous().cpu() for name, tensor in halved.items()}, run / KEPT)


def load_kept(network: FractureNetwork, run: Path) -> FractureNetwork:
    """Fills a network with what a run kept.

    Raises:
        FileNotFoundError: the run kept nothing.
    """
    if not (run / KEPT).is_file():
        raise FileNotFoundError(f"{run} has no weights to teach with; cross-validate or train the teacher first")
    state = load_file(run / KEPT)
    network.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in state.items()})
    return network


def divergence(logits: torch.Tensor, known: torch.Tensor, temperature: float) -> torch.Tensor:
    """How far the types that a network names are from those another does: both logits, float (N, C).

    Returns:
        Kullback-Leibler divergence at the temperature times its square, mean over images, a scalar.
    """
    ours, theirs = ((each / temperature).log_softmax(dim=1) for each in (logits, known))
    return temperature**2 * functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)


class _Stages:
    """What a backbone's stages gave in its latest forward, first stage first."""

    def __init__(self, body: nn.Module, names: Sequence[str]) -> None:
        self.given: dict[str, torch.Tensor] = {}
        self.names = names
        for name in names:
            body.get_submodule(name).register_forward_hook(partial(self._keep, name))

    def _keep(self, name: str, _module: nn.Module, _inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        self.given[name] = output

    def take(self) -> list[torch.Tensor]:
        taken = [self.given[name] for name in self.names]
        self.given.clear()
        return taken


class Teacher(nn.Module):
    """A frozen network, and layers that translate what a student's stages see into what its own do.

    The stages are paired from the last to the first; the finer of two maps is averaged down to the other's grid.

    Args:
        stages: of the network's body.
        student: body that learns; ``hint`` needs every forward of it to go before one of this.
        student_stages: of that body.
    """

    def __init__(
        self,
        network: FractureNetwork,
        how: Distil,
        stages: Sequence[str],
        student: nn.Module,
        student_stages: Sequence[str],
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.how = how
        self.hints: nn.ModuleList | None = None
        if how.hint > 0:
            pairs = min(len(stages), len(student_stages))
            self._known = _Stages(network.body, stages[-pairs:])
            self._learned = _Stages(student, student_stages[-pairs:])
            was = student.training
            with torch.no_grad():
                for body in (network.body, student):
                    body.eval()(torch.zeros(1, 3, 64, 64))
            student.train(was)
            both = zip(self._learned.take(), self._known.take(), strict=True)
            self.hints = nn.ModuleList(nn.Conv2d(ours.shape[1], theirs.shape[1], 1) for ours, theirs in both)
        self.train()

    def train(self, mode: bool = True) -> Teacher:
        """Leaves the network as it judges, whatever the student does."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, pixels: torch.Tensor, evidence: Evidence, typed: int) -> torch.Tensor:
        """How far the student is from the teacher.

        Args:
            pixels: float (N, 3, H, W), normalised; the student has just seen them.
            evidence: the student's.
            typed: the first so many images are fractures with a type; of the others only features and the fracture map
                count.

        Returns:
            ``divergence`` of types at the temperature, plus cross-entropy of fracture maps where both
            networks have them, plus ``hint`` times the mean squared error of the stages' features in units of the
            teacher's spread, averaged over stages (Romero et al., 2015, "FitNets").
        """
        with torch.no_grad():
            theirs = self.network(pixels)
        loss = divergence(evidence.logits[:typed], theirs.logits[:typed], self.how.temperature)
        if evidence.fracture is not None and theirs.fracture is not None:
            height, width = evidence.fracture.shape[1:]
            places = functional.adaptive_avg_pool2d(theirs.fracture.sigmoid(), (height, width))
            loss = loss + functional.binary_cross_entropy_with_logits(evidence.fracture, places)
        if self.hints is not None:
            missed = [
                _missed(hint, ours, known)
                for hint, ours, known in zip(self.hints, self._learned.take(), self._known.take(), strict=True)
            ]
            loss = loss + self.how.hint * torch.stack(missed).mean()
        return loss


def _missed(hint: nn.Module, ours: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    grid = (min(ours.shape[2], known.shape[2]), min(ours.shape[3], known.shape[3]))
    known = functional.adaptive_avg_pool2d(known.float(), grid)
    translated = hint(functional.adaptive_avg_pool2d(ours, grid)).float()
    return functional.mse_loss(translated, known) / known.var().clamp(min=1e-6)


WARM_UP = 0.05
"""Share of all steps in which the learning rates rise from zero."""


def cell_targets(masks: torch.Tensor, shape: Sequence[int], target: Literal["touch", "share"]) -> torch.Tensor:
    """What a fracture map should be at each cell.

    Args:
        masks: 1 inside a box, float (N, 1, H, W).
        shape: of the map, h and w.
        target: "touch": 1 where a box touches the cell. "share": how much of the cell boxes cover, relative to the
            best covered one of its neighbourhood of three by three, so that the map peaks in the middle of a box and a
            box far smaller than a cell still has a cell of its own.

    Returns:
        float (N, h, w) in 0..1.
    """
    height, width = shape
    if target == "touch":
        return (functional.adaptive_max_pool2d(masks, (height, width))[:, 0] > 0.5).float()
    covered = functional.adaptive_avg_pool2d(masks, (height, width))
    best = functional.max_pool2d(covered, 3, stride=1, padding=1)
    return (covered / best.clamp(min=torch.finfo(covered.dtype).tiny))[:, 0]


def where_loss(fracture: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """How far a map's softmax over cells is from the cells that boxes cover: what its peak is judged by.

    Cross-entropy between two distributions over cells, as in fixation prediction (Jetley et al., 2016, "End-to-end
    saliency mapping via probability distribution prediction").

    Args:
        fracture: logits, float (N, h, w).
        masks: 1 inside a box, float (N, 1, H, W).

    Returns:
        Mean over the images with a box, a scalar; 0 where none has one.
    """
    covered = functional.adaptive_avg_pool2d(masks, (fracture.shape[1], fracture.shape[2]))[:, 0].flatten(1)
    share = covered / covered.sum(dim=1, keepdim=True).clamp(min=torch.finfo(covered.dtype).tiny)
    missed = -(share * fracture.flatten(1).log_softmax(dim=1)).sum(dim=1)
    return missed.sum() / (share.sum(dim=1) > 0).sum().clamp(min=1)


def map_loss(
    how: Places,
    fracture: torch.Tensor,
    masks: torch.Tensor,
    fractured: torch.Tensor,
    presence: torch.Tensor,
    place: torch.Tensor,
) -> torch.Tensor:
    """What a fracture map gets wrong of what may be asked of each image.

    Args:
        how: weights of the three terms.
        fracture: logits, float (N, h, w).
        masks: 1 inside a box, float (N, 1, H, W).
        fractured: 0 or 1, float (N,).
        presence: 1 where the map's logsumexp may be asked whether there is a fracture, float (N,).
        place: 1 where every cell may be asked, float (N,).

    Returns:
        A scalar: the mean over the images asked for cells, plus that over those asked for presence, plus, over those
        with boxes, how far the map's softmax is from the boxes (``where_loss``).
    """
    inside = cell_targets(masks, fracture.shape[1:], how.target)
    weight = fracture.new_tensor(how.positive_weight)
    cells = functional.binary_cross_entropy_with_logits(fracture, inside, pos_weight=weight, reduction="none")
    odds = fracture.flatten(1).logsumexp(dim=1)
    present = functional.binary_cross_entropy_with_logits(odds, fractured, reduction="none")
    loss = (cells.mean(dim=(1, 2)) * place).sum() / place.sum().clamp(min=1)
    loss = loss + (present * presence).sum() / presence.sum().clamp(min=1)
    return loss + how.where * where_loss(fracture, masks) if how.where > 0 else loss


class FractureTypes(lightning.LightningModule):
    """Class-weighted cross-entropy on fracture types, beside binary cross-entropy on where fractures lie.

    Every cell of a boxed image's fracture map learns whether boxes lie there (``cell_targets``), and the map's
    logsumexp whether the image is fractured at all; where the recipe says so, the map's softmax over cells also learns
    which of them boxes cover (``where_loss``). Both sets of images go through the backbone in one batch, so that its
    statistics fit both.

    Phase 1 trains only what has no pretrained weights; phase 2 adds the layers the recipe names.

    Args:
        fresh: the backbone's parameters without pretrained weights.
        class_counts: training images per class, float (C,).
        teacher: whom to learn from beside the labels.

    Raises:
        ValueError: the recipe names layers to tune that the backbone does not have.
    """

    class_weights: torch.Tensor

    def __init__(
        self,
        recipe: Recipe,
        network: FractureNetwork,
        fresh: tuple[str, ...],
        class_counts: torch.Tensor,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.network = network
        self.teacher = teacher
        self.fresh = set(fresh)
        names = [name for name, _ in network.body.named_parameters()]
        for prefix in recipe.tune:
            if not any(name.startswith(prefix) for name in names):
                raise ValueError(f"the recipe tunes {prefix!r}, which {recipe.architecture} does not have")
        self.tuned = {name for name in names if name.startswith(recipe.tune)}
        classes = len(class_counts)
        weights = torch.ones(classes)
        if recipe.class_weighted:
            weights = class_counts.sum() / (classes * class_counts.clamp(min=1))
        self.register_buffer("class_weights", weights.float())
        self.scores = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(classes, average="micro"),
                "macro_f1": MulticlassF1Score(classes, average="macro"),
                "top3": MulticlassAccuracy(classes, top_k=min(3, classes), average="micro"),
            },
            prefix="validation_",
            # Grouped, the first three would be counted like the first: states that start alike are shared.
            compute_groups=False,
        )

    def _tell(self, name: str, loss: torch.Tensor, count: int) -> None:
        """Logs an epoch's mean over images, of all processes."""
        self.log(name, loss, on_epoch=True, on_step=False, prog_bar=True, sync_dist=True, batch_size=count)

    def _learns(self, name: str) -> bool:
        return name in self.fresh or (self.current_epoch >= self.recipe.head_epochs and name in self.tuned)

    def on_train_start(self) -> None:
        """A run that goes on from within an epoch begins without the hook below."""
        self.on_train_epoch_start()

    def on_train_epoch_start(self) -> None:
        """Freezes and thaws by the epoch's number, so that a resumed run is in the right phase."""
        learning = set()
        for name, parameter in self.network.body.named_parameters():
            parameter.requires_grad_(self._learns(name))
            if parameter.requires_grad:
                learning.add(name.rpartition(".")[0])
        for name, module in self.network.body.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                # A frozen layer whose statistics still move is not frozen.
                module.train(name in learning)

    def forward(self, films: torch.Tensor) -> Evidence:
        """Letterboxed images, float (N, 1 or 3, H, W) in 0..1, to what the network makes of them."""
        return self.network(self._pixels(films))

    def _pixels(self, films: torch.Tensor) -> torch.Tensor:
        pixels = normalise(films, self.recipe.mean, self.recipe.std)
        return pixels.contiguous(memory_format=torch.channels_last)

    def training_step(self, batch: dict[str, tuple[torch.Tensor, ...]], _index: int) -> torch.Tensor:
        recipe = self.recipe
        films, shares = batch["types"]
        films = augment(self._sized(films), recipe.augment)
        count = len(films)
        if "places" in batch:
            boxed, masks, fractured = batch["places"]
            boxed, masks = augment_with_masks(self._sized(boxed), self._sized_mask(masks), recipe.augment)
            films = torch.cat([films, boxed])
        pixels = self._pixels(films)
        evidence = self.network(pixels)
        loss = self._type_loss(evidence.logits[:count], shares)
        self._tell("training_loss", loss, count)
        if recipe.places and evidence.fracture is not None:
            all_asked = torch.ones_like(fractured)
            places = map_loss(recipe.places, evidence.fracture[count:], masks, fractured, all_asked, all_asked)
            self.log(
                "place_loss", places, on_epoch=True, on_step=False, prog_bar=True, sync_dist=True, batch_size=count
            )
            loss = loss + recipe.places.weight * places
        return self._taught(loss, pixels, evidence, count)

    def _taught(self, loss: torch.Tensor, pixels: torch.Tensor, evidence: Evidence, typed: int) -> torch.Tensor:
        """A loss, and how far a student is from its teacher, who knows only the first images' types."""
        if self.teacher is None:
            return loss
        distilled = self.teacher(pixels, evidence, typed)
        self._tell("teacher_loss", distilled, typed)
        return loss + self.teacher.how.weight * distilled

    def _side(self) -> int:
        early = self.recipe.early_size
        return early if early and self.current_epoch < self.recipe.early_epochs else self.recipe.size

    def _sized(self, films: torch.Tensor) -> torch.Tensor:
        side = self._side()
        films = films.float() / 255.0
        return films if films.shape[-1] == side else functional.interpolate(films, (side, side), mode="area")

    def _sized_mask(self, masks: torch.Tensor) -> torch.Tensor:
        # The greatest, not the mean: a small fracture must not fade with the image's size.
        return functional.adaptive_max_pool2d(masks.float(), self._side())

    def _type_loss(self, logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        # Not class numbers: of these, the weighted mean would be over weights, not over images.
        smoothing = self.recipe.label_smoothing
        return functional.cross_entropy(logits, shares, weight=self.class_weights, label_smoothing=smoothing)

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], _index: int) -> None:
        films, labels = batch
        logits = self(self._sized(films)).logits
        self.log(
            "validation_loss",
            functional.cross_entropy(logits, labels),
            prog_bar=True,
            sync_dist=True,
            batch_size=len(labels),
        )
        self.scores.update(logits, labels)
        self.log_dict(self.scores, prog_bar=True, batch_size=len(labels))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with one rate for new layers and one for pretrained ones, warm-up and a cosine to zero."""
        body = [p for n, p in self.network.body.named_parameters() if n not in self.fresh]
        new = [p for n, p in self.network.body.named_parameters() if n in self.fresh]
        heads = [p for n, p in self.network.named_parameters() if not n.startswith("body.")]
        if self.teacher is not None and self.teacher.hints is not None:
            heads += list(self.teacher.hints.parameters())
        optimiser = torch.optim.AdamW(
            [{"params": new + heads, "lr": self.recipe.head_rate}, {"params": body, "lr": self.recipe.body_rate}],
            weight_decay=self.recipe.weight_decay,
        )
        steps = max(1, int(self.trainer.estimated_stepping_batches))

        def factor(step: int) -> float:
            warm = WARM_UP * steps
            if step < warm:
                return (step + 1) / (warm + 1)
            return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warm) / (steps - warm))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
