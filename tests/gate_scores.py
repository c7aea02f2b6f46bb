"""Scores of a model as an evaluation gives them, for the tests of the gate."""

from __future__ import annotations

import numpy as np

from cvdm.evaluation import Evaluation
from cvdm.schedule import ScheduleExtremes

SOUND = ScheduleExtremes(finite=True, falling=True, clean=7.0, noise=-7.0)


def evaluation(*, fields: int = 8, crps=0.010, psnr=38.0, ssim=0.95, coverage=0.9, spread=0.0) -> Evaluation:
    """Scores of a model that beats all its baselines, the same on each field but for a spread."""
    names = [f"f{i}" for i in range(fields)]
    shift = np.linspace(-spread, spread, fields)

    def flat(value: float) -> dict[str, float]:
        return dict(zip(names, [value] * fields, strict=True))

    def varied(value: float, scale: float) -> dict[str, float]:
        return dict(zip(names, (value + scale * shift).tolist(), strict=True))

    baselines = {
        "input": {"psnr_fit": flat(29.0), "ssim_fit": flat(0.71), "crps": flat(0.04)},
        "best-blur": {"psnr_fit": flat(36.0), "ssim_fit": flat(0.94), "crps": flat(0.02)},
        "regression-mean": {"psnr_fit": flat(38.2), "ssim_fit": flat(0.955), "crps": flat(0.014)},
    }
    metrics = {
        "crps": varied(crps, -0.001),
        "psnr_fit": varied(psnr, 1.0),
        "ssim_fit": varied(ssim, 0.01),
        "coverage": flat(coverage),
        "width": flat(0.1),
    }
    return Evaluation(
        task="t",
        split="test",
        metrics=metrics,
        baselines=baselines,
        samples=8,
        steps=10,
        solver="dpm-solver++",
        seed=0,
        seconds_per_megapixel=1.0,
        schedule=SOUND,
    )
