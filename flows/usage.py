"""What a retraining has cost, in numbers: energy, CO2e, device time, memory; flows/energy.py measures it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

WORLD = "world mean"
"""The grid where no country is set."""
KWH, HOURS = "energy/kwh", "energy/device_hours"
METRICS = {
    KWH: "kwh",
    "energy/co2e_kg": "co2e_kg",
    HOURS: "device_hours",
    "memory/peak_rss_mib": "peak_rss_mib",
    "memory/peak_device_mib": "peak_device_mib",
}
"""The names under which the tracking server shows the fields of `Usage`."""


@dataclass(frozen=True)
class Usage:
    """What a retraining has cost; None where nothing was measured."""

    kwh: float | None = None
    co2e_kg: float | None = None
    device_hours: float = 0.0
    """Wall time for which the retraining had its device."""
    peak_rss_mib: float = 0.0
    """Largest resident memory of the process."""
    peak_device_mib: float | None = None
    """Largest memory of the GPU that was allocated; None on a CPU."""
    method: str = "not measured"
    """How the energy was estimated."""
    grid: str = WORLD
    """Whose electricity it is, ISO 3166 alpha-3."""

    def plus(self, later: Usage) -> Usage:
        """Both attempts together; the method is the later one's."""
        return Usage(
            kwh=_sum(self.kwh, later.kwh),
            co2e_kg=_sum(self.co2e_kg, later.co2e_kg),
            device_hours=self.device_hours + later.device_hours,
            peak_rss_mib=max(self.peak_rss_mib, later.peak_rss_mib),
            peak_device_mib=max((self.peak_device_mib or 0.0, later.peak_device_mib or 0.0)) or None,
            method=later.method if later.kwh is not None else self.method,
            grid=later.grid,
        )

    def metrics(self) -> dict[str, float]:
        """What is known, under the names of `METRICS`."""
        found = {name: getattr(self, field) for name, field in METRICS.items()}
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, float]) -> Usage:
        """What a run says that it has cost so far."""
        return cls(**{field: metrics[name] for name, field in METRICS.items() if name in metrics})  # type: ignore[arg-type]


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None and other is None else (one or 0.0) + (other or 0.0)
