"""Ablations and ensembles on drawn images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.training.toys import JOINT, MANY
from training.fitting.cross_validation import read_folds
from training.recipe import Ablation, Many, Switch, load_ablation
from training.studies.comparisons import ablate, ablate_unseen, averaged, ensemble


@pytest.mark.slow
def test_switches_are_paired_by_image_and_not_repeated(drawn_atlas: Path, tmp_path: Path, cache: Path) -> None:
    plan = Ablation(
        base=JOINT,
        folds=(0,),
        switches={"alone": Switch(says="types alone", changes={"head": "mean", "places": None})},
    )
    options = {"precision": "32-true", "results": tmp_path / "ablation.json", "cache": cache}
    rows = ablate(plan, drawn_atlas, tmp_path / "runs", None, **options)
    assert list(rows) == ["base", "ten-views", "alone"]
    views = rows["ten-views"]
    assert views["accuracy"]["value"] == rows["base"]["views_averaged"]
    assert "presence_auroc" not in views
    assert views["difference"]["value"] == pytest.approx(views["accuracy"]["value"] - rows["base"]["accuracy"]["value"])
    assert rows["base"]["difference"]["value"] == 0.0
    difference = rows["alone"]["accuracy"]["value"] - rows["base"]["accuracy"]["value"]
    assert rows["alone"]["difference"]["value"] == pytest.approx(difference)
    assert "presence_auroc" in rows["base"]
    assert "presence_auroc" not in rows["alone"]
    judged = (tmp_path / "runs" / "alone" / "fold0" / "judged.npz").stat().st_mtime_ns
    with pytest.raises(ValueError, match="another base"):
        ablate(plan.model_copy(update={"folds": (1,)}), drawn_atlas, tmp_path / "runs", None, **options)
    assert rows["alone"]["difference"]["groups"] == rows["base"]["accuracy"]["groups"]
    again = ablate(plan, drawn_atlas, tmp_path / "runs", None, names=("alone",), **options)
    assert again == rows
    assert (tmp_path / "runs" / "alone" / "fold0" / "judged.npz").stat().st_mtime_ns == judged


@pytest.mark.slow
def test_switches_are_judged_on_a_source_that_taught_nothing(many_data: Path, tmp_path: Path, cache: Path) -> None:
    other = Switch(says="another seed", changes={"seed": 1})
    plan = Ablation(base=MANY, left_out="veda", switches={"other": other})
    options = {"precision": "32-true", "results": tmp_path / "unseen.json", "cache": cache}
    rows = ablate_unseen(plan, many_data, tmp_path / "runs", None, **options)
    assert list(rows) == ["base", "other"]
    assert rows["base"]["auroc_gained"]["value"] == rows["base"]["inside_gained"]["value"] == 0.0
    gained = rows["other"]["auroc"]["value"] - rows["base"]["auroc"]["value"]
    assert rows["other"]["auroc_gained"]["value"] == pytest.approx(gained)
    learnt = json.loads((tmp_path / "runs/other/sources.json").read_text())
    assert "veda" not in learnt
    assert rows["base"]["inside"]["n"] > 0
    stored = (tmp_path / "runs/base/unseen.npz").stat().st_mtime_ns
    assert ablate_unseen(plan, many_data, tmp_path / "runs", None, **options) == rows
    assert (tmp_path / "runs/base/unseen.npz").stat().st_mtime_ns == stored


def test_a_plan_says_what_judges_and_its_changes_keep_the_rest() -> None:
    plan = load_ablation(Path("training/recipes/ablation/unseen-source.yaml"))
    with pytest.raises(ValueError, match="either folds or left_out"):
        Ablation(base=JOINT, switches={})
    with pytest.raises(ValueError, match="cannot leave out"):
        Ablation(base=JOINT, left_out="veda", switches={})
    base, less = plan.base.many, plan.recipe("no-jpeg").many
    assert isinstance(base, Many)
    assert less == base.model_copy(update={"signature": base.signature.model_copy(update={"jpeg": 0.0})})


def test_members_who_agree_say_together_what_they_say_alone(repository: Path) -> None:
    row = json.loads((repository / "training/results/ensembles.json").read_text())["resnet18 + resnet18"]
    card = json.loads((repository / "weights/resnet18/card.json").read_text())
    folds = card["metrics"]["cross_validation"]
    assert row["cross_validation"]["types"]["images"] == folds["images"]
    assert set(row["test"]) == {"0", "1"}
    right = np.array([[3.0, 0.0], [0.0, 1.0]])
    wrong = np.array([[0.0, 9.0], [0.0, 1.0]])
    assert averaged([np.stack([right, right])], [1.0]).argmax(axis=1).tolist() == [0, 1]
    assert averaged([np.stack([right, wrong])], [1.0]).argmax(axis=1).tolist() == [1, 1]
    cooled = averaged([np.stack([right, right]), np.stack([wrong, wrong])], [1.0, 100.0])
    assert cooled.argmax(axis=1).tolist() == [0, 1]
    np.testing.assert_allclose(np.exp(cooled).sum(axis=1), 1.0)


def test_members_judged_on_other_images_are_refused(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository / "folds" / "resnet18", tmp_path / "resnet18")
    shutil.copytree(repository / "folds" / "resnet18", tmp_path / "other")
    recipe = JOINT.model_copy(update={"name": "resnet18"})
    for path in (tmp_path / "other").glob("fold*/recipe.json"):
        path.write_text(path.read_text().replace('"resnet18"', '"other"'))
    path = tmp_path / "other" / "fold0" / "judged.npz"
    judged = dict(np.load(path))
    together = [recipe, recipe.model_copy(update={"name": "other"})]
    np.savez(path, **{**judged, "images": np.arange(len(judged["images"]))})
    with pytest.raises(ValueError, match="judged the same images"):
        ensemble(together, tmp_path, tmp_path, tmp_path / "rows.json")
    every = read_folds(repository / "folds/resnet18", recipe).images
    stranger = next(index for index in range(len(every) + 1) if index not in every)
    np.savez(path, **{**judged, "images": np.array([stranger, *judged["images"][1:]])})
    with pytest.raises(ValueError, match="different images"):
        ensemble(together, tmp_path, tmp_path, tmp_path / "rows.json")
