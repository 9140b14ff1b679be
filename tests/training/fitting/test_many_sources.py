"""Each image is asked only what its source may teach, and a run over many sources goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from app.model.network import build_network
from training.data.lessons import SourceImages
from training.fitting.fit import fit, load_task
from training.fitting.many_sources import PAUSED, LessonTask, even_odds, glance
from training.fitting.task import map_loss
from training.recipe import load_recipe, recipe_of

RECIPE = Path("training/recipes/resnet18-pyramid.yaml")


def a_task(limit: float | None = None) -> LessonTask:
    recipe = load_recipe(RECIPE)
    network = build_network(recipe.architecture, 10, stride=8, head="attended", places=True)
    fresh = tuple(name for name, _ in network.body.named_parameters() if name.startswith(("lateral", "smooth")))
    return LessonTask(recipe, network, fresh, torch.full((10,), 5), limit=limit)


def test_what_may_not_be_asked_has_no_gradient() -> None:
    how = load_recipe(RECIPE).places
    assert how is not None
    fracture = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    masks = torch.zeros(4, 1, 64, 64)
    masks[0, :, 16:24, 16:24] = 1
    fractured, presence, place = (torch.tensor(flags) for flags in ([1.0, 1, 0, 1], [1.0, 1, 1, 0], [1.0, 0, 1, 0]))
    map_loss(how, fracture, masks, fractured, presence, place).backward()
    assert fracture.grad is not None
    moved = fracture.grad.abs().sum(dim=(1, 2))
    assert (moved[:3] > 0).all()
    assert moved[3] == 0
    # Presence alone pushes every cell of a fractured image up, by its share of the odds.
    assert (fracture.grad[1] < 0).all()


def test_the_loss_falls_where_the_map_is_right() -> None:
    how = load_recipe(RECIPE).places
    assert how is not None
    masks = torch.zeros(2, 1, 64, 64)
    masks[0, :, 16:24, 16:24] = 1
    right = torch.full((2, 8, 8), -8.0)
    right[0, 2, 2] = 8.0
    flags = torch.tensor([1.0, 0.0]), torch.ones(2), torch.ones(2)
    wrong = right.flip(2)
    assert map_loss(how, right, masks, *flags) < 0.1 < map_loss(how, wrong, masks, *flags)


def test_evidence_sums_to_the_logit_after_a_step() -> None:
    task = a_task()
    network = task.network
    batch = {
        "types": (torch.randint(0, 255, (2, 1, 256, 256), dtype=torch.uint8), torch.eye(10)[1:3]),
        "places": (
            torch.randint(0, 255, (2, 1, 256, 256), dtype=torch.uint8),
            torch.zeros(2, 1, 256, 256, dtype=torch.uint8),
            *(torch.tensor([1.0, 0.0]), torch.ones(2), torch.ones(2)),
        ),
    }
    task.log = lambda *_args, **_kwargs: None  # ty: ignore[invalid-assignment]
    task.training_step(batch, 0).backward()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter -= 1e-3 * parameter.grad
        network.eval()
        evidence = network(torch.randn(1, 3, 96, 96))
    assert torch.allclose(evidence.maps.mean(dim=(2, 3)) + network.head.bias, evidence.logits, atol=1e-5)


def test_a_glance_takes_each_source_by_itself(many_data: Path, cache: Path) -> None:
    judging = SourceImages(many_data, "validation", 64, ("veda", "hbfmid"), cache=cache)
    fractured, veda = judging.flags("fractured"), judging.sources == "veda"
    told = glance(judging, fractured - 10.0 * veda, veda)
    assert told["veda"] == f"AUROC 1.000 (n = {veda.sum()}), peak in box 1.000 (n = {(veda & fractured).sum()})"
    assert told["hbfmid"] == f"peak in box 0.000 (n = {(~veda).sum()})"


def test_early_layers_learn_at_lower_rates_and_new_ones_at_the_heads() -> None:
    task = a_task(limit=60.0)
    task.spent = 0.05 * 60.0
    chosen = task.configure_optimizers()
    assert isinstance(chosen, dict)
    optimiser = chosen["optimizer"]
    rate = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    of = {name: rate[id(parameter)] for name, parameter in task.network.body.named_parameters()}
    recipe = task.recipe
    assert of["layer1.0.conv1.weight"] == pytest.approx(0.3 * recipe.body_rate)
    assert of["layer4.0.conv1.weight"] == pytest.approx(recipe.body_rate)
    assert of["smooth.weight"] == pytest.approx(recipe.head_rate) == pytest.approx(rate[id(task.network.head.weight)])
    assert len(rate) == len(list(task.network.parameters()))


def test_parameters_are_optimised_in_an_order_that_every_process_has() -> None:
    """A checkpoint tells whose state is whose by its place alone, and sets are ordered anew in every process."""
    task = a_task()
    optimiser = task.configure_optimizers()["optimizer"]  # ty: ignore[invalid-argument-type]
    names = {id(parameter): name for name, parameter in task.network.body.named_parameters()}
    known = [names[id(group["params"][0])] for group in optimiser.param_groups[1:]]
    assert known == [name for name in names.values() if name not in task.fresh]


def test_a_pause_is_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LessonTask, "trainer", SimpleNamespace(callback_metrics={}))
    task = a_task(limit=6000.0)
    task._began -= 5000.0
    task.on_train_batch_end(None, None, 0)
    assert task.spent == PAUSED


def test_an_image_without_evidence_is_as_likely_fractured_as_not() -> None:
    task = a_task()
    even_odds(task.network, task.recipe)
    assert task.network.places is not None
    torch.nn.init.zeros_(task.network.places.weight)
    with torch.no_grad():
        fracture = task.network.eval()(torch.randn(1, 3, task.recipe.size, task.recipe.size)).fracture
    assert fracture is not None
    assert float(fracture.logsumexp(dim=(1, 2))) == pytest.approx(0.0, abs=1e-4)


@pytest.mark.slow
def test_a_resumed_run_ends_after_all_epochs(many_run: Path) -> None:
    state = torch.load(many_run / "last.ckpt", map_location="cpu", weights_only=False)
    assert state["global_step"] == 4
    assert state["seconds_spent"] > 0
    assert json.loads((many_run / "effort.json").read_text())["epochs"] == 2


@pytest.mark.slow
def test_another_recipes_run_does_not_go_on(many_run: Path, many_data: Path, cache: Path) -> None:
    other = recipe_of(many_run).model_copy(update={"body_rate": 0.5})
    with pytest.raises(ValueError, match="another recipe"):
        fit(other, many_data, many_run, resume=True, cache=cache)


@pytest.mark.slow
def test_only_training_images_are_learnt(many_run: Path) -> None:
    learnt = json.loads((many_run / "sources.json").read_text())
    assert learnt["veda"]["images"] == 12
    assert learnt["veda"]["presence"] == 12
    assert learnt["hbfmid"]["presence"] == 0


@pytest.mark.slow
def test_frozen_layers_stay_and_others_move(many_run: Path, many_data: Path, stem: Path, cache: Path) -> None:
    task, _, _ = load_task(many_run, many_data, cache)
    state, before = task.network.state_dict(), load_file(stem)
    still = [name for name in before if torch.equal(state[f"body.{name}"], before[name].half().float())]
    assert {name for name in still if name.startswith(("conv1", "layer"))} == {
        name for name in before if name.startswith(("conv1", "layer"))
    }
    assert state["body.layer4.0.bn1.running_mean"].abs().sum() > 0


@pytest.mark.slow
def test_the_average_is_kept(many_run: Path, many_data: Path, cache: Path) -> None:
    """What is kept is the moving average, not the last step's weights."""
    state = torch.load(many_run / "last.ckpt", map_location="cpu", weights_only=False)
    kept = load_task(many_run, many_data, cache)[0].network.state_dict()
    averaged, last = (state[key]["network.head.weight"] for key in ("state_dict", "current_model_state"))
    assert torch.equal(kept["head.weight"], averaged.half().float())
    assert not torch.equal(averaged, last)
