"""What is optimised where many sources teach presence and place beside the types.

Every batch holds typed bone-break images and as many of each source as the recipe's draws say. An epoch is a number of
batches.
"""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.nn import functional

from app.model.network import FractureNetwork
from training.data.augmentation import augment_with_masks, take_away
from training.data.lessons import SourceImages
from training.evaluation.metrics import area
from training.fitting.task import WARM_UP, FractureTypes, map_loss
from training.recipe import Many, Places, Recipe

log = logging.getLogger(__name__)

PAUSED = 120.0
"""Seconds of one batch that count as training at most: beyond, the process was stopped or the computer slept."""


def glance(judging: SourceImages, odds: np.ndarray, inside: np.ndarray) -> dict[str, str]:
    """By source the area under the ROC curve and the share of peaks in a box, to follow training by.

    Args:
        judging: the images.
        odds: log odds of a fracture, float (N,).
        inside: whether the fracture map's peak lies in a box, (N,).
    """
    told = {}
    fractured, asked = judging.flags("fractured"), judging.flags("presence")
    boxed = judging.masks.any(axis=(1, 2))
    for source in sorted(set(judging.sources.tolist())):
        its = judging.sources == source
        words = []
        if len(set(fractured[its & asked].tolist())) == 2:
            found = area(odds[its & asked], fractured[its & asked])
            words.append(f"AUROC {found['value']:.3f} (n = {found['n']})")
        if (its & boxed).any():
            words.append(f"peak in box {inside[its & boxed].mean():.3f} (n = {int((its & boxed).sum())})")
        told[source] = ", ".join(words)
    return told


class LessonTask(FractureTypes):
    """``FractureTypes`` of which each image is asked only what its source may teach.

    Args:
        limit: seconds of training after which the schedule is at its end, whatever the number of steps; none for none.
        others: as of ``FractureTypes``; the recipe with ``places`` and ``many``.
    """

    def __init__(self, *others: Any, limit: float | None = None) -> None:
        super().__init__(*others)
        self.limit = limit
        self.spent = 0.0
        self._began = time.monotonic()

    def _asked(self) -> tuple[Places, Many]:
        assert self.recipe.places is not None
        assert self.recipe.many is not None
        return self.recipe.places, self.recipe.many

    def progress(self) -> float:
        """Share of training that is done, 0 to 1: by steps, or by time where that runs out first."""
        epochs = self.recipe.head_epochs + self.recipe.tune_epochs
        by_steps = self.global_step / (epochs * self._asked()[1].steps)
        by_time = self.spent / self.limit if self.limit else 0.0
        return min(1.0, max(by_steps, by_time))

    def _side(self) -> int:
        early = self.recipe.early_size
        epochs = self.recipe.head_epochs + self.recipe.tune_epochs
        return early if early and self.progress() < self.recipe.early_epochs / epochs else self.recipe.size

    def training_step(self, batch: dict[str, tuple[torch.Tensor, ...]], _index: int) -> torch.Tensor:
        places, many = self._asked()
        typed, shares = batch["types"]
        boxed, masks, fractured, presence, place = batch["places"]
        count = len(typed)
        films = self._sized(torch.cat([typed, boxed]))
        masks = functional.pad(self._sized_mask(masks), (0, 0, 0, 0, 0, 0, count, 0))
        # Half precision is for the network: an image's grey levels need more.
        with torch.autocast(films.device.type, enabled=False):
            films, masks = augment_with_masks(films, masks, self.recipe.augment)
            films = take_away(films, many.signature, masks)
        pixels = self._pixels(films)
        evidence = self.network(pixels)
        assert evidence.fracture is not None
        types = self._type_loss(evidence.logits[:count], shares)
        lessons = map_loss(places, evidence.fracture[count:], masks[count:], fractured, presence, place)
        self._tell("training_loss", types, count)
        self._tell("place_loss", lessons, count)
        return self._taught(types + places.weight * lessons, pixels, evidence, count)

    def on_validation_epoch_start(self) -> None:
        self._judged: list[tuple[torch.Tensor, torch.Tensor]] = []

    def validation_step(self, batch: tuple[torch.Tensor, ...], _index: int) -> None:
        films, masks = batch
        fracture = self(films.float() / 255.0).fracture
        assert fracture is not None
        peaks = functional.interpolate(fracture[:, None], films.shape[2:], mode="bicubic").flatten(1).argmax(dim=1)
        inside = masks.flatten(1).gather(1, peaks[:, None])[:, 0]
        self._judged.append((fracture.flatten(1).logsumexp(dim=1), inside))

    def on_validation_epoch_end(self) -> None:
        odds, inside = (torch.cat(parts).cpu().numpy() for parts in zip(*self._judged, strict=True))
        judging = self.trainer.datamodule.judging  # ty: ignore[missing-attribute]
        if len(odds) == len(judging.lessons):
            log.info("step %d, validation: %s", self.global_step, glance(judging, odds, inside))

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        self._began = time.monotonic()

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        self.spent += min(time.monotonic() - self._began, PAUSED)
        if self.global_step % 10 == 0:
            measured = {key: round(float(value), 3) for key, value in self.trainer.callback_metrics.items()}
            where = self.global_step, 100 * self.progress(), self.spent, self._side()
            log.info("step %d, %.0f %% done, %.0f s, %d px: %s", *where, measured)
        if self.progress() >= 1.0:
            self.trainer.should_stop = True

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["seconds_spent"] = self.spent

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.spent = checkpoint["seconds_spent"]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a rate for every prefix that the recipe names; warm-up and cosine follow ``progress``."""
        recipe, rates = self.recipe, self._asked()[1].rates
        body = dict(self.network.body.named_parameters())
        rest = [p for n, p in self.named_parameters() if not n.startswith(("network.body.", "teacher.network."))]
        new = [body[name] for name in body if name in self.fresh]
        groups: list[dict] = [{"params": rest + new, "lr": recipe.head_rate}]
        # In the network's order: a checkpoint names no parameter, and another process orders a set otherwise.
        for name in (each for each in body if each not in self.fresh):
            factor = next((rate for prefix, rate in rates.items() if name.startswith(prefix)), 1.0)
            groups.append({"params": [body[name]], "lr": factor * recipe.body_rate})
        optimiser = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)

        def factor(_step: int) -> float:
            done = self.progress()
            if done < WARM_UP:
                return (done + 0.002) / (WARM_UP + 0.002)
            return 0.5 * (1.0 + math.cos(math.pi * (done - WARM_UP) / (1.0 - WARM_UP)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def even_odds(network: FractureNetwork, recipe: Recipe) -> None:
    """Begins where an image without evidence is as likely fractured as not, however many cells add up to its odds.

    Thousands of cells that know nothing would else outshout the few that learn (Lin et al., 2017, "Focal loss for
    dense object detection", begins with rare objects alike).
    """
    assert network.places is not None
    nn.init.constant_(network.places.bias, -2.0 * math.log(recipe.size / recipe.stride))
