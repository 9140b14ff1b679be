"""In bfloat16 the answers are what they are in float32."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from app.imaging.examples import BREAKS, draw
from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier
from app.model.engines import LARGEST_CHANGE, LEAST_CORRELATION, changes
from app.model.precision import ReducedNetwork
from tests.conftest import SHIPPED


def seen(classifier: Classifier, *seeds: int) -> list[torch.Tensor]:
    drawn = [draw(kind, seed=seed) for kind, seed in zip(BREAKS, seeds, strict=False)]
    return [classifier.pixels([classifier.boxed(Radiograph(each, window=(0, 255)))[0]]) for each in drawn]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_models_say_the_same_and_draw_the_same(name: str) -> None:
    classifier = Classifier.load(name)
    again = ReducedNetwork(classifier.network)
    with torch.inference_mode():
        for pixels in seen(classifier, 3, 4):
            found = again(pixels)
            moved, alike = changes(classifier.network(pixels), found, classifier.card.temperature)
            assert moved.max() <= LARGEST_CHANGE
            assert alike.min() >= LEAST_CORRELATION
            assert found.logits.dtype == found.maps.dtype == torch.float32
            added_up = found.maps.mean(dim=(2, 3)) + classifier.network.head.bias
            torch.testing.assert_close(added_up, found.logits, atol=1e-4, rtol=1e-4)


def test_it_rounds_all_convolutions_but_those_of_pixels_and_of_the_first_stage(classifier: Classifier) -> None:
    again = ReducedNetwork(classifier.network)
    dtypes: dict[str, torch.dtype] = {}
    for name, module in again.body.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _its, _given, made, name=name: dtypes.update({name: made.dtype}))
    with torch.inference_mode():
        again(seen(classifier, 1)[0])
    early = {name for name in dtypes if name.startswith(("conv1", "layer1."))}
    assert len(early) == 5
    assert {dtypes.pop(name) for name in early} == {torch.float32}
    assert set(dtypes.values()) == {torch.bfloat16}


def test_the_network_itself_is_left_as_it_was(classifier: Classifier) -> None:
    pixels = seen(classifier, 1)[0]
    with torch.inference_mode():
        before = classifier.network(pixels)
        ReducedNetwork(classifier.network)(pixels)
        after = classifier.network(pixels)
    assert torch.equal(before.logits, after.logits)
    assert torch.equal(before.maps, after.maps)
