"""Ways to diffuse the same residual with the same network: what `benchmarks/schedules.py` compares.

A rival decides the path from residual to noise (a schedule), what the denoiser's error is weighed by, and
what a learned schedule is drawn to. Everything else, above all the regression mean and the residual's scale,
is shared.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cvdm.config import ModelConfig
from cvdm.model import CVDM, Condition, velocity_between
from cvdm.schedule import Schedule, SchedulePoint
from cvdm.schedule.fixed import FixedSchedule

STRAIGHT_END = 5e-4
"""How far the straight path's times keep from 0 and 1, where its log-SNR is infinite."""


@dataclass(frozen=True)
class Denoised:
    """One batch as the objectives see it; every tensor (B, 1, H, W) or broadcasting to it."""

    point: SchedulePoint
    velocity_error: Tensor
    """(v - v_hat)^2."""

    @property
    def noise_error(self) -> Tensor:
        """(eps - eps_hat)^2."""
        return self.velocity_error * self.point.gamma

    @property
    def bound(self) -> Tensor:
        """The variational bound's integrand, -u' (eps - eps_hat)^2 / 2 (Kingma et al. 2021)."""
        return -self.point.rate * self.noise_error / 2


Objective = Callable[[Denoised], Tensor]


@dataclass(frozen=True)
class Rival:
    """One way to diffuse."""

    schedule: str
    """One of `cvdm.config.SCHEDULES`, or "straight"."""
    network: Objective
    """What the denoiser minimises, and the schedule too unless it has something of its own."""
    own: Objective | None = None
    """What the schedule minimises instead."""
    one_curve: bool = False
    """All pixels share the mean of their curves: what is the map worth?"""
    regression: bool = True
    """Else y - x is diffused, in one scale for all pixels, as the authors do for super-resolution."""
    trained: bool = True
    """Else the denoiser says 0, and draws are mu + sigma eps, white: what is the diffusion worth?"""

    def build(self, config: ModelConfig) -> CVDM:
        """A model with this rival's schedule, untrained."""
        if self.schedule == "straight":
            return FlowMatching(config)
        model = CVDM(replace(config, schedule=replace(config.schedule, kind=self.schedule)))
        if self.one_curve:
            model.schedule = OneCurve(model.schedule, config)
        return model


class Constant(torch.nn.Module):
    """A network that says the same of every pixel."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return torch.full_like(x[:, :1], self.value)

    def receptive_radius(self) -> int:
        return 0


def without_regression(model: CVDM, residual: float) -> CVDM:
    """The model with mu(x) = x and sigma(x) the given root mean square of y - x; returns it."""
    model.mean_network, model.scale_network = Constant(0.0), Constant(math.log(residual) + 2)
    return model


class OneCurve(Schedule):
    """A learned schedule whose pixels all follow their mean path."""

    learned = True

    def __init__(self, inner: Schedule, config: ModelConfig) -> None:
        super().__init__(config.schedule)
        self.inner, self.path_channels = inner, inner.path_channels

    def paths(self, x: Tensor) -> Tensor:
        paths = self.inner.paths(x)
        return paths.mean(dim=(2, 3), keepdim=True).expand_as(paths)

    def at(self, t: Tensor, paths: Tensor) -> SchedulePoint:
        return self.inner.at(t, paths)


class StraightSchedule(FixedSchedule):
    """The path of flow matching, x_t = (1 - t) z + t eps: u = 2 log((1 - t) / t)."""

    def at(self, t: Tensor, paths: Tensor) -> SchedulePoint:
        t = t.clamp(STRAIGHT_END, 1 - STRAIGHT_END)
        shape = (paths.shape[0], 1, *paths.shape[2:])
        log_snr = 2 * torch.log((1 - t) / t)
        rate = -2 / (t * (1 - t))
        curvature = 2 * (1 - 2 * t) / (t * (1 - t)) ** 2
        return SchedulePoint(log_snr.expand(shape), rate.expand(shape), curvature.expand(shape))


class FlowMatching(CVDM):
    """Conditional flow matching on the straight path (Lipman et al. 2023, arXiv 2210.02747).

    The network sees x_t and returns w_hat = eps - z; what follows is the same v_hat, of the same state scaled
    to unit power: with r^2 = (1 - t)^2 + t^2, v = r w - (2 t - 1) z_t.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(replace(config, schedule=replace(config.schedule, kind="log-snr-linear")))
        self.schedule = StraightSchedule(config.schedule)

    def velocity(self, z_t: Tensor, point: SchedulePoint, features: Tensor) -> Tensor:
        r, t = _straight(point)
        return r * super().velocity(r * z_t, point, features) - (2 * t - 1) * z_t


def flow_error(seen: Denoised) -> Tensor:
    """||w - w_hat||^2 of flow matching, as velocity error: w - w_hat = (v - v_hat) / r."""
    r, _ = _straight(seen.point)
    return (seen.velocity_error / r**2).mean()


def velocity_error(seen: Denoised) -> Tensor:
    return seen.velocity_error.mean()


def noise_error(seen: Denoised) -> Tensor:
    """CVDM as published."""
    return seen.noise_error.mean()


def bound(seen: Denoised) -> Tensor:
    return seen.bound.mean() / 7


def bound_variance(seen: Denoised) -> Tensor:
    """The second moment over time of the bound's integrand; its mean does not depend on one common curve."""
    return (seen.bound / 7).square().mean()


RIVALS = {
    "no diffusion": Rival("pinned", velocity_error, trained=False),
    "pinned": Rival("pinned", velocity_error),
    "pinned, one curve": Rival("pinned", velocity_error, one_curve=True),
    "pinned, noise error": Rival("pinned", noise_error),
    "pinned, bound": Rival("pinned", bound),
    "pinned, bound's variance": Rival("pinned", velocity_error, own=bound_variance),
    "separable": Rival("separable", velocity_error),
    "linear": Rival("linear", velocity_error),
    "cosine": Rival("cosine", velocity_error),
    "cosine, noise error": Rival("cosine", noise_error),
    "log-SNR linear": Rival("log-snr-linear", velocity_error),
    "log-SNR linear, noise error": Rival("log-snr-linear", noise_error),
    "flow matching": Rival("straight", flow_error),
    "y - x, pinned": Rival("pinned", velocity_error, regression=False),
    "y - x, cosine": Rival("cosine", velocity_error, regression=False),
    "y - x, pinned, noise error": Rival("pinned", noise_error, regression=False),
    "y - x, cosine, noise error": Rival("cosine", noise_error, regression=False),
    "y - x, log-SNR linear, noise error": Rival("log-snr-linear", noise_error, regression=False),
}


def denoised(model: CVDM, condition: Condition, z: Tensor, t: Tensor, eps: Tensor) -> Denoised:
    """The model's error at times t (B, 1, 1, 1) and noise eps (B, 1, H, W)."""
    point = model.schedule.at(t, condition.paths)
    z_t = point.gamma.sqrt() * z + point.noise_power.sqrt() * eps
    v_hat = model.velocity(z_t, point, condition.features)
    return Denoised(point, (velocity_between(z, eps, point) - v_hat).square())


def _straight(point: SchedulePoint) -> tuple[Tensor, Tensor]:
    """r and t of a point of the straight path."""
    r = 1 / (point.gamma.sqrt() + point.noise_power.sqrt())
    return r, point.noise_power.sqrt() * r
