"""Trains presence and place from many sources beside the types: ``python -m training fit RECIPE``.

Every batch holds typed bone-break images and as many of each source as the recipe's draws say. An epoch is a number of
batches, after which a checkpoint is written; ``--resume`` goes on from it.
"""

from __future__ import annotations

import json
import logging
import math
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn

from app.model.network import FractureNetwork
from training.data.augmentation import augment_with_masks, take_away
from training.data.image import CACHE
from training.data.lessons import ManySources, SourceImages
from training.evaluation.metrics import area
from training.fitting.fit import begin, build, faster_precision, keep_effort, keep_start
from training.fitting.task import WARM_UP, FractureTypes, keep, map_loss
from training.recipe import Many, Places, Precision, Recipe

log = logging.getLogger(__name__)

JUDGED_EVERY = timedelta(minutes=30)
"""How often the moving average is judged on the validation images, to follow training by; nothing is chosen by it."""
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
        typed, labels = batch["types"]
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
        types = self._type_loss(evidence.logits[:count], labels)
        lessons = map_loss(places, evidence.fracture[count:], masks[count:], fractured, presence, place)
        self.log("training_loss", types, on_epoch=True, on_step=False, batch_size=count)
        self.log("place_loss", lessons, on_epoch=True, on_step=False, batch_size=count)
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
        for name in body.keys() - self.fresh:
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


def fit_sources(
    recipe: Recipe,
    data: Path,
    run: Path,
    *,
    init: Path | None = None,
    resume: bool = False,
    minutes: float | None = None,
    precision: Precision = "auto",
    cache: Path = CACHE,
    teacher: Path | None = None,
) -> Path:
    """Trains for the recipe's epochs, or until time is up.

    Args:
        recipe: with ``many``.
        data: folder with the sets.
        run: folder for everything that is written.
        init: initial layers, or a folder of them.
        resume: go on from the run's last checkpoint, if there is one.
        minutes: of training, after which it ends with its schedule; none for none.
        precision: "auto" takes what trains faster.
        cache: where decoded images are kept.
        teacher: run to learn from, for recipes that do.

    Returns:
        The last checkpoint.

    Raises:
        FileNotFoundError: a set, initial layers or the teacher are not there.
        ValueError: the recipe has no sources, no teacher is named, or what is to go on is another recipe's run.
    """
    if recipe.many is None:
        raise ValueError(f"{recipe.name} names no sources; train it with `python -m training fit`")
    going_on, last = begin(recipe, run, resume, teacher)
    attempt = 1 + len(list(run.glob("logs/csv-*")))
    # Every attempt draws other images: one that goes on would else see those of the first again.
    lightning.seed_everything(recipe.seed + attempt - 1, workers=True, verbose=False)
    films = ManySources(recipe, data, cache)
    task, initial = build(
        recipe, films.typed, going_on, init, teacher, partial(LessonTask, limit=minutes and minutes * 60.0)
    )
    if going_on is None:
        even_odds(task.network, recipe)
    keep_start(run, recipe, films.typed, initial)
    (run / "sources.json").write_text(json.dumps(films.boxed.as_card(), indent=1))
    log.info("learning from %s", films.boxed.as_card())
    if precision == "auto":
        precision = faster_precision(recipe)
    trainer = lightning.Trainer(
        max_epochs=recipe.head_epochs + recipe.tune_epochs,
        precision=precision,
        accelerator="auto",
        devices=1,
        benchmark=True,
        callbacks=[
            ModelCheckpoint(run, "last", save_on_train_epoch_end=True, enable_version_counter=False),
            WeightAveraging(
                "cuda" if torch.cuda.is_available() else "cpu",
                multi_avg_fn=get_ema_multi_avg_fn(recipe.many.averaging),
            ),
        ],
        num_sanity_val_steps=0,
        check_val_every_n_epoch=None,
        val_check_interval=JUDGED_EVERY,
        logger=CSVLogger(run, "logs", f"csv-{attempt}"),
        log_every_n_steps=10,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, datamodule=films, ckpt_path=last if going_on else None, weights_only=False)
    keep(task.network, run)
    keep_effort(run, trainer.current_epoch, task.spent, precision)
    trainer.validate(task, datamodule=films, verbose=False)
    return last
