"""What the gate demands: section `gate` of params.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cvdm.errors import ConfigError
from cvdm.params import from_mapping, load_section

MARGINS = (
    "psnr_margin_db",
    "ssim_margin",
    "regression_ssim_margin",
    "width_margin",
    "resolution_margin",
    "residual_margin",
    "stratum_margin",
)


@dataclass(frozen=True)
class GatePolicy:
    """What a candidate must show; section `gate` of params.yaml."""

    min_fields: int = 4
    """Test fields below which nothing is promoted and nothing compared with the champion."""
    alpha: float = 0.05
    """One-sided level of the paired tests against the champion; it takes five fields to reach it (1/32)."""
    max_looks: int = 10
    """Candidates that may be judged on the same test fields, this one included."""
    coverage_low: float = 0.85
    """Least mean coverage of the calibrated 90 % interval on test fields."""
    coverage_high: float = 0.95
    """Largest mean coverage; a wider interval says nothing."""
    schedule_log_snr: float = 4.0
    """Log signal-to-noise ratio above which every schedule must begin; it must end below the negative."""
    psnr_margin_db: float = 0.1
    """PSNR that a candidate may lose to the champion or, beyond 10 log10(1 + 1/K), to its regression mean."""
    ssim_margin: float = 0.005
    """SSIM that a candidate may lose to the champion."""
    regression_ssim_margin: float = 0.02
    """SSIM that the mean of few draws may lose to the regression mean."""
    width_margin: float = 0.1
    """Share by which the calibrated interval may be wider than the champion's."""
    resolution_margin: float = 0.05
    """Share by which the FRC resolution, in pixels, may be coarser than the champion's."""
    residual_margin: float = 0.1
    """Share by which the forward-model residual may be larger than the champion's."""
    stratum_margin: float = 0.05
    """Share by which the mean CRPS of a stratum may be larger than the champion's."""
    min_sittings: int = 4
    """Sittings of users below which what a service saw of the candidate is shown, but decides nothing."""
    min_stratum_fields: int = 4
    """Fields of a stratum below which it is shown, but decides nothing."""

    def __post_init__(self) -> None:
        for name in ("min_fields", "max_looks", "min_sittings", "min_stratum_fields"):
            _require(getattr(self, name) >= 1, f"gate.{name} of at least 1", getattr(self, name))
        _require(0 < self.alpha < 0.5, "gate.alpha between 0 and 0.5", self.alpha)
        low, high = self.coverage_low, self.coverage_high
        _require(0 <= low < high <= 1, "0 <= gate.coverage_low < gate.coverage_high <= 1", (low, high))
        for name in (*MARGINS, "schedule_log_snr"):
            _require(getattr(self, name) >= 0, f"gate.{name} of at least 0", getattr(self, name))


def load_policy(params: Path) -> GatePolicy:
    """The section `gate` of a params.yaml. Raises ConfigError on unknown keys."""
    return from_mapping(GatePolicy, load_section(params, "gate"), "gate")


def _require(holds: bool, expected: str, actual: object) -> None:
    if not holds:
        raise ConfigError(expected, str(actual), "Correct the section `gate` of params.yaml.")
