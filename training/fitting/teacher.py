"""Learning from another network beside the labels (Hinton et al., 2015, "Distilling the knowledge in a neural net").

The teacher was trained on the same films and judged on the same others, so that nothing of a fold leaks through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from app.model.network import Evidence, FractureNetwork
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


class _Stages:
    """What a body's stages gave in its latest forward, first stage first."""

    def __init__(self, body: nn.Module, names: Sequence[str]) -> None:
        self.given: dict[str, torch.Tensor] = {}
        self.names = names
        for name in names:
            body.get_submodule(name).register_forward_hook(partial(self._keep, name))

    def _keep(self, name: str, _module: nn.Module, _inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        self.given[name] = output

    def take(self) -> list[torch.Tensor]:
        taken = [self.given[name] for name in self.names]
        self.given.clear()
        return taken


class Teacher(nn.Module):
    """A frozen network, and layers that translate what a learner's stages see into what its own do.

    The stages are paired from the last to the first; the finer of two maps is averaged down to the other's grid.

    Args:
        network: trained.
        how: weights of the parts.
        stages: of the network's body.
        learner: body that learns; ``hint`` needs every forward of it to go before one of this.
        learner_stages: of that body.
    """

    def __init__(
        self,
        network: FractureNetwork,
        how: Distil,
        stages: Sequence[str],
        learner: nn.Module,
        learner_stages: Sequence[str],
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.how = how
        self.hints: nn.ModuleList | None = None
        if how.hint > 0:
            pairs = min(len(stages), len(learner_stages))
            self._known = _Stages(network.body, stages[-pairs:])
            self._learned = _Stages(learner, learner_stages[-pairs:])
            was = learner.training
            with torch.no_grad():
                for body in (network.body, learner):
                    body.eval()(torch.zeros(1, 3, 64, 64))
            learner.train(was)
            both = zip(self._learned.take(), self._known.take(), strict=True)
            self.hints = nn.ModuleList(nn.Conv2d(ours.shape[1], theirs.shape[1], 1) for ours, theirs in both)
        self.train()

    def train(self, mode: bool = True) -> Teacher:
        """Leaves the network as it judges, whatever the learner does."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, pixels: torch.Tensor, evidence: Evidence, typed: int) -> torch.Tensor:
        """How far the learner is from the teacher.

        Args:
            pixels: float (N, 3, H, W), normalised; the learner has just seen them.
            evidence: the learner's.
            typed: the first so many films are fractures with a type; of the others only features and places count.

        Returns:
            Kullback-Leibler divergence of types at the temperature, plus cross-entropy of places where both networks
            have them, plus ``hint`` times the mean squared error of the stages' features in units of the teacher's
            spread, averaged over stages (Romero et al., 2015, "FitNets").
        """
        with torch.no_grad():
            theirs = self.network(pixels)
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
        if self.hints is not None:
            missed = [
                _missed(hint, ours, known)
                for hint, ours, known in zip(self.hints, self._learned.take(), self._known.take(), strict=True)
            ]
            loss = loss + self.how.hint * torch.stack(missed).mean()
        return loss


def _missed(hint: nn.Module, ours: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    grid = (min(ours.shape[2], known.shape[2]), min(ours.shape[3], known.shape[3]))
    known = functional.adaptive_avg_pool2d(known.float(), grid)
    translated = hint(functional.adaptive_avg_pool2d(ours, grid)).float()
    return functional.mse_loss(translated, known) / known.var().clamp(min=1e-6)
