"""Likely wrong labels: films whose label disagrees with cross-validated predictions (confident learning, cleanlab).

Northcutt, Jiang and Chuang, 2021, "Confident learning: estimating uncertainty in dataset labels". The predictions come
from a logistic regression on features of a pretrained network's early layers, with near-duplicates kept together, so a
film is never judged by its own twin. They are suspicions to look at, not corrections.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from cleanlab.filter import find_label_issues
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from app.imaging.letterbox import normalise
from app.model.network import build_network, channels_last
from training.fitting.initial import Initial, load_initial

__all__ = ["out_of_fold", "pooled_features", "suspects"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FOLDS = 5


def pooled_features(squares: np.ndarray, init: Path | None, batch: int = 64) -> tuple[np.ndarray, Initial]:
    """Average- and max-pooled features after ResNet-18's third stage: uint8 (N, S, S) to float32 (N, 512)."""
    torch.manual_seed(0)
    network = build_network("resnet18", 2).eval()
    initial = load_initial(network, "resnet18", init)
    body = channels_last(torch.nn.Sequential(*list(network.body.children())[:-1]))
    rows = []
    with torch.inference_mode():
        for start in track(range(0, len(squares), batch), "Features for label check"):
            films = torch.from_numpy(squares[start : start + batch])[:, None].float() / 255.0
            found = body(normalise(films, MEAN, STD).contiguous(memory_format=torch.channels_last))
            rows.append(torch.cat([found.mean(dim=(2, 3)), found.amax(dim=(2, 3))], dim=1).numpy())
    return np.concatenate(rows), initial


def out_of_fold(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """Probabilities of films by models that saw neither them nor their twins: float64 (N, C)."""
    probabilities = np.zeros((len(labels), int(labels.max()) + 1))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(features, labels, groups)
    for train, held_out in folds:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.002, class_weight="balanced", max_iter=1000))
        model.fit(features[train], labels[train])
        probabilities[held_out] = model.predict_proba(features[held_out])
    return probabilities


def suspects(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Indices of films whose label is likely wrong, the most doubtful first."""
    return np.asarray(
        find_label_issues(labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1), dtype=int
    )
