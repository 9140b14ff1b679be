"""The images of one recipe, split and cached, as Lightning wants them; FracAtlas with its boxes as masks."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, TensorDataset, WeightedRandomSampler

from app.imaging.letterbox import Placement
from training.data import bone_break, fracatlas, own, splits
from training.data.image import CACHE, LabelledImage, placements, squares
from training.data.splits import Split, split_images
from training.machines import Share, process
from training.recipe import Places, Recipe

log = logging.getLogger(__name__)


def box_mask(film: LabelledImage, placement: Placement) -> np.ndarray:
    """An image's fracture boxes, painted on the model's square: uint8 (size, size), 1 inside a box.

    Each box covers at least one pixel, however small it is.
    """
    mask = np.zeros((placement.size, placement.size), np.uint8)
    for x, y, width, height in film.boxes:
        left = placement.left + int((x - width / 2) * placement.width)
        top = placement.top + int((y - height / 2) * placement.height)
        right = placement.left + int(np.ceil((x + width / 2) * placement.width))
        bottom = placement.top + int(np.ceil((y + height / 2) * placement.height))
        mask[max(0, top) : max(bottom, top + 1), max(0, left) : max(right, left + 1)] = 1
    return mask


def digest_of(films: Iterable[LabelledImage]) -> str:
    """One SHA-256 over images' names and bytes."""
    digest = hashlib.sha256()
    for film in films:
        digest.update(film.name.encode())
        digest.update(hashlib.sha256(film.path.read_bytes()).digest())
    return digest.hexdigest()


class Letterboxed:
    """Images with boxes, in the model's square.

    Args:
        images: in order.
        size: side of the square in pixels.
        cache: where decoded images are kept.
        equalise: whether the images' contrast is equalised.
    """

    def __init__(self, films: Iterable[LabelledImage], size: int, cache: Path = CACHE, equalise: bool = False) -> None:
        self.images = tuple(films)
        self.size = size
        self.cache = cache
        self.equalise = equalise

    @cached_property
    def squares(self) -> np.ndarray:
        """uint8 (N, size, size)."""
        return squares([film.path for film in self.images], self.size, self.cache, self.equalise)

    @cached_property
    def placements(self) -> tuple[Placement, ...]:
        return placements([film.path for film in self.images], self.size)

    @cached_property
    def masks(self) -> np.ndarray:
        """uint8 (N, size, size), 1 inside a fracture box."""
        pairs = zip(self.images, self.placements, strict=True)
        return np.stack([box_mask(film, placement) for film, placement in pairs])


class BoxedImages(Letterboxed):
    """One part of FracAtlas, letterboxed.

    Attributes:
        images: of the part.
        groups: int (N,), near-duplicates share a number.

    Raises:
        FileNotFoundError: the set is not there.
    """

    def __init__(self, data: Path, part: str, size: int, cache: Path = CACHE, equalise: bool = False) -> None:
        whole = fracatlas.load(data)
        whole, groups, parts = splits.dealt(whole, cache, unlisted=0.2)
        if spare := int((parts == "unlisted").sum()):
            log.warning("%d images are not in the committed split and are left out: they may be near-duplicates", spare)
        self.part = part
        chosen = np.flatnonzero(parts == part)
        super().__init__((whole.images[index] for index in chosen), size, cache, equalise)
        self.groups = groups[chosen]

    @cached_property
    def fractured(self) -> np.ndarray:
        """bool (N,)."""
        return np.array([film.label == 1 for film in self.images])

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images and masks, uint8 (N, 1, size, size), and whether fractured, float (N,)."""
        return (
            torch.from_numpy(self.squares)[:, None],
            torch.from_numpy(self.masks)[:, None],
            torch.from_numpy(self.fractured).float(),
        )

    def as_card(self) -> dict[str, Any]:
        """Number of images and one hash over their names and bytes."""
        return {
            "set": "fracatlas",
            "part": self.part,
            "images": len(self.images),
            "fractured": int(self.fractured.sum()),
            "sha256": digest_of(self.images),
        }


FOLD_SEED = 0
"""Folds do not change with a recipe's seed, so that runs of several seeds are judged on the same images."""


def batched(
    tensors: tuple[torch.Tensor, ...], sampler: Sampler | range, batch_size: int, drop_last: bool = False
) -> DataLoader:
    """Whole batches taken out of tensors at once; on a GPU the images lie there from the start.

    What is drawn, by a sampler, is shared out among the processes that train; a range of images all of them see.
    """
    device = torch.device("cuda", process().rank % process().beside) if torch.cuda.is_available() else "cpu"
    films = TensorDataset(*(tensor.to(device) for tensor in tensors))
    batches = BatchSampler(sampler, batch_size, drop_last)
    return DataLoader(films, sampler=batches if isinstance(sampler, range) else Share(batches), batch_size=None)


def order(module: lightning.LightningDataModule, seed: int) -> torch.Generator:
    """What draws images: alike in all processes, and otherwise in a run that goes on than in its first epochs."""
    epoch = module.trainer.current_epoch if module.trainer else 0
    return torch.Generator().manual_seed(1009 * seed + epoch)


def as_channels(squares: np.ndarray) -> torch.Tensor:
    """Squares (N, S, S), or (N, S, S, 3) in colour, as networks take them: (N, 1, S, S) or (N, 3, S, S), same type."""
    found = torch.from_numpy(squares)
    return found.permute(0, 3, 1, 2).contiguous() if found.ndim == 4 else found[:, None]


class TypedData(lightning.LightningDataModule):
    """Images with types, bone-break's or the recipe's own, letterboxed to the recipe's size.

    Attributes:
        shares: what an image's label teaches, as shares of the classes, float32 (N, C).
    """

    def __init__(self, recipe: Recipe, data: Path, cache: Path = CACHE) -> None:
        super().__init__()
        self.recipe = recipe
        self.cache = cache
        self.boxed = BoxedImages(data, "train", recipe.size, cache, recipe.equalise) if recipe.places else None
        if recipe.own:
            self.set, self.groups, _ = own.grouped(own.load(recipe.own, data), recipe.own.duplicates, cache)
        else:
            self.set, self.groups, _ = splits.dealt(bone_break.load(data), cache)
        for problem in self.set.problems:
            log.warning("%s: %s", problem.image, problem.what)
        self.images = self.set.images
        self.labels = self.set.labels
        self.shares = np.eye(len(self.set.classes), dtype=np.float32)[self.labels]

    def teach(self, indices: np.ndarray, shares: np.ndarray) -> None:
        """Replaces the images that teach, and what their labels say: indices int (M,), shares float (M, C)."""
        self.split = replace(self.split, train=indices)
        self.shares[indices] = shares

    @cached_property
    def squares(self) -> np.ndarray:
        """uint8 (N, size, size), in colour (N, size, size, 3), in the order of ``images``."""
        recipe = self.recipe
        return squares([film.path for film in self.images], recipe.size, self.cache, recipe.equalise, recipe.colour)

    @cached_property
    def split(self) -> Split:
        official_test = np.array([film.part == "test" and not self.recipe.whole for film in self.images])
        given = np.array([film.part == "validation" for film in self.images])
        how = {"folds": self.recipe.folds, "fold": self.recipe.fold, "seed": FOLD_SEED, "given": given}
        split = split_images(self.labels, official_test, self.groups, **how)
        return replace(split, train=self._uncontested(split.train)) if self.recipe.clean else split

    def _uncontested(self, indices: np.ndarray) -> np.ndarray:
        labels = {group: set(self.labels[self.groups == group]) for group in self.groups[indices]}
        return indices[[len(labels[self.groups[index]]) == 1 for index in indices]]

    def learnt(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What teaches types: uint8 (N, 1 or 3, size, size) and shares of the classes, float32 (N, C)."""
        train = self.split.train
        return as_channels(self.squares[train]), torch.from_numpy(self.shares[train])

    def _typed_loader(self) -> DataLoader:
        """Batches of ``learnt``, shuffled; no last batch of one a process."""
        count, size = len(self.split.train), self.recipe.batch_size
        sampler = RandomSampler(range(count), generator=order(self, self.recipe.seed))
        return batched(self.learnt(), sampler, size, 0 < count % size < 2 * process().count)

    def _boxed_loader(self, places: Places, boxed: BoxedImages, batches: int) -> DataLoader:
        """As many batches of boxed images, masks and whether fractured, drawn with the recipe's share of fractures."""
        share = boxed.fractured.mean()
        weights = np.where(boxed.fractured, places.fractured / share, (1.0 - places.fractured) / (1.0 - share))
        count, generator = batches * places.batch_size, order(self, self.recipe.seed)
        sampler = WeightedRandomSampler(weights.tolist(), count, generator=generator)
        return batched(boxed.tensors(), sampler, places.batch_size)

    def train_dataloader(self) -> CombinedLoader:
        loaders = {"types": self._typed_loader()}
        if self.recipe.places and self.boxed:
            loaders["places"] = self._boxed_loader(self.recipe.places, self.boxed, len(loaders["types"]))
        return CombinedLoader(loaders, "max_size_cycle")

    def val_dataloader(self) -> DataLoader | list:
        """Batches of uint8 (N, 1 or 3, size, size) and labels (N,), in order."""
        asked = self.split.validation
        if not len(asked):
            return []
        tensors = as_channels(self.squares[asked]), torch.from_numpy(self.labels[asked]).long()
        return batched(tensors, range(len(asked)), self.recipe.batch_size)

    def class_counts(self) -> torch.Tensor:
        """Training images per class, float (C,)."""
        return torch.from_numpy(self.shares[self.split.train].sum(axis=0))

    def as_card(self) -> dict[str, Any]:
        """Sizes of the split and one hash a part, over the names and bytes of its images."""
        parts: dict[str, dict[str, Any]] = {}
        for part in ("train", "validation", "test", "leaked"):
            indices = getattr(self.split, part)
            parts[part] = {"images": len(indices), "sha256": digest_of(self.images[i] for i in indices)}
        parts["leaked"]["meaning"] = "training images left out because a near-duplicate of theirs is a test image"
        if its := self.recipe.own:
            return {
                "set": "own",
                "title": its.title,
                "licence": its.licence,
                "limits": list(its.limits),
                "groups": len(set(self.groups.tolist())),
                "duplicates": its.duplicates,
                "parts": parts,
            }
        return {
            "set": self.set.name,
            "title": 'Kaggle\'s "Bone Break Classification", pictures from papers and teaching sites',
            "limits": bone_break.LIMITS,
            "groups": len(set(self.groups.tolist())),
            "parts": parts,
            "places": self.boxed.as_card() if self.boxed else None,
        }

    def split_table(self) -> str:
        """The split as CSV, one row an image: name, class, group, part."""
        part_of = {
            int(index): part
            for part in ("train", "validation", "test", "leaked")
            for index in getattr(self.split, part)
        }
        classes = self.set.classes
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["image", "class", "group", "part"])
        for index, film in enumerate(self.images):
            writer.writerow([film.name, classes[film.label], self.groups[index], part_of.get(index, "left out")])
        return table.getvalue()
