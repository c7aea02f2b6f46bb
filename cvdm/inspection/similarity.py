"""A similarity (shift, rotation, scale) through the shifts of many places, outliers losing weight."""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass

import numpy as np

from cvdm.inspection.blocks import median

ENOUGH_WINDOWS = 8  # for rotation and scale; a fit to fewer may swing by pixels at the centre


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
    """The similarity of weighted least squares, outliers losing weight (Cauchy); None for too few points.

    points, shifts: (N, 2), points relative to the centre.
    trust:          (N,), weights above 0 of the residuals.

    With places and shifts as complex numbers, y + ix, a similarity is a line: shift = a + b place, where
    1 + b = (1 + scale) exp(i rotation).
    """
    if len(points) < ENOUGH_WINDOWS or np.ptp(points, axis=0).max() == 0:
        return None
    place, shift = (values[:, 0] + 1j * values[:, 1] for values in (points, shifts))
    weights = trust.astype(float)
    for _ in range(8):
        square = weights**2 / np.sum(weights**2)
        off = place - square @ place
        b = (square * off.conj()) @ shift / (square @ np.abs(off) ** 2)
        a = square @ shift - b * (square @ place)
        left = np.abs(shift - a - b * place)
        weights = trust / np.sqrt(1 + (left / (2 * median(left) + 1e-3)) ** 2)
    return Motion(float(a.real), float(a.imag), abs(1 + b) - 1, cmath.phase(1 + b))
