"""A model whose evidence is known: it names "spiral" by fine detail and by nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from app.explain.methods import MapRequest, map_request
from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier
from app.model.network import FractureNetwork


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
    return map_request(seeing, Radiograph(pixels, (0, 255)), "spiral")
