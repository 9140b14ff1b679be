"""Images of many sources with what each may teach: presence where a source holds whole bones too, place where boxed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader, RandomSampler, WeightedRandomSampler

from app.model.weights import ModelCard
from training.data import fracatlas
from training.data.all_sets import BELIEVED, LATER, SOURCES, TABLE, read_table
from training.data.datamodule import Letterboxed, TypedData, batched, digest_of, order
from training.data.image import CACHE, LabelledImage, squares
from training.recipe import Recipe


@dataclass(frozen=True)
class Lesson:
    """One image and what is asked of it.

    Attributes:
        source: the set it is drawn from.
        image: with boxes where the set has them.
        group: number over all sets.
        fractured: whether a fracture is in it.
        presence: whether that may be asked: the source holds both kinds and no other set objects.
        place: whether every cell may be asked: boxes are there, or there is nothing to box.
    """

    source: str
    film: LabelledImage
    group: int
    fractured: bool
    presence: bool
    place: bool


def images_of(source: str, data: Path) -> dict[str, LabelledImage]:
    """Every image of a source, by the name it has in the table of groups.

    Raises:
        FileNotFoundError: the set is not there.
    """
    found = fracatlas.load(data) if source == "fracatlas" else LATER[source](data)
    return {film.name: film for film in found.images}


def lessons(
    data: Path,
    part: str,
    sources: Sequence[str] = SOURCES,
    table: Path = TABLE,
    without: str = "",
    apart: Collection[int] = (),
) -> list[Lesson]:
    """What the images of one part may teach or be asked, one image a radiograph and source.

    In the marked sets a fracture is a box; an image without one counts as whole only where the set is believed.

    Args:
        data: folder that holds the sets.
        part: "train", "validation" or "test".
        sources: which to take.
        table: of groups over all sets.
        without: a set; images that share a group with one of its are left out.
        apart: groups whose images are left out.
    """
    every = read_table(table)
    closed = {row.group for row in every if row.set == without}.union(apart)
    rows = [row for row in every if row.kept and row.part == part and row.set in sources and row.group not in closed]
    known = {source: images_of(source, data) for source in sources}
    found = []
    for row in rows:
        film = known[row.set].get(row.film)
        fractured = row.label == "fractured"
        if film is None or (not fractured and row.set not in BELIEVED):
            continue
        presence = row.set in BELIEVED and not row.contested
        place = bool(film.boxes) if fractured else presence
        found.append(Lesson(row.set, film, row.group, fractured, presence, place))
    return found


def groups_of_typed(films: Collection[str], table: Path = TABLE) -> set[int]:
    """The groups, over all sets, of bone-break's images, by their names."""
    return {row.group for row in read_table(table) if row.set == "bone-break" and row.film in films}


def typed_beside(sources: Collection[str], table: Path = TABLE) -> int:
    """How many of bone-break's training images share a group with one that may teach presence or place."""
    every = read_table(table)
    teaching = {
        row.group
        for row in every
        if row.set in sources and row.kept and row.part == "train" and (row.label == "fractured" or row.set in BELIEVED)
    }
    return sum(row.set == "bone-break" and row.part == "train" and row.group in teaching for row in every)


def learnt_sets(card: ModelCard) -> tuple[str, ...]:
    """The sets a model's weights learnt from, those of the weights it went on from among them."""
    return ("bone-break", *(card.data.get("sources") or (["fracatlas"] if card.places else [])))


PARTS = ("train", "validation", "test")


def never_seen(
    data: Path, source: str, taught: Sequence[str], table: Path = TABLE, parts: Sequence[str] = PARTS
) -> list[Lesson]:
    """The lessons of a source whose group holds no training image of the sets that are taught.

    Args:
        data: folder that holds the set.
        source: to be judged on.
        taught: sets whose training images were learnt from.
        table: of groups over all sets.
        parts: to take them from.
    """
    learnt = {row.group for row in read_table(table) if row.set in taught and row.part in ("train", "out")}
    found = [lesson for part in parts for lesson in lessons(data, part, (source,), table)]
    return [lesson for lesson in found if lesson.group not in learnt]


def once_each(found: Sequence[Lesson], images: dict[tuple[str, str], str]) -> list[Lesson]:
    """One lesson a radiograph, from the first source of ``SOURCES`` that holds it."""
    kept: dict[str, Lesson] = {}
    for lesson in sorted(found, key=lambda lesson: SOURCES.index(lesson.source)):
        number = images.get((lesson.source, lesson.film.name), "")
        kept.setdefault(number or f"{lesson.source}/{lesson.film.name}", lesson)
    return list(kept.values())


class SourceImages(Letterboxed):
    """The lessons of one part, letterboxed.

    Args:
        data: folder that holds the sets.
        part: "train", "validation" or "test".
        size: side of the square in pixels.
        sources: which to take.
        without, apart: as of ``lessons``.
        single: one lesson a radiograph over all sources, as training wants it, else one a radiograph and source.
        cache: where decoded images are kept.

    Attributes:
        sources: the source of each, str (N,).

    Raises:
        FileNotFoundError: a set or the table is not there.
    """

    def __init__(
        self,
        data: Path,
        part: str,
        size: int,
        sources: Sequence[str] = SOURCES,
        *,
        without: str = "",
        apart: Collection[int] = (),
        single: bool = False,
        cache: Path = CACHE,
    ) -> None:
        found = lessons(data, part, sources, without=without, apart=apart)
        if single:
            found = once_each(found, {(row.set, row.film): row.image for row in read_table()})
        self.lessons = tuple(sorted(found, key=lambda lesson: (lesson.source, lesson.film.name)))
        self.sources = np.array([lesson.source for lesson in self.lessons])
        self.data = data
        super().__init__((lesson.film for lesson in self.lessons), size, cache)

    @cached_property
    def squares(self) -> np.ndarray:
        """uint8 (N, size, size); each source is decoded once, whatever part and fold is asked for."""
        kept = {(row.set, row.film) for row in read_table() if row.kept}
        parts = []
        for source in sorted(set(self.sources.tolist())):
            every = [film for name, film in sorted(images_of(source, self.data).items()) if (source, name) in kept]
            place = {film.name: index for index, film in enumerate(every)}
            wanted = [place[lesson.film.name] for lesson in self.lessons if lesson.source == source]
            parts.append(squares([film.path for film in every], self.size, self.cache)[wanted])
        return np.concatenate(parts)

    def flags(self, name: str) -> np.ndarray:
        """One of a lesson's yes-or-no attributes, bool (N,)."""
        return np.array([getattr(lesson, name) for lesson in self.lessons], bool)

    def weights(self, draws: dict[str, float], fractured: float) -> np.ndarray:
        """How often each is drawn: sources by ``draws``, within a source that has both, fractures by ``fractured``."""
        weights = np.zeros(len(self.lessons))
        broken = self.flags("fractured")
        for source, share in draws.items():
            its = self.sources == source
            both = broken[its].any() and not broken[its].all()
            for kind, part in ((True, fractured if both else 1.0), (False, 1.0 - fractured if both else 0.0)):
                chosen = its & (broken == kind)
                if chosen.any() and part:
                    weights[chosen] = share * part / chosen.sum()
        return weights

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """Images and masks, uint8 (N, 1, size, size); fractured, asked presence, asked place, float (N,)."""
        flags = (torch.from_numpy(self.flags(name)).float() for name in ("fractured", "presence", "place"))
        return torch.from_numpy(self.squares)[:, None], torch.from_numpy(self.masks)[:, None], *flags

    def as_card(self) -> dict[str, Any]:
        """By source how many images, how many fractured and boxed, and one hash over their names and bytes."""
        card: dict[str, Any] = {}
        for source in sorted(set(self.sources.tolist())):
            its = [lesson for lesson in self.lessons if lesson.source == source]
            card[source] = {
                "images": len(its),
                "fractured": sum(lesson.fractured for lesson in its),
                "boxed": sum(bool(lesson.film.boxes) for lesson in its),
                "presence": sum(lesson.presence for lesson in its),
                "sha256": digest_of(lesson.film for lesson in its),
            }
        return card


class ManySources(lightning.LightningDataModule):
    """Batches of typed images beside lessons of all sources, an epoch of ``many.steps`` of them."""

    def __init__(self, recipe: Recipe, data: Path, cache: Path = CACHE) -> None:
        super().__init__()
        assert recipe.places is not None
        assert recipe.many is not None
        self.places, self.many, self.recipe = recipe.places, recipe.many, recipe
        self.typed = TypedData(recipe, data, cache)
        sources = tuple(recipe.many.draws)
        how: dict[str, Any] = {"without": recipe.many.without, "cache": cache}
        # What a fold judges types on teaches it neither presence nor place, in whatever set it stands.
        judging = groups_of_typed({self.typed.images[index].name for index in self.typed.split.validation})
        self.boxed = SourceImages(data, "train", recipe.size, sources, single=True, apart=judging, **how)
        self.judging = SourceImages(data, "validation", recipe.size, sources, **how)

    def train_dataloader(self) -> CombinedLoader:
        """Types: images and shares of types. Places: images, masks, presence and the two flags."""
        seed, steps = self.recipe.seed, self.many.steps
        drawn = {"replacement": True, "num_samples": steps * self.recipe.batch_size}
        typed = self.typed.learnt()
        sampler = RandomSampler(range(len(typed[0])), **drawn, generator=order(self, seed))
        weights = self.boxed.weights(self.many.draws, self.places.fractured).tolist()
        boxed = WeightedRandomSampler(weights, steps * self.places.batch_size, generator=order(self, seed))
        loaders = {
            "types": batched(typed, sampler, self.recipe.batch_size),
            "places": batched(self.boxed.tensors(), boxed, self.places.batch_size),
        }
        return CombinedLoader(loaders, "max_size_cycle")

    def val_dataloader(self) -> DataLoader:
        """Every source's validation images in the order of ``judging``: images and masks."""
        return batched(self.judging.tensors()[:2], range(len(self.judging.lessons)), 16)
