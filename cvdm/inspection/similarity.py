"""A similarity (shift, rotation, scale) through the shifts of many places, outliers losing weight."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

ENOUGH_WINDOWS = 4  # for rotation and scale


@dataclass(frozen=True)
class Motion:
    """Similarity about the centre of the field, linear in its parameters; rotation in radians."""

    dy: float = 0.0
    dx: float = 0.0
    scale: float = 0.0
    rotation: float = 0.0

    def at(self, points: np.ndarray) -> np.ndarray:
        """Shifts (N, 2) at points (N, 2) given relative to the centre, y first."""
        y, x = points.T
        cosine = (1 + self.scale) * math.cos(self.rotation) - 1
        sine = (1 + self.scale) * math.sin(self.rotation)
        return np.stack((self.dy + cosine * y - sine * x, self.dx + cosine * x + sine * y), axis=1)

    def enlarged(self, factor: float) -> Motion:
        return Motion(self.dy * factor, self.dx * factor, self.scale, self.rotation)


def fit_motion(points: np.ndarray, shifts: np.ndarray, trust: np.ndarray) -> Motion | None:
    """The similarity of weighted least squares, outliers losing weight (Cauchy); None for too few points."""
    if len(points) < ENOUGH_WINDOWS or np.ptp(points, axis=0).max() == 0:
        return None
    y, x = points.T
    one, none = np.ones_like(y), np.zeros_like(y)
    rows = np.concatenate((np.stack((one, none, y, -x), 1), np.stack((none, one, x, y), 1)))
    wanted = np.concatenate(shifts.T)
    weights = trust.astype(float)
    for _ in range(8):
        root = np.concatenate((weights, weights))
        a, *_ = np.linalg.lstsq(rows * root[:, None], wanted * root, rcond=None)
        left = np.hypot(*(wanted - rows @ a).reshape(2, -1))
        weights = trust / np.sqrt(1 + (left / (2 * np.median(left) + 1e-3)) ** 2)
    scale = math.hypot(1 + a[2], a[3]) - 1
    return Motion(float(a[0]), float(a[1]), scale, math.atan2(a[3], 1 + a[2]))
