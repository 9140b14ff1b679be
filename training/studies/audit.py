"""What is duplicated, leaked or contradictory in a data set: ``python -m training audit NAME``.

``training/data/audits/NAME.json`` holds counts and names only, is the same from run to run, and is committed. How far
the search for near-duplicates is to be believed is measured on the images themselves: ``brute_force`` counts what it
overlooked, ``recall_of_planted`` how many copies of a known kind it finds. Labels are suspected by confident learning
(Northcutt, Jiang and Chuang, 2021, "Confident learning: estimating uncertainty in dataset labels"): suspicions to look
at, not corrections.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from cleanlab.filter import find_label_issues
from PIL import Image
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from app.explain.shortcuts import mark_boxes
from app.imaging.imagenet import MEAN, STD
from app.imaging.letterbox import normalise
from app.imaging.radiograph import Radiograph
from app.model.network import build_network, channels_last
from training import write_json
from training.data.duplicates import (
    Features,
    describe,
    find_groups,
    find_links,
    grey_square,
    group,
    hash_distances,
    hashes,
    matches,
    polar_correlations,
    polar_spectra,
)
from training.data.image import CACHE, DataSet, Thresholds, readable
from training.fitting.fit import Initial, load_initial

MOST_PAIRS = 250_000
"""A pair costs a millisecond, a tenth of a large set against all of it hours; there the tenth meets itself alone."""
PLANTED = 40


def _encoded(film: np.ndarray) -> np.ndarray:
    written = cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
    return np.asarray(cv2.imdecode(written, cv2.IMREAD_GRAYSCALE))


def _turned(film: np.ndarray, degrees: float) -> np.ndarray:
    height, width = film.shape
    return cv2.warpAffine(film, cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0), (width, height))


def _cropped(film: np.ndarray, share: float) -> np.ndarray:
    height, width = film.shape
    return film[int(height * share) :, : int(width * (1 - share))]


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exact": np.copy,
    "mirrored": lambda film: film[:, ::-1],
    "turned by 90 degrees": lambda film: np.rot90(film, 1),
    "turned by 90 degrees and mirrored": lambda film: np.rot90(film, 3)[:, ::-1],
    "re-encoded": _encoded,
    "half the size": lambda film: cv2.resize(film, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "brighter": lambda film: np.clip(film.astype(float) * 1.2, 0, 255).astype(np.uint8),
    "with a dark margin": lambda film: np.pad(film, 40),
    "cropped by 5 %": lambda film: _cropped(film, 0.05),
    "cropped by 15 %": lambda film: _cropped(film, 0.15),
    "cropped by 40 %": lambda film: _cropped(film, 0.4),
    "turned by 7 degrees": lambda film: _turned(film, 7),
    "turned by 38 degrees": lambda film: _turned(film, 38),
    "turned by 7 degrees, mirrored, cropped by 5 %": lambda film: _cropped(_turned(film, 7)[:, ::-1], 0.05),
}
"""Ways of copying: uint8 (H, W) to uint8 (H', W')."""


def brute_force(
    decoded: Sequence[Radiograph], groups: np.ndarray, thresholds: Thresholds, seed: int = 0
) -> dict[str, int]:
    """A random tenth of the different images, compared with all by every measure, in large sets with each other.

    Args:
        groups: their groups by the search, int (N,).

    Returns:
        Images in the sample, images they are held against, pairs compared, pairs that are near-duplicates by brute
        force, and how many of those the groups have apart: overlooked by the search, or different images that only so
        many comparisons bring up; features count from ``detail_matches`` on, since far more pairs are compared than the
        search proposes.
    """
    films = [film.display() for film in decoded]
    first = {hashlib.sha256(repr(film.shape).encode() + film.tobytes()).digest(): i for i, film in enumerate(films)}
    different = np.sort(list(first.values()))
    size = max(1, round(len(different) / 10))
    sample = np.sort(np.random.default_rng(seed).choice(different, size, replace=False))
    others = different if size * len(different) <= MOST_PAIRS else sample
    boxed = {i: grey_square(Radiograph(films[i], (0, 255))) for i in others.tolist()}
    hashed = {i: hashes(films[i]) for i in others.tolist()}
    bits = hash_distances(np.stack([hashed[i] for i in sample]), np.stack([hashed[i] for i in others]))
    small = np.stack([cv2.resize(boxed[i], (128, 128), interpolation=cv2.INTER_AREA) for i in others])
    spectra = polar_spectra(small)
    likeness = polar_correlations(spectra[:, np.searchsorted(others, sample)], spectra)
    near = (bits <= thresholds.bits) | (likeness >= thresholds.correlation)
    row_of = {film: row for row, film in enumerate(sample.tolist())}
    pairs = [(i, j) for i in range(size) for j, film in enumerate(others.tolist()) if row_of.get(film, size) > i]
    described = dict(zip(boxed, describe(list(boxed.values())), strict=True))
    with ThreadPoolExecutor() as pool, threadpool_limits(1):

        def alike(pair: tuple[int, int]) -> bool:
            one, other = described[sample[pair[0]]], described[others[pair[1]]]
            return bool(near[pair]) or matches(one, other) >= thresholds.detail_matches

        found = list(track(pool.map(alike, pairs, chunksize=256), "Brute force", total=len(pairs)))
    apart = [bool(groups[sample[i]] != groups[others[j]]) for i, j in pairs]
    return {
        "images": size,
        "against": len(others),
        "pairs": len(pairs),
        "twins": sum(found),
        "missed_by_search": sum(map(bool.__and__, found, apart)),
    }


def recall_of_planted(decoded: Sequence[Radiograph], thresholds: Thresholds, seed: int = 0) -> dict[str, str]:
    """Copies of random images, one way of copying at a time, searched for among the originals.

    Returns:
        By way of copying, copies found "of" copies planted.
    """
    size = min(PLANTED, len(decoded))
    sample = np.random.default_rng(seed).choice(len(decoded), size, replace=False)
    originals = [decoded[i].display() for i in sample]
    found = {}
    known: dict[bytes, Features] = {}
    for kind, copy in COPIES.items():
        copies = [np.ascontiguousarray(copy(film)) for film in originals]
        groups = group(2 * size, find_links([*originals, *copies], thresholds, known))
        found[kind] = f"{int((groups[:size] == groups[size:]).sum())} of {size}"
    return found


FOLDS = 5


def mean_and_max(squares: np.ndarray, init: Path | None, batch: int = 64) -> tuple[np.ndarray, Initial]:
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
    """Probabilities of images by models that saw neither them nor their near-duplicates: float64 (N, C)."""
    probabilities = np.zeros((len(labels), int(labels.max()) + 1))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(features, labels, groups)
    for train, held_out in folds:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.002, class_weight="balanced", max_iter=1000))
        model.fit(features[train], labels[train])
        probabilities[held_out] = model.predict_proba(features[held_out])
    return probabilities


def suspects(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Indices of images whose label is likely wrong, the most doubtful first."""
    return np.asarray(
        find_label_issues(labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1), dtype=int
    )


AUDITS = Path(__file__).resolve().parents[1] / "data" / "audits"


def _crossing(data: DataSet, sets: Sequence[np.ndarray], tie: str) -> dict[str, int]:
    """How images of the publisher's parts are tied to other parts by being in one of ``sets`` together."""
    tied: Counter[str] = Counter()
    for members in sets:
        parts = {data.images[i].part for i in members} - {""}
        for i in members:
            for other in parts - {data.images[i].part}:
                if data.images[i].part:
                    tied[f"{data.images[i].part} images with {tie} in {other}"] += 1
    return dict(sorted(tied.items()))


def looked_at(name: str, folder: Path = AUDITS) -> dict[str, str]:
    """How far links between images are to be believed: what a person said of some, from ``pairs-NAME.csv``.

    Returns:
        By measure, how many pairs are one image, as "20 of 24"; empty where nobody looked.
    """
    target = folder / f"pairs-{name}.csv"
    if not target.is_file():
        return {}
    rows = list(csv.DictReader(target.read_text(encoding="utf-8").splitlines()))
    right = Counter(row["measure"] for row in rows if row["one image"] == "yes")
    return {measure: f"{right[measure]} of {n}" for measure, n in Counter(row["measure"] for row in rows).items()}


def is_tinted(picture: np.ndarray) -> bool:
    """Whether a visible share of an RGB picture, uint8 (H, W, 3), is tinted rather than grey."""
    spread = picture.max(axis=2).astype(np.int16) - picture.min(axis=2)
    return float((spread > 24).mean()) > 0.005


def _suspected(
    data: DataSet, decoded: Sequence[Radiograph], once: np.ndarray, cases: np.ndarray, init: Path | None
) -> dict[str, Any]:
    """Labels that are likely wrong, among the images ``once``, int (M,), of which no two are near-duplicates."""
    squares = np.stack([grey_square(decoded[i], 160) for i in once])
    labels = data.labels[once]
    features, initial = mean_and_max(squares, init)
    probabilities = out_of_fold(features, labels, cases[once])
    found = suspects(labels, probabilities)
    return {
        "method": "confident learning on grouped 5-fold logistic regression over pooled ResNet-18 features, "
        "one image a group",
        "features": initial.source,
        "judged": len(once),
        "accuracy_of_the_judge": float((probabilities.argmax(axis=1) == labels).mean()),
        "accuracy_of_naming_the_commonest": float(np.bincount(labels).max() / len(once)),
        "suspected": len(found),
        "most_doubtful": [
            {
                "image": data.images[once[i]].name,
                "label": data.classes[labels[i]],
                "judged": data.classes[int(probabilities[i].argmax())],
            }
            for i in found[:20]
        ],
    }


def audit(data: DataSet, folder: Path = AUDITS, init: Path | None = None, cache: Path = CACHE) -> dict[str, Any]:
    """Counts what is wrong with a data set, and writes counts and names as ``NAME.json``.

    Args:
        folder: to write into; what a person said of pairs looked at is read from there.
        init: ResNet-18's layers for the label check; torchvision's where not given.
    """
    data, decoded = readable(data)
    grouping = find_groups(data, decoded, cache)
    labels = data.labels
    members = [np.flatnonzero(grouping.groups == number) for number in np.unique(grouping.groups)]
    several = [group for group in members if len(group) > 1]
    contradictory = [group for group in several if len(set(labels[group])) > 1]
    cases = [np.flatnonzero(grouping.cases == number) for number in np.unique(grouping.cases)]
    related = [case for case in cases if len(set(grouping.groups[case])) > 1]
    exact = [np.array(copies) for copies in grouping.copies]
    once = np.sort([int(group[0]) for group in members])
    marked = [len(mark_boxes(film.display())) > 0 for film in track(decoded, "Looking for marks")]
    coloured = [is_tinted(np.asarray(Image.open(film.path).convert("RGB"))) for film in data.images]
    summary = {
        "set": data.name,
        "title": data.title,
        "images": len(data.images),
        "by_class": {name: int((labels == index).sum()) for index, name in enumerate(data.classes)},
        "by_part": dict(sorted(Counter(film.part or "none given" for film in data.images).items())),
        "problems": [{"image": problem.image, "what": problem.what} for problem in data.problems],
        "exact_copies": {
            "compared": "originals, by the publisher's checksums"
            if all(film.sha256 for film in data.images)
            else "files as they are at hand",
            "files_that_are_copies": int(sum(len(copies) - 1 for copies in exact)),
            "sets_of_copies": len(exact),
            "with_different_labels": sum(len(set(labels[copies].tolist())) > 1 for copies in exact),
            "across_parts": _crossing(data, exact, "a copy"),
        },
        "near_duplicates": {
            "method": str(data.thresholds),
            "links": dict(sorted(Counter(link.measure for link in grouping.links).items())),
            "different_images": len(members),
            "groups_of_several": len(several),
            "images_in_groups_of_several": int(sum(len(group) for group in several)),
            "largest_groups": sorted((len(group) for group in members), reverse=True)[:10],
            "across_parts": _crossing(data, several, "a near-duplicate"),
            "contradictory_groups": [
                {
                    "images": [data.images[i].name for i in group],
                    "labels": sorted({data.classes[labels[i]] for i in group}),
                }
                for group in contradictory
            ],
            "brute_force": brute_force(decoded, grouping.groups, data.thresholds),
            "recall_of_planted_copies": recall_of_planted(decoded, data.thresholds),
            "looked_at": looked_at(data.name, folder),
        },
        "same_case": {
            "method": "file names that share eight hexadecimal digits: cut from one picture, or from one article",
            "pairs_of_names": len(data.same_case),
            "families_of_several_groups": len(related),
            "images_in_them": int(sum(map(len, related))),
            "across_parts": _crossing(data, related, "a image of the same case"),
        },
        "marks": {"images_with_letters_or_arrows": int(sum(marked)), "images_with_colour": int(sum(coloured))},
        "suspected_labels": _suspected(data, decoded, once, grouping.cases, init),
    }
    write_json(folder / f"{data.name}.json", summary, ascii_only=False)
    return summary
