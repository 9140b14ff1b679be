"""The trial itself on trial: a map that is right must win, one that is wrong lose, one that is blind be caught."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.functional.image import structural_similarity_index_measure

from app.errors import Cancelled
from app.explain.checks import dependence, pointing
from app.explain.faithfulness import (
    CHANGES,
    HEAD,
    REST,
    SHARES,
    SHUFFLES,
    Curves,
    Randomised,
    Trial,
    _filled,
    _shuffle,
    randomise_weights,
    rank_correlation,
    stability,
    structural_similarity,
    surrogate,
    trial,
)
from app.explain.methods import METHODS, MapRequest, ask, draw, with_square
from app.imaging.letterbox import Placement
from app.imaging.phantom import draw as phantom
from app.imaging.radiograph import Radiograph
from app.model.backbones import ARCHITECTURES
from app.model.classifier import Classifier
from app.model.network import FractureNetwork, build_network
from app.watch import Progress


class Detail(nn.Module):
    """Features are how much fine detail each place of 8 px shows, so that blurring or filling in takes them away."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        smooth = nn.functional.avg_pool2d(pixels, 5, stride=1, padding=2)
        return nn.functional.avg_pool2d((pixels - smooth).abs(), 8)


@pytest.fixture(scope="module")
def seeing(classifier: Classifier) -> Classifier:
    """A model that names "spiral" by fine detail and by nothing else."""
    network = FractureNetwork(Detail(), 3, len(classifier.classes)).eval().requires_grad_(False)
    network.head.weight.zero_()
    network.head.bias.zero_()
    network.head.weight[classifier.classes.index("spiral")] = 60.0
    return Classifier(network, classifier.card)


@pytest.fixture(scope="module")
def question(seeing: Classifier) -> MapRequest:
    """A film that is smooth but for a rough spot."""
    rng = np.random.default_rng(0)
    pixels = np.full((96, 96), 120, np.uint8)
    pixels[24:48, 48:72] = rng.integers(40, 200, (24, 24))
    return ask(seeing, Radiograph(pixels, (0, 255)), "spiral")


PLACEMENT = Placement.fit(96, 96, 96)


def test_a_right_map_wins_and_its_opposite_loses(question: MapRequest) -> None:
    right = draw(question)
    assert np.unravel_index(right.argmax(), right.shape)[0] in (3, 4, 5)
    won = trial(question, right, PLACEMENT)
    assert won.beaten() == {"deletion": 8, "insertion": 8, "ROAD": 8}
    assert min(won.margins().values()) > 0.02
    lost = trial(question, right.max() - right, PLACEMENT)
    assert lost.beaten() == {"deletion": 0, "insertion": 0, "ROAD": 0}
    assert max(lost.margins().values()) < 0.0


def test_curves_begin_and_end_where_they_must(question: MapRequest) -> None:
    told = []
    watched = MapRequest(**{**vars(question), "watch": Progress(tell=told.append)})
    found = trial(watched, draw(question), PLACEMENT, random=2)
    for curves in (found.real, *found.random):
        assert curves.deletion.shape == curves.insertion.shape == SHARES.shape
        assert curves.deletion[0] == pytest.approx(curves.insertion[-1], abs=1e-5)
        assert curves.deletion[-1] == pytest.approx(curves.insertion[0], abs=1e-5)
        assert 0.0 <= curves.deletion_area <= 1.0
    assert told == pytest.approx([1 / 3, 2 / 3, 1.0])
    flat = Curves(np.full(11, 0.4), np.full(11, 0.7), 0.0)
    assert flat.deletion_area == pytest.approx(0.4)
    assert flat.insertion_area == pytest.approx(0.7)


def test_only_the_film_is_blurred(seeing: Classifier) -> None:
    tall = Radiograph(phantom("spiral", height=120, width=60), (0, 255))
    asked = ask(seeing, tall, "spiral")
    heat = np.zeros((12, 12), np.float32)
    heat[:, 0] = 1.0
    placement = Placement.fit(120, 60, seeing.card.size)
    in_padding = trial(asked, heat, placement, random=1).real
    nothing = trial(asked, np.zeros_like(heat), placement, random=1).real
    np.testing.assert_allclose(in_padding.deletion, nothing.deletion, atol=1e-6)
    np.testing.assert_allclose(in_padding.insertion, nothing.insertion, atol=1e-6)


def test_the_margin_round_a_film_is_the_same_in_every_picture(
    seeing: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[np.ndarray] = []

    def kept(classifier: Classifier, squares: Sequence[np.ndarray], target: int) -> np.ndarray:
        asked.extend(squares)
        return np.full(len(squares), 0.5)

    monkeypatch.setattr("app.explain.faithfulness._probabilities", kept)
    question = ask(seeing, Radiograph(phantom("spiral", height=120, width=60), (0, 255)), "spiral")
    trial(question, draw(question), Placement.fit(120, 60, seeing.card.size), random=1)
    margin = question.square == 0.0
    margin[:, 24:72] = False
    assert margin.sum() == 96 * 48
    assert len(asked) == 2 + 2 * 28
    assert not any(square[margin].any() for square in asked)


def test_a_random_map_has_the_smoothness_but_not_the_places() -> None:
    rng = np.random.default_rng(1)

    def roughness(values: np.ndarray) -> float:
        return float(np.square(np.diff(values, axis=0)).mean() + np.square(np.diff(values, axis=1)).mean())

    spots = cv2.GaussianBlur(rng.random((28, 28)).astype(np.float32), (0, 0), 2.0)
    few = np.zeros((20, 20), np.float32)
    few[5:11, 8:14] = cv2.GaussianBlur(rng.random((6, 6)).astype(np.float32), (0, 0), 1.0)
    for found in (spots, np.maximum(spots - spots.mean(), 0.0), few):
        drawn = [surrogate(found, rng) for _ in range(200)]
        assert all(np.isin(random, found).all() for random in drawn)
        assert np.mean(drawn, axis=0) == pytest.approx(found.mean(), rel=0.5)
        assert np.mean([roughness(each) for each in drawn]) == pytest.approx(roughness(found), rel=0.15)
        assert abs(np.mean([rank_correlation(found, each) for each in drawn])) < 0.2


def test_other_films_meet_other_random_maps_and_the_same_film_the_same(
    question: MapRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[np.ndarray] = []

    def kept(found: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        drawn.append(surrogate(found, rng))
        return drawn[-1]

    monkeypatch.setattr("app.explain.faithfulness.surrogate", kept)
    found = draw(question)
    for square in (question.square, question.square, 0.9 * question.square):
        trial(with_square(question, square.astype(np.float32)), found, PLACEMENT, random=1)
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_what_is_filled_in_tells_nothing_of_what_was_there() -> None:
    square = np.random.default_rng(0).random((192, 192)).astype(np.float32)
    removed = np.zeros(square.shape, bool)
    removed[51:120, 51:120] = True
    changed = np.where(removed, 1.0 - square, square)
    told = [_filled(each, removed, np.random.default_rng(0)) for each in (square, changed)]
    np.testing.assert_allclose(told[0], told[1], atol=1e-6)
    assert np.array_equal(told[0][~removed], square[~removed])


def test_a_blind_method_is_caught_by_scrambling(classifier: Classifier, film: Radiograph) -> None:
    before = {name: tensor.clone() for name, tensor in classifier.network.state_dict().items()}
    asked = ask(classifier, film)
    blind = randomise_weights(asked, "eigencam", draw(asked, "eigencam"))
    seeing = randomise_weights(asked, "gradcam", draw(asked, "gradcam"))
    assert [step.down_to for step in blind] == ["head", "layer4", "layer3", "layer2", "layer1", REST]
    assert blind[0].correlation == pytest.approx(1.0)
    assert blind[0].similarity == pytest.approx(1.0)
    assert len(seeing[0].correlations) == SHUFFLES["instant"]
    assert seeing[0].correlation < 0.8
    slow = randomise_weights(asked, "gradcam-earlier", draw(asked, "gradcam-earlier"))
    assert [step.down_to for step in slow] == [HEAD, REST]
    assert all(torch.equal(before[name], tensor) for name, tensor in classifier.network.state_dict().items())


@pytest.mark.parametrize("architecture", ["resnet18", "resnet18-pyramid", "vgg16-bn"])
def test_nothing_learnt_stays_in_its_place(architecture: str) -> None:
    torch.manual_seed(0)
    stride = ARCHITECTURES[architecture].strides[0]
    network = build_network(architecture, 10, stride=stride, head="attended", places=True)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.normal_()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    done: set[str] = set()
    generator = torch.Generator().manual_seed(0)
    for part in ("head", *ARCHITECTURES[architecture].stages, REST):
        _shuffle(network, part, done, generator)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and tensor.numel() > 1:
            assert not torch.equal(tensor, before[name]), name
            assert torch.equal(tensor.flatten().sort().values, before[name].flatten().sort().values), name


def test_a_map_turned_into_its_opposite_has_kept_what_it_shows() -> None:
    assert Randomised(HEAD, np.ones((2, 2)), (-0.9, 0.9), 0.0).correlation == pytest.approx(0.9)


def test_networks_that_leave_no_heat_are_not_called_different(classifier: Classifier, film: Radiograph) -> None:
    network = copy.deepcopy(classifier.network)
    network.head.weight.fill_(-1.0)
    asked = ask(Classifier(network, classifier.card), film)
    found = draw(ask(classifier, film))
    for step in randomise_weights(asked, "gradcam", found):
        assert step.correlations == ()
        assert step.correlation is None
        assert np.ptp(step.found) == 0.0


def steps(head: tuple[float, ...], last: tuple[float, ...]) -> tuple[Randomised, Randomised]:
    flat = np.zeros((2, 2), np.float32)
    return Randomised(HEAD, flat, head, 0.0), Randomised(REST, flat, last, 0.0)


@pytest.mark.parametrize(
    ("head", "last", "kind", "words"),
    [
        ((0.5, -0.4), (0.1, -0.2), "good", "It depends on the model."),
        ((), (0.1,), "good", "It depends on the model."),
        ((0.5,), (-0.5, 0.4), "poor", "It does not depend on the model: a red flag."),
        ((0.99,), (0.1,), "poor", "It depends on the model, but not on the type asked about."),
        ((0.5,), (), "mixed", "Whether it depends on the model cannot be said."),
    ],
)
def test_what_scrambling_found_is_told_in_words(
    head: tuple[float, ...], last: tuple[float, ...], kind: str, words: str
) -> None:
    told = dependence(steps(head, last))
    assert told[:2] == (kind, words)
    if last:
        assert f"{np.mean(np.abs(last)):.2f}" in told[2]


def trial_of(deletion: float, insertion: float, road: float) -> Trial:
    """Four random maps of areas and ROAD 0.30 to 0.33, and a map of these."""
    random = tuple(Curves(np.full(11, v), np.full(11, v), v) for v in (0.30, 0.31, 0.32, 0.33))
    return Trial(Curves(np.full(11, deletion), np.full(11, insertion), road), random)


@pytest.mark.parametrize(
    ("found", "kind", "words"),
    [
        (trial_of(0.1, 0.5, 0.4), "good", "It points at what the score needs."),
        (trial_of(0.1, 0.5, 0.2), "mixed", "by two measures of three"),
        (trial_of(0.305, 0.325, 0.325), "mixed", "some of them do as well"),
        (trial_of(0.1, 0.2, 0.2), "poor", "better than chance does"),
        (trial_of(0.5, 0.1, 0.1), "poor", "better than chance does"),
    ],
)
def test_what_the_curves_found_is_told_in_words(found: Trial, kind: str, words: str) -> None:
    told = pointing(found)
    assert told[0] == kind
    assert words in told[1]
    for margin in found.margins().values():
        assert f"margin {margin:+.3f}" in told[2]


def test_chance_alone_seldom_wins() -> None:
    """A random map among random maps is ahead of all of them once in as many times as there are maps."""
    rng = np.random.default_rng(0)

    def curves() -> Curves:
        return Curves(rng.random(11), rng.random(11), float(rng.random()))

    won = [Trial(curves(), tuple(curves() for _ in range(8))).won() for _ in range(3000)]
    for measure in ("deletion", "insertion", "ROAD"):
        assert np.mean([measure in each for each in won]) == pytest.approx(1 / 9, abs=0.02)
    assert np.mean([len(each) == 3 for each in won]) < 0.01


def test_maps_of_what_is_there_are_stable_and_chance_is_not(question: MapRequest) -> None:
    found = stability(question, "gradcam", draw(question))
    assert [each.title for each in found] == [change.title for change in CHANGES]
    by_title = {each.title: each.correlation for each in found}
    assert by_title["mirrored"] == pytest.approx(1.0, abs=0.02)
    rng = np.random.default_rng(0)
    noise = stability(question, "gradcam", rng.random(draw(question).shape).astype(np.float32))
    assert np.mean([each.correlation for each in noise]) < 0.3 < np.mean(list(by_title.values()))


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.title)
def test_changes_are_small_and_go_back(change: object) -> None:
    square = np.zeros((90, 90), np.float32)
    square[20:50, 30:70] = 0.6
    there = change.there(square)  # ty: ignore[unresolved-attribute]
    assert there.dtype == np.float32
    assert there.min() >= 0.0
    assert there.max() <= 1.0
    again = change.back(there)  # ty: ignore[unresolved-attribute]
    assert np.corrcoef(again.ravel(), square.ravel())[0, 1] > 0.95


def test_measures_of_likeness() -> None:
    rng = np.random.default_rng(2)
    one = rng.random((40, 40)).astype(np.float32)
    assert rank_correlation(one, one**3) == pytest.approx(1.0)
    assert rank_correlation(one, -one) == pytest.approx(-1.0)
    assert rank_correlation(one, np.ones_like(one)) == 0.0
    assert structural_similarity(one, 5.0 * one + 2.0) == pytest.approx(1.0)
    other = np.clip(one + rng.normal(0, 0.2, one.shape), 0, 1).astype(np.float32)
    one, other = ((m - m.min()) / np.ptp(m) for m in (one, other))
    theirs = structural_similarity_index_measure(
        torch.from_numpy(one)[None, None], torch.from_numpy(other)[None, None], data_range=1.0
    )
    assert structural_similarity(one, other) == pytest.approx(float(theirs), abs=0.03)


def test_a_trial_stops_when_told(question: MapRequest) -> None:
    watch = Progress()
    watch.stop()
    stopped = MapRequest(**{**vars(question), "watch": watch})
    found = draw(question)
    for slow in (
        lambda: trial(stopped, found, PLACEMENT),
        lambda: stability(stopped, "gradcam", found),
    ):
        with pytest.raises(Cancelled):
            slow()


def test_every_method_can_be_put_on_trial(classifier: Classifier, film: Radiograph) -> None:
    asked = ask(classifier, film)
    for name in (name for name, how in METHODS.items() if how.cost == "instant"):
        found = trial(asked, draw(asked, name), Placement.fit(film.height, film.width, 96), random=1)
        assert np.isfinite(list(found.margins().values())).all()
