"""What a model looks at by the type it names, and when it is wrong: ``python -m training gallery MODEL FOLD``.

One HTML page for the user's own disk: it holds films, so it is never to be committed. The films are those that a fold
of the cross-validation judges, by the network that was not trained on them.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from app.explain.overlay import heatmap, overlay
from app.model.classifier import Classifier, Explanation
from app.model.weights import load_card
from training.data.bone_break import CLASSES
from training.data.cache import CACHE
from training.data.datamodule import BoneBreakData
from training.fitting.fit import network_of
from training.fitting.teacher import load_kept
from training.recipe import Recipe
from training.release.export import explain_part

__all__ = ["gallery", "mean_heat"]

SIDE = 224
MOST = 60
"""Wrong verdicts shown, the surest first."""

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1e293b; }
.row { display: flex; flex-wrap: wrap; gap: .8rem; } figure { margin: 0; width: 224px; font-size: 13px; }
.pair { display: flex; gap: .3rem; width: 460px; flex-wrap: wrap; } .pair p { width: 100%; margin: 0; font-size: 13px; }
img { display: block; background: #000; max-width: 100%; } .notice { border: 1px solid #d97706; padding: .5rem .8rem; }
"""


def mean_heat(explained: Sequence[Explanation]) -> np.ndarray:
    """Mean heat for the predicted type over the model's square, float32 (h, w) in 0..1; empty input is refused.

    Films are aligned by nothing but the letterbox, so only habits of the whole set show: the middle, an edge, a corner.

    Raises:
        ValueError: no explanation.
    """
    if not explained:
        raise ValueError("there is no mean of no films")
    heats = [np.clip(e.evidence(e.prediction.best) / e.full_colour, 0.0, 1.0) for e in explained]
    return np.mean(heats, axis=0).astype(np.float32)


def _picture(rgb: np.ndarray, words: str) -> str:
    scale = SIDE / max(rgb.shape[:2])
    small = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    data = base64.b64encode(cv2.imencode(".jpg", small)[1].tobytes()).decode()
    words = html.escape(words)
    return f"<figure><img alt='{words}' src='data:image/jpeg;base64,{data}'>{words}</figure>"


def _mistake(explained: Explanation, labelled: str, titles: dict[str, str]) -> str:
    film, best = explained.radiograph.display(), explained.prediction.best
    said = f"said {titles[best].lower()}, {explained.prediction.probability(best):.0%}"
    was = f"labelled {titles[labelled].lower()}, given {explained.prediction.probability(labelled):.0%}"
    return (
        "<div class='pair'>"
        + _picture(overlay(film, explained.heat(best)), said)
        + _picture(overlay(film, explained.heat(labelled)), was)
        + "</div>"
    )


def gallery(name: str, run: Path, data: Path, weights: Path, folder: Path, cache: Path = CACHE) -> Path:
    """Writes ``index.html`` with films and heat.

    Args:
        name: of the model under ``weights``, whose card tells temperature and typical evidence.
        run: a fold of its recipe's cross-validation.
        data: folder with the bone-break set.
        weights: folder of models.
        folder: to write into.
        cache: where decoded films are kept.

    Returns:
        The page.

    Raises:
        FileNotFoundError: no such run, or it kept no weights.
        ValueError: the run is not a fold, or not of the model's recipe.
        WeightsError: no such model.
    """
    card = load_card(name, weights)
    if not (run / "recipe.json").is_file():
        raise FileNotFoundError(f"{run} holds no run; name a fold, such as runs/folds/{name}/fold0")
    recipe = Recipe.model_validate_json((run / "recipe.json").read_text())
    known = Recipe.model_validate(card.recipe)
    if recipe.fold is None or recipe.model_copy(update={"fold": known.fold, "seed": known.seed}) != known:
        raise ValueError(f"{run} is not a fold of the cross-validation of {name}")
    films = BoneBreakData(recipe, data, cache)
    network = load_kept(network_of(recipe), run).eval().requires_grad_(False)
    explained, _, labels = explain_part(Classifier(network, card), films, films.split.validation)
    titles = {kind.name: kind.title for kind in card.classes}
    names = list(CLASSES)
    said = [e.prediction.best for e in explained]
    means = []
    for kind in names:
        chosen = [e for e, best in zip(explained, said, strict=True) if best == kind]
        if not chosen:
            continue
        right = sum(best == kind == names[label] for best, label in zip(said, labels, strict=True))
        square = cv2.resize(mean_heat(chosen), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        drawn = heatmap(np.clip(square / max(float(square.max()), 1e-6), 0.0, 1.0))
        means.append(_picture(drawn, f"{titles[kind]}: {len(chosen)} films, {right} labelled so"))
    wrong = [i for i, (best, label) in enumerate(zip(said, labels, strict=True)) if best != names[label]]
    wrong.sort(key=lambda i: -explained[i].prediction.probability(said[i]))
    mistakes = "".join(_mistake(explained[i], names[labels[i]], titles) for i in wrong[:MOST])
    body = f"""<h1>{html.escape(card.title)}: where it looks</h1>
<p class="notice">For study, not for diagnosis. This page holds films; keep it to yourself.</p>
<p>{len(explained)} films that this fold's network was not trained on; {len(explained) - len(wrong)} verdicts agree with
the label.</p>
<h2>Mean heat by the type named</h2>
<p>Each stretched to its own peak. Films are not aligned, so this shows habits: a network that always looks at the
middle, an edge or a corner gives itself away.</p><div class="row">{"".join(means)}</div>
<h2>Wrong, the surest first ({min(len(wrong), MOST)} of {len(wrong)})</h2>
<p>Left what spoke for the type it named, right what spoke for the label.</p><div class="row">{mistakes}</div>"""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    page.write_text(
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(card.title)}</title>"
        f"<style>{STYLE}</style><body>{body}</body></html>",
        encoding="utf-8",
    )
    return page
