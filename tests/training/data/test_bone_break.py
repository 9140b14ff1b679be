"""bone-break with everything that can be wrong in it: reported by name."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tests.training.toys import picture
from training.data import bone_break, fracatlas
from training.data.duplicates import find_groups
from training.data.image import readable
from training.data.splits import part_images


def test_bone_break_names_what_its_list_promises_and_lacks(tmp_path: Path) -> None:
    for label, folder in enumerate(bone_break.CLASSES.values()):
        for split in ("Train", "Test"):
            picture(tmp_path / folder / split / f"film{label}.webp", label)
    rows = [
        "class,split,file,sha256,bytes",
        "Spiral Fracture,Test,film9.jpg,abc,1",
        "Spiral Fracture,Test,gone.jpg,d,1",
    ]
    (tmp_path / "originals.csv").write_text("\n".join(rows))
    data = bone_break.load(tmp_path)
    assert len(data.images) == 20
    film = next(film for film in data.images if film.name == "Spiral Fracture/Test/film9")
    assert (film.sha256, film.part, data.classes[film.label]) == ("abc", "test", "spiral")
    assert [problem.image for problem in data.problems] == ["Spiral Fracture/Test/gone"]


def test_odd_files_are_named_not_dropped_in_silence(atlas: Path, tmp_path: Path) -> None:
    for folder in bone_break.CLASSES.values():
        for split in ("Train", "Test"):
            picture(tmp_path / folder / split / "a.png")
    place = tmp_path / "Spiral Fracture" / "Train"
    picture(place / "a.jpg")
    for name in ("scan.bmp", "noending", "Thumbs.db", "._a.png.x"):
        (place / name).write_bytes(b"x")
    data = bone_break.load(tmp_path)
    assert len(data.images) == 20
    said = {problem.image: problem.what for problem in data.problems}
    assert set(said) == {"Spiral Fracture/Train/a", "Train/scan.bmp", "Train/noending"}
    assert "There twice" in said["Spiral Fracture/Train/a"]
    table = atlas / "FracAtlas" / "dataset.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    boxes = atlas / "FracAtlas" / "Annotations" / "YOLO"
    (boxes / "IMG1.txt").write_bytes(b"0 0.95 0.25 0.3 0.2\n0 \xff 0.5 0.1 0.1\n")
    (boxes / "IMG99.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    problems = {(problem.image, problem.what) for problem in fracatlas.load(atlas).problems}
    assert ("IMG1", "A box reaches 10% of the image's side past its edge.") in problems
    assert ("IMG1", "A line of its box file cannot be read.") in problems
    assert ("IMG99", "Has a box file, but there is no such image.") in problems


def test_views_cut_from_one_picture_share_a_case(tmp_path: Path) -> None:
    names = [
        "Spiral Fracture/Train/leg_jpg.rf.c31b74efca3394ab4c71a1e5ac50306",
        "Spiral Fracture/Train/leg_jpg.rf.c31b74efca3394ab54c71a1e5ac50306",
        "Spiral Fracture/Train/leg_jpg.rf.9d59531f4a8ac9f6a04b858e56cea777",
        "Oblique fracture/Test/arm_png.rf.00c71a1e5a",
        "Oblique fracture/Test/drawing",
    ]
    assert set(bone_break.same_case(names)) == {(names[0], names[1]), (names[0], names[3])}
    for seed, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        blobs = np.random.default_rng(seed).integers(0, 255, (8, 8), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"{name}.png"), cv2.resize(blobs, (128, 128), interpolation=cv2.INTER_CUBIC))
    for folder in bone_break.CLASSES.values():
        for split in ("Train", "Test"):
            (tmp_path / folder / split).mkdir(parents=True, exist_ok=True)
    data, decoded = readable(bone_break.load(tmp_path))
    grouping = find_groups(data, decoded, tmp_path / "cache")
    of = dict(zip([film.name for film in data.images], grouping.cases.tolist(), strict=True))
    assert of[names[0]] == of[names[1]] == of[names[3]]
    assert len({of[names[0]], of[names[2]], of[names[4]]}) == 3
    parts = dict(zip([film.name for film in data.images], part_images(data, grouping.cases), strict=True))
    assert [parts[name] for name in names] == ["leaked", "leaked", "train", "test", "test"]
