"""The named terms of the objective, for one batch.

    mean         ||y - mu||^2, the regression
    scale        negative Gaussian log-likelihood of y - mu under sigma (gradient to sigma alone)
    denoising    ||eps - eps_hat||^2, CVDM's denoising error
    smoothness   (d^2 gamma / dt^2)^2, L_gamma of CVDM: without it learning the schedule collapses
    prior        KL(q(z_1 | z, x) || N(0, I)), zero gradient for a schedule with pinned end points
    endpoints    (gamma(0) - 1)^2 + gamma(1)^2, likewise

CVDM's L_beta has no term here: beta is the exact derivative of gamma (see `cvdm.schedule`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from cvdm.model import CVDM, noise_from_velocity

PENALTY_WEIGHT = 2.0
"""Weight of smoothness, prior and endpoints against the denoising error, as published."""


@dataclass(frozen=True)
class Losses:
    """Each term averaged over batch and pixels, a scalar tensor."""

    mean: Tensor
    scale: Tensor
    denoising: Tensor
    smoothness: Tensor
    prior: Tensor
    endpoints: Tensor

    def total(self, smoothness: float) -> Tensor:
        """The training objective; `smoothness` is alpha of the paper."""
        schedule = smoothness * self.smoothness + self.prior + self.endpoints
        return self.mean + self.scale + self.denoising + PENALTY_WEIGHT * schedule

    def as_floats(self) -> dict[str, float]:
        """Term names to values."""
        values = torch.stack([getattr(self, f.name).detach() for f in fields(self)]).tolist()
        return dict(zip((f.name for f in fields(self)), values, strict=True))


def batch_losses(model: CVDM, x: Tensor, y: Tensor, t: Tensor, eps: Tensor) -> Losses:
    """The terms at observations x, targets y, noise eps, each (B, 1, H, W), and times t (B, 1, 1, 1)."""
    condition = model.condition(x)
    residual = (y - condition.mean).detach()
    z = residual / condition.scale.detach()
    point = model.schedule.at(t, condition.paths)
    z_t = point.gamma.sqrt() * z + point.noise_power.sqrt() * eps
    eps_hat = noise_from_velocity(model.velocity(z_t, point, condition.features), z_t, point)
    start = model.schedule.at(torch.zeros_like(t), condition.paths)
    end = model.schedule.at(torch.ones_like(t), condition.paths)
    return Losses(
        mean=(y - condition.mean).square().mean(),
        scale=((residual / condition.scale).square() / 2 + condition.scale.log()).mean(),
        denoising=(eps - eps_hat).square().mean(),
        smoothness=point.gamma_curvature.square().mean(),
        prior=(end.gamma * z.square() - end.gamma - end.noise_power.log()).mean() / 2,
        endpoints=(start.noise_power.square() + end.gamma.square()).mean(),
    )
