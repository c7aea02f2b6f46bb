"""Schedules that each pixel learns from the observation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from cvdm.config import ScheduleConfig
from cvdm.networks import LocalConvNet
from cvdm.schedule.interface import Schedule, SchedulePoint

CURVATURE_SPAN = 8.0
"""Curvatures run from 1 / 9 - 1 to 8: no pixel rushes through any part of its path more than nine times
faster than on average, which keeps few-step sampling accurate whatever is learned."""


class PinnedSchedule(Schedule):
    """Log-SNR pinned at both ends; each pixel mixes monotone curves between them.

    u(t, x) = u0 + (u1 - u0) sum_k w_k(x) s_k(t), w a softmax over k, s_c(t) = (1 + c) t / (1 + c t).
    The end points cannot drift, so the prior is always reached and few-step solvers stay accurate.
    """

    learned = True

    def __init__(self, config: ScheduleConfig, inputs: int = 1) -> None:
        super().__init__(config, inputs)
        self.path_channels = config.curves
        self.network = LocalConvNet(inputs, config.curves, config.width)
        self.register_buffer("curvatures", monotone_curvatures(config.curves), persistent=False)

    def paths(self, x: Tensor) -> Tensor:
        """Mixture weights (B, K, H, W), summing to one over K."""
        return torch.softmax(self.network(x), dim=1)

    def at(self, t: Tensor, paths: Tensor) -> SchedulePoint:
        span = self.noise - self.clean
        curve, rate, curvature = (
            (paths * s).sum(1, keepdim=True) for s in monotone_curves(t, self.curvatures)
        )
        return SchedulePoint(self.clean + span * curve, span * rate, span * curvature)

    def receptive_radius(self) -> int:
        return self.network.receptive_radius()


class SeparableSchedule(Schedule):
    """The paper's form: gamma(t, x) = exp(-lambda(x) h(t)), end points free and held by penalties.

    h(t) = h0 + sum_k a_k s_k(t) with a_k > 0, h0 > 0; lambda(x) > 0 from a small network.
    """

    learned = True

    def __init__(self, config: ScheduleConfig, inputs: int = 1) -> None:
        super().__init__(config, inputs)
        self.network = LocalConvNet(inputs, 1, config.width)
        self.register_buffer("curvatures", monotone_curvatures(config.curves), persistent=False)
        # At the start lambda = softplus(0) + 1e-3 and gamma meets both configured end points.
        start = [math.log1p(math.exp(-u)) / (math.log(2) + 1e-3) for u in (self.clean, self.noise)]
        self.floor = nn.Parameter(torch.tensor(_inverse_softplus(start[0])))
        share = (start[1] - start[0]) / config.curves
        self.slopes = nn.Parameter(torch.full((config.curves,), _inverse_softplus(share)))

    def paths(self, x: Tensor) -> Tensor:
        """lambda(x), (B, 1, H, W), positive."""
        return functional.softplus(self.network(x)) + 1e-3

    def at(self, t: Tensor, paths: Tensor) -> SchedulePoint:
        slopes = functional.softplus(self.slopes).view(1, -1, 1, 1)
        h, rate, curvature = ((slopes * s).sum(1, keepdim=True) for s in monotone_curves(t, self.curvatures))
        decay = paths * (h + functional.softplus(self.floor))  # -log gamma
        noise_power = -torch.expm1(-decay)
        log_snr = -decay - torch.log(noise_power)
        log_gamma_rate = -paths * rate
        log_snr_rate = log_gamma_rate / noise_power
        gamma = torch.exp(-decay)
        log_snr_curvature = -paths * curvature / noise_power + log_snr_rate**2 * gamma
        return SchedulePoint(log_snr, log_snr_rate, log_snr_curvature)

    def receptive_radius(self) -> int:
        return self.network.receptive_radius()


def monotone_curvatures(count: int) -> Tensor:
    """`count` curvatures c > -1, symmetric: s_c and the curve of its mirror are inverse functions."""
    steps = torch.linspace(-1, 1, count) if count > 1 else torch.zeros(1)
    return torch.exp(steps * math.log1p(CURVATURE_SPAN)) - 1


def monotone_curves(t: Tensor, curvatures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """s_c(t) = (1 + c) t / (1 + c t) and its first two derivatives, each (B, K, 1, 1) for t (B, 1, 1, 1)."""
    c = curvatures.view(1, -1, 1, 1)
    lower = 1 + c * t
    return (1 + c) * t / lower, (1 + c) / lower**2, -2 * c * (1 + c) / lower**3


def _inverse_softplus(value: float) -> float:
    return value + math.log(-math.expm1(-value))
