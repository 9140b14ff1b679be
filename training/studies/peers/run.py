"""Runs a peer's recipe on a split and judges it: the same films in number, the same network, only the split differs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from app.imaging.letterbox import normalise
from app.model.network import channels_last
from training.data.augmentation import augment
from training.evaluation.metrics import bootstrap
from training.studies.peers.networks import NETWORKS, load_initial
from training.studies.peers.protocol import Sides
from training.studies.peers.recipe import ReplicationRecipe, ShortRecipe

__all__ = ["ReplicationTask", "chances", "run", "train"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ReplicationTask(lightning.LightningModule):
    """A peer's training: cross-entropy or focal loss (Lin et al., 2017), with or without mixup (Zhang et al., 2018).

    Args:
        recipe: the peer's.
        network: normalised pixels (N, 3, H, W) to logits (N, C).
        class_weights: float (C,).
    """

    class_weights: torch.Tensor

    def __init__(self, recipe: ShortRecipe, network: nn.Module, class_weights: torch.Tensor) -> None:
        super().__init__()
        self.recipe = recipe
        self.network = network
        self.register_buffer("class_weights", class_weights)

    def forward(self, films: torch.Tensor) -> torch.Tensor:
        """Letterboxed films, float (N, 1, H, W) in 0..1, to logits (N, C)."""
        return self.network(normalise(films, MEAN, STD).contiguous(memory_format=torch.channels_last))

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _index: int) -> torch.Tensor:
        films, labels = augment(batch[0].float() / 255.0, self.recipe.augment), batch[1]
        if self.recipe.mixup <= 0:
            return self._loss(self(films), labels).mean()
        share = float(np.random.default_rng(self.global_step).beta(self.recipe.mixup, self.recipe.mixup))
        logits = self(share * films + (1.0 - share) * films.flip(0))
        return (share * self._loss(logits, labels) + (1.0 - share) * self._loss(logits, labels.flip(0))).mean()

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = functional.cross_entropy(
            logits, labels, self.class_weights, label_smoothing=self.recipe.label_smoothing, reduction="none"
        )
        if self.recipe.focal > 0:
            sure = logits.softmax(dim=1).gather(1, labels[:, None])[:, 0]
            loss = loss * (1.0 - sure) ** self.recipe.focal
        return loss

    def predict_step(self, batch: tuple[torch.Tensor, torch.Tensor], _index: int) -> torch.Tensor:
        films = batch[0].float() / 255.0
        chances = self(films).float().softmax(dim=1)
        if self.recipe.flip_judging:
            chances = (chances + self(films.flip(3)).float().softmax(dim=1)) / 2.0
        return chances

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimiser = torch.optim.AdamW(self.parameters(), self.recipe.rate, weight_decay=self.recipe.weight_decay)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, self.recipe.rate, total_steps=steps)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _loader(recipe: ShortRecipe, squares: np.ndarray, labels: np.ndarray, shuffle: bool) -> DataLoader:
    dataset = TensorDataset(torch.from_numpy(squares)[:, None], torch.from_numpy(labels).long())
    return DataLoader(dataset, recipe.batch_size, shuffle=shuffle, drop_last=shuffle)


def _trainer(recipe: ShortRecipe, precision: Literal["32-true", "bf16-mixed"]) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=recipe.epochs,
        precision=precision,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def train(
    recipe: ShortRecipe,
    squares: np.ndarray,
    labels: np.ndarray,
    classes: int,
    init: Path | None,
    precision: Literal["32-true", "bf16-mixed"],
) -> tuple[ReplicationTask, str]:
    """Trains once.

    Args:
        recipe: how.
        squares: films, uint8 (N, size, size).
        labels: int (N,).
        classes: number of classes.
        init: initial layers; from scratch where absent.
        precision: of training.

    Returns:
        The trained task, and what training started from.
    """
    lightning.seed_everything(recipe.seed, workers=True, verbose=False)
    counts = torch.bincount(torch.from_numpy(labels), minlength=classes)
    weights = counts.sum() / (len(counts) * counts.clamp(min=1)) if recipe.class_weighted else torch.ones(len(counts))
    network = NETWORKS[recipe.network](len(counts), recipe.dropout)
    start = load_initial(network, init)
    task = ReplicationTask(recipe, channels_last(network), weights.float())
    _trainer(recipe, precision).fit(task, _loader(recipe, squares, labels, True))
    return task, start


def chances(task: ReplicationTask, squares: np.ndarray, precision: Literal["32-true", "bf16-mixed"]) -> np.ndarray:
    """A trained task's probabilities of films, uint8 (N, size, size): float32 (N, C)."""
    loader = _loader(task.recipe, squares, np.zeros(len(squares), int), False)
    found = _trainer(task.recipe, precision).predict(task, loader)
    return torch.cat(found).numpy()  # ty: ignore[invalid-argument-type]


def run(
    recipe: ReplicationRecipe,
    squares: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    sides: Sides,
    init: Path | None,
    precision: Literal["32-true", "bf16-mixed"],
) -> dict[str, Any]:
    """Trains and judges once.

    Args:
        recipe: the peer's.
        squares: all films, uint8 (N, size, size).
        labels: int (N,).
        groups: int (N,), of near-duplicates, for the interval.
        sides: who trains, who judges.
        init: initial layers; from scratch where absent.
        precision: of training.

    Returns:
        Accuracy with its interval, films on both sides, epochs, minutes and what training started from.
    """
    began = time.monotonic()
    task, start = train(recipe, squares[sides.train], labels[sides.train], int(labels.max()) + 1, init, precision)
    found = chances(task, squares[sides.judge], precision)
    judged = np.bincount(labels[sides.judge])
    correct = found.argmax(axis=1) == labels[sides.judge]
    return {
        "accuracy": bootstrap(correct, groups[sides.judge]),
        "commonest": float(judged.max() / judged.sum()),
        "trained_on": len(sides.train),
        "epochs": recipe.epochs,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "start": start,
    }
