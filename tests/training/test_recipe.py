"""Recipes: what they extend, what is refused, and that the committed ones say what they said."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from app.model.weights import load_card
from tests.conftest import SHIPPED
from training.recipe import Recipe, fold_of, fold_without, load_ablation, load_recipe, load_replications, load_short
from training.studies.replications import RECIPE

FOLDERS = ("", "tried", "short")


RECIPES = [path for folder in FOLDERS for path in sorted(Path("training/recipes", folder).glob("*.yaml"))]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_valid_and_named_like_their_file(path: Path) -> None:
    assert load_recipe(path).name == path.stem


def test_fields_can_be_replaced() -> None:
    assert load_recipe(RECIPES[0], fold=3, seed=9).fold == 3


@pytest.mark.parametrize(
    "change", [{"fold": 5}, {"architecture": "resnet19"}, {"learning_rate": 1.0}, {"size": 8}, {"name": "../x"}]
)
def test_nonsense_is_refused(change: dict[str, object]) -> None:
    fields = {"name": "x", "architecture": "resnet18", "tune": ["layer4"]}
    Recipe.model_validate(fields)
    with pytest.raises(ValidationError):
        Recipe.model_validate({**fields, **change})


PLANS = sorted(Path("training/recipes/ablation").glob("*.yaml"))


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_plans_are_valid_and_every_switch_changes_something(path: Path) -> None:
    plan = load_ablation(path)
    recipes = [plan.recipe(name) for name in ("base", *plan.switches)]
    assert len({recipe.model_dump_json() for recipe in recipes}) == len(recipes)
    assert all(recipe.fold is None and not recipe.whole for recipe in recipes)


def test_a_switch_that_changes_nothing_real_is_refused(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    fields = "{name: x, architecture: resnet18, tune: [layer4]}"
    plan.write_text(f"base: {fields}\nfolds: [0]\nswitches: {{a: {{says: a, changes: {{speed: 9}}}}}}\n")
    with pytest.raises(ValueError, match="there is no field 'speed'"):
        load_ablation(plan)


def test_the_committed_recipe_is_valid() -> None:
    assert load_short(RECIPE).initial == "resnet18"


SETTLED = {
    "ablation": "6894f765c0ea",
    "cross-source": "586ae531b75b",
    "custom-cnn": "9b33d14a1cf0",
    "efficientnet-b3-attention": "d61c0eb76406",
    "mobilenet-v2": "fe798a4eb127",
    "replications/convnext-tiny": "45d79cd6b597",
    "replications/custom-cnn-pytorch": "738658a5462f",
    "replications/custom-cnn-tensorflow": "8a34239fea85",
    "replications/efficientnet-lite2-attention": "9f8f2f36a5ba",
    "replications/leak-mobilenet-v2-overlapping": "1819b34d2a7e",
    "replications/leak-resnet18-overlapping": "992e1c0ae0cb",
    "replications/leak-resnet18-random": "2e6d880d280f",
    "replications/multi-region-mobilenet-v2": "26fcfec76970",
    "replications/multi-region-resnet18": "b1be30e30f69",
    "replications/multi-region-resnet50": "09d3aa63e14b",
    "replications/resnet50-128": "0292b295e684",
    "replications/resnet50-224": "21e999a545bf",
    "resnet18": "7e179a438376",
    "resnet18-pyramid": "6c9d76e8cd50",
    "resnet50v2-pyramid": "b9d1b8c3114c",
    "resnet50": "fd5e6a7146c1",
    "resnet50v2": "b5980d2aa9a2",
    "short/efficientnet-b3-attention-short": "42e9e2beb6c8",
    "short/resnet50-short": "daa4d7ccbf44",
    "tried/efficientnet-lite0-frozen": "5de2f0e7015a",
    "tried/efficientnet-lite2-frozen": "89cbba44721d",
    "tried/resnet18-128": "ef36e457552f",
    "tried/resnet18-clean": "c713819e71a3",
    "tried/resnet50v2-frozen": "cf42c4ca4a57",
    "unseen-source": "707670ac5e3b",
    "vgg16": "256af31886a5",
}
"""First digits of the SHA-256 of every recipe's fields as they were when its committed figures were measured."""


def test_recipes_resolve_to_what_was_measured() -> None:
    folder = Path("training/recipes")
    resolved: dict[str, BaseModel] = {
        path.relative_to(folder).with_suffix("").as_posix(): load_recipe(path) for path in RECIPES
    }
    resolved |= {f"replications/{name}": recipe for name, recipe in load_replications().items()}
    plans = {"ablation": "resnet18", "unseen-source": "unseen-source"}
    resolved |= {name: load_ablation(folder / f"ablation/{file}.yaml") for name, file in plans.items()}
    resolved["cross-source"] = load_short(RECIPE)
    found = {}
    for name, recipe in resolved.items():
        fields = json.dumps(recipe.model_dump(mode="json"), sort_keys=True)
        found[name] = hashlib.sha256(fields.encode()).hexdigest()[:12]
    assert found == SETTLED


@pytest.mark.parametrize("name", SHIPPED)
def test_cards_hold_the_recipe_of_their_name(name: str) -> None:
    theirs = Recipe.model_validate(load_card(name).recipe)
    committed = load_recipe(Path(f"training/recipes/{name}.yaml"))
    assert theirs == committed.model_copy(update={"seed": theirs.seed, "fold": theirs.fold})


def test_a_recipe_is_a_list_of_overrides(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "base.yaml").write_text("name: base\narchitecture: resnet18\ntune: [layer4]\nsize: 64\ndropout: 0.1\n")
    (tmp_path / "deep/one.yaml").write_text("extends: ../base.yaml\nname: one\nsize: 96\n")
    (tmp_path / "two.yaml").write_text("extends: deep/one.yaml\nname: two\ndropout: 0.2\n")
    two = load_recipe(tmp_path / "two.yaml", seed=4, fold=None)
    assert (two.name, two.size, two.dropout, two.seed, two.fold, two.tune) == ("two", 96, 0.2, 4, None, ("layer4",))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("extends: a.yaml", r"extends .*a\.yaml, which extends it again\.$"),
        ("extends: gone.yaml", r"There is no .*gone\.yaml, which .*a\.yaml extends\.$"),
        ("name: [", r"a\.yaml is not YAML\.$"),
        ("- name", r"a\.yaml holds no fields\.$"),
        ("name: a\ntune: []\narchitecture: resnet19", r"a\.yaml: unknown architecture 'resnet19'; known are .*\.$"),
        ("name: a\narchitecture: resnet18", r"a\.yaml: the field 'tune' is missing\.$"),
        ("name: a\narchitecture: resnet18\ntune: []\nrate: 1", r"a\.yaml: there is no field 'rate'\.$"),
        ("name: a\narchitecture: resnet18\ntune: []\nsize: 8", r"a\.yaml: size: input should be greater .*32\.$"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises((FileNotFoundError, ValueError), match=sentence):
        load_recipe(tmp_path / "a.yaml")


def test_a_source_can_be_left_out() -> None:
    recipe = load_recipe(Path("training/recipes/resnet18-pyramid.yaml"))
    left = fold_of(recipe, fold_without(recipe, "veda"))
    assert left.many is not None
    assert "veda" not in left.many.draws
    assert left.many.without == "veda"
    assert left.fold == 1
    with pytest.raises(ValueError, match="cannot leave out"):
        fold_without(recipe, "nowhere")


def test_every_fold_leaves_out_another_source() -> None:
    recipe = load_recipe(Path("training/recipes/resnet18-pyramid.yaml"))
    assert recipe.many is not None
    folds = [fold_of(recipe, fold) for fold in range(recipe.folds)]
    assert [each.many and each.many.without for each in folds] == list(recipe.many.draws)
    assert fold_of(load_recipe(Path("training/recipes/resnet18.yaml")), 2).fold == 2
