"""What a source is worth elsewhere: ``python -m training cross-source --data FOLDER``.

The same small network learns fractured or not from one source and is judged on both: FracAtlas (training films, judged
by its test films) and the films of multi-region that no other set holds (five folds). The drop from one's own source
to the other is what a figure measured on one source hides (Zech et al., 2018, "Variable generalization performance of a
deep learning model to detect pneumonia in chest radiographs").
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from scipy.special import logit
from sklearn.model_selection import StratifiedKFold

from training.data.boxed import BoxedImages
from training.data.cache import CACHE, squares
from training.data.external import LISTED, strangers
from training.evaluation.metrics import area
from training.studies.peers.recipe import ShortRecipe
from training.studies.peers.run import chances, train

__all__ = ["RECIPE", "RESULTS", "cross_source"]

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "cross-source" / "resnet18.yaml"
RESULTS = Path(__file__).resolve().parents[1] / "results" / "cross_source.json"
FOLDS = 5


def cross_source(
    data: Path,
    init: Path | None,
    *,
    precision: Literal["32-true", "bf16-mixed"],
    recipe: Path = RECIPE,
    results: Path = RESULTS,
    listed: Path = LISTED,
    cache: Path = CACHE,
) -> dict[str, Any]:
    """Trains on either source, judges on both, and writes the areas under the curve.

    Args:
        data: folder with all three sets; bone-break only tells which films of multi-region are its own.
        init: file with initial layers; from scratch where absent.
        precision: of training.
        recipe: a YAML file with the fields of ``ShortRecipe``.
        results: JSON to write.
        listed: list of the films of multi-region that no other set holds.
        cache: where decoded films are kept.

    Returns:
        What was written: by the source trained on and the one judged on, the area under the receiver operating
        characteristic, with the numbers of films.

    Raises:
        FileNotFoundError: a set is not there.
        ValueError: these are not the listed films.
    """
    how = ShortRecipe.model_validate(yaml.safe_load(recipe.read_text(encoding="utf-8")))
    began = time.monotonic()
    own, judging = (BoxedImages(data, part, how.size, cache) for part in ("train", "test"))
    films = strangers(data, listed)
    elsewhere = squares([film.path for film in films], how.size, cache)
    labels = np.array([film.label for film in films])

    def odds(pixels: np.ndarray, kinds: np.ndarray, *asked: np.ndarray) -> list[np.ndarray]:
        task, _ = train(how, pixels, kinds, 2, init, precision)
        return [logit(np.clip(chances(task, each, precision)[:, 1], 1e-6, 1 - 1e-6)) for each in asked]

    at_home, abroad = odds(own.squares, own.fractured.astype(int), judging.squares, elsewhere)
    theirs = np.zeros(len(films))
    of_ours = np.zeros(len(judging.films))
    for trained, judged in StratifiedKFold(FOLDS, shuffle=True, random_state=how.seed).split(labels, labels):
        theirs[judged], seen = odds(elsewhere[trained], labels[trained], elsewhere[judged], judging.squares)
        of_ours += seen / FOLDS
    found = {
        "recipe": how.model_dump(mode="json"),
        "films": {
            "fracatlas": {
                "train": len(own.films),
                "train_fractured": int(own.fractured.sum()),
                "judge": len(judging.films),
                "judge_fractured": int(judging.fractured.sum()),
            },
            "multi-region": {"films": len(films), "fractured": int(labels.sum()), "folds": FOLDS},
        },
        "auroc": {
            "fracatlas": {
                "fracatlas": area(at_home, judging.fractured),
                "multi-region": area(abroad, labels == 1),
            },
            "multi-region": {
                "fracatlas": area(of_ours, judging.fractured),
                "multi-region": area(theirs, labels == 1),
            },
        },
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found
