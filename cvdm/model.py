"""CVDM with zero-mean diffusion: a regression mean, and a diffusion of what is uncertain around it.

    mu(x)       regression network, trained on ||y - mu||^2
    sigma(x)    residual scale per pixel, trained on the Gaussian likelihood of y - mu (stopped gradient)
    z           (y - mu(x)) / sigma(x), the zero-mean quantity that is diffused (arXiv 2406.04388)
    z_t         sqrt(gamma) z + sqrt(1 - gamma) eps, gamma = gamma(t, x) from `cvdm.schedule`
    v_hat       what the denoiser returns: v = sqrt(gamma) eps - sqrt(1 - gamma) z (Salimans & Ho 2022),
                from which z_hat and eps_hat follow exactly; unlike eps alone, it needs no division by the
                signal's share where the signal is nearly gone, which is where sampling starts

x has as many channels as the model sees planes (`cvdm.sight`); the first is the one that is restored, which
mu(x) departs from. The model works in normalised intensities and knows nothing of files, tiles or units.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cvdm.config import ModelConfig
from cvdm.networks import LocalConvNet, UNet
from cvdm.schedule import SchedulePoint, build_schedule

LOG_SCALE_RANGE = (-6.0, 1.0)
"""Of log sigma, in half intensity ranges: from below one of 256 grey levels to more than all of them."""

SCALE_WIDTH = 32
"""Channels of the network that reads the residual scale."""


@dataclass(frozen=True)
class Condition:
    """What the diffusion of one batch is conditioned on; computed once, used at every step."""

    x: Tensor
    """(B, C, H, W), the observation, normalised; the plane that is restored first."""
    mean: Tensor
    """(B, 1, H, W), the regression mean mu(x)."""
    scale: Tensor
    """(B, 1, H, W), the residual scale sigma(x) > 0."""
    paths: Tensor
    """(B, P, H, W), the schedule's parameters per pixel."""

    @property
    def features(self) -> Tensor:
        """(B, C + 3, H, W), the denoiser's view of the condition; no gradient flows back through it."""
        deviation = torch.tanh((self.x[:, :1] - self.mean) / (4 * self.scale)) * 2
        return torch.cat([self.x, self.mean, deviation, torch.log(self.scale) / 2 + 1], dim=1).detach()


class CVDM(nn.Module):
    """The three networks and the quantities between them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.inputs = config.sight.inputs
        self.mean_network = UNet(self.inputs, 1, config.mean)
        self.scale_network = LocalConvNet(self.inputs + 1, 1, SCALE_WIDTH)
        self.denoiser = UNet(self.inputs + 5, 1, config.denoiser)
        self.schedule = build_schedule(config.schedule, self.inputs)
        self.stride = config.stride
        # Makes convolutions on a CPU 1.5 times faster. torch's own stubs do not know the argument.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def condition(self, x: Tensor) -> Condition:
        """Everything that depends on the observation x (B, C, H, W) alone."""
        mean = x[:, :1] + self.mean_network(x)
        log_scale = self.scale_network(torch.cat([x, mean.detach()], dim=1)) - 2
        return Condition(x, mean, torch.exp(log_scale.clamp(*LOG_SCALE_RANGE)), self.schedule.paths(x))

    def velocity(self, z_t: Tensor, point: SchedulePoint, features: Tensor) -> Tensor:
        """v_hat (B, 1, H, W) from the noisy residual, the schedule's map and the condition's features.

        Map and features may be of one image (1, C, H, W) where z_t is of B draws of it.
        """
        shared = torch.cat([point.log_snr / 4, features], dim=1).expand(len(z_t), -1, -1, -1)
        return self.denoiser(torch.cat([z_t, shared], dim=1))

    def receptive_radius(self) -> int:
        """Pixels that one output pixel of any of the networks sees on each side."""
        return max(
            # The scale network reads the regression mean, which has a neighbourhood of its own.
            self.mean_network.receptive_radius() + self.scale_network.receptive_radius(),
            self.denoiser.receptive_radius(),
            self.schedule.receptive_radius(),
        )


def signal_from_velocity(v: Tensor, z_t: Tensor, point: SchedulePoint) -> Tensor:
    """z_hat = sqrt(gamma) z_t - sqrt(1 - gamma) v_hat."""
    return point.gamma.sqrt() * z_t - point.noise_power.sqrt() * v


def velocity_between(z: Tensor, eps: Tensor, point: SchedulePoint) -> Tensor:
    """v = sqrt(gamma) eps - sqrt(1 - gamma) z."""
    return point.gamma.sqrt() * eps - point.noise_power.sqrt() * z
