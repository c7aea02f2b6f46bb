"""Thresholds of the data gate: section `validation` of params.yaml, which a dataset's card may override."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cvdm.errors import ConfigError
from cvdm.params import from_mapping, load_section


@dataclass(frozen=True)
class Limits:
    """Two thresholds of one measured quantity; null switches one off."""

    warn: float | None = None
    """Beyond it the pair is accepted with a warning."""
    refuse: float | None = None
    """Beyond it the pair is refused."""


@dataclass(frozen=True)
class ValidationPolicy:
    """One entry per quantity of flows/validation/quantities.py, which says what it means and its unit."""

    saturated: Limits = Limits(warn=0.002, refuse=0.02)
    black: Limits = Limits(warn=0.2, refuse=0.9)
    grey_levels: Limits = Limits(warn=40, refuse=8)
    snr_db: Limits = Limits(warn=0.0)
    snr_gain_db: Limits = Limits(warn=3.0, refuse=1.0)
    focus_loss: Limits = Limits(warn=4.0, refuse=8.0)
    shift_px: Limits = Limits(warn=1.0, refuse=2.0)
    rotation_deg: Limits = Limits(warn=0.2, refuse=1.0)
    scale_percent: Limits = Limits(warn=0.3, refuse=1.0)
    registration: Limits = Limits(warn=7.0)
    rank_correlation: Limits = Limits(warn=0.8, refuse=0.5)
    curvature: Limits = Limits(warn=0.15)
    separate_stretch: Limits = Limits(warn=0.15)
    hot_pixels: Limits = Limits(warn=50.0, refuse=500.0)
    dropped_lines: Limits = Limits(warn=0.0, refuse=4.0)
    stagger_px: Limits = Limits(warn=0.3, refuse=1.0)
    signal_share: Limits = Limits(warn=0.02, refuse=0.002)
    background_drift: Limits = Limits(warn=0.05)
    vignetting: Limits = Limits(warn=0.1)
    metadata_tolerance: float = 0.02
    """Largest relative difference of a file's pixel size, NA or wavelength from the card's."""
    near_duplicate_score: float = 0.42
    """Of two targets, from which they count as the same scene: between 0 and 1."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            numbers = value.values() if isinstance(value, dict) else (value,)
            if any(number is not None and not math.isfinite(number) for number in numbers):
                raise ConfigError(f"validation.{name} of finite numbers", f"{value}", "Correct it.")
        for name in ("metadata_tolerance", "near_duplicate_score"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"validation.{name} between 0 and 1", f"{getattr(self, name)}", "Correct it."
                )

    def limits(self, name: str) -> Limits:
        """The thresholds of a quantity."""
        found: Limits = getattr(self, name)
        return found

    def overridden(self, values: Mapping[str, Any], where: str) -> ValidationPolicy:
        """This policy with some thresholds replaced; a level that is not named stays as it is.

        Raises ConfigError on names that are no threshold and values that are no number.
        """
        present = asdict(self)
        merged = {
            name: {**present[name], **value}
            if isinstance(value, Mapping) and isinstance(present.get(name), dict)
            else value
            for name, value in values.items()
        }
        return from_mapping(ValidationPolicy, {**present, **merged}, where)

    def differences(self, other: ValidationPolicy) -> tuple[str, ...]:
        """Names of the thresholds in which two policies differ."""
        return tuple(
            f.name for f in fields(ValidationPolicy) if getattr(self, f.name) != getattr(other, f.name)
        )


def load_validation_policy(params: Path) -> ValidationPolicy:
    """The section `validation` of a params.yaml. Raises ConfigError on unknown keys."""
    return ValidationPolicy().overridden(load_section(params, "validation"), "validation")
