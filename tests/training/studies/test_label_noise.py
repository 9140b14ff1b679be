"""Labels are softened or left out as told, and no image that judges is ever asked before."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.toys import PROBE, SMALL
from training import read_json
from training.data.datamodule import TypedData
from training.fitting.cross_validation import cross_validate, judged
from training.fitting.fit import fit
from training.fitting.probe import linear_probe
from training.recipe import Recipe, fold_of
from training.studies import label_noise as study
from training.studies.label_noise import REMEDIES, TUNED, Remedy, label_noise, taught, typed_elsewhere

RNG = np.random.default_rng(0)
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
SHARES = np.eye(3)[LABELS]
SAID = RNG.dirichlet(np.ones(3), len(LABELS))


def test_labels_as_given_are_left_as_they_are() -> None:
    kept, shares = taught(SHARES, SAID, Remedy(""))
    assert kept.tolist() == list(range(len(LABELS)))
    assert np.array_equal(shares, SHARES)


def test_a_share_of_a_label_goes_over_to_what_was_said() -> None:
    kept, shares = taught(SHARES, SAID, Remedy("", softened=0.3))
    assert len(kept) == len(LABELS)
    assert shares == pytest.approx(0.7 * SHARES + 0.3 * SAID)
    assert shares.sum(axis=1) == pytest.approx(np.ones(len(LABELS)))


def test_what_surprises_most_is_left_out_but_no_type_goes() -> None:
    likely = SAID[np.arange(len(LABELS)), LABELS]
    kept, shares = taught(SHARES, SAID, Remedy("", left_out=0.3))
    gone = sorted(set(range(len(LABELS))) - set(kept.tolist()))
    assert len(kept) == len(shares) == 7
    assert gone == sorted(np.argsort(likely)[:3].tolist())
    kept, shares = taught(SHARES, SAID, Remedy("", left_out=1.0))
    assert sorted(LABELS[kept].tolist()) == [0, 1, 2]
    for kind, index in zip(LABELS[kept], kept, strict=True):
        assert likely[index] == likely[kind == LABELS].max()


def test_a_probe_learns_shares_as_it_learns_images_that_stand_there_as_often() -> None:
    features, judged = RNG.normal(size=(1, 8, 3)), RNG.normal(size=(1, 4, 3))
    half = np.eye(2)[[0, 1] * 4]
    half[0] = half[1] = (0.5, 0.5)
    # The same images twice, of which the shared ones are half of each type.
    twice = np.concatenate([features, features], axis=1)
    labels = np.concatenate([np.eye(2)[[0, 1] * 4], np.eye(2)[[1, 0, *[0, 1] * 3]]])
    assert linear_probe(features, half, judged, 0.1) == pytest.approx(
        linear_probe(twice, labels, judged, 0.1), abs=1e-3
    )


def test_what_judges_is_never_learnt_from_nor_asked_before(
    many_data: Path, stem: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[set[bytes], set[bytes]]] = []

    def watched(features: np.ndarray, shares: np.ndarray, judged: np.ndarray, decay: float) -> np.ndarray:
        seen.append(tuple({row.tobytes() for row in part[0]} for part in (features, judged)))  # ty: ignore
        return linear_probe(features, shares, judged, decay)

    monkeypatch.setattr(study, "linear_probe", watched)
    monkeypatch.setattr(study, "INNER", 2)
    (tmp_path / PROBE.name).mkdir()
    rows = label_noise([PROBE], many_data, tmp_path, stem, results=tmp_path / "found.json", cache=cache)["probes"]
    assert list(rows) == list(REMEDIES)
    assert rows["as-given"]["difference"]["value"] == 0.0
    count = rows["as-given"]["types"]["images"]
    assert all(row["types"]["images"] == count for row in rows.values())
    assert all(not learnt & judged for learnt, judged in seen)
    per_fold = study.INNER + len(REMEDIES)
    as_given, more = (list(REMEDIES).index(name) + study.INNER for name in ("as-given", "more-images"))
    others = len(typed_elsewhere(many_data)[0])
    assert others > 20
    for fold in range(PROBE.folds):
        added = seen[fold * per_fold + more][0] - seen[fold * per_fold + as_given][0]
        assert 0 < len(added) <= others
    assert len(seen) == PROBE.folds * per_fold
    for fold in range(PROBE.folds):
        calls = seen[fold * per_fold : (fold + 1) * per_fold]
        outside = calls[-1][1]
        assert all(not outside & (learnt | judged) for learnt, judged in calls[: study.INNER])
        assert all(judged == outside for _, judged in calls[study.INNER :])


def test_other_labels_teach_another_network_and_the_images_own_the_same(
    drawn_set: Path, tmp_path: Path, cache: Path
) -> None:
    recipe = fold_of(SMALL.model_copy(update={"head_epochs": 1}), 0)
    films = TypedData(recipe, drawn_set, cache)
    train = films.split.train
    labels = np.eye(len(films.set.classes), dtype=np.float32)[films.labels[train]]
    told = {"own": None, "same": (train, labels), "others": (train[:-2], np.roll(labels, 1, axis=1)[:-2])}
    how = {"precision": "32-true", "cache": cache, "progress": False}
    kept = {}
    for name, lesson in told.items():
        fit(recipe, drawn_set, tmp_path / name, taught=lesson, **how)
        kept[name] = (tmp_path / name / "kept.safetensors").read_bytes()
    assert kept["own"] == kept["same"] != kept["others"]
    table = (tmp_path / "others" / "split.csv").read_text()
    assert table.count("left out") == 2


@pytest.mark.slow
def test_a_network_learns_by_remedies_and_joins_the_probes(
    many_data: Path, stem: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught_by: dict[str, int] = {}

    def watched(recipe: Recipe, data: Path, run: Path, part: str, **how: Any) -> dict[str, np.ndarray]:
        taught_by[f"{run.parent.name}/{run.name}"] = len(how["taught"][0])
        return judged(recipe, data, run, part, **how)

    monkeypatch.setattr(study, "judged", watched)
    monkeypatch.setattr(study, "INNER", 2)
    (tmp_path / PROBE.name).mkdir()
    layers = tmp_path / "layers"
    layers.mkdir()
    shutil.copy(stem, layers / "resnet18-stem.safetensors")
    target = tmp_path / "found.json"
    rows = label_noise([PROBE], many_data, tmp_path, layers, network=SMALL, results=target, cache=cache)
    assert read_json(target)["network"] == "small"
    assert list(rows["network"]) == list(rows["together"]) == list(TUNED)
    alone = cross_validate(SMALL, many_data, tmp_path / "small", cache=cache)
    assert rows["network"]["as-given"]["types"]["images"] == len(alone.images)
    for fold in range(2):
        given = taught_by[f"small/fold{fold}"]
        assert taught_by[f"small-soft-30/fold{fold}"] == given
        assert taught_by[f"small-small-loss-10/fold{fold}"] == given - round(0.1 * given)
    assert (tmp_path / "small-soft-30/fold0/judged.npz").is_file()
