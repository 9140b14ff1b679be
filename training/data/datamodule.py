"""The films of one recipe, split and cached, as Lightning wants them."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, TensorDataset, WeightedRandomSampler

from training.data import bone_break, splits
from training.data.boxed import BoxedImages
from training.data.cache import CACHE, squares
from training.data.grouping import find_groups
from training.data.image import readable
from training.data.splits import Split, split_images
from training.recipe import Places, Recipe

__all__ = ["BoneBreakData"]

log = logging.getLogger(__name__)

FOLD_SEED = 0
"""Folds do not change with a recipe's seed, so that runs of several seeds are judged on the same films."""


def _batches(
    tensors: tuple[torch.Tensor, ...], sampler: Sampler | range, batch_size: int, drop_last: bool
) -> DataLoader:
    """Whole batches taken out of tensors at once; on a GPU the films lie there from the start."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    films = TensorDataset(*(tensor.to(device) for tensor in tensors))
    return DataLoader(films, sampler=BatchSampler(sampler, batch_size, drop_last), batch_size=None)


class BoneBreakData(lightning.LightningDataModule):
    """Bone-break films letterboxed to the recipe's size.

    Args:
        recipe: size, batch size and split.
        data: folder that holds the set.
        cache: where decoded films are kept.
    """

    def __init__(self, recipe: Recipe, data: Path, cache: Path = CACHE) -> None:
        super().__init__()
        self.recipe = recipe
        self.cache = cache
        self.set = bone_break.load(data)
        self.boxed = BoxedImages(data, "train", recipe.size, cache, recipe.equalise) if recipe.places else None
        known = splits.committed(self.set)
        if known is not None:
            self.groups = known[0]
        else:
            log.warning("these films are not the ones of the committed split; looking for near-duplicates anew")
            self.set, decoded = readable(self.set)
            self.groups = find_groups(self.set, decoded, cache).families
        for problem in self.set.problems:
            log.warning("%s: %s", problem.image, problem.what)
        self.films = self.set.films
        self.labels = np.array([film.label for film in self.films])

    @cached_property
    def squares(self) -> np.ndarray:
        """uint8 (N, size, size), in the order of ``films``."""
        return squares([film.path for film in self.films], self.recipe.size, self.cache, self.recipe.equalise)

    @cached_property
    def split(self) -> Split:
        official_test = np.array([film.part == "test" and not self.recipe.whole for film in self.films])
        split = split_images(
            self.labels,
            official_test,
            self.groups,
            folds=self.recipe.folds,
            fold=self.recipe.fold,
            seed=FOLD_SEED,
        )
        return replace(split, train=self._uncontested(split.train)) if self.recipe.clean else split

    def _uncontested(self, indices: np.ndarray) -> np.ndarray:
        labels = {group: set(self.labels[self.groups == group]) for group in self.groups[indices]}
        return indices[[len(labels[self.groups[index]]) == 1 for index in indices]]

    def loader(self, indices: np.ndarray, *, shuffle: bool = False) -> DataLoader:
        """Batches of uint8 (N, 1, size, size) and labels (N,); a last batch of one is dropped while shuffling."""
        tensors = (torch.from_numpy(self.squares[indices])[:, None], torch.from_numpy(self.labels[indices]).long())
        sampler = RandomSampler(indices) if shuffle else range(len(indices))
        lonely = shuffle and len(indices) % self.recipe.batch_size == 1
        return _batches(tensors, sampler, self.recipe.batch_size, lonely)

    def _boxed_loader(self, places: Places, boxed: BoxedImages, batches: int) -> DataLoader:
        """As many batches of boxed films, masks and whether fractured, drawn with the recipe's share of fractures."""
        share = boxed.fractured.mean()
        weights = np.where(boxed.fractured, places.fractured / share, (1.0 - places.fractured) / (1.0 - share))
        sampler = WeightedRandomSampler(weights.tolist(), batches * places.batch_size)
        return _batches(boxed.tensors(), sampler, places.batch_size, False)

    def train_dataloader(self) -> CombinedLoader:
        loaders = {"types": self.loader(self.split.train, shuffle=True)}
        if self.recipe.places and self.boxed:
            loaders["places"] = self._boxed_loader(self.recipe.places, self.boxed, len(loaders["types"]))
        return CombinedLoader(loaders, "max_size_cycle")

    def val_dataloader(self) -> DataLoader | list:
        return self.loader(self.split.validation) if len(self.split.validation) else []

    def class_counts(self) -> torch.Tensor:
        """Training films per class, int (C,)."""
        return torch.bincount(torch.from_numpy(self.labels[self.split.train]), minlength=len(bone_break.CLASSES))

    def as_card(self) -> dict[str, Any]:
        """Sizes of the split and one hash a part, over the names and bytes of its films."""
        parts: dict[str, dict[str, Any]] = {}
        for part in ("train", "validation", "test", "leaked"):
            indices = getattr(self.split, part)
            digest = hashlib.sha256()
            for index in indices:
                film = self.films[index]
                digest.update(film.name.encode())
                digest.update(hashlib.sha256(film.path.read_bytes()).digest())
            parts[part] = {"films": len(indices), "sha256": digest.hexdigest()}
        parts["leaked"]["meaning"] = "training films left out because a near-duplicate of theirs is a test film"
        return {
            "set": self.set.name,
            "title": 'Kaggle\'s "Bone Break Classification", pictures from papers and teaching sites',
            "limits": bone_break.LIMITS,
            "groups": len(set(self.groups.tolist())),
            "parts": parts,
            "places": self.boxed.as_card() if self.boxed else None,
        }

    def split_table(self) -> str:
        """The split as CSV, one row a film: name, class, group, part."""
        part_of = {
            int(index): part
            for part in ("train", "validation", "test", "leaked")
            for index in getattr(self.split, part)
        }
        classes = list(bone_break.CLASSES)
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["film", "class", "group", "part"])
        for index, film in enumerate(self.films):
            writer.writerow([film.name, classes[film.label], self.groups[index], part_of.get(index, "contested")])
        return table.getvalue()
