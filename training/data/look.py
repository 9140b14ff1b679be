"""What a folder of one's own images holds, told before anybody trains on it, and the recipe that follows from it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from app.model.weights import available, load_card, shipped
from training.data.image import CACHE, DataSet
from training.data.own import grouped, listed
from training.recipe import RECIPES, Duplicates, load_recipe

__all__ = ["Found", "look", "write_recipe"]

TINY = 20
"""Different images of a class under which it is called tiny: a fifth of them judges, and four say little."""
FEW = 100
"""Images in all under which validation says little of anything."""
PASSES = 12_000
"""Images that training looks at in all, repeats included: ten to twenty minutes on two cores at 224 px."""
SMALLEST, LARGEST, STEP = 96, 224, 32
"""Sides of the square to choose from, in pixels, and the difference between two of them."""
SHOWN = 12
BASE = "own/resnet18.yaml"


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        root: the folder or table.
        data: the images that can be read, and what is wrong with others.
        groups: int (N,), near-duplicates share a number.
        duplicates: what counted as a near-duplicate.
        sizes: width and height of every image, int (N, 2).
        coloured: how many images are in colour.
    """

    root: Path
    data: DataSet
    groups: np.ndarray
    duplicates: Duplicates
    sizes: np.ndarray
    coloured: int

    @property
    def colour(self) -> bool:
        """Whether the model sees colours: a few tinted scans among grey images only tell where they are from."""
        return self.coloured > len(self.data.images) / 2

    def parts(self) -> Counter[str]:
        """Images by part of the split that came with them; one part without a name where none did."""
        return Counter(film.part for film in self.data.images)

    def different(self) -> dict[str, int]:
        """How many different images each class has: its groups of near-duplicates."""
        labels = self.data.labels
        return {name: len(set(self.groups[labels == index])) for index, name in enumerate(self.data.classes)}

    def leaks(self) -> dict[tuple[str, str], int]:
        """Images of the first part that have a near-duplicate in the second, where there are some."""
        part = np.array([film.part for film in self.data.images])
        names = [name for name in ("train", "validation", "test") if name in self.parts()]
        pairs = [(later, earlier) for i, later in enumerate(names) for earlier in names[:i]]
        found = {pair: int(np.isin(self.groups[part == pair[0]], self.groups[part == pair[1]]).sum()) for pair in pairs}
        return {pair: count for pair, count in found.items() if count}

    def contradictory(self) -> int:
        """Groups of near-duplicates that carry different labels."""
        pairs = {(group, label) for group, label in zip(self.groups.tolist(), self.data.labels.tolist(), strict=True)}
        return len(pairs) - len(set(self.groups.tolist()))

    def lines(self) -> Iterator[str]:
        """The whole, a line each, for people."""
        images, counts = self.data.images, np.bincount(self.data.labels, minlength=len(self.data.classes))
        yield f"{len(images):,} images of {len(self.data.classes)} classes, {'in colour' if self.colour else 'grey'}"
        if 0 < self.coloured < len(images):
            grey = "all are read in grey, unless the recipe's `colour` is true"
            how = "all are read in colour, which may give grey ones away" if self.colour else grey
            yield f"  MIXED: {self.coloured:,} of them are in colour; {how}"
        low, middle, high = (np.quantile(self.sizes, share, axis=0).astype(int) for share in (0.0, 0.5, 1.0))
        yield f"width {low[0]} to {high[0]} px, median {middle[0]}; height {low[1]} to {high[1]} px, median {middle[1]}"
        for name, count in zip(self.data.classes, counts, strict=True):
            yield f"  {name}: {count:,} images, {self.different()[name]:,} different"
        boxed = sum(bool(film.boxes) for film in images)
        if boxed:
            yield f"{boxed:,} images have boxes; they judge where heatmaps peak"
        yield from self._doubtful(counts)

    def _doubtful(self, counts: np.ndarray) -> Iterator[str]:
        copies = len(self.groups) - len(set(self.groups.tolist()))
        yield f"{copies:,} images are near-duplicates of another ({self.duplicates} search)"
        if self.duplicates != "lenient":
            yield "  a more lenient search takes too many of these images for one, or too long"
        if contradictory := self.contradictory():
            yield f"  {contradictory:,} groups of near-duplicates carry different labels"
        parts = self.parts()
        if set(parts) != {""}:
            yield "split as given: " + ", ".join(
                f"{count:,} {name or 'without a part'}" for name, count in parts.items()
            )
        for (later, earlier), count in self.leaks().items():
            yield f"  LEAK: {count:,} {later} images have a near-duplicate in {earlier}; those leave {earlier}"
        for name, count in self.different().items():
            if count < TINY:
                yield f"  TINY: {name} has {count} different images; what is said of it will be uncertain"
        if len(self.data.images) < FEW:
            yield (
                f"  FEW: {len(self.data.images)} images are hardly enough to learn from, or to judge by; "
                "export asks for 20 that validate"
            )
        if counts.max() > 10 * max(1, counts.min()):
            yield "  UNEVEN: the commonest class has more than ten times the images of the rarest; rare ones weigh more"
        for problem in self.data.problems[:SHOWN]:
            yield f"  {problem.image}: {problem.what}"
        if len(self.data.problems) > SHOWN:
            yield f"  and {len(self.data.problems) - SHOWN:,} more such problems"


def look(root: Path, cache: Path = CACHE) -> Found:
    """Reads every image once and searches for near-duplicates.

    Args:
        root: folder of class folders, or CSV file, as of ``training.data.own``.
        cache: where what was found is kept.

    Raises:
        FileNotFoundError: there is no such folder or table.
        ValueError: it holds fewer than two classes, or too many.
    """
    data, groups, how = grouped(listed(root), None, cache)
    if len(set(data.labels.tolist())) < len(data.classes):
        lost = [name for index, name in enumerate(data.classes) if index not in set(data.labels.tolist())]
        raise ValueError(f"No image of the class '{lost[0]}' can be read; take its folder away.")
    sizes, coloured = [], 0
    for film in data.images:
        with Image.open(film.path) as picture:
            sizes.append(picture.size)
            coloured += _has_colour(picture)
    return Found(root, data, groups, how, np.array(sizes), coloured)


def _has_colour(picture: Image.Image) -> bool:
    """Whether a small copy shows colour: more than compression leaves, on more than a few pixels."""
    if picture.mode in ("1", "L", "I", "F", "I;16"):
        return False
    small = np.asarray(picture.convert("RGB").resize((64, 64))).astype(int)
    return bool((np.ptp(small, axis=2) > 10).mean() > 0.02)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.casefold()).strip("-") or "own"


def defaults(found: Found) -> dict[str, Any]:
    """Fields of the recipe that follow from what was found; whatever else is as in ``BASE``."""
    longest = float(np.median(found.sizes.max(axis=1)))
    size = int(np.clip(STEP * round(longest / STEP), SMALLEST, LARGEST))
    training = found.parts()["train"] or len(found.data.images)
    given = "validation" in found.parts()
    return {
        "size": size,
        "colour": found.colour,
        "fold": None if given else 0,
        "tune_epochs": int(np.clip(round(PASSES / max(1, training)), 3, 40)),
    }


def write_recipe(
    found: Found,
    *,
    name: str | None = None,
    out: Path | None = None,
    title: str | None = None,
    image: str = "image",
    finding: str = "",
) -> Path:
    """Writes the recipe for what was found.

    Args:
        name: of the model; that of the folder or table where absent.
        out: the file; ``<name>.yaml`` in the working folder where absent.
        title: of the page; the folder's name where absent.
        image: what the page calls one of the images.
        finding: what the classes are types of; empty for none.

    Returns:
        The file.

    Raises:
        ValueError: the name is that of a model of this project, or the file is there already.
    """
    stem = found.root.resolve().stem
    name = _slug(name or stem)
    weights = shipped("weights")
    if name in available(weights) and load_card(name, weights).subject.ours:
        raise ValueError(f"'{name}' is a model of this project; choose another name with --name.")
    out = out or Path(f"{name}.yaml")
    if out.exists():
        raise ValueError(f"{out} is there already; take it away, or name another file with --out.")
    own = {
        "root": str(found.root.resolve()),
        "title": title or stem.replace("_", " ").replace("-", " ").capitalize(),
        "image": image,
        "finding": finding,
        "duplicates": found.duplicates,
        "classes": list(found.data.classes),
    }
    base = load_recipe(RECIPES / BASE)
    fields = {"extends": BASE, "name": name, **defaults(found), "augment": base.augment.model_dump(), "own": own}
    told = "".join(f"# {line}\n" for line in found.lines())
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(f"{told}{NOTES}{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}", encoding="utf-8")
    load_recipe(out)
    return out


NOTES = """
# Every field is described in training/recipe.py. Set `flip` to true where a mirrored image keeps its class.
# `own` may also name `licence`, `limits` and `intended_use`.
"""
