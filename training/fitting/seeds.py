"""The final figure of a recipe and its spread: ``python -m training seeds RECIPE --data FOLDER``.

One network a seed, trained on all training films, judged once on the official test films. The first seed's run is the
one to export; that is settled before anything is judged.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.data.bone_break import CLASSES
from training.data.cache import CACHE
from training.evaluation.metrics import report
from training.fitting.cross_validation import judge_types
from training.fitting.fit import read_groups, refuse_another, save_whole, trained
from training.fitting.linear_probe import judge_frozen
from training.fitting.views import averaged_views
from training.recipe import Precision, Recipe

__all__ = ["RESULTS", "seeds"]

log = logging.getLogger(__name__)

RESULTS = Path(__file__).resolve().parents[1] / "results" / "seeds"


def seeds(
    recipe: Recipe,
    numbers: Sequence[int],
    data: Path,
    runs: Path,
    *,
    init: Path | None = None,
    precision: Precision = "auto",
    results: Path = RESULTS,
    cache: Path = CACHE,
) -> dict[str, Any]:
    """Trains what has not been trained yet, judges it, and writes the figures, unless more seeds' are there already.

    Args:
        recipe: what to train; its own seed and fold do not matter.
        numbers: the seeds.
        data: folder with the sets.
        runs: folder for a run a seed.
        init: initial layers.
        precision: of training.
        results: folder that gets ``<recipe name>.json``.
        cache: where decoded films are kept.

    Returns:
        Mean and standard deviation of accuracy, and a seed: accuracy and top-3, with all views averaged or
        not, and minutes.

    Raises:
        ValueError: the folder holds runs of another recipe.
    """
    rows: dict[str, Any] = {}
    for number in numbers:
        chosen = recipe.model_copy(update={"seed": number, "fold": None})
        where = runs / f"seed{number}"
        refuse_another(where, chosen)
        if not (where / "test.npz").is_file():
            if chosen.frozen:
                found = judge_frozen(chosen, chosen.frozen, data, where, "test", init=init, cache=cache)
            else:
                teacher = runs.parent / chosen.distil.teacher / "seed0" if chosen.distil else None
                task, films = trained(chosen, data, where, init=init, precision=precision, cache=cache, teacher=teacher)
                found = judge_types(task, films, films.split.test)
            save_whole(where / "test.npz", found)
        with np.load(where / "test.npz") as judged:
            logits, views, labels = judged["logits"], judged["views"], judged["labels"]
            groups = read_groups(where)[judged["films"]]
        figures = report(logits, labels, list(CLASSES), 1.0, groups)
        all_views = report(averaged_views(views), labels, list(CLASSES), 1.0, groups)
        rows[str(number)] = {
            "accuracy": figures["accuracy"],
            "top3": figures["top3"],
            "views_averaged": all_views["accuracy"],
            "minutes": json.loads((where / "effort.json").read_text())["minutes"],
        }
    values = [row["accuracy"]["value"] for row in rows.values()]
    # A read-out of frozen features is the same for every seed.
    spread = float(np.std(values, ddof=1)) if len(values) > 1 and not recipe.frozen else None
    found = {"recipe": recipe.name, "mean": float(np.mean(values)), "spread": spread, "seeds": rows}
    results.mkdir(parents=True, exist_ok=True)
    target = results / f"{recipe.name}.json"
    known = json.loads(target.read_text(encoding="utf-8"))["seeds"] if target.is_file() else {}
    if len(known) > len(rows):
        log.warning("%s holds %d seeds and is left as it is", target, len(known))
    else:
        target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found
