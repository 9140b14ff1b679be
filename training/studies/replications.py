"""Short trainings for comparison: published results run again with and without their leak, and sources across.

``python -m training replications`` trains networks as others described them, on their own split and on the nearest one
that keeps near-duplicates on one side: the same number of images, the same network, only the split differs.
``python -m training cross-source`` trains the same small network on one source and judges it on both. The drop from
one's own source to the other is what a figure measured on one source hides (Zech et al., 2018, "Variable generalization
performance of a deep learning model to detect pneumonia in chest radiographs").
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from safetensors.torch import load_file
from scipy.special import logit
from sklearn.model_selection import StratifiedKFold
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torchvision import models

from app.imaging.imagenet import MEAN, STD
from app.imaging.letterbox import normalise
from app.model.backbones import CustomCNN, PatchAttentionFusion
from app.model.lite import HEAD, EfficientNetLite
from app.model.network import channels_last
from training import read_json, write_json
from training.data import SETS
from training.data.augmentation import augment
from training.data.datamodule import BoxedImages
from training.data.image import CACHE, squares
from training.data.multi_region import LISTED, external_set
from training.data.splits import Sides, committed, leak_free, published
from training.evaluation.metrics import area, bootstrap, kappa
from training.fitting.fit import packaged
from training.recipe import REPLICATIONS, ReplicationRecipe, ShortRecipe, load_replications, load_short

Number = Literal["32-true", "bf16-mixed"]


def _custom_cnn(classes: int, dropout: float) -> nn.Sequential:
    layers = CustomCNN(dropout).children()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128 * 16, classes))


def _attention_fusion(classes: int, dropout: float) -> nn.Sequential:
    body = PatchAttentionFusion(EfficientNetLite(2))
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout))
    head = nn.Linear(HEAD + body.WIDTH, classes)
    return nn.Sequential(OrderedDict(body=body, pooled=pooled, head=head))


def _resnet(build: Callable[[], models.ResNet], classes: int, dropout: float) -> models.ResNet:
    network = build()
    head = nn.Sequential(nn.Dropout(dropout), nn.Linear(network.fc.in_features, classes))
    network.fc = head  # ty: ignore[invalid-assignment]
    return network


NETWORKS: dict[str, Callable[[int, float], nn.Module]] = {
    "custom-cnn": _custom_cnn,
    "resnet18": partial(_resnet, models.resnet18),
    "resnet50": partial(_resnet, models.resnet50),
    "mobilenet-v2": lambda classes, dropout: models.mobilenet_v2(num_classes=classes, dropout=dropout),
    "convnext-tiny": lambda classes, dropout: models.convnext_tiny(num_classes=classes, stochastic_depth_prob=dropout),
    "efficientnet-lite2-attention": _attention_fusion,
}


INSIDE = ("features.", "body.features.")


def load_initial(network: nn.Module, file: Path | None) -> str:
    """Fills a network with what a file of pretrained layers has for it.

    Args:
        file: safetensors with torchvision's names, or a package's layers; random weights where absent.

    Returns:
        What training starts from, in words.

    Raises:
        ValueError: the file holds nothing for this network.
    """
    if file is None:
        return "from scratch"
    own = network.state_dict()
    state = torch.load(file, "cpu", weights_only=True) if file.suffix == ".pth" else load_file(file)
    # Files may hold the names inside the convolutions.
    named = {f"{inside}{name}": tensor for name, tensor in state.items() for inside in ("", *INSIDE)}
    usable = {k: v.to(own[k].dtype) for k, v in named.items() if k in own and v.shape == own[k].shape}
    if not usable:
        raise ValueError(f"{file.name} holds nothing for this network")
    network.load_state_dict(usable, strict=False)
    return file.stem


class ReplicationTask(lightning.LightningModule):
    """Cross-entropy or focal loss (Lin et al., 2017), with or without mixup (Zhang et al., 2018).

    Args:
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
        """Letterboxed images, float (N, 1, H, W) in 0..1, to logits (N, C)."""
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


def _trainer(recipe: ShortRecipe, precision: Number) -> lightning.Trainer:
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
    recipe: ShortRecipe, squares: np.ndarray, labels: np.ndarray, classes: int, init: Path | None, precision: Number
) -> tuple[ReplicationTask, str]:
    """Trains once.

    Args:
        squares: images, uint8 (N, size, size).
        labels: int (N,).

    Returns:
        The trained task, and what training started from.
    """
    lightning.seed_everything(recipe.seed, workers=True, verbose=False)
    counts = torch.bincount(torch.from_numpy(labels), minlength=classes)
    weights = counts.sum() / (classes * counts.clamp(min=1)) if recipe.class_weighted else torch.ones(classes)
    network = NETWORKS[recipe.network](classes, recipe.dropout)
    start = load_initial(network, init)
    task = ReplicationTask(recipe, channels_last(network), weights.float())
    _trainer(recipe, precision).fit(task, _loader(recipe, squares, labels, True))
    return task, start


def chances(task: ReplicationTask, squares: np.ndarray, precision: Number) -> np.ndarray:
    """A trained task's probabilities of images, uint8 (N, size, size): float32 (N, C)."""
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
    precision: Number,
) -> dict[str, Any]:
    """Trains and judges once.

    Args:
        squares: all images, uint8 (N, size, size).
        labels: int (N,).
        groups: int (N,), of near-duplicates, for the interval.

    Returns:
        Accuracy and kappa with their intervals, images on both sides, epochs, minutes and what training started from.
    """
    began = time.monotonic()
    task, start = train(recipe, squares[sides.train], labels[sides.train], int(labels.max()) + 1, init, precision)
    found = chances(task, squares[sides.judge], precision)
    judged = np.bincount(labels[sides.judge])
    said, right, its = found.argmax(axis=1), labels[sides.judge], groups[sides.judge]
    return {
        "accuracy": bootstrap(said == right, its),
        "kappa": kappa(said, right, its),
        "commonest": float(judged.max() / judged.sum()),
        "trained_on": len(sides.train),
        "epochs": recipe.epochs,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "start": start,
    }


def initial_layers(recipe: ShortRecipe, init: Path | None) -> Path | None:
    """The file of initial layers a recipe wants: a package's, ``init`` itself, or the one in it that is named so."""
    if layers := packaged(recipe.initial):
        return layers
    if init is None or not recipe.initial:
        return None
    return next(iter(sorted(init.glob(f"{recipe.initial}*.safetensors"))), None) if init.is_dir() else init


def replicate(name: str, data: Path, init: Path | None, *, only: str | None = None) -> Iterator[tuple[str, dict]]:
    """Runs a recipe on the published split and without its leak; each is saved beside what is known.

    Yields:
        "published" or "leak_free", and what ``run`` returned.

    Raises:
        FileNotFoundError: the data set is not there.
        ValueError: its images are not those of the committed split.
    """
    recipes = load_replications()
    recipe = recipes[name]
    dataset = SETS[recipe.data].load(data)
    known = committed(dataset)
    if known is None:
        raise ValueError(f"These are not the images of training/splits/{recipe.data}.csv.")
    pixels = squares([film.path for film in dataset.images], recipe.size)
    labels = dataset.labels
    # Depthwise convolutions in bf16 are slow on processors.
    depthwise = recipe.network in ("mobilenet-v2", "efficientnet-lite2-attention")
    precision: Number = "32-true" if depthwise else "bf16-mixed"
    for kind, deal in (("published", published), ("leak_free", leak_free)):
        if only in (None, kind):
            sides = deal(dataset, recipe.protocol, known[0], recipe.judged)
            found = run(recipe, pixels, labels, known[0], sides, initial_layers(recipe, init), precision)
            found["sides_sha256"] = sides.digest(dataset)
            # Read again, since another run may have written meanwhile.
            rows = load_rows(recipes)
            rows[name][kind] = found
            write_json(RESULTS, rows)
            yield kind, found


RESULTS = REPLICATIONS / "results.json"


def load_rows(recipes: dict[str, ReplicationRecipe], path: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """One row a recipe: its claim, and what was run of it; "published" and "leak_free" are None where it was not."""
    known = read_json(path) or {}
    rows = {}
    for name, recipe in recipes.items():
        run = {kind: known.get(name, {}).get(kind) for kind in ("published", "leak_free")}
        rows[name] = {**recipe.model_dump(include={"title", "claim", "claimed", "data", "protocol"}), **run}
    return rows


RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "cross-source" / "resnet18.yaml"
CROSS_SOURCE = Path(__file__).resolve().parents[1] / "results" / "cross_source.json"
FOLDS = 5


def cross_source(
    data: Path,
    init: Path | None,
    *,
    precision: Number,
    recipe: Path = RECIPE,
    results: Path = CROSS_SOURCE,
    listed: Path = LISTED,
    cache: Path = CACHE,
) -> dict[str, Any]:
    """Trains on either source, judges on both, and writes the areas under the curve.

    Returns:
        What was written: by the source trained on and the one judged on, the area under the receiver operating
        characteristic, with the numbers of images.

    Raises:
        FileNotFoundError: a set is not there.
        ValueError: these are not the listed images.
    """
    how = load_short(recipe)
    init = initial_layers(how, init)
    began = time.monotonic()
    own, judging = (BoxedImages(data, part, how.size, cache) for part in ("train", "test"))
    films = external_set(data, listed)
    elsewhere = squares([film.path for film in films], how.size, cache)
    labels = np.array([film.label for film in films])

    def odds(pixels: np.ndarray, kinds: np.ndarray, *judged: np.ndarray) -> list[np.ndarray]:
        task, _ = train(how, pixels, kinds, 2, init, precision)
        return [logit(np.clip(chances(task, each, precision)[:, 1], 1e-6, 1 - 1e-6)) for each in judged]

    at_home, abroad = odds(own.squares, own.fractured.astype(int), judging.squares, elsewhere)
    theirs = np.zeros(len(films))
    of_ours = np.zeros(len(judging.images))
    for trained, judged in StratifiedKFold(FOLDS, shuffle=True, random_state=how.seed).split(labels, labels):
        theirs[judged], seen = odds(elsewhere[trained], labels[trained], elsewhere[judged], judging.squares)
        of_ours += seen / FOLDS
    found = {
        "recipe": how.model_dump(mode="json"),
        "images": {
            "fracatlas": {
                "train": len(own.images),
                "train_fractured": int(own.fractured.sum()),
                "judge": len(judging.images),
                "judge_fractured": int(judging.fractured.sum()),
            },
            "multi-region": {"images": len(films), "fractured": int(labels.sum()), "folds": FOLDS},
        },
        "auroc": {
            "fracatlas": {"fracatlas": area(at_home, judging.fractured), "multi-region": area(abroad, labels == 1)},
            "multi-region": {"fracatlas": area(of_ours, judging.fractured), "multi-region": area(theirs, labels == 1)},
        },
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    write_json(results, found)
    return found
