"""What every schedule answers: paths from an observation, and a point of every path at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cvdm.config import ScheduleConfig


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
    def angle(self) -> Tensor:
        """a in (0, pi / 2): sqrt(gamma) = cos a and sqrt(1 - gamma) = sin a."""
        return torch.atan(torch.exp(-self.log_snr / 2))

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
    path_channels = 1
    """P, of the paths (B, P, H, W)."""
    curvatures: Tensor

    def __init__(self, config: ScheduleConfig, inputs: int = 1) -> None:
        """inputs: C, channels of the observation."""
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
