"""The scores of one model on one split of a dataset, beside its baselines: as a value, as JSON, as a table.

The field of view is the unit of every statistic, because captures of one field share their target: each
metric has one value per field, and its mean is over fields. How the values come about is `cvdm.measuring`.
Intensities are in units of the target's range (`cvdm.metrics.target_range`), so that fields and tasks
compare. `_fit` marks scores after a least-squares intensity fit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from dataclasses import field as dataclass_field
from typing import Any

import numpy as np

from cvdm.schedule import ScheduleExtremes
from cvdm.stratified import strata_table

PerField = dict[str, float]
"""Field of view to value."""
REGRESSION, CONSTANT = "regression-mean", "constant-interval"
"""Baselines that need the model; see `cvdm.measuring`."""


@dataclass(frozen=True)
class Evaluation:
    """All scores of one model on one split."""

    task: str
    split: str
    metrics: dict[str, PerField]
    """psnr ssim nrmse mae, each also with _fit; crps coverage width ause; std_rank map_rank; frc_px residual
    if measurable; crps_drawn is CRPS without calibration of the spread. The ranks are Spearman's correlations
    of |error| with std and with the schedule's map."""
    baselines: dict[str, dict[str, PerField]]
    """By baseline, then metric (the point metrics and crps)."""
    samples: int
    steps: int
    solver: str
    seed: int
    seconds_per_megapixel: float
    """Wall time of restoring one megapixel, all draws included."""
    schedule: ScheduleExtremes
    """Of the noise schedule over all pixels of the split."""
    strata: dict[str, dict[str, PerField]] = dataclass_field(default_factory=dict)
    """By kind of pixels, then metric; see `cvdm.stratified`."""
    calibrated: bool = True
    """Whether the interval was calibrated for these draws, steps and solver."""
    spread_calibrated: bool = True
    """Whether the spread was, for these steps and solver; else `crps` is `crps_drawn`."""

    def mean(self, metric: str) -> float:
        """The mean over fields of one metric."""
        return _mean(self.metrics[metric])

    @property
    def coverage(self) -> float:
        """Share of pixels inside the calibrated interval, mean over fields."""
        return self.mean("coverage")

    def as_json(self) -> dict[str, Any]:
        """One JSON document; `per_field` keeps what the gate's paired tests need."""
        return {
            "task": self.task,
            "split": self.split,
            "metrics": _with_means(self.metrics),
            "strata": {name: _with_means(scores) for name, scores in self.strata.items()},
            "baselines": {name: _with_means(scores) for name, scores in self.baselines.items()},
            "coverage": _plain(self.coverage),
            "calibrated": self.calibrated,
            "spread_calibrated": self.spread_calibrated,
            "steps": self.steps,
            "samples": self.samples,
            "solver": self.solver,
            "seed": self.seed,
            "schedule": {name: _plain(value) for name, value in asdict(self.schedule).items()},
            "seconds_per_megapixel": self.seconds_per_megapixel,
        }


def summary_table(evaluation: Evaluation) -> str:
    """The scores side by side, for people."""
    columns = ("psnr_fit", "ssim_fit", "crps", "coverage")
    rows = {name: {m: _mean(v) for m, v in scores.items()} for name, scores in evaluation.baselines.items()}
    rows["CVDM"] = {name: evaluation.mean(name) for name in columns}
    lines = [f"{evaluation.task}, {evaluation.split} fields: {len(evaluation.metrics['psnr'])}"]
    lines.append(f"{'':18}{'PSNR (dB)':>11}{'SSIM':>9}{'CRPS':>10}{'coverage':>10}")
    for name, row in rows.items():
        cells = [f"{row['psnr_fit']:11.2f}", f"{row['ssim_fit']:9.4f}", f"{row['crps']:10.5f}"]
        cells.append(f"{row['coverage']:10.3f}" if "coverage" in row else f"{'-':>10}")
        lines.append(f"{name:18}" + "".join(cells))
    return "\n".join([*lines, "", strata_table(evaluation.strata)])


def _with_means(scores: Mapping[str, PerField]) -> dict[str, Any]:
    return {
        name: {"mean": _plain(_mean(values)), "per_field": {f: _plain(x) for f, x in values.items()}}
        for name, values in scores.items()
    }


def _plain(value: float) -> float | None:
    """JSON knows neither NaN nor infinity (the PSNR of identical images): both become null."""
    return value if math.isfinite(value) else None


def _mean(values: PerField) -> float:
    return float(np.mean(list(values.values())))
