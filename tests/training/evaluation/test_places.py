"""Learning and judging where fractures lie, on drawn films."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.imaging.letterbox import Placement
from app.imaging.radiograph import Radiograph
from app.model.classifier import Explanation, Prediction
from app.model.network import build_network
from training.data.boxed import BoxedImages, box_mask
from training.data.image import LabelledImage
from training.evaluation.localisation import ASKED, BASELINES, hit, with_mirrored
from training.fitting.cross_validation import cross_validate, summarise
from training.fitting.fit import fit, load_task
from training.fitting.task import FractureTypes, place_targets, where_loss
from training.recipe import Augment, Places, Recipe

BIASES = np.array([0.1, 0.0, -0.1], np.float32)
STILL = Augment(rotation=0, zoom=0, shift=0, shear=0, flip=False, brightness=0, contrast=0)
JOINT = Recipe(
    name="joint",
    architecture="custom-cnn",
    size=64,
    stride=8,
    head="attended",
    places=Places(batch_size=8),
    folds=2,
    batch_size=8,
    head_epochs=0,
    tune_epochs=1,
    tune=(),
    augment=STILL,
)


def film(*boxes: tuple[float, float, float, float]) -> LabelledImage:
    return LabelledImage("drawn", Path("drawn.png"), 1, "", boxes=boxes)


def test_a_box_lies_where_the_letterbox_puts_it() -> None:
    placement = Placement.fit(200, 100, 64)
    mask = box_mask(film((0.5, 0.25, 0.5, 0.1)), placement)
    rows, columns = np.nonzero(mask)
    assert mask.shape == (64, 64)
    assert (rows.min(), rows.max()) == (12, 19)
    assert (columns.min(), columns.max()) == (24, 39)
    assert box_mask(film((0.5, 0.5, 1e-6, 1e-6)), placement).sum() >= 1


def test_a_peak_is_inside_near_or_far() -> None:
    placement = Placement.fit(160, 160, 160)
    boxed = film((0.25, 0.25, 0.1, 0.1))

    def peak(row: int, column: int) -> np.ndarray:
        found = np.zeros((160, 160), np.float32)
        found[row, column] = 1.0
        return found

    assert hit(peak(40, 40), boxed, placement) == (True, True, 1.0)
    assert hit(peak(53, 40), boxed, placement) == (False, True, 0.0)
    assert hit(peak(120, 120), boxed, placement) == (False, False, 0.0)
    assert hit(np.full((160, 160), -1.0, np.float32), boxed, placement).energy == 0.0
    flat = hit(np.ones((10, 10), np.float32), boxed, placement)
    assert flat.energy == pytest.approx(0.01, rel=0.15)
    with pytest.raises(ValueError, match="no box"):
        hit(peak(1, 1), film(), placement)


def test_heat_in_the_padding_is_no_peak() -> None:
    placement = Placement.fit(160, 80, 160)
    found = np.zeros((160, 160), np.float32)
    found[80, 5] = 9.0
    found[80, 80] = 1.0
    assert hit(found, film((0.5, 0.5, 0.1, 0.1)), placement).inside


def test_a_mirror_image_counts_as_much_as_the_film_and_its_maps_are_turned_back() -> None:
    rng = np.random.default_rng(1)
    film = Radiograph(np.zeros((40, 40), np.uint8), (0, 255))

    def explained(maps: np.ndarray, fracture: np.ndarray) -> Explanation:
        logits = maps.mean(axis=(1, 2)) + BIASES
        said = Prediction(("a", "b", "c"), logits, logits)
        return Explanation(film, Placement.fit(40, 40, 40), said, maps, BIASES, fracture, 1.0, "m")

    maps = rng.normal(size=(3, 5, 5)).astype(np.float32)
    fracture = rng.normal(size=(5, 5)).astype(np.float32)
    told = explained(maps, fracture)
    alike = with_mirrored(told, explained(maps[:, :, ::-1], fracture[:, ::-1]))
    np.testing.assert_allclose(
        alike[f"{ASKED}, mirror image asked too"], told.evidence(told.prediction.best), rtol=1e-6
    )
    assert alike["fracture map, mirror image asked too"].argmax() == fracture.argmax()
    other = told.prediction.classes.index(told.prediction.ranking[1])
    swayed = np.zeros_like(maps)
    swayed[other] = 50.0
    swayed[other, 2, 0] = 100.0
    both = with_mirrored(told, explained(swayed, fracture))[f"{ASKED}, mirror image asked too"]
    assert np.unravel_index(both.argmax(), both.shape) == (2, 4)


def test_baselines_know_nothing_but_their_rule() -> None:
    rng = np.random.default_rng(0)
    square = np.zeros((160, 160), np.uint8)
    square[:16, :16] = 255
    maps = {name: draw(square, (10, 10), rng) for name, draw in BASELINES.items()}
    assert {found.shape for found in maps.values()} == {(10, 10)}
    assert maps["the film's brightness"].argmax() == 0
    assert np.unravel_index(maps["centred Gaussian"].argmax(), (10, 10)) in {(4, 4), (4, 5), (5, 4), (5, 5)}
    assert not np.array_equal(maps["random"], BASELINES["random"](square, (10, 10), rng))


def test_what_a_place_is_asked_for() -> None:
    masks = torch.zeros(3, 1, 32, 32)
    masks[0, 0, 8:16, 6:16] = 1.0
    masks[1, 0, 17, 18] = 1.0
    touched = place_targets(masks, (4, 4), "touch")
    share = place_targets(masks, (4, 4), "share")
    assert touched[0].nonzero().tolist() == [[1, 0], [1, 1]]
    assert share[0].nonzero().tolist() == [[1, 0], [1, 1]]
    assert share[0, 1].tolist() == [0.25, 1.0, 0.0, 0.0]
    assert share[1, 2, 2] == touched[1, 2, 2] == 1.0
    assert not share[2].any()
    assert not touched[2].any()


def test_early_epochs_see_smaller_films_and_keep_every_box() -> None:
    recipe = JOINT.model_copy(update={"early_size": 32, "early_epochs": 1})
    seen = []
    network = build_network("custom-cnn", 10, stride=8, head="attended", places=True)
    task = FractureTypes(recipe, network, (), torch.ones(10)).train()
    task.log = lambda *_, **__: None  # ty: ignore[invalid-assignment]
    task.network.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-1]))
    masks = torch.zeros(2, 1, 64, 64, dtype=torch.uint8)
    masks[0, 0, 20, 20] = 1
    films = torch.zeros(2, 1, 64, 64, dtype=torch.uint8)
    batch = {"types": (films, torch.tensor([0, 1])), "places": (films, masks, torch.tensor([1.0, 0.0]))}
    assert task._sized_mask(masks).sum() == 1
    task.training_step(batch, 0)
    later = FractureTypes(
        recipe.model_copy(update={"early_size": None, "early_epochs": 0}), network, (), torch.ones(10)
    )
    later.log = lambda *_, **__: None  # ty: ignore[invalid-assignment]
    later.train().training_step(batch, 0)
    assert seen == [32, 64]


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


def test_a_joint_cross_validation_judges_types_and_places(drawn_atlas: Path, tmp_path: Path, cache: Path) -> None:
    found = cross_validate(JOINT, drawn_atlas, tmp_path / "folds", precision="32-true", cache=cache)
    summary = summarise(found)
    assert summary["types"]["films"] == len(set(found.films.tolist()))
    boxed = BoxedImages(drawn_atlas, "validation", 64, cache)
    assert len(summary["places"]["presence_auroc"]) == 2
    assert summary["places"]["fracture_peak_in_box"]["n"] == boxed.fractured.sum() > 0
    trained = {film.name for film in BoxedImages(drawn_atlas, "train", 64, cache).films}
    assert not trained & {film.name for film in boxed.films}
    again = cross_validate(JOINT, drawn_atlas, tmp_path / "folds", cache=cache)
    assert np.array_equal(again.logits, found.logits)


def in_two_matrices(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint as it was written when the halves of an attending head were two matrices."""
    state = checkpoint["state_dict"]
    for owner in ("network", "average.module"):
        if f"{owner}.head.weight" in state:
            halves = state[f"{owner}.head.weight"].split(128, dim=1)
            state[f"{owner}.head.weight"], state[f"{owner}.attended.weight"] = halves
    (optimiser,) = checkpoint["optimizer_states"]
    numbers = optimiser["param_groups"][0]["params"]
    (at,) = (i for i, number in enumerate(numbers) if optimiser["state"][number]["exp_avg"].shape == (10, 256))
    first = optimiser["state"][numbers[at]]
    # The second matrix stood behind the first one and its bias.
    added = 1 + max(number for group in optimiser["param_groups"] for number in group["params"])
    numbers.insert(at + 2, added)
    optimiser["state"][added] = second = dict(first)
    for moment in ("exp_avg", "exp_avg_sq"):
        first[moment], second[moment] = first[moment].split(128, dim=1)
    return checkpoint


def test_a_run_begun_with_two_matrices_goes_on_alike(drawn_atlas: Path, tmp_path: Path) -> None:
    """It loads and goes on, optimiser and moving average included, as the same run with one matrix does."""
    options = {"precision": "32-true", "cache": tmp_path / "cache", "progress": False}
    recipe = JOINT.model_copy(update={"average": 0.9})
    begun = fit(recipe, drawn_atlas, tmp_path / "one", **options)
    shutil.copytree(begun.parent, tmp_path / "two")
    older = in_two_matrices(torch.load(begun, weights_only=False))
    torch.save(older, tmp_path / "two" / "last.ckpt")
    task, _, _ = load_task(tmp_path / "two", drawn_atlas, tmp_path / "cache")
    expected, _, _ = load_task(tmp_path / "one", drawn_atlas, tmp_path / "cache")
    assert all(torch.equal(tensor, task.state_dict()[name]) for name, tensor in expected.state_dict().items())
    longer = recipe.model_copy(update={"tune_epochs": 2})
    states = [
        torch.load(fit(longer, drawn_atlas, tmp_path / name, resume=True, **options), weights_only=False)
        for name in ("one", "two")
    ]
    for name, tensor in states[0]["state_dict"].items():
        torch.testing.assert_close(states[1]["state_dict"][name], tensor)
    assert not torch.equal(states[0]["state_dict"]["network.head.weight"], expected.state_dict()["network.head.weight"])


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


def test_where_loss_asks_nothing_of_films_without_a_box() -> None:
    fracture = torch.randn(3, 4, 4, requires_grad=True)
    loss = where_loss(fracture, torch.zeros(3, 1, 64, 64))
    loss.backward()
    assert loss == 0
    assert fracture.grad is not None
    assert not fracture.grad.any()
