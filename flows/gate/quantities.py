"""What models are compared on: which way is better, in which unit, and how much may be lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from flows.gate.policy import GatePolicy


@dataclass(frozen=True)
class Quantity:
    """One metric of `cvdm.evaluation` as the gate sees it."""

    metric: str
    label: str
    smaller_is_better: bool = False
    unit: str = ""
    relative: bool = False
    """Whether gains are shares of the other model's value."""
    margin: str | None = None
    """Key of the policy that holds what may be lost to the champion; None: the candidate must be better."""
    optional: bool = False
    """Whether there are fields or tasks on which it cannot be measured."""

    def gains(
        self, candidate: Mapping[str, float], other: Mapping[str, float], fields: Iterable[str] | None = None
    ) -> np.ndarray:
        """Per field, how much better the candidate is; positive is better for every quantity.

        fields: all of the candidate's where not given.
        """
        chosen = sorted(candidate if fields is None else fields)
        ours, theirs = (np.array([scores[field] for field in chosen]) for scores in (candidate, other))
        gains = theirs - ours if self.smaller_is_better else ours - theirs
        return gains / theirs if self.relative else gains

    def least(self, policy: GatePolicy) -> float:
        """The gain that must be exceeded: 0, or a loss of the margin."""
        return 0.0 if self.margin is None else -float(getattr(policy, self.margin))

    def shown(self, gain: float) -> str:
        """A gain with its sign and unit."""
        return f"{gain:+.2%}" if self.relative else f"{gain:+.4g}{self.unit}"

    def shown_margin(self, margin: float) -> str:
        """A margin with its unit."""
        return f"{margin:.3g}{self.unit}" if not self.relative else f"{margin:.0%}"


CRPS = Quantity("crps", "CRPS", smaller_is_better=True)
PSNR = Quantity("psnr_fit", "PSNR", unit=" dB", margin="psnr_margin_db")
SSIM = Quantity("ssim_fit", "SSIM", margin="ssim_margin")
WIDTH = Quantity("width", "interval width", smaller_is_better=True, relative=True, margin="width_margin")
RESOLUTION = Quantity(
    "frc_px",
    "FRC resolution",
    smaller_is_better=True,
    relative=True,
    margin="resolution_margin",
    optional=True,
)
RESIDUAL = Quantity(
    "residual",
    "forward-model residual",
    smaller_is_better=True,
    relative=True,
    margin="residual_margin",
    optional=True,
)
COMPARED = (CRPS, PSNR, SSIM, WIDTH, RESOLUTION, RESIDUAL)
"""In the order in which reasons are given."""
STRATUM_CRPS = Quantity("crps", "CRPS", smaller_is_better=True, relative=True, margin="stratum_margin")
