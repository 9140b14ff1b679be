"""Labels that agree beyond chance, counts of a set, and a source that training did without."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from tests.training.toys import MANY
from training.data.all_sets import read_table
from training.studies.sources import compare, labellers, leave_out, plot_left_out, set_audit


def test_sets_are_compared_where_both_hold_a_radiograph() -> None:
    rows = compare({"one": {"1": "a", "2": "b", "3": "a"}, "two": {"2": "a", "1": "a"}, "three": {"9": "a"}})
    assert [(row["sets"], row["n"], row["agree"]) for row in rows] == [(["one", "two"], 2, 1)]
    assert rows[0]["differ"] == [{"image": 2, "one": "b", "two": "a"}]


@pytest.mark.slow
def test_a_source_left_out_is_judged_whole(many_data: Path, many_folds: Path, tmp_path: Path, cache: Path) -> None:
    found = leave_out(MANY, "hbfmid", many_data, many_folds, results=tmp_path, cache=cache)
    assert found["taught"] == ["veda"]
    drawn = {path.stem for path in (many_data / "hbfmid").rglob("*.png")}
    its = [row for row in read_table() if row.set == "hbfmid" and row.kept and Path(row.film).name in drawn]
    typed = {row.group for row in read_table() if row.set == "bone-break" and row.part == "train"}
    judged = [row for row in its if row.label == "fractured" and row.part != "out" and row.group not in typed]
    assert found["figures"]["images"] == len(judged) >= 6
    assert json.loads((tmp_path / "hbfmid.json").read_text()) == found
    with pytest.raises(ValueError, match="cannot leave out"):
        leave_out(MANY, "fracatlas", many_data, many_folds, results=tmp_path, cache=cache)


@pytest.mark.slow
def test_a_model_is_compared_with_labels_it_did_not_learn(many_data: Path, many_shipped: Path) -> None:
    # The drawn hbfmid marks no types, so it says nothing of them.
    (row,) = labellers("many", many_data, many_shipped)
    assert row["labeller"] == "bone-break-more"
    judged = [each for each in read_table() if each.set == "bone-break-more" and each.kept]
    learnt = {each.group for each in read_table() if each.set == "bone-break" and each.part == "train"}
    drawn = {f"{path.parent.name}/{path.stem}" for path in (many_data / "bone-break-more").rglob("*.png")}
    expected = [each for each in judged if each.group not in learnt and each.film in drawn]
    assert row["accuracy"]["n"] == len(expected) > 20
    assert -1.0 <= row["kappa"]["low"] <= row["kappa"]["value"] <= row["kappa"]["high"] <= 1.0


def test_an_audit_counts_what_is_there(many_data: Path) -> None:
    found = set_audit("veda", many_data)
    assert found["files"] == 36
    assert found["files_not_in_the_table"] == 0
    assert found["boxes"]["count"] == 18
    assert found["boxes"]["median_share_of_the_image"] == pytest.approx(0.04)


def test_a_left_out_source_is_drawn_beside_itself(tmp_path: Path) -> None:
    share = {"value": 0.4, "low": 0.3, "high": 0.5}
    found = {"veda": {"figures": {"auroc": share, "page": {"inside": share}}}, "ca1len": {"figures": {}}}
    target = tmp_path / "drawn.png"
    plot_left_out(found, {"veda": {"auroc": share}}, target)
    height, width = cv2.imread(str(target)).shape[:2]
    assert width > height > 200
