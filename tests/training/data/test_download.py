"""Data sets come from their publishers, or a sentence says how to get them by hand."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.training.toys import COLUMNS, picture
from training.data import all_sets, bone_break
from training.data import download as downloads
from training.data.download import check, collect, download, fingerprint


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
    with pytest.raises(ConnectionError, match="by hand"):
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
    with pytest.raises(ConnectionError, match="by hand"):
        download("fracatlas", tmp_path / "other")
    monkeypatch.setattr(downloads, "FIGSHARE", (tmp_path / "gone.json").as_uri())
    with pytest.raises(ConnectionError, match="figshare did not hand over"):
        download("fracatlas", tmp_path / "other")


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


def test_a_set_fetched_by_hand_is_checked(drawn_boxed_set: Path, tmp_path: Path) -> None:
    names = [film.name for film in all_sets.load("hbfmid", drawn_boxed_set).images]
    table = tmp_path / "table.csv"
    head = "set,film,image,group,label,part,kept,contested\n"
    table.write_text(head + "".join(f"hbfmid,{name},1,1,fractured,train,1,0\n" for name in names))
    assert check("hbfmid", drawn_boxed_set, table) == drawn_boxed_set / "hbfmid"
    with table.open("a") as file:
        file.write("hbfmid,train/images/lost,1,1,fractured,train,1,0\n")
    with pytest.raises(ConnectionError, match=r"lacks 1 of 7 images.*" + fingerprint([*names, "train/images/lost"])):
        check("hbfmid", drawn_boxed_set, table)
