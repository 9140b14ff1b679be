"""What each image of many sources may teach, and what it may be asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training.toys import MANY, lesson
from training.data import lessons as module
from training.data.all_sets import SOURCES, read_table
from training.data.image import LabelledImage
from training.data.lessons import ManySources, groups_of_typed, lessons, never_seen, once_each, typed_beside
from training.recipe import fold_of


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image of the committed table, by name alone."""
    found = {source: {} for source in SOURCES}
    for row in read_table():
        if row.set in found:
            found[row.set][row.film] = LabelledImage(row.film, Path(row.film), 1, "")
    monkeypatch.setattr(module, "images_of", lambda source, data: found[source])


def test_an_image_of_several_sources_is_drawn_once_from_the_first() -> None:
    several = [lesson("multi-region-distinct", "x"), lesson("ca1len", "y"), lesson("veda", "z"), lesson("veda", "w")]
    images = {("multi-region-distinct", "x"): "7", ("ca1len", "y"): "7", ("veda", "z"): "8"}
    assert [each.film.name for each in once_each(several, images)] == ["z", "w", "y"]


def test_a_left_out_source_is_judged_on_what_nothing_taught_has_seen(drawn_boxed_set: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    head = "set,film,image,group,label,part,kept,contested\n"
    rows = {"box": "1,1,fractured,train", "polygon": "2,2,fractured,validation", "broken": "3,3,fractured,test"}
    table.write_text(
        head
        + "".join(f"hbfmid,train/images/{name},{row},1,0\n" for name, row in rows.items())
        + "hbfmid,train/images/empty,4,4,not fractured,test,1,0\n"
        + "bone-break,a,2,2,oblique,train,1,0\nveda,b,3,3,fractured,train,1,0\n"
    )
    seen = never_seen(drawn_boxed_set, "hbfmid", ("bone-break",), table)
    # An image without a mark is no whole bone in a set that is not believed.
    assert [lesson.film.name for lesson in seen] == ["train/images/box", "train/images/broken"]
    assert [lesson.presence for lesson in seen] == [False, False]
    assert [x.film.name for x in never_seen(drawn_boxed_set, "hbfmid", ("bone-break", "veda"), table)] == [
        "train/images/box"
    ]


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize("source", SOURCES)
def test_nothing_of_a_source_that_is_left_out_teaches_under_another_name(source: str) -> None:
    others = [each for each in SOURCES if each != source]
    its = {row.group for row in read_table() if row.set == source}
    assert its & {each.group for each in lessons(Path(), "train", others)}
    apart = lessons(Path(), "train", others, without=source)
    assert len(apart) > 100
    assert not its & {each.group for each in apart}


@pytest.mark.usefixtures("named")
def test_what_a_fold_judges_types_on_teaches_it_nothing_under_another_name() -> None:
    typed = [row for row in read_table() if row.set == "bone-break" and row.part == "train"]
    groups = groups_of_typed({row.film for row in typed})
    assert groups == {row.group for row in typed}
    taught = [each.group for each in lessons(Path(), "train")]
    assert groups & set(taught)
    assert typed_beside(SOURCES) == sum(row.group in set(taught) for row in typed) > 50
    assert not groups & {each.group for each in lessons(Path(), "train", apart=groups)}


def test_a_fold_keeps_its_judging_images_apart(many_data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []

    def watched(films: set[str]) -> set[int]:
        seen.append(films)
        return {lesson.group for lesson in lessons(many_data, "train", ("veda",))[:3]}

    monkeypatch.setattr(module, "groups_of_typed", watched)
    found = ManySources(fold_of(MANY, 1), many_data, cache)
    whole = lessons(many_data, "train", ("veda",), without="hbfmid")
    assert len(found.boxed.lessons) == len(once_each(whole, {})) - 3
    judging = found.typed.split.validation
    assert seen == [{found.typed.images[index].name for index in judging}]
    assert len(np.intersect1d(judging, found.typed.split.train)) == 0 < len(judging)
