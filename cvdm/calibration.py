"""Split-conformal calibration: from a spread of draws to an interval that holds what it says.

The score of a pixel is |target - mean| / (std + floor). The calibrated interval of level a is
mean -+ q (std + floor), with q the a-quantile of the scores on calibration fields that training never
saw (Angelopoulos & Bates 2021, arXiv 2107.07511, section 2.3). Pixels of one field are not independent, so
every field weighs the same whatever its number of pixels, and the unit of coverage is the field.

Not covered: a finite-sample guarantee. That would need exchangeable fields and more of them than one
over the miscoverage (Dunn et al. 2022, arXiv 1809.07441); with fewer, coverage holds on average over fields
like the calibration fields and is therefore also measured on the test fields.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np

FLOOR_SHARE = 0.1
"""The floor as a share of the mean spread over the calibration fields."""


@dataclass(frozen=True)
class Calibration:
    """What turns mean and std into bounds."""

    level: float
    """Nominal coverage, for instance 0.9."""
    quantile: float
    """q."""
    floor: float
    """Added to every std, as a share of the intensity half-range, so that no interval is empty."""
    fields: int
    """Number of calibration fields."""
    raw_coverage: float
    """Coverage on the calibration fields of the uncalibrated interval mean -+ z std (z of a Gaussian)."""

    @property
    def id(self) -> str:
        """Names these very numbers in the provenance of what they were used for."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def bounds(self, mean: np.ndarray, std: np.ndarray, half_range: float) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bound (H, W), in the units of mean and std; half_range in the same units."""
        reach = self.quantile * (std + self.floor * half_range)
        return (mean - reach).astype(np.float32), (mean + reach).astype(np.float32)


@dataclass(frozen=True)
class CalibrationImage:
    """One reconstructed calibration image; arrays (H, W) in half-ranges, that is, normalised."""

    field: str
    error: np.ndarray
    """|target - mean|."""
    std: np.ndarray


def calibrate(images: Sequence[CalibrationImage], level: float = 0.9) -> Calibration:
    """Fit the interval of nominal coverage `level` on reconstructed calibration images."""
    assert images and 0 < level < 1
    floor = FLOOR_SHARE * float(np.mean([image.std.mean() for image in images]))
    scores = [image.error / (image.std + floor) for image in images]
    fields = [image.field for image in images]
    return Calibration(
        level=level,
        quantile=field_quantile(scores, fields, level),
        floor=floor,
        fields=len(set(fields)),
        raw_coverage=_raw_coverage(images, level),
    )


def field_quantile(scores: Sequence[np.ndarray], fields: Sequence[str], level: float) -> float:
    """The smallest score that at least `level` of the pixels do not exceed, every field weighing the same."""
    values = np.concatenate([s.ravel() for s in scores])
    pixels = {
        name: sum(s.size for s, f in zip(scores, fields, strict=True) if f == name) for name in set(fields)
    }
    weights = np.concatenate(
        [np.full(s.size, 1 / (pixels[f] * len(pixels))) for s, f in zip(scores, fields, strict=True)]
    )
    order = np.argsort(values)
    index = int(np.searchsorted(np.cumsum(weights[order]), level))
    return float(values[order[min(index, len(order) - 1)]])


def _raw_coverage(images: Sequence[CalibrationImage], level: float) -> float:
    z = NormalDist().inv_cdf((1 + level) / 2)
    covered: dict[str, list[float]] = {}
    for image in images:
        covered.setdefault(image.field, []).append(float((image.error <= z * image.std).mean()))
    return float(np.mean([np.mean(values) for values in covered.values()]))
