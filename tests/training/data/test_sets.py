"""Loading data sets with everything that can be wrong in them: reported by name, never a crash, never silence."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from app.imaging.examples import draw
from training.data import SETS, bone_break, fracatlas, multi_region
from training.data import download as downloads
from training.data.cache import squares
from training.data.download import download
from training.data.examples import collect
from training.data.grouping import find_groups
from training.data.image import readable
from training.data.splits import part_images

COLUMNS = "image_id,hand,leg,hip,shoulder,mixed,hardware,multiscan,fractured,fracture_count,frontal,lateral,oblique"


def picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), draw("jagged", seed=seed, height=96, width=64))


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    """FracAtlas in small, with one of each fault."""
    root = tmp_path / "FracAtlas"
    rows = {
        "IMG1.jpg": "1,0,0,0,0,0,0,1,1,1,0,0",
        "IMG2.jpg": "0,1,0,0,0,0,0,0,0,0,1,0",
        "IMG3.jpg": "0,1,0,0,0,0,0,0,0,1,1,0",
        "IMG4.jpg": "0,0,1,0,0,0,0,0,0,1,0,0",
        "IMG5.jpg": "0,0,0,1,0,1,0,1,1,1,0,0",
        "IMG6.jpg": "0,0,0,1,0,0,0,1,1,1,0,0",
    }
    for seed, name in enumerate(("IMG1", "IMG5", "IMG3", "IMG6")):
        picture(root / "images" / "Fractured" / f"{name}.jpg", seed)
    picture(root / "images" / "Non_fractured" / "IMG2.jpg", 9)
    picture(root / "images" / "Non_fractured" / "IMG7.jpg", 10)
    whole = (root / "images" / "Fractured" / "IMG6.jpg").read_bytes()
    (root / "images" / "Fractured" / "IMG6.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "dataset.csv").write_text("\n".join([COLUMNS, *(f"{name},{row}" for name, row in rows.items())]))
    boxes = root / "Annotations" / "YOLO"
    boxes.mkdir(parents=True)
    (boxes / "IMG1.txt").write_text("0 0.5 0.25 0.1 0.2\n\n")
    (boxes / "IMG2.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (boxes / "IMG6.txt").write_text("0 0.5 nonsense\n0 1.5 0.5 0.1 0.1\n")
    split = root / "Utilities" / "Fracture Split"
    split.mkdir(parents=True)
    (split / "valid.csv").write_text("image_id\nIMG5.jpg\n")
    (split / "train.csv").write_text("image_id\nIMG1.jpg\n")
    return tmp_path


def test_fracatlas_is_read_and_its_faults_are_named(atlas: Path) -> None:
    data = fracatlas.load(atlas)
    films = {film.name: film for film in data.films}
    assert sorted(films) == ["IMG1", "IMG2", "IMG3", "IMG5", "IMG6"]
    assert films["IMG1"].boxes == ((0.5, 0.25, 0.1, 0.2),)
    assert (films["IMG1"].region, films["IMG1"].view, films["IMG1"].part) == ("hand", "frontal", "train")
    assert (films["IMG5"].part, films["IMG5"].hardware) == ("validation", True)
    said = {(problem.radiograph, problem.what.split(",")[0]) for problem in data.problems}
    assert ("IMG2", "Has a fracture box") in said
    assert films["IMG2"].label == 1
    assert ("IMG3", "In the folder fractured") in said
    assert films["IMG3"].label == 0
    assert ("IMG4", "Listed in dataset.csv") in said
    assert ("IMG5", "The table says fractured") in said
    assert ("IMG6", "A line of its box file cannot be read.") in said
    assert ("IMG6", "A box lies outside the film.") in said
    assert ("IMG7", "Not listed in dataset.csv") in said


def test_films_that_cannot_be_decoded_are_named_and_left_out(atlas: Path) -> None:
    data, decoded = readable(fracatlas.load(atlas))
    assert "IMG6" not in {film.name for film in data.films}
    assert len(decoded) == len(data.films) == 4
    assert any(problem.radiograph == "IMG6" and "damaged" in problem.what for problem in data.problems)


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
    assert len(data.films) == 20
    film = next(film for film in data.films if film.name == "Spiral Fracture/Test/film9")
    assert (film.sha256, film.part, data.classes[film.label]) == ("abc", "test", "spiral")
    assert [problem.radiograph for problem in data.problems] == ["Spiral Fracture/Test/gone"]


def test_multi_region_keeps_published_names(tmp_path: Path) -> None:
    root = tmp_path / "Bone" / "Bone"
    for part in ("train", "val", "test"):
        for kind in multi_region.CLASSES:
            picture(root / part / kind / "1-rotated1.jpg")
    picture(root / "train" / "fractured" / "2 - Copy.jpg.webp")
    data = multi_region.load(tmp_path)
    assert len(data.films) == 7
    assert "train/fractured/2 - Copy.jpg" in {film.name for film in data.films}
    assert {film.part for film in data.films} == {"train", "validation", "test"}
    assert data.problems == ()


@pytest.mark.parametrize("name", list(SETS))
def test_a_set_that_is_not_there_says_how_to_get_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"download {name}"):
        SETS[name](tmp_path)


def test_downloads_use_kaggle_and_say_so_when_it_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import kagglehub

    source = tmp_path / "kaggle" / "set"
    for folder in bone_break.CLASSES.values():
        picture(source / folder / "Train" / "a.png")
    monkeypatch.setattr(kagglehub, "dataset_download", lambda handle: str(tmp_path / "kaggle"))
    place = download("bone-break", tmp_path / "data")
    assert (place / "Avulsion fracture" / "Train" / "a.png").is_file()

    def refuse(handle: str) -> str:
        raise ConnectionError("offline")

    monkeypatch.setattr(kagglehub, "dataset_download", refuse)
    with pytest.raises(RuntimeError, match="by hand"):
        download("multi-region", tmp_path / "data")
    with pytest.raises(ValueError, match="known are"):
        download("other", tmp_path / "data")


def test_fracatlas_comes_from_figshare_and_is_checked(
    atlas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", atlas / "FracAtlas"))
    listed = {
        "name": "FracAtlas.zip",
        "download_url": packed.as_uri(),
        "computed_md5": hashlib.md5(packed.read_bytes(), usedforsecurity=False).hexdigest(),
    }
    article = tmp_path / "article.json"
    article.write_text(json.dumps({"files": [{"name": "read.txt"}, listed]}))
    monkeypatch.setattr(downloads, "FIGSHARE", article.as_uri())
    place = download("fracatlas", tmp_path / "data")
    assert (place / "dataset.csv").is_file()
    assert not (tmp_path / "data" / "fracatlas" / "fracatlas.zip").exists()
    article.write_text(json.dumps({"files": [{**listed, "computed_md5": "0"}]}))
    with pytest.raises(RuntimeError, match="by hand"):
        download("fracatlas", tmp_path / "other")
    monkeypatch.setattr(downloads, "FIGSHARE", (tmp_path / "gone.json").as_uri())
    with pytest.raises(RuntimeError, match="figshare did not hand over"):
        download("fracatlas", tmp_path / "other")


def test_odd_files_are_named_not_dropped_in_silence(atlas: Path, tmp_path: Path) -> None:
    for folder in bone_break.CLASSES.values():
        for split in ("Train", "Test"):
            picture(tmp_path / folder / split / "a.png")
    place = tmp_path / "Spiral Fracture" / "Train"
    picture(place / "a.jpg")
    for name in ("scan.bmp", "noending", "Thumbs.db", "._a.png.x"):
        (place / name).write_bytes(b"x")
    data = bone_break.load(tmp_path)
    assert len(data.films) == 20
    said = {problem.radiograph: problem.what for problem in data.problems}
    assert set(said) == {"Spiral Fracture/Train/a", "Train/scan.bmp", "Train/noending"}
    assert "There twice" in said["Spiral Fracture/Train/a"]
    table = atlas / "FracAtlas" / "dataset.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    boxes = atlas / "FracAtlas" / "Annotations" / "YOLO"
    (boxes / "IMG1.txt").write_bytes(b"0 0.95 0.25 0.3 0.2\n0 \xff 0.5 0.1 0.1\n")
    (boxes / "IMG99.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    problems = {(problem.radiograph, problem.what) for problem in fracatlas.load(atlas).problems}
    assert ("IMG1", "A box reaches 10% of the film's side past its edge.") in problems
    assert ("IMG1", "A line of its box file cannot be read.") in problems
    assert ("IMG99", "Has a box file, but there is no such film.") in problems


def test_views_cut_from_one_picture_are_kin(tmp_path: Path) -> None:
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
    of = dict(zip([film.name for film in data.films], grouping.families.tolist(), strict=True))
    assert of[names[0]] == of[names[1]] == of[names[3]]
    assert len({of[names[0]], of[names[2]], of[names[4]]}) == 3
    parts = dict(zip([film.name for film in data.films], part_images(data, grouping.families), strict=True))
    assert [parts[name] for name in names] == ["leaked", "leaked", "train", "test", "test"]


def test_a_film_that_cannot_be_read_stops_training_by_name(tmp_path: Path) -> None:
    picture(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"bad\.png: "):
        squares([tmp_path / "good.png", tmp_path / "bad.png"], 64, tmp_path / "cache")


def test_examples_come_with_their_source(tmp_path: Path) -> None:
    from app.imaging import examples as library

    root = tmp_path / "FracAtlas"
    lines = [COLUMNS]
    for number in range(6):
        region = [int(number % 2 == 0), int(number % 2 == 1), 0, 0, 0]
        lines.append(f"IMG{number}.jpg,{','.join(map(str, region))},0,0,{int(number < 4)},1,1,0,0")
        picture(root / "images" / ("Fractured" if number < 4 else "Non_fractured") / f"IMG{number}.jpg", number)
    (root / "dataset.csv").write_text("\n".join(lines))
    copies = collect(tmp_path, tmp_path / "examples", 3)
    assert len(copies) == 3
    offered = library.examples(tmp_path / "examples")
    assert [example.label for example in offered] == ["hand, fractured", "leg, fractured", "hand, fractured"]
    assert all("CC BY 4.0" in example.source for example in offered)
    assert all(np.array_equal(cv2.imread(str(c)), cv2.imread(str(root / "images/Fractured" / c.name))) for c in copies)
