"""The gradient of one training step, in as many pieces of the batch as memory asks for.

The terms of the objective are means over the batch, so their gradients over pieces add up, weighted by size,
to the gradient of the whole: up to rounding, a batch in pieces teaches the same, and so does one that
several processes share.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from cvdm.errors import TrainingError
from cvdm.losses import Losses
from cvdm.model import CVDM
from cvdm.team import Team

Objective = Callable[[CVDM, Tensor, Tensor, Tensor, Tensor], Losses]
"""`cvdm.losses.batch_losses`, compiled or not."""


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

    def part(self, start: int, end: int) -> Batch:
        """Some of its patches."""
        return Batch(*(getattr(self, f.name)[start:end] for f in fields(self)))

    def piece(self, start: int, end: int, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x, y, t, eps of some patches, on a device."""
        x, y, t, eps = (getattr(self, f.name)[start:end].to(device) for f in fields(self))
        return x, y, t, eps


def gradient_in_memory(
    model: CVDM, batch: Batch, objective: Objective, *, smoothness: float, pieces: int, device: str
) -> tuple[dict[str, float], int]:
    """Set the model's gradient to that over a batch; returns the terms, and in how many pieces they fitted.

    Raises TrainingError when not even a single patch fits into memory.
    """
    pieces = min(pieces, len(batch))
    while True:
        model.zero_grad(set_to_none=True)
        try:
            return accumulate_gradient(
                model, batch, objective, smoothness=smoothness, pieces=pieces, device=device
            ), pieces
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if pieces == len(batch):
                raise TrainingError(
                    f"memory for one patch of {batch.x.shape[-1]} px on {device}",
                    " ".join(str(error).split())[:200],
                    "Lower training.patch or the model's width, or free the device.",
                ) from error
        # outside of the handler: the error's frames would hold the memory
        pieces = min(2 * pieces, len(batch))
        if device != "cpu":
            torch.cuda.empty_cache()


def accumulate_gradient(
    model: CVDM, batch: Batch, objective: Objective, *, smoothness: float, pieces: int, device: str
) -> dict[str, float]:
    """Add the gradient of the objective over a batch to the model's; returns every term, and `total`.

    pieces: into how many parts the batch is cut, 1 to its size; memory falls with it.
    """
    named: dict[str, float] = {}
    edges = [len(batch) * k // pieces for k in range(pieces + 1)]
    for start, end in itertools.pairwise(edges):
        losses = objective(model, *batch.piece(start, end, device))
        share = (end - start) / len(batch)
        total = losses.total(smoothness)
        (total * share).backward()
        for name, value in (losses.as_floats() | {"total": float(total.detach())}).items():
            named[name] = named.get(name, 0.0) + value * share
    return named


def add_up(model: CVDM, losses: dict[str, float], *, share: float, team: Team) -> dict[str, float]:
    """Make gradient and terms of a process's share of a batch those of the whole batch, on every process.

    share: what part of the batch it was.
    """
    if team.size == 1:
        return losses
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    terms = torch.tensor(list(losses.values()), device=team.device)
    flat = team.total(share * torch.cat([*(g.reshape(-1) for g in gradients), terms]))
    *parts, terms = flat.split([*(g.numel() for g in gradients), len(terms)])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view(gradient.shape))
    return dict(zip(losses, terms.tolist(), strict=True))


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
