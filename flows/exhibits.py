"""What is shown of a judged candidate: panels of some test fields, and curves over them.

Of the curves there are the numbers as files: coverage by nominal level, the error left when uncertain pixels
are removed, and the Fourier ring correlation with the target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from cvdm.metrics import Sparsification, sparsification
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


class Exhibits:
    """What is shown of one version, taken up field by field: no image is kept but its reconstruction."""

    def __init__(self, level: float, name: str) -> None:
        """level: what the calibrated interval promises. name: of the version, for titles."""
        self._level, self._name = level, name
        self.means: dict[str, np.ndarray] = {}
        """By field, the reconstruction (H, W)."""
        self._observed: dict[str, tuple[float, ...]] = {}
        self._ranked: dict[str, Sparsification] = {}
        self._rings: dict[str, RingCurves] = {}

    def add(self, shown: Shown) -> Order:
        """Take up a test image; returns its panel."""
        image, result = shown.image, shown.result
        self.means[image.field] = result.mean
        self._observed[image.field] = observed_coverage(shown, self._level)
        self._ranked[image.field] = sparsification(result.std, np.abs(image.high - result.mean))
        self._rings[image.field] = ring_curves(shown)
        images = {"low": image.low, "mean": result.mean, "high": image.high, "std": result.std}
        more = {"interval": result.upper - result.lower, "title": f"{self._name}, test field {image.field}"}
        return Order(f"panels/test-{image.field}.png", "image_panel", {**images, **more})

    def curves(self) -> list[Order]:
        """Pictures over all fields."""
        name, curve = self._name, CalibrationCurve(LEVELS, self._observed)
        return [
            _curves("calibration", "calibration", {"curve": curve}, f"Calibration of {name}"),
            _curves(
                "sparsification",
                "sparsification",
                {"curves": self._ranked},
                f"Does {name} know where it errs?",
            ),
            _curves(
                "frc",
                "ring_correlations",
                {"curves": self._rings},
                f"Which detail of {name} agrees with the target",
            ),
        ]

    def files(self) -> dict[str, bytes]:
        """The numbers behind them, by path."""
        numbers = {
            "calibration": asdict(CalibrationCurve(LEVELS, self._observed)),
            "sparsification": {field: one.as_json() for field, one in self._ranked.items()},
            "frc": {field: one.as_json() for field, one in self._rings.items()},
        }
        return {f"evaluation/{key}.json": _json(document) for key, document in numbers.items()}


def side_by_side(image: ImagePair, ours: np.ndarray, theirs: np.ndarray, names: tuple[str, str]) -> Order:
    """What two versions made of the same test image; names: of ours and of theirs."""
    means = {names[1]: theirs, names[0]: ours}
    title = f"{names[0]} against {names[1]}, test field {image.field}"
    arguments = {"low": image.low, "high": image.high, "means": means, "title": title}
    return Order(f"panels/versions-{image.field}.png", "versions_panel", arguments)


def observed_coverage(shown: Shown, level: float) -> tuple[float, ...]:
    """At each of `LEVELS`, of the calibrated interval of `level`, scaled as a Gaussian's would be."""
    reach = (shown.result.upper - shown.result.lower) / 2
    error, own = np.abs(shown.image.high - shown.result.mean), _gaussian_reach(level)
    return tuple(float((error <= reach * _gaussian_reach(one) / own).mean()) for one in LEVELS)


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


def _json(document: object) -> bytes:
    return (plain_json(document) + "\n").encode()


def _gaussian_reach(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)
