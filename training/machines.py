"""Training by several processes, on one machine or many, as torchrun starts them.

Every process takes its share of every batch, and gradients are averaged over them (Li et al., 2020, "PyTorch
distributed"): together they see the batches that one process would.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from torch.utils.data import BatchSampler, Sampler


class Process(NamedTuple):
    """Which of how many processes this is; ``beside`` of them are on this machine."""

    rank: int
    count: int
    beside: int


def process() -> Process:
    """What torchrun said in the environment; the only one where it said nothing."""
    rank, count, beside = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_WORLD_SIZE", "1"))
    )
    return Process(rank, count, beside)


class Share(Sampler[list[int]]):
    """A process's share of batches that all processes draw alike."""

    def __init__(self, batches: BatchSampler) -> None:
        self.batches = batches
        self.here = process()

    def __iter__(self) -> Iterator[list[int]]:
        return (batch[self.here.rank :: self.here.count] for batch in self.batches)

    def __len__(self) -> int:
        return len(self.batches)
