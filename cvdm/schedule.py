"""The noise schedule: how fast each pixel loses its signal, learned with the model.

| symbol          | meaning                                                                     |
| --------------- | --------------------------------------------------------------------------- |
| t in [0, 1]     | diffusion time, 0 clean, 1 noise                                            |
| gamma(t, x)     | signal power per pixel; y_t = sqrt(gamma) y + sqrt(1 - gamma) eps           |
| u(t, x)         | log signal-to-noise ratio, log(gamma / (1 - gamma))                         |
| beta(t, x)      | noise rate, -d log gamma / dt                                               |

(In Kingma et al. 2021 gamma is -u; in k-diffusion it is the churn. Neither is meant here.)

One object gives gamma and its first two time derivatives in closed form, so beta is the exact
derivative, the consistency penalty L_beta of CVDM (arXiv 2312.02246, eq. 13) vanishes by construction,
and training and sampling read the same gamma. A schedule has two verbs: `paths(x)` reads the
observation once, `at(t, paths)` evaluates any time. Every schedule falls strictly in t.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cvdm.config import ScheduleConfig
from cvdm.networks import LocalConvNet

CURVATURE_SPAN = 8.0
"""Curvatures run from 1 / 9 - 1 to 8: no pixel rushes through any part of its path more than nine times
faster than on average, which keeps few-step sampling accurate whatever is learned."""


@dataclass(frozen=True)
class SchedulePoint:
    """The schedule at one time; every tensor broadcasts to (B, 1, H, W)."""

    log_snr: Tensor
    """u(t, x)."""
    rate: Tensor
    """du/dt, negative."""
    curvature: Tensor
    """d^2 u / dt^2."""

    @property
    def gamma(self) -> Tensor:
        """Signal power in (0, 1)."""
        return torch.sigmoid(self.log_snr)

    @property
    def noise_power(self) -> Tensor:
        """1 - gamma, without cancellation."""
        return torch.sigmoid(-self.log_snr)

    @property
    def beta(self) -> Tensor:
        """-d log gamma / dt = -(1 - gamma) du/dt, positive."""
        return -self.noise_power * self.rate

    @property
    def gamma_rate(self) -> Tensor:
        """d gamma / dt = gamma (1 - gamma) du/dt."""
        return self.gamma * self.noise_power * self.rate

    @property
    def gamma_curvature(self) -> Tensor:
        """d^2 gamma / dt^2 = gamma (1 - gamma) (d^2u/dt^2 + (1 - 2 gamma) (du/dt)^2)."""
        return self.gamma * self.noise_power * (self.curvature + (1 - 2 * self.gamma) * self.rate**2)


class Schedule(nn.Module, ABC):
    """gamma(t, x) behind one interface."""

    learned: bool
    curvatures: Tensor

    def __init__(self, config: ScheduleConfig) -> None:
        super().__init__()
        self.clean = config.log_snr_clean
        self.noise = config.log_snr_noise

    @abstractmethod
    def paths(self, x: Tensor) -> Tensor:
        """Parameters of every pixel's curve from the observation x (B, C, H, W), normalised."""

    @abstractmethod
    def at(self, t: Tensor, paths: Tensor) -> SchedulePoint:
        """The schedule at times t (B, 1, 1, 1)."""

    def receptive_radius(self) -> int:
        """How far, in pixels, the curve of a pixel depends on its surroundings."""
        return 0


class PinnedSchedule(Schedule):
    """Log-SNR pinned at both ends; each pixel mixes monotone curves between them.

    u(t, x) = u0 + (u1 - u0) sum_k w_k(x) s_k(t), w a softmax over k, s_c(t) = (1 + c) t / (1 + c t).
    The end points cannot drift, so the prior is always reached and few-step solvers stay accurate.
    """

    learned = True

    def __init__(self, config: ScheduleConfig) -> None:
        super().__init__(config)
        self.network = LocalConvNet(1, config.curves, config.width)
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

    def __init__(self, config: ScheduleConfig) -> None:
        super().__init__(config)
        self.network = LocalConvNet(1, 1, config.width)
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


def build_schedule(config: ScheduleConfig) -> Schedule:
    """The schedule named by `config.kind`."""
    kinds: dict[str, type[Schedule]] = {
        "pinned": PinnedSchedule,
        "separable": SeparableSchedule,
        "linear": LinearSchedule,
        "cosine": CosineSchedule,
        "log-snr-linear": LogSnrLinearSchedule,
    }
    return kinds[config.kind](config)


def monotone_curvatures(count: int) -> Tensor:
    """`count` curvatures c > -1, symmetric: s_c and the curve of its mirror are inverse functions."""
    steps = torch.linspace(-1, 1, count) if count > 1 else torch.zeros(1)
    return torch.exp(steps * math.log1p(CURVATURE_SPAN)) - 1


def monotone_curves(t: Tensor, curvatures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """s_c(t) = (1 + c) t / (1 + c t) and its first two derivatives, each (B, K, 1, 1) for t (B, 1, 1, 1)."""
    c = curvatures.view(1, -1, 1, 1)
    lower = 1 + c * t
    return (1 + c) * t / lower, (1 + c) / lower**2, -2 * c * (1 + c) / lower**3


def _spread(log_snr: Tensor, rate: Tensor, curvature: Tensor, paths: Tensor) -> SchedulePoint:
    shape = (paths.shape[0], 1, *paths.shape[2:])
    return SchedulePoint(log_snr.expand(shape), rate.expand(shape), curvature.expand(shape))


def _inverse_softplus(value: float) -> float:
    return value + math.log(-math.expm1(-value))
