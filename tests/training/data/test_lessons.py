"""What each image of many sources may teach, and what it may be asked."""

from __future__ import annotations

from pathlib import Path

from tests.training.toys import lesson
from training.data.lessons import never_seen, once_each


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
