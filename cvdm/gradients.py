"""The gradient of one training step, in as many pieces of the batch as memory asks for.

The terms of the objective are means over the batch, so their gradients over pieces add up, weighted by size,
to the gradient of the whole: up to rounding, a batch in pieces teaches the same.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from cvdm.losses import batch_losses
from cvdm.model import CVDM


@dataclass(frozen=True)
class Batch:
    """What one step learns from, on the CPU: x (B, C, H, W), y and eps (B, 1, H, W), times t (B, 1, 1, 1)."""

    x: Tensor
    y: Tensor
    t: Tensor
    eps: Tensor

    @classmethod
    def drawn(cls, x: Tensor, y: Tensor, seed: int, step: int) -> Batch:
        """Observations and targets with the times and the noise of a step."""
        rng = step_generator(seed, step)
        return cls(x, y, diffusion_times(len(x), rng), torch.randn(y.shape, generator=rng))

    def __len__(self) -> int:
        return len(self.x)

    def piece(self, start: int, end: int, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x, y, t, eps of some patches, on a device."""
        x, y, t, eps = (getattr(self, f.name)[start:end].to(device) for f in fields(self))
        return x, y, t, eps


def accumulate_gradient(
    model: CVDM, batch: Batch, *, smoothness: float, pieces: int, device: str
) -> dict[str, float]:
    """Add the gradient of the objective over a batch to the model's; returns every term, and `total`.

    pieces: into how many parts the batch is cut, 1 to its size; memory falls with it.
    """
    named: dict[str, float] = {}
    edges = [len(batch) * k // pieces for k in range(pieces + 1)]
    for start, end in itertools.pairwise(edges):
        losses = batch_losses(model, *batch.piece(start, end, device))
        share = (end - start) / len(batch)
        total = losses.total(smoothness)
        (total * share).backward()
        for name, value in (losses.as_floats() | {"total": float(total.detach())}).items():
            named[name] = named.get(name, 0.0) + value * share
    return named


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a failure is for want of memory, on a GPU or not."""
    told = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in told or "out of memory" in told)
    )


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random numbers of one training step."""
    (word,) = np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(word >> np.uint64(1)))


def diffusion_times(count: int, rng: torch.Generator) -> Tensor:
    """`count` times (B, 1, 1, 1) on [0, 1], spread evenly over the batch (Kingma et al. 2021, app. I.1)."""
    offset = torch.rand(1, generator=rng)
    return ((torch.randperm(count, generator=rng) + offset) / count).view(-1, 1, 1, 1)
