"""Trains presence and place from many sources beside the types: ``python -m training fit-sources RECIPE``.

Training goes on from finished weights. Every batch holds typed bone-break images and as many of each source as the
recipe's draws say. An epoch is a number of batches, after which a checkpoint is written; ``--resume`` goes on from it.
"""

from __future__ import annotations

import json
import logging
import math
import time
from datetime import timedelta
from pathlib import Path

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn

from app.imaging.letterbox import normalise
from app.model.network import FractureNetwork, channels_last
from app.model.weights import DEFAULT_FOLDER, load_network
from training.data.augmentation import augment_with_masks, take_away
from training.data.image import CACHE
from training.data.lessons import ManySources, Recalled, SourceImages
from training.evaluation.metrics import area
from training.fitting.fit import Initial, keep_effort, keep_start, processor, refuse_another, save_whole
from training.fitting.task import WARM_UP, FractureTypes, divergence, map_loss
from training.recipe import Many, Places, Recipe

log = logging.getLogger(__name__)

JUDGED_EVERY = timedelta(minutes=30)
"""How often the moving average is judged on the validation images, to follow training by; nothing is chosen by it."""
PAUSED = 120.0
"""Seconds of one batch that count as training at most: beyond, the process was stopped or the computer slept."""


@torch.no_grad()
def recall(network: FractureNetwork, recipe: Recipe, films: ManySources, kept: Path) -> Recalled:
    """What a network says of the training images as they are; what ``kept`` lacks is asked and written there."""
    squares, names = torch.cat([films.typed_squares, films.boxed.tensors()[0]]), films.names
    known: dict[str, np.ndarray] = {}
    if kept.is_file():
        with np.load(kept) as arrays:
            known = dict(zip(arrays["names"].tolist(), arrays["said"], strict=True))
    lacking = [index for index, name in enumerate(names) if name not in known]
    for start in range(0, len(lacking), 16):
        some = lacking[start : start + 16]
        evidence = network(normalise(squares[some].float() / 255.0, recipe.mean, recipe.std))
        assert evidence.fracture is not None
        odds = evidence.fracture.flatten(1).logsumexp(dim=1)
        said = torch.cat([evidence.logits, odds[:, None]], dim=1).numpy()
        known |= dict(zip([names[index] for index in some], said, strict=True))
    if lacking:
        save_whole(kept, {"names": np.array(list(known)), "said": np.stack(list(known.values()))})
    said = torch.from_numpy(np.stack([known[name] for name in names]))
    typed, boxed = said.split([len(films.typed.split.train), len(films.boxed.lessons)])
    return Recalled(typed[:, :-1], boxed[:, :-1], boxed[:, -1])


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
        recipe: with ``places`` and ``many``.
        network: to go on from.
        class_counts: training images per type, int (C,).
        limit: seconds of training after which the schedule is at its end, whatever the number of steps; none for none.
    """

    def __init__(
        self, recipe: Recipe, network: FractureNetwork, class_counts: torch.Tensor, limit: float | None = None
    ) -> None:
        super().__init__(recipe, network, (), class_counts)
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
        typed, labels, named = batch["types"]
        boxed, masks, fractured, presence, place, also_named = batch["places"]
        count = len(typed)
        films = self._sized(torch.cat([typed, boxed]))
        masks = functional.pad(self._sized_mask(masks), (0, 0, 0, 0, 0, 0, count, 0))
        films, masks = augment_with_masks(films, masks, self.recipe.augment)
        films = take_away(films, many.signature, masks)
        evidence = self.network(self._pixels(films))
        assert evidence.fracture is not None
        types = self._type_loss(evidence.logits[:count], labels)
        lessons = map_loss(places, evidence.fracture[count:], masks[count:], fractured, presence, place)
        self.log("training_loss", types, on_epoch=True, on_step=False, batch_size=count)
        self.log("place_loss", lessons, on_epoch=True, on_step=False, batch_size=count)
        loss = types + places.weight * lessons
        if many.recall > 0:
            # Learning without forgetting (Li and Hoiem, 2016).
            forgotten = divergence(evidence.logits, torch.cat([named, also_named]), 2.0)
            self.log("forgetting_loss", forgotten, on_epoch=True, on_step=False, batch_size=len(films))
            loss = loss + many.recall * forgotten
        return loss

    def on_train_epoch_start(self) -> None:
        """As ever, and every batch norm keeps the statistics that it started with: they fit all that ships."""
        super().on_train_epoch_start()
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

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
        heads = [p for n, p in self.network.named_parameters() if not n.startswith("body.")]
        groups: list[dict] = [{"params": heads, "lr": recipe.head_rate}]
        for name, parameter in self.network.body.named_parameters():
            factor = next((rate for prefix, rate in rates.items() if name.startswith(prefix)), 1.0)
            groups.append({"params": [parameter], "lr": factor * recipe.body_rate})
        optimiser = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)

        def factor(_step: int) -> float:
            done = self.progress()
            if done < WARM_UP:
                return (done + 0.002) / (WARM_UP + 0.002)
            return 0.5 * (1.0 + math.cos(math.pi * (done - WARM_UP) / (1.0 - WARM_UP)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit_sources(
    recipe: Recipe,
    data: Path,
    run: Path,
    *,
    resume: bool = False,
    minutes: float | None = None,
    weights: Path = DEFAULT_FOLDER,
    cache: Path = CACHE,
) -> Path:
    """Trains for the recipe's epochs, or until time is up.

    Args:
        recipe: with ``many``.
        data: folder with the sets.
        run: folder for everything that is written.
        resume: go on from the run's last checkpoint, if there is one.
        minutes: of training, after which it ends with its schedule; none for none.
        weights: folder of the weights to start from.
        cache: where decoded images are kept.

    Returns:
        The last checkpoint.

    Raises:
        FileNotFoundError: a set is not there.
        ValueError: the recipe has no sources, or what is to go on is another recipe's run.
        WeightsError: the weights to start from are not there.
    """
    if recipe.many is None:
        raise ValueError(f"{recipe.name} names no sources; train it with `python -m training fit`")
    last = run / "last.ckpt"
    going_on = resume and last.is_file()
    if going_on:
        refuse_another(run, recipe, "tune_epochs")
    attempt = 1 + len(list(run.glob("logs/csv-*")))
    # Every attempt draws other images: one that goes on would else see those of the first again.
    lightning.seed_everything(recipe.seed + attempt - 1, workers=True, verbose=False)
    films = ManySources(recipe, data, cache)
    network, card = load_network(recipe.many.start, weights)
    kept = cache / f"recalled-{card.weights.sha256[:16]}-{recipe.size}.npz"
    films.recalled = recall(network, recipe, films, kept)
    network.train().requires_grad_(True)
    network.gate.dropout = recipe.dropout
    task = LessonTask(recipe, channels_last(network), films.typed.class_counts(), minutes and minutes * 60.0)
    source = f"weights/{card.name} of {card.date}"
    keep_start(run, recipe, films.typed, Initial(source, card.weights.sha256, len(network.state_dict()), ()))
    (run / "sources.json").write_text(json.dumps(films.boxed.as_card(), indent=1))
    log.info("learning from %s", films.boxed.as_card())
    trainer = lightning.Trainer(
        max_epochs=recipe.head_epochs + recipe.tune_epochs,
        accelerator="auto",
        devices=1,
        callbacks=[
            ModelCheckpoint(run, "last", save_on_train_epoch_end=True, enable_version_counter=False),
            WeightAveraging(use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(recipe.many.averaging)),
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
    keep_effort(run, trainer.current_epoch, task.spent, "32-true", "GPU" if torch.cuda.is_available() else processor())
    return last
