"""From noise to a draw of the residual z, step by step, each pixel for itself.

All solvers walk the schedule at equally spaced times t = 1 ... 0, so the learned schedule decides where
the effort goes, pixel by pixel. What a step needs of a pixel's surroundings is in the signal z_hat that the
networks see; the rest is pixelwise, so a solver knows neither tiles nor images and can be handed any part of
one. What it keeps from step to step is its state, whose first channel is z.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cvdm.schedule import SchedulePoint


@dataclass(frozen=True)
class Step:
    """One step of the walk, from the time of `now` to the earlier one of `after`."""

    index: int
    """1 for the first."""
    count: int
    """Index of the last."""
    now: SchedulePoint
    after: SchedulePoint
    noise: Callable[[], Tensor]
    """Standard normal noise (B, 1, h, w) of this step; not every solver asks for it."""


class Solver(Protocol):
    """How z follows from the z before and the signal that the networks see in it."""

    channels: int
    """S, of the state (B, S, h, w) after a step; before the first it is the starting noise alone, S = 1."""

    def advance(self, state: Tensor, signal: Tensor, step: Step) -> Tensor:
        """The state after a step; signal is z_hat (B, 1, h, w). The z after the last step is the draw."""


class Ancestral:
    """Draw from q(z_s | z_t, z_hat) step by step (Kingma et al. 2021, eq. 33)."""

    channels = 1

    def advance(self, state: Tensor, signal: Tensor, step: Step) -> Tensor:
        if step.index == step.count:
            return signal
        now, after = step.now, step.after
        fresh = -torch.expm1(now.log_snr - after.log_snr)  # share of z_s that z_t does not determine
        mean = after.gamma.sqrt() * (state * (1 - fresh) / now.gamma.sqrt() + fresh * signal)
        return mean + (after.noise_power * fresh).sqrt() * step.noise()


class DpmSolver:
    """DPM-Solver++(2M) on the probability-flow ODE (Lu et al. 2022, algorithm 2), per pixel in u / 2.

    The last step is first order, which Lu et al. advise for few steps. The state remembers the last signal
    and the width of the last step in u / 2.
    """

    channels = 3

    def advance(self, state: Tensor, signal: Tensor, step: Step) -> Tensor:
        z = state[:, :1]
        now, after = step.now, step.after
        width = (after.log_snr - now.log_snr) / 2
        direction = signal
        if 1 < step.index < step.count:
            before, width_before = state[:, 1:2], state[:, 2:3]
            direction = signal + (signal - before) * width / (2 * width_before)
        shrink = (after.noise_power / now.noise_power).sqrt()
        z = shrink * z - after.gamma.sqrt() * torch.expm1(-width) * direction
        return torch.cat([z, signal, width.expand_as(z)], dim=1)


class AngularEuler:
    """Euler's method on the probability-flow ODE in the angle a, tan^2 a = (1 - gamma) / gamma, per pixel.

    In the angle the ODE is dz/da = v (Lu & Song 2024, arXiv 2410.11081, "TrigFlow"). The residual is
    standardised, so where an observation leaves a pixel open, z is about standard normal and v about zero:
    the path is straight and a few steps follow it. Solvers that hold z_hat or eps_hat over a step instead
    lose a part of the spread with each of few steps.
    """

    channels = 1

    def advance(self, state: Tensor, signal: Tensor, step: Step) -> Tensor:
        now = step.now
        velocity = (now.gamma.sqrt() * state - signal) / now.noise_power.sqrt()
        return state + (step.after.angle - now.angle) * velocity


SOLVERS: dict[str, Solver] = {
    "angular-euler": AngularEuler(),
    "dpm-solver++": DpmSolver(),
    "ancestral": Ancestral(),
}
"""By the names of `cvdm.config.SOLVERS`."""
