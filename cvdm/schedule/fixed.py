"""Schedules chosen by hand, the same for every pixel: what learning one saves the trials of."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cvdm.schedule.interface import Schedule, SchedulePoint


class FixedSchedule(Schedule):
    """A curve that is the same for every pixel and every image: the trial-and-error baseline."""

    learned = False

    def paths(self, x: Tensor) -> Tensor:
        """Nothing to learn: zeros (B, 1, H, W)."""
        return torch.zeros_like(x[:, :1])


class LogSnrLinearSchedule(FixedSchedule):
    """u falls linearly in t."""

    def at(self, t: Tensor, paths: Tensor) -> SchedulePoint:
        span = self.noise - self.clean
        return _spread(self.clean + span * t, span * torch.ones_like(t), torch.zeros_like(t), paths)


class CosineSchedule(FixedSchedule):
    """gamma = cos^2(a), a linear in t between the angles of the two end points (Nichol & Dhariwal 2021)."""

    def at(self, t: Tensor, paths: Tensor) -> SchedulePoint:
        first, last = (math.atan(math.exp(-u / 2)) for u in (self.clean, self.noise))
        angle, speed = first + (last - first) * t, last - first
        # u = -2 log tan a, so du/da = -4 / sin 2a.
        rate = -4 * speed / torch.sin(2 * angle)
        curvature = 8 * speed**2 * torch.cos(2 * angle) / torch.sin(2 * angle) ** 2
        return _spread(-2 * torch.log(torch.tan(angle)), rate, curvature, paths)


class LinearSchedule(FixedSchedule):
    """The noise rate beta rises linearly in t (Ho et al. 2020), with the ends set to the configured log-SNR.

    -log gamma = d0 + b0 t + (b1 - b0) t^2 / 2 with b1 = 200 b0, the ratio of the original.
    """

    RATIO = 200.0

    def at(self, t: Tensor, paths: Tensor) -> SchedulePoint:
        first, last = (math.log1p(math.exp(-u)) for u in (self.clean, self.noise))
        b0 = (last - first) / (1 + (self.RATIO - 1) / 2)
        slope = (self.RATIO - 1) * b0
        decay = first + b0 * t + slope * t**2 / 2
        beta = b0 + slope * t
        noise_power = -torch.expm1(-decay)
        rate = -beta / noise_power
        curvature = -slope / noise_power + rate**2 * torch.exp(-decay)
        return _spread(-decay - torch.log(noise_power), rate, curvature, paths)


def _spread(log_snr: Tensor, rate: Tensor, curvature: Tensor, paths: Tensor) -> SchedulePoint:
    shape = (paths.shape[0], 1, *paths.shape[2:])
    return SchedulePoint(log_snr.expand(shape), rate.expand(shape), curvature.expand(shape))
