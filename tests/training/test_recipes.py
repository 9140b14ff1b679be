from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from training.recipe import Recipe, load_recipe

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
