"""Small recipes and drawings that tests of several modules share."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from app.imaging.examples import draw
from tests.conftest import varied
from training.data import all_sets
from training.data.all_sets import Row, read_table
from training.data.image import LabelledImage
from training.data.lessons import Lesson
from training.recipe import Augment, Frozen, Places, Recipe

STILL = Augment(rotation=0, zoom=0, shift=0, shear=0, flip=False, brightness=0, contrast=0)


JOINT = Recipe(
    name="joint",
    architecture="custom-cnn",
    size=64,
    stride=8,
    head="attended",
    places=Places(batch_size=8),
    folds=2,
    batch_size=8,
    head_epochs=0,
    tune_epochs=1,
    tune=(),
    augment=STILL,
)


def film(*boxes: tuple[float, float, float, float]) -> LabelledImage:
    return LabelledImage("drawn", Path("drawn.png"), 1, "", boxes=boxes)


TINY = Recipe(
    name="tiny",
    architecture="resnet18",
    size=64,
    folds=2,
    batch_size=8,
    head_epochs=1,
    tune_epochs=2,
    tune=("layer3",),
    augment=Augment(),
)


SMALL = JOINT.model_copy(update={"name": "small", "head": "mean", "places": None, "augment": Augment()})


PROBE = Recipe(
    name="probe",
    architecture="resnet18",
    size=64,
    stride=16,
    frozen=Frozen(stages=("layer2", "layer3"), decay=0.01),
    folds=2,
    head_epochs=0,
    tune_epochs=0,
    tune=(),
)


COLUMNS = "image_id,hand,leg,hip,shoulder,mixed,hardware,multiscan,fractured,fracture_count,frontal,lateral,oblique"


def picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), draw("jagged", seed=seed, height=96, width=64))


def detailed(seed: int) -> np.ndarray:
    """A drawn film with the fine texture of bone, which flat drawings lack: uint8 (420, 300)."""
    film = varied(seed).astype(np.float32)
    rng = np.random.default_rng(1000 + seed)
    for spread, strength in ((2.0, 60.0), (5.0, 90.0)):
        film += strength * cv2.GaussianBlur(rng.normal(0, 1, film.shape).astype(np.float32), (0, 0), spread)
    return np.clip(film, 0, 255).astype(np.uint8)


MANY = Recipe.model_validate(
    {
        "name": "many",
        "architecture": "resnet18-pyramid",
        "size": 64,
        "stride": 8,
        "head": "attended",
        "places": {"batch_size": 4, "target": "share", "where": 1.5},
        "many": {"steps": 2, "draws": {"veda": 1, "hbfmid": 1}},
        "tune": ["layer4", "lateral2", "lateral3", "lateral4", "smooth", "norm"],
        "folds": 2,
        "batch_size": 4,
        "head_epochs": 0,
        "tune_epochs": 2,
        "body_rate": 1e-3,
    }
)


def listed(part: str, source: str, count: int, label: str = "") -> list[Row]:
    """Images of the committed table that stand for their radiograph, the first by name."""
    rows = [row for row in read_table() if (row.set, row.part, row.kept) == (source, part, True) and not row.contested]
    return [row for row in rows if not label or row.label == label][:count]


def draw_listed(root: Path, row: Row, seed: int) -> None:
    """Draws an image, and its mark, under the name it has in the table."""
    picture = varied(seed, height=96, width=72)
    path = root / row.set / f"{row.film}.png"
    if row.set in all_sets.BOXED_SETS:
        marks = root / row.set / f"{row.film.replace('/images/', '/labels/')}.txt"
        marks.parent.mkdir(parents=True, exist_ok=True)
        marks.write_text("0 0.5 0.5 0.2 0.2\n" if row.label == "fractured" else "")
        if row.label == "fractured":
            picture[40:58, 29:43] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture)


def lesson(source: str = "veda", name: str = "a", **changes: object) -> Lesson:
    boxes = ((0.5, 0.5, 0.2, 0.2),) if changes.get("fractured", True) else ()
    film = LabelledImage(name, Path(f"{name}.png"), int(bool(boxes)), "", boxes=boxes)
    its = {"group": 0, "fractured": True, "presence": True, "place": True, **changes}
    return Lesson(source, film, **its)  # ty: ignore[invalid-argument-type]
