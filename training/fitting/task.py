"""What is optimised: ten types and, where the recipe says so, the places of fractures, as a Lightning module."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.nn import functional
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from app.imaging.letterbox import normalise
from app.model.network import Evidence, FractureNetwork
from training.data.augmentation import augment, augment_with_masks
from training.fitting.teacher import Teacher
from training.recipe import Places, Recipe

__all__ = ["FractureTypes", "place_targets", "where_loss"]

WARM_UP = 0.05
"""Share of all steps in which the learning rates rise from zero."""


def place_targets(masks: torch.Tensor, shape: Sequence[int], target: Literal["touch", "share"]) -> torch.Tensor:
    """What a fracture map should say of each place.

    Args:
        masks: 1 inside a box, float (N, 1, H, W).
        shape: of the map, h and w.
        target: "touch": 1 where a box touches the place. "share": how much of the place boxes cover, relative to the
            best covered one of its neighbourhood of three by three, so that the map peaks in the middle of a box and a
            box far smaller than a place still has a place of its own.

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
    """How far a map's softmax over places is from the places that boxes cover: what its peak is judged by.

    Cross-entropy between two distributions over places, as in fixation prediction (Jetley et al., 2016, "End-to-end
    saliency mapping via probability distribution prediction").

    Args:
        fracture: logits, float (N, h, w).
        masks: 1 inside a box, float (N, 1, H, W).

    Returns:
        Mean over the films with a box, a scalar; 0 where none has one.
    """
    covered = functional.adaptive_avg_pool2d(masks, (fracture.shape[1], fracture.shape[2]))[:, 0].flatten(1)
    share = covered / covered.sum(dim=1, keepdim=True).clamp(min=torch.finfo(covered.dtype).tiny)
    missed = -(share * fracture.flatten(1).log_softmax(dim=1)).sum(dim=1)
    return missed.sum() / (share.sum(dim=1) > 0).sum().clamp(min=1)


class FractureTypes(lightning.LightningModule):
    """Class-weighted cross-entropy on fracture types, beside binary cross-entropy on where fractures lie.

    Every place of a boxed film's fracture map is asked for the boxes there (``place_targets``), and the map's
    logsumexp whether the film is fractured at all; where the recipe says so, the map's softmax over places is also
    asked for those that boxes cover (``where_loss``). Both sets of films go through the body in one batch, so that its
    statistics fit both.

    Phase 1 trains only what has no pretrained weights; phase 2 adds the layers the recipe names.

    Args:
        recipe: how to train.
        network: with its initial layers loaded.
        fresh: the body's parameters without pretrained weights.
        class_counts: training films per class, int (C,).
        teacher: whom to learn from beside the labels.

    Raises:
        ValueError: the recipe names layers to tune that the body does not have.
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

    def _learns(self, name: str) -> bool:
        return name in self.fresh or (self.current_epoch >= self.recipe.head_epochs and name in self.tuned)

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
        """Letterboxed films, float (N, 1, H, W) in 0..1, to what the network makes of them."""
        return self.network(self._pixels(films))

    def _pixels(self, films: torch.Tensor) -> torch.Tensor:
        pixels = normalise(films, self.recipe.mean, self.recipe.std)
        return pixels.contiguous(memory_format=torch.channels_last)

    def training_step(self, batch: dict[str, tuple[torch.Tensor, ...]], _index: int) -> torch.Tensor:
        recipe = self.recipe
        films, labels = batch["types"]
        films = augment(self._sized(films), recipe.augment)
        count = len(films)
        if "places" in batch:
            boxed, masks, fractured = batch["places"]
            boxed, masks = augment_with_masks(self._sized(boxed), self._sized_mask(masks), recipe.augment)
            films = torch.cat([films, boxed])
        pixels = self._pixels(films)
        evidence = self.network(pixels)
        loss = functional.cross_entropy(
            evidence.logits[:count], labels, weight=self.class_weights, label_smoothing=recipe.label_smoothing
        )
        self.log("training_loss", loss, on_epoch=True, on_step=False, prog_bar=True, batch_size=count)
        if recipe.places and evidence.fracture is not None:
            places = self._place_loss(recipe.places, evidence.fracture[count:], masks, fractured)
            self.log("place_loss", places, on_epoch=True, on_step=False, prog_bar=True, batch_size=count)
            loss = loss + recipe.places.weight * places
        if self.teacher is not None:
            taught = self.teacher(pixels, evidence, count)
            self.log("teacher_loss", taught, on_epoch=True, on_step=False, prog_bar=True, batch_size=count)
            loss = loss + self.teacher.how.weight * taught
        return loss

    def _side(self) -> int:
        early = self.recipe.early_size
        return early if early and self.current_epoch < self.recipe.early_epochs else self.recipe.size

    def _sized(self, films: torch.Tensor) -> torch.Tensor:
        side = self._side()
        films = films.float() / 255.0
        return films if films.shape[-1] == side else functional.interpolate(films, (side, side), mode="area")

    def _sized_mask(self, masks: torch.Tensor) -> torch.Tensor:
        # The greatest, not the mean: a small fracture must not fade with the film's size.
        return functional.adaptive_max_pool2d(masks.float(), self._side())

    def _place_loss(
        self, how: Places, fracture: torch.Tensor, masks: torch.Tensor, fractured: torch.Tensor
    ) -> torch.Tensor:
        inside = place_targets(masks, fracture.shape[1:], how.target)
        weight = fracture.new_tensor(how.positive_weight)
        by_place = functional.binary_cross_entropy_with_logits(fracture, inside, pos_weight=weight)
        flat = fracture.flatten(1)
        loss = by_place + functional.binary_cross_entropy_with_logits(flat.logsumexp(dim=1), fractured)
        if how.where > 0:
            loss = loss + how.where * where_loss(fracture, masks)
        return loss

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Joins what the optimiser of an older run knows of the head's two matrices, as the network joins these."""
        if "network.attended.weight" not in checkpoint["state_dict"]:
            return
        at = sum(name in self.fresh for name, _ in self.network.body.named_parameters())
        for optimiser in checkpoint["optimizer_states"]:
            # Behind the body's new layers stood the head's weight and bias, then the second matrix.
            numbers = optimiser["param_groups"][0]["params"]
            joined, second = optimiser["state"].get(numbers[at]), optimiser["state"].pop(numbers.pop(at + 2), None)
            if joined and second:
                for moment in ("exp_avg", "exp_avg_sq"):
                    joined[moment] = torch.cat([joined[moment], second[moment]], dim=1)

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], _index: int) -> None:
        films, labels = batch
        logits = self(self._sized(films)).logits
        self.log("validation_loss", functional.cross_entropy(logits, labels), prog_bar=True, batch_size=len(labels))
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
            [
                {"params": new + heads, "lr": self.recipe.head_rate},
                {"params": body, "lr": self.recipe.body_rate},
            ],
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
