"""A learner comes to see what its teacher sees; nothing of another split can teach."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from app.model.backbones import ARCHITECTURES
from app.model.network import build_network
from tests.app.model.test_network import awake
from training.data.datamodule import BoneBreakData
from training.fitting.cross_validation import cross_validate
from training.fitting.fit import fit, load_task
from training.fitting.teacher import KEPT, Teacher, keep, load_kept
from training.recipe import Augment, Distil, Recipe

SMALL = Recipe(
    name="small",
    architecture="custom-cnn",
    size=64,
    stride=8,
    folds=2,
    batch_size=8,
    head_epochs=0,
    tune_epochs=1,
    tune=(),
    augment=Augment(),
)
TAUGHT = SMALL.model_copy(update={"name": "taught", "distil": Distil(teacher="small", hint=1.0)})


def test_a_learner_comes_closer_to_its_teacher() -> None:
    torch.manual_seed(0)
    theirs = awake(build_network("custom-cnn", 10, stride=8, head="attended", places=True))
    nn.init.normal_(theirs.head.weight, std=1.0)
    learner = build_network("custom-cnn", 10, stride=8, head="attended", places=True).eval()
    stages = ARCHITECTURES["custom-cnn"].stages
    teacher = Teacher(theirs, Distil(teacher="them", hint=1.0), stages, learner.body, stages).train()
    assert not learner.training
    assert len(teacher.hints) == len(stages)
    assert not theirs.training
    before = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    optimiser = torch.optim.Adam([*learner.parameters(), *teacher.hints.parameters()], 3e-3)
    pixels = torch.randn(8, 3, 32, 32)
    losses = []
    for _ in range(30):
        loss = teacher(pixels, learner(pixels), typed=4)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    assert losses[-1] < 0.6 * losses[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in theirs.state_dict().items())
    # Of a teacher that is copied whole, only the entropy of its places is left.
    perfect = Teacher(theirs, Distil(teacher="them"), stages, theirs.body, stages)
    evidence = theirs(pixels)
    sure = evidence.fracture.sigmoid()
    entropy = nn.functional.binary_cross_entropy(sure, sure)
    torch.testing.assert_close(perfect(pixels, evidence, typed=4), entropy, atol=1e-5, rtol=1e-4)


def test_folds_learn_from_the_teachers_folds(drawn_set: Path, tmp_path: Path, cache: Path) -> None:
    options = {"precision": "32-true", "cache": cache}
    with pytest.raises(FileNotFoundError):
        cross_validate(TAUGHT, drawn_set, tmp_path / "folds" / "taught", **options)
    cross_validate(SMALL, drawn_set, tmp_path / "folds" / "small", **options)
    found = cross_validate(TAUGHT, drawn_set, tmp_path / "folds" / "taught", **options)
    films = BoneBreakData(SMALL, drawn_set, cache)
    assert len(found.films) == len(set(found.films)) == len(films.split.train) + len(films.split.validation)
    other = tmp_path / "folds" / "small" / "fold1"
    with pytest.raises(ValueError, match="other films"):
        fit(TAUGHT.model_copy(update={"fold": 0}), drawn_set, tmp_path / "run", teacher=other, **options)
    with pytest.raises(ValueError, match="name its run"):
        fit(TAUGHT, drawn_set, tmp_path / "run", **options)


def test_kept_weights_judge_like_the_checkpoint(drawn_set: Path, tmp_path: Path, cache: Path) -> None:
    fit(SMALL, drawn_set, tmp_path / "run", precision="32-true", cache=cache, progress=False)
    task, _, _ = load_task(tmp_path / "run", drawn_set, cache)
    with pytest.raises(FileNotFoundError):
        load_kept(task.network, tmp_path / "run")
    keep(task.network, tmp_path / "run")
    assert (tmp_path / "run" / KEPT).is_file()
    again = load_kept(build_network("custom-cnn", 10, stride=8), tmp_path / "run").eval()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(again(pixels).logits, task.network(pixels).logits, atol=1e-2, rtol=1e-2)
