"""multi-region, and its images that no other set holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.toys import picture
from training.data import multi_region
from training.data.multi_region import LISTED, external_set, straight


def test_multi_region_keeps_published_names(tmp_path: Path) -> None:
    root = tmp_path / "Bone" / "Bone"
    for part in ("train", "val", "test"):
        for kind in multi_region.CLASSES:
            picture(root / part / kind / "1-rotated1.jpg")
    picture(root / "train" / "fractured" / "2 - Copy.jpg.webp")
    data = multi_region.load(tmp_path)
    assert len(data.images) == 7
    assert "train/fractured/2 - Copy.jpg" in {film.name for film in data.images}
    assert {film.part for film in data.images} == {"train", "validation", "test"}
    assert data.problems == ()


@pytest.mark.slow
@pytest.mark.usefixtures("grouped")
def test_no_turned_image_and_none_of_another_set_judges(three_sources: Path, tmp_path: Path) -> None:
    films = straight(three_sources)
    assert len(films) == 25
    assert not any(film.turned for film in films)
    listed = tmp_path / "list.csv"
    kept = external_set(three_sources, listed)
    assert {film.name for film in kept} < {film.name for film in films}
    names = {film.path.name for film in kept}
    assert "also-elsewhere.png" not in names
    assert len(names) >= 12
    assert external_set(three_sources, listed) == kept
    assert len(listed.read_text().splitlines()) == 1 + len(kept)
    listed.write_text("image,class\ntrain/fractured/gone.png,fractured\n")
    with pytest.raises(ValueError, match="gone"):
        external_set(three_sources, listed)


def test_the_committed_list_holds_only_images_nobody_turned(real_films: Path) -> None:
    films = external_set(real_films)
    assert len(films) == len(LISTED.read_text().splitlines()) - 1
    assert len({film.name for film in films}) == len(films)
    assert not any(film.turned for film in films)
