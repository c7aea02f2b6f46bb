"""The processes that train one model together, and what they tell each other.

`torchrun --nproc-per-node N -m cvdm train ...` starts them, on one machine or on many, and ends all when one
fails. Lightning Fabric joins them and gives each its device. Each works on its share of every batch, and
their gradients are added up when all have theirs.

Not during the backward pass, as DistributedDataParallel adds them up: a process that runs out of memory there
and begins its share again, in smaller pieces, would leave the others waiting within theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from cvdm.errors import TrainingError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Told = TypeVar("Told")


@dataclass(frozen=True)
class Team:
    """This process among those that train together; by default it is alone."""

    device: str = "cpu"
    """Of this process."""
    fabric: Fabric | None = None
    """Launched; None for a process alone."""

    @property
    def size(self) -> int:
        return 1 if self.fabric is None else self.fabric.world_size

    @property
    def rank(self) -> int:
        """From 0 to `size` - 1."""
        return 0 if self.fabric is None else self.fabric.global_rank

    @property
    def leads(self) -> bool:
        """Whether it is the one that validates, writes and tells the caller."""
        return self.rank == 0

    def share(self, count: int) -> tuple[int, int]:
        """Which of `count` things are for this process, [start, end)."""
        return count * self.rank // self.size, count * (self.rank + 1) // self.size

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, on each; in place."""
        if self.fabric is not None:
            self.fabric.all_reduce(values, reduce_op="sum")
        return values

    def largest(self, value: int) -> int:
        """Of all processes' values, on each."""
        if self.fabric is None:
            return value
        values = torch.tensor(value, device=self.device)
        self.fabric.all_reduce(values, reduce_op="max")
        return int(values)

    def told(self, value: Told) -> Told:
        """The leader's value, on each."""
        return value if self.fabric is None else self.fabric.broadcast(value)


def join(device: str) -> Team:
    """The team that torchrun started this process for; a process that it did not start is alone.

    device: "cpu" or "cuda". Raises TrainingError where processes and GPUs do not match.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()):
        return Team(device)
    from lightning_fabric import Fabric  # seconds, which a process alone need not wait for
    from lightning_fabric.plugins.environments import TorchElasticEnvironment

    world = TorchElasticEnvironment()
    size, here = world.world_size(), world.world_size()
    if device == "cuda":
        here = min(size, torch.cuda.device_count())
        if not here or size % here or world.local_rank() >= here:
            raise TrainingError(
                f"as many processes on each machine as it has GPUs, {torch.cuda.device_count()}, or fewer",
                f"{size} in all, this one number {world.local_rank()} of its machine, from 0",
                "Correct --nproc-per-node.",
            )
    fabric = Fabric(accelerator=device, strategy="ddp", devices=here, num_nodes=size // here)
    fabric.launch()
    return Team(str(fabric.device), fabric)
