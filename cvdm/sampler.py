"""From noise to a draw of the residual z, as generators over steps.

Both solvers walk the schedule at equally spaced times t = 1 ... 0, so the learned schedule decides where
the effort goes, pixel by pixel. They know neither tiles nor images: `predict` returns z_hat for a whole
field of view, however it is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from cvdm.schedule import SchedulePoint

Predict = Callable[[Tensor, SchedulePoint], Tensor]
"""(z_t, point) -> z_hat, all (B, 1, H, W)."""
ScheduleAt = Callable[[float], SchedulePoint]
"""t -> the schedule at t for every pixel."""
NoiseAt = Callable[[int], Tensor]
"""step -> standard normal noise (B, 1, H, W); step 0 is the starting noise."""


def sample(
    solver: str, predict: Predict, schedule_at: ScheduleAt, noise_at: NoiseAt, steps: int
) -> Iterator[Tensor]:
    """Yield z after each of `steps` steps; the last is the draw. `solver` is one of `cvdm.config.SOLVERS`."""
    walk = {"ancestral": ancestral, "dpm-solver++": dpm_solver}[solver]
    return walk(predict, schedule_at, noise_at, steps)


def ancestral(predict: Predict, schedule_at: ScheduleAt, noise_at: NoiseAt, steps: int) -> Iterator[Tensor]:
    """Draw from q(z_s | z_t, z_hat) step by step (Kingma et al. 2021, eq. 33)."""
    z = noise_at(0)
    now = schedule_at(1.0)
    for step in range(1, steps + 1):
        after = schedule_at(1 - step / steps)
        signal = predict(z, now)
        fresh = -torch.expm1(now.log_snr - after.log_snr)  # share of z_s that z_t does not determine
        mean = after.gamma.sqrt() * (z * (1 - fresh) / now.gamma.sqrt() + fresh * signal)
        z = mean + (after.noise_power * fresh).sqrt() * noise_at(step) if step < steps else signal
        now = after
        yield z


def dpm_solver(predict: Predict, schedule_at: ScheduleAt, noise_at: NoiseAt, steps: int) -> Iterator[Tensor]:
    """DPM-Solver++(2M) on the probability-flow ODE (Lu et al. 2022, algorithm 2), per pixel in u / 2.

    The last step is first order, which Lu et al. advise for few steps.
    """
    z = noise_at(0)
    now = schedule_at(1.0)
    previous: tuple[Tensor, Tensor] | None = None  # the last signal and the width of the last step in u / 2
    for step in range(1, steps + 1):
        after = schedule_at(1 - step / steps)
        signal = predict(z, now)
        width = (after.log_snr - now.log_snr) / 2
        direction = signal
        if previous is not None and step < steps:
            direction = signal + (signal - previous[0]) * width / (2 * previous[1])
        shrink = (after.noise_power / now.noise_power).sqrt()
        z = shrink * z - after.gamma.sqrt() * torch.expm1(-width) * direction
        previous = (signal, width)
        now = after
        yield z
