"""The films of one recipe, split and cached, as Lightning wants them."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from training.data import bone_break, splits
from training.data.cache import CACHE, squares
from training.data.film import readable
from training.data.grouping import find_groups
from training.data.splits import Split, split_films
from training.recipe import Recipe

__all__ = ["BoneBreakFilms"]

log = logging.getLogger(__name__)


class BoneBreakFilms(lightning.LightningDataModule):
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
        known = splits.committed(self.set)
        if known is not None:
            self.groups = known[0]
        else:
            log.warning("these films are not the ones of the committed split; looking for near-duplicates anew")
            self.set, decoded = readable(self.set)
            self.groups = find_groups(self.set, decoded, cache).groups
        for problem in self.set.problems:
            log.warning("%s: %s", problem.film, problem.what)
        self.films = self.set.films
        self.labels = np.array([film.label for film in self.films])

    @cached_property
    def squares(self) -> np.ndarray:
        """uint8 (N, size, size), in the order of ``films``."""
        return squares([film.path for film in self.films], self.recipe.size, self.cache)

    @cached_property
    def split(self) -> Split:
        official_test = np.array([film.part == "test" for film in self.films])
        return split_films(
            self.labels,
            official_test,
            self.groups,
            folds=self.recipe.folds,
            fold=self.recipe.fold,
            seed=self.recipe.seed,
        )

    def loader(self, indices: np.ndarray, *, shuffle: bool = False) -> DataLoader:
        """Batches of uint8 (N, 1, size, size) and labels (N,); a last batch of one is dropped while shuffling."""
        films = TensorDataset(
            torch.from_numpy(self.squares[indices])[:, None], torch.from_numpy(self.labels[indices]).long()
        )
        lonely = shuffle and len(indices) % self.recipe.batch_size == 1
        return DataLoader(films, self.recipe.batch_size, shuffle=shuffle, drop_last=lonely)

    def train_dataloader(self) -> DataLoader:
        return self.loader(self.split.train, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self.loader(self.split.validation)

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
            writer.writerow([film.name, classes[film.label], self.groups[index], part_of[index]])
        return table.getvalue()
