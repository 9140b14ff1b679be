"""Learning from another network beside the labels (Hinton et al., 2015, "Distilling the knowledge in a neural net").

The teacher was trained on the same films and judged on the same others, so that nothing of a fold leaks through it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from app.network import Evidence, FractureNetwork
from training.recipe import Distil

__all__ = ["KEPT", "Teacher", "keep", "load_kept"]

KEPT = "kept.safetensors"
"""A run's weights in float16, which stay when its checkpoint goes."""


def keep(network: FractureNetwork, run: Path) -> None:
    """Writes a trained network's weights into its run's folder."""
    halved = {name: t.half() if t.is_floating_point() else t for name, t in network.state_dict().items()}
    save_file({name: tensor.contiguous().cpu() for name, tensor in halved.items()}, run / KEPT)


def load_kept(network: FractureNetwork, run: Path) -> FractureNetwork:
    """Fills a network with what a run kept.

    Raises:
        FileNotFoundError: the run kept nothing.
    """
    if not (run / KEPT).is_file():
        raise FileNotFoundError(f"{run} has no weights to teach with; cross-validate or train the teacher first")
    state = load_file(run / KEPT)
    network.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in state.items()})
    return network


class Teacher(nn.Module):
    """A frozen network, and the layer that translates the learner's features into its own.

    Args:
        network: trained.
        how: weights of the parts.
        channels: of the learner's features.
    """

    def __init__(self, network: FractureNetwork, how: Distil, channels: int) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.how = how
        self.hint = nn.Conv2d(channels, network.head.in_features, 1) if how.hint > 0 else None
        self.train()

    def train(self, mode: bool = True) -> Teacher:
        """Leaves the network as it judges, whatever the learner does."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, pixels: torch.Tensor, features: torch.Tensor, evidence: Evidence, typed: int) -> torch.Tensor:
        """How far the learner is from the teacher.

        Args:
            pixels: float (N, 3, H, W), normalised.
            features: the learner's, (N, K, h, w).
            evidence: the learner's.
            typed: the first so many films are fractures with a type; of the others only features and places count.

        Returns:
            Kullback-Leibler divergence of types at the temperature, plus cross-entropy of places where both networks
            have them, plus ``hint`` times the mean squared error of features in units of the teacher's spread (Romero
            et al., 2015, "FitNets").
        """
        with torch.no_grad():
            known = self.network.body(pixels)
            theirs = self.network.judge(known)
        temperature = self.how.temperature
        loss = temperature**2 * functional.kl_div(
            functional.log_softmax(evidence.logits[:typed] / temperature, dim=1),
            functional.log_softmax(theirs.logits[:typed] / temperature, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        if evidence.fracture is not None and theirs.fracture is not None:
            height, width = evidence.fracture.shape[1:]
            places = functional.adaptive_avg_pool2d(theirs.fracture.sigmoid(), (height, width))
            loss = loss + functional.binary_cross_entropy_with_logits(evidence.fracture, places)
        if self.hint is not None:
            known = functional.adaptive_avg_pool2d(known.float(), (features.shape[2], features.shape[3]))
            translated = self.hint(features).float()
            loss = loss + self.how.hint * functional.mse_loss(translated, known) / known.var().clamp(min=1e-6)
        return loss
