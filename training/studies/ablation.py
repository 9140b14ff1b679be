"""What each switch gives, alone: ``python -m training ablate training/recipes/ablation/resnet18.yaml --data FOLDER``.

A base recipe and, one at a time, changes to it are cross-validated on the same folds of training films; differences
are paired by film. Test films have no part in it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field

from training.data.cache import CACHE
from training.evaluation.metrics import bootstrap
from training.fitting.cross_validation import OutOfFold, cross_validate, summarise
from training.fitting.views import averaged_views
from training.recipe import Precision, Recipe

__all__ = ["RESULTS", "Ablation", "Switch", "ablate", "load_ablation"]

RESULTS = Path(__file__).resolve().parents[1] / "results" / "ablation.json"
VIEWS = "ten-views"
"""The one switch that needs no training of its own."""


class Switch(BaseModel):
    """One change of the base recipe: what it is in words, and the fields it replaces."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    says: str
    changes: dict[str, Any]


class Ablation(BaseModel):
    """A base recipe, the folds all are judged on, and the switches by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: Recipe
    folds: tuple[int, ...] = Field(min_length=1)
    switches: dict[str, Switch]

    def recipe(self, name: str) -> Recipe:
        """The base with one switch thrown; the base itself where the name is "base"."""
        changes = {} if name == "base" else self.switches[name].changes
        return Recipe.model_validate({**self.base.model_dump(), **changes})


def load_ablation(path: Path) -> Ablation:
    """Reads and checks a plan of switches.

    Raises:
        FileNotFoundError: no such file.
        pydantic.ValidationError: an unknown, missing or impossible field, a switch's included.
    """
    plan = Ablation.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    for name in plan.switches:
        plan.recipe(name)
    return plan


def _row(found: OutOfFold, base: OutOfFold) -> dict[str, Any]:
    if not np.array_equal(found.films, base.films):
        raise ValueError("the switch was judged on other films than the base")
    summary = summarise(found)
    right, before = (each.logits.argmax(axis=1) == each.labels for each in (found, base))
    row = {
        "accuracy": summary["types"]["accuracy"],
        "difference": bootstrap(right.astype(float) - before, found.groups),
        "top3": summary["types"]["top3"]["value"],
        "macro_auroc": summary["types"]["macro_auroc"],
        "views_averaged": summary["views_averaged"]["value"],
        "minutes": found.minutes,
    }
    if "places" in summary:
        places = summary["places"]
        row["presence_auroc"] = float(np.mean(places["presence_auroc"]))
        row["fracture_peak_in_box"] = places["fracture_peak_in_box"]["value"]
        row["type_peak_in_box"] = places["type_peak_in_box"]["value"]
    return row


def ablate(
    plan: Ablation,
    data: Path,
    runs: Path,
    init: Path | None,
    *,
    names: tuple[str, ...] = (),
    precision: Precision = "auto",
    results: Path = RESULTS,
    cache: Path = CACHE,
) -> dict[str, Any]:
    """Runs what has not been run yet and writes the table after every switch.

    Args:
        plan: base and switches.
        data: folder with the sets.
        runs: folder for the runs.
        init: folder with initial layers.
        names: switches to run; all where none is named.
        precision: of training.
        results: JSON to write; rows of other switches in it stay.
        cache: where decoded films are kept.

    Returns:
        Rows by name, in the order of the plan, first the base, alone and with all views averaged.

    Raises:
        ValueError: the table holds switches of another base or other folds, or the plan has no switch of such a name.
    """
    if unknown := set(names) - plan.switches.keys():
        raise ValueError(f"unknown switches: {', '.join(sorted(unknown))}; known are {', '.join(plan.switches)}")
    if results.is_file():
        known = json.loads(results.read_text(encoding="utf-8"))
        if (Recipe.model_validate(known["base"]), known["folds"]) != (plan.base, list(plan.folds)):
            raise ValueError(f"{results} holds switches of another base or other folds; delete it or name another file")
    rows: dict[str, Any] = {}

    def found(name: str) -> OutOfFold:
        recipe = plan.recipe(name)
        where = runs / name
        return cross_validate(recipe, data, where, folds=plan.folds, init=init, precision=precision, cache=cache)

    base = found("base")
    own = {
        "base": base,
        VIEWS: replace(base, logits=averaged_views(base.views), presence=[], fractured=[], peaks=[], minutes=0.0),
    }
    words = {"base": "base", VIEWS: "base, asked about ten views of each film (test-time augmentation)"}
    for name in (*own, *(names or plan.switches)):
        says = words[name] if name in own else plan.switches[name].says
        row = {"says": says, **_row(own[name] if name in own else found(name), base)}
        # Read again each time: another process may be at other switches of the plan.
        if results.is_file():
            rows = json.loads(results.read_text(encoding="utf-8"))["rows"]
        every = {**rows, name: row}
        rows = {key: every[key] for key in dict.fromkeys((*own, *plan.switches, *every)) if key in every}
        results.parent.mkdir(parents=True, exist_ok=True)
        whole = {"folds": list(plan.folds), "base": plan.base.model_dump(mode="json"), "rows": rows}
        results.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return rows
