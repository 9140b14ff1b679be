"""Films of one more source: none that another set holds, and what a model is worth there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from tests.conftest import varied
from training.data import multi_region, splits
from training.data.external import LISTED, search, straight, strangers
from training.data.image import DataSet
from training.studies.cross_source import RECIPE, cross_source
from training.studies.peers.recipe import ShortRecipe


@pytest.fixture(scope="module")
def three_sources(drawn_atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn films of all three sets: of multi-region 24, each once more turned, and one that is FracAtlas's."""
    root = tmp_path_factory.mktemp("sources")
    shutil.copytree(drawn_atlas, root, dirs_exist_ok=True)
    for part in ("train", "val", "test"):
        for kind in multi_region.CLASSES:
            (root / "multi-region" / part / kind).mkdir(parents=True)
    for number in range(24):
        place = root / "multi-region" / "train" / multi_region.CLASSES[number % 2]
        film = varied(9000 + number, height=96, width=96 + number)
        cv2.imwrite(str(place / f"{number}.png"), film)
        cv2.imwrite(str(place / f"{number}-rotated1.png"), np.ascontiguousarray(film[::-1, ::-1]))
    shutil.copy(
        drawn_atlas / "FracAtlas/images/Fractured/IMG1.png", root / "multi-region/train/fractured/also-elsewhere.png"
    )
    return root


@pytest.fixture
def grouped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups as if they were committed: a film and its turned copy."""

    def committed(data: DataSet, **_options: object) -> tuple[np.ndarray, list[str]] | None:
        if data.name != "multi-region":
            return None
        stems = [film.path.stem.split("-rotated")[0] for film in data.films]
        return np.unique(stems, return_inverse=True)[1], ["train"] * len(stems)

    monkeypatch.setattr(splits, "committed", committed)


@pytest.mark.usefixtures("grouped")
def test_no_turned_film_and_none_of_another_set_judges(three_sources: Path, tmp_path: Path) -> None:
    films = straight(three_sources)
    assert len(films) == 25
    assert not any(film.turned for film in films)
    kept = search(films, three_sources)
    names = {film.path.name for film in kept}
    assert "also-elsewhere.png" not in names
    assert len(names) >= 12
    listed = tmp_path / "list.csv"
    assert strangers(three_sources, listed) == kept
    assert strangers(three_sources, listed) == kept
    assert len(listed.read_text().splitlines()) == 1 + len(kept)
    listed.write_text("film,class\ntrain/fractured/gone.png,fractured\n")
    with pytest.raises(ValueError, match="gone"):
        strangers(three_sources, listed)


@pytest.mark.usefixtures("grouped")
def test_either_source_judges_both(three_sources: Path, tmp_path: Path, cache: Path) -> None:
    fields = yaml.safe_load(RECIPE.read_text()) | {"network": "custom-cnn", "size": 32, "epochs": 1, "batch_size": 4}
    recipe = tmp_path / "short.yaml"
    recipe.write_text(yaml.safe_dump(fields))
    results = tmp_path / "results.json"
    found = cross_source(
        three_sources,
        None,
        precision="32-true",
        recipe=recipe,
        results=results,
        listed=tmp_path / "list.csv",
        cache=cache,
    )
    assert json.loads(results.read_text()) == found
    for row in found["auroc"].values():
        assert set(row) == {"fracatlas", "multi-region"}
        for judging, area in row.items():
            films = found["films"][judging]
            assert area["n"] == films["judge" if judging == "fracatlas" else "films"]
            assert 0.0 <= area["low"] <= area["value"] <= area["high"] <= 1.0


def test_the_committed_recipe_is_valid() -> None:
    assert ShortRecipe.model_validate(yaml.safe_load(RECIPE.read_text())).initial == "resnet18"


def test_the_committed_list_holds_only_straight_films(real_films: Path) -> None:
    films = strangers(real_films)
    assert len(films) == len(LISTED.read_text().splitlines()) - 1
    assert len({film.name for film in films}) == len(films)
    assert not any(film.turned for film in films)
