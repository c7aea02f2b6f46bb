"""What is shown of a judged candidate: panels of some test fields, and curves over them, as files.

Of the curves there are the numbers as well: coverage by nominal level, the error left when uncertain pixels
are removed, and the Fourier ring correlation with the target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np

from cvdm.checkpoint import Checkpoint
from cvdm.metrics import sparsification
from cvdm.patches import ImagePair
from cvdm.posterior import Reconstruction
from cvdm.resolution import fourier_ring_correlation, shares_noise
from flows import pictures
from flows.plain_json import plain_json

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Nominal coverages of the calibration plot."""


@dataclass(frozen=True)
class Shown:
    """A test image and what the candidate made of it."""

    image: ImagePair
    result: Reconstruction


def exhibits(checkpoint: Checkpoint, shown: Mapping[str, Shown], name: str) -> dict[str, bytes]:
    """The files by their path among the artifacts; shown: by field. name: of the version, for titles."""
    calibration = calibration_curve(checkpoint, shown)
    ranked = {
        field: sparsification(one.result.std, np.abs(one.image.high - one.result.mean))
        for field, one in shown.items()
    }
    correlations = {field: ring_curves(one) for field, one in shown.items()}
    files = {
        "evaluation/calibration.png": pictures.calibration(calibration, f"Calibration of {name}"),
        "evaluation/calibration.json": _json(asdict(calibration)),
        "evaluation/sparsification.png": pictures.sparsification(ranked, f"Does {name} know where it errs?"),
        "evaluation/sparsification.json": _json({field: one.as_json() for field, one in ranked.items()}),
        "evaluation/frc.png": pictures.ring_correlations(
            correlations, f"Which detail of {name} agrees with the target"
        ),
        "evaluation/frc.json": _json({field: one.as_json() for field, one in correlations.items()}),
    }
    for field, one in shown.items():
        image, result = one.image, one.result
        files[f"panels/test-{field}.png"] = pictures.image_panel(
            image.low,
            result.mean,
            image.high,
            result.std,
            interval=result.upper - result.lower,
            title=f"{name}, test field {field}",
        )
    return files


def side_by_side(
    ours: Mapping[str, Shown], theirs: Mapping[str, Shown], names: tuple[str, str]
) -> dict[str, bytes]:
    """What two versions made of the same test images, by path; names: of ours and of theirs."""
    return {
        f"panels/versions-{field}.png": pictures.versions_panel(
            one.image.low,
            one.image.high,
            {names[1]: theirs[field].result.mean, names[0]: one.result.mean},
            title=f"{names[0]} against {names[1]}, test field {field}",
        )
        for field, one in ours.items()
    }


def calibration_curve(checkpoint: Checkpoint, shown: Mapping[str, Shown]) -> pictures.CalibrationCurve:
    """Observed coverage of the calibrated interval, scaled to other levels as a Gaussian's would be."""
    own = _gaussian_reach(checkpoint.calibration.level)
    factors = [_gaussian_reach(level) / own for level in LEVELS]
    observed = {}
    for field, one in shown.items():
        reach = (one.result.upper - one.result.lower) / 2
        error = np.abs(one.image.high - one.result.mean)
        observed[field] = tuple(float((error <= reach * factor).mean()) for factor in factors)
    return pictures.CalibrationCurve(LEVELS, observed)


def ring_curves(one: Shown) -> pictures.RingCurves:
    """The correlation with the target of the reconstruction and of the input, by spatial frequency."""
    target, low = one.image.high, one.image.low
    restored = fourier_ring_correlation(one.result.mean, target)
    return pictures.RingCurves(
        frequencies=restored.frequencies,
        restored=restored.correlations,
        low=fourier_ring_correlation(low, target).correlations,
        shared_noise=shares_noise(low, target),
    )


def _json(document: object) -> bytes:
    return (plain_json(document) + "\n").encode()


def _gaussian_reach(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)
