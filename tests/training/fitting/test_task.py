"""What is optimised: types, the fracture map, and what a student learns from its teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from app.model.backbones import ARCHITECTURES
from app.model.network import build_network
from tests.app.model.test_network import awake
from tests.training.toys import JOINT, SMALL, TINY
from training.fitting.fit import fit, load_initial, load_task
from training.fitting.task import FractureTypes, Teacher, cell_targets, load_kept, where_loss
from training.recipe import Distil


def test_what_a_cell_learns() -> None:
    masks = torch.zeros(3, 1, 32, 32)
    masks[0, 0, 8:16, 6:16] = 1.0
    masks[1, 0, 17, 18] = 1.0
    touched = cell_targets(masks, (4, 4), "touch")
    share = cell_targets(masks, (4, 4), "share")
    assert touched[0].nonzero().tolist() == [[1, 0], [1, 1]]
    assert share[0].nonzero().tolist() == [[1, 0], [1, 1]]
    assert share[0, 1].tolist() == [0.25, 1.0, 0.0, 0.0]
    assert share[1, 2, 2] == touched[1, 2, 2] == 1.0
    assert not share[2].any()
    assert not touched[2].any()


def test_early_epochs_see_smaller_images_and_keep_every_box() -> None:
    recipe = JOINT.model_copy(update={"early_size": 32, "early_epochs": 1})
    seen = []
    network = build_network("custom-cnn", 10, stride=8, head="attended", places=True)
    task = FractureTypes(recipe, network, (), torch.ones(10)).train()
    task.log = lambda *_, **__: None  # ty: ignore[invalid-assignment]
    task.network.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-1]))
    masks = torch.zeros(2, 1, 64, 64, dtype=torch.uint8)
    masks[0, 0, 20, 20] = 1
    films = torch.zeros(2, 1, 64, 64, dtype=torch.uint8)
    batch = {"types": (films, torch.eye(10)[:2]), "places": (films, masks, torch.tensor([1.0, 0.0]))}
    assert task._sized_mask(masks).sum() == 1
    task.training_step(batch, 0)
    later = FractureTypes(
        recipe.model_copy(update={"early_size": None, "early_epochs": 0}), network, (), torch.ones(10)
    )
    later.log = lambda *_, **__: None  # ty: ignore[invalid-assignment]
    later.train().training_step(batch, 0)
    assert seen == [32, 64]


@pytest.mark.slow
def test_drawn_fractures_are_learnt_to_be_pointed_at() -> None:
    torch.manual_seed(0)
    network = build_network("custom-cnn", 10, stride=8, head="attended", places=True)
    task = FractureTypes(JOINT, network, (), torch.ones(10)).train()
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    rng = np.random.default_rng(0)

    def batch(count: int) -> dict[str, tuple[torch.Tensor, ...]]:
        films, masks = torch.randint(0, 90, (2, count, 1, 64, 64), dtype=torch.uint8)
        masks = torch.zeros_like(masks)
        for i in range(0, count, 2):
            row, column = rng.integers(4, 48, 2)
            films[i, 0, row : row + 12, column : column + 12] = 230
            masks[i, 0, row : row + 12, column : column + 12] = 1
        return {
            "types": (films, torch.randint(0, 10, (count,))),
            "places": (films, masks, torch.arange(count) % 2 == 0),
        }

    for _ in range(60):
        seen = batch(16)
        seen["places"] = (*seen["places"][:2], seen["places"][2].float())
        optimiser.zero_grad()
        task.training_step(seen, 0).backward()
        optimiser.step()
    films, masks, fractured = batch(40)["places"]
    with torch.inference_mode():
        fracture = task.eval()(films.float() / 255.0).fracture
    assert fracture is not None
    inside = torch.nn.functional.adaptive_max_pool2d(masks.float(), 8)[:, 0].flatten(1)
    peaks = inside.gather(1, fracture.flatten(1).argmax(dim=1, keepdim=True))[fractured, 0]
    assert peaks.mean() > 0.8
    presence = fracture.flatten(1).logsumexp(dim=1)
    assert presence[fractured].mean() > presence[~fractured].mean() + 1.0


def test_the_first_three_count_apart_from_the_first() -> None:
    """Even where a first batch, all of one class, gives both the same."""
    network = build_network("custom-cnn", 10, stride=8, head="attended", places=True)
    scores = FractureTypes(JOINT, network, (), torch.ones(10)).scores
    scores.update(torch.arange(10.0).repeat(4, 1), torch.zeros(4, dtype=torch.long))
    scores.update(torch.arange(10.0).repeat(4, 1), torch.full((4,), 8))
    found = scores.compute()
    assert found["validation_accuracy"] == 0.0
    assert found["validation_top3"] == 0.5


def test_where_loss_wants_the_peak_in_the_box() -> None:
    masks = torch.zeros(2, 1, 64, 64)
    masks[0, 0, 16:32, 32:48] = 1.0
    right, wrong = torch.zeros(2, 4, 4), torch.zeros(2, 4, 4)
    right[0, 1, 2], wrong[0, 2, 1] = 9.0, 9.0
    even = where_loss(torch.zeros(2, 4, 4), masks)
    assert where_loss(right, masks) < 0.01 < even < where_loss(wrong, masks)
    assert even == pytest.approx(np.log(16), abs=1e-5)


def test_where_loss_wants_nothing_of_images_without_a_box() -> None:
    fracture = torch.randn(3, 4, 4, requires_grad=True)
    loss = where_loss(fracture, torch.zeros(3, 1, 64, 64))
    loss.backward()
    assert loss == 0
    assert fracture.grad is not None
    assert not fracture.grad.any()


def test_a_recipe_that_tunes_nothing_real_is_refused(stem: Path) -> None:
    from app.model.network import build_network

    network = build_network("resnet18", 10)
    initial = load_initial(network, "resnet18", stem)
    with pytest.raises(ValueError, match="layer9"):
        FractureTypes(TINY.model_copy(update={"tune": ("layer9",)}), network, initial.fresh, torch.ones(10))


def test_rare_classes_weigh_more(stem: Path) -> None:
    from app.model.network import build_network

    network = build_network("resnet18", 10)
    counts = torch.tensor([10] * 9 + [40])
    task = FractureTypes(TINY, network, (), counts)
    assert task.class_weights[0] == pytest.approx(4 * float(task.class_weights[9]))


def test_a_learner_comes_closer_to_its_teacher() -> None:
    torch.manual_seed(0)
    theirs = awake(build_network("custom-cnn", 10, stride=8, head="attended", places=True))
    nn.init.normal_(theirs.head.weight, std=1.0)
    student = build_network("custom-cnn", 10, stride=8, head="attended", places=True).eval()
    stages = ARCHITECTURES["custom-cnn"].stages
    teacher = Teacher(theirs, Distil(teacher="them", hint=1.0), stages, student.body, stages).train()
    assert not student.training
    assert len(teacher.hints) == len(stages)
    assert not theirs.training
    before = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    optimiser = torch.optim.Adam([*student.parameters(), *teacher.hints.parameters()], 3e-3)
    pixels = torch.randn(8, 3, 32, 32)
    losses = []
    for _ in range(30):
        loss = teacher(pixels, student(pixels), typed=4)
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


def test_kept_weights_judge_like_the_checkpoint(drawn_set: Path, tmp_path: Path, cache: Path) -> None:
    network = build_network("custom-cnn", 10, stride=8)
    with pytest.raises(FileNotFoundError):
        load_kept(network, tmp_path)
    last = fit(SMALL, drawn_set, tmp_path, precision="32-true", cache=cache, progress=False)
    task, _, _ = load_task(tmp_path, drawn_set, cache)
    state = torch.load(last, weights_only=False)["state_dict"]
    network.load_state_dict({n.removeprefix("network."): t for n, t in state.items() if n.startswith("network.")})
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(task.network(pixels).logits, network.eval()(pixels).logits, atol=1e-2, rtol=1e-2)
