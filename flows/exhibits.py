"""What is shown of a judged candidate: panels of some test fields, and curves over them.

Of the curves there are the numbers as files: coverage by nominal level, the error left when uncertain pixels
are removed, and the Fourier ring correlation with the target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from cvdm.checkpoint import Checkpoint
from cvdm.metrics import sparsification
from cvdm.patches import ImagePair
from cvdm.posterior import Reconstruction
from cvdm.resolution import fourier_ring_correlation, shares_noise
from flows.easel import Drawing, Order
from flows.plain_json import plain_json

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Nominal coverages of the calibration plot."""


@dataclass(frozen=True)
class Shown:
    """A test image and what the candidate made of it."""

    image: ImagePair
    result: Reconstruction


@dataclass(frozen=True)
class CalibrationCurve:
    """Observed against nominal coverage."""

    nominal: tuple[float, ...]
    observed: Mapping[str, tuple[float, ...]]
    """By field, one value per nominal level."""


@dataclass(frozen=True)
class RingCurves:
    """Fourier ring correlation with the target of one field; see `cvdm.resolution`."""

    frequencies: np.ndarray
    """(R,) in cycles per pixel."""
    restored: np.ndarray
    """(R,), of the reconstruction."""
    low: np.ndarray
    """(R,), of the input."""
    shared_noise: bool
    """Whether input and target share their noise, so that the curves say nothing about detail."""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        arrays = {name: getattr(self, name).tolist() for name in ("frequencies", "restored", "low")}
        return {**arrays, "shared_noise": self.shared_noise}


@dataclass(frozen=True)
class Exhibits:
    """All of it, by the paths among the artifacts."""

    files: Mapping[str, bytes]
    pictures: Sequence[Order]


def exhibits(checkpoint: Checkpoint, shown: Mapping[str, Shown], name: str) -> Exhibits:
    """Curves and panels of one version. shown: by field. name: of the version, for titles."""
    calibration = calibration_curve(checkpoint, shown)
    ranked = {
        field: sparsification(one.result.std, np.abs(one.image.high - one.result.mean))
        for field, one in shown.items()
    }
    rings = {field: ring_curves(one) for field, one in shown.items()}
    curves = [
        _curves("calibration", "calibration", {"curve": calibration}, f"Calibration of {name}"),
        _curves("sparsification", "sparsification", {"curves": ranked}, f"Does {name} know where it errs?"),
        _curves(
            "frc", "ring_correlations", {"curves": rings}, f"Which detail of {name} agrees with the target"
        ),
    ]
    numbers = {
        "calibration": asdict(calibration),
        "sparsification": {field: one.as_json() for field, one in ranked.items()},
        "frc": {field: one.as_json() for field, one in rings.items()},
    }
    return Exhibits(
        files={f"evaluation/{key}.json": _json(document) for key, document in numbers.items()},
        pictures=[*curves, *(_panel(field, one, name) for field, one in shown.items())],
    )


def side_by_side(
    ours: Mapping[str, Shown], theirs: Mapping[str, Shown], names: tuple[str, str]
) -> list[Order]:
    """What two versions made of the same test images; names: of ours and of theirs."""
    return [
        Order(
            f"panels/versions-{field}.png",
            "versions_panel",
            {
                "low": one.image.low,
                "high": one.image.high,
                "means": {names[1]: theirs[field].result.mean, names[0]: one.result.mean},
                "title": f"{names[0]} against {names[1]}, test field {field}",
            },
        )
        for field, one in ours.items()
    ]


def calibration_curve(checkpoint: Checkpoint, shown: Mapping[str, Shown]) -> CalibrationCurve:
    """Observed coverage of the calibrated interval, scaled to other levels as a Gaussian's would be."""
    own = _gaussian_reach(checkpoint.calibration.level)
    factors = [_gaussian_reach(level) / own for level in LEVELS]
    observed = {}
    for field, one in shown.items():
        reach = (one.result.upper - one.result.lower) / 2
        error = np.abs(one.image.high - one.result.mean)
        observed[field] = tuple(float((error <= reach * factor).mean()) for factor in factors)
    return CalibrationCurve(LEVELS, observed)


def ring_curves(one: Shown) -> RingCurves:
    """The correlation with the target of the reconstruction and of the input, by spatial frequency."""
    target, low = one.image.high, one.image.low
    restored = fourier_ring_correlation(one.result.mean, target)
    return RingCurves(
        frequencies=restored.frequencies,
        restored=restored.correlations,
        low=fourier_ring_correlation(low, target).correlations,
        shared_noise=shares_noise(low, target),
    )


def _curves(file: str, drawing: Drawing, curves: Mapping[str, Any], title: str) -> Order:
    return Order(f"evaluation/{file}.png", drawing, {**curves, "title": title})


def _panel(field: str, one: Shown, name: str) -> Order:
    images = {"low": one.image.low, "mean": one.result.mean, "high": one.image.high, "std": one.result.std}
    more = {"interval": one.result.upper - one.result.lower, "title": f"{name}, test field {field}"}
    return Order(f"panels/test-{field}.png", "image_panel", {**images, **more})


def _json(document: object) -> bytes:
    return (plain_json(document) + "\n").encode()


def _gaussian_reach(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)
