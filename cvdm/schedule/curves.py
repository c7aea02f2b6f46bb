"""A schedule as evidence: what people look at and what is logged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cvdm.schedule.interface import Schedule


@dataclass(frozen=True)
class ScheduleCurves:
    """A schedule as evidence: curves over time, as quantiles over the pixels of one image."""

    times: list[float]
    """T times from 0 to 1."""
    quantiles: tuple[float, ...]
    """The Q quantiles over pixels that the curves show, in [0, 1]."""
    gamma: list[list[float]]
    """Q curves of T values."""
    beta: list[list[float]]
    log_snr: list[list[float]]


@dataclass(frozen=True)
class ScheduleExtremes:
    """How far a schedule can be trusted at its worst pixel."""

    finite: bool
    """Whether log-SNR and its rate are finite numbers everywhere."""
    falling: bool
    """Whether the log-SNR of every pixel falls from each time to the next."""
    clean: float
    """Lowest log-SNR over pixels at t = 0."""
    noise: float
    """Highest log-SNR over pixels at t = 1."""

    def joined(self, other: ScheduleExtremes) -> ScheduleExtremes:
        """The worse of both."""
        return ScheduleExtremes(
            self.finite and other.finite,
            self.falling and other.falling,
            min(self.clean, other.clean),
            max(self.noise, other.noise),
        )


def schedule_extremes(schedule: Schedule, paths: Tensor, *, count: int = 33) -> ScheduleExtremes:
    """The worst of all pixels of `paths` (1, P, H, W) over `count` times."""
    finite, falling, before, ends = True, True, None, []
    for t in torch.linspace(0, 1, count, device=paths.device, dtype=paths.dtype):
        point = schedule.at(t.view(1, 1, 1, 1), paths)
        log_snr = point.log_snr
        finite &= bool(torch.isfinite(log_snr).all() and torch.isfinite(point.rate).all())
        falling &= before is None or bool((log_snr < before).all())
        ends.append((log_snr.min().item(), log_snr.max().item()))
        before = log_snr
    return ScheduleExtremes(finite, falling, ends[0][0], ends[-1][1])


def schedule_curves(
    schedule: Schedule, paths: Tensor, *, count: int = 65, quantiles: tuple[float, ...] = (0.05, 0.5, 0.95)
) -> ScheduleCurves:
    """gamma, beta and u over `count` times for the pixels of `paths` (1, P, H, W)."""
    times = torch.linspace(0, 1, count, device=paths.device, dtype=paths.dtype)
    levels = torch.tensor(quantiles, device=paths.device, dtype=paths.dtype)
    curves: dict[str, list[list[float]]] = {"gamma": [], "beta": [], "log_snr": []}
    for t in times:
        point = schedule.at(t.view(1, 1, 1, 1), paths)
        for name, over_time in curves.items():
            over_time.append(torch.quantile(getattr(point, name)[..., ::2, ::2].flatten(), levels).tolist())
    per_quantile = {name: [list(curve) for curve in zip(*rows, strict=True)] for name, rows in curves.items()}
    return ScheduleCurves(times.tolist(), quantiles, **per_quantile)
