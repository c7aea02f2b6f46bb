"""The regression mean with one distribution of errors for all pixels: what a spread per pixel has to beat.

    F(y) = mean over k of [y >= mu(x) + q_k]        q_k: quantiles of y - mu(x) over the calibration fields

Every interval of it is as wide everywhere, and calibrated. Its CRPS is exact, without draws: CRPS = g(y - mu)
with g(e) = mean |q - e| - mean |q - q'| / 2 (Gneiting & Raftery 2007, eq. 21).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

QUANTILES = 64
RANKS = 4096
"""Quantiles by which the errors of a field are kept."""


@dataclass(frozen=True)
class ConstantInterval:
    """An error distribution that all pixels share."""

    offsets: np.ndarray
    """(QUANTILES,) ascending, in half-ranges of the intensity scale."""

    @classmethod
    def of(cls, residuals: Iterable[tuple[str, np.ndarray]]) -> ConstantInterval:
        """From fields and their y - mu(x) (H, W), in half-ranges; every field weighs the same."""
        by_field: dict[str, list[np.ndarray]] = defaultdict(list)
        for field, errors in residuals:
            by_field[field].append(errors.ravel())
        ranks = _middles(RANKS)
        alike = [np.quantile(np.concatenate(errors), ranks) for errors in by_field.values()]
        return cls(np.quantile(np.concatenate(alike), _middles(QUANTILES)))

    def crps(self, residual: np.ndarray) -> float:
        """Mean over the pixels of y - mu(x) (H, W), in half-ranges, as the result is."""
        return float(self.losses(residual).mean())

    def losses(self, residual: np.ndarray) -> np.ndarray:
        """CRPS of each pixel, (H, W) as y - mu(x), in half-ranges."""
        errors = residual.astype(np.float64)
        below = np.searchsorted(self.offsets, errors)  # how many offsets are smaller
        sums = np.concatenate([[0.0], np.cumsum(self.offsets)])
        total, count = sums[-1], len(self.offsets)
        distance = errors * (2 * below - count) + total - 2 * sums[below]
        spread = np.abs(self.offsets[:, None] - self.offsets[None]).mean() / 2
        return distance / count - spread


def _middles(count: int) -> np.ndarray:
    """The middles of `count` equal parts of [0, 1]."""
    return (np.arange(count) + 0.5) / count
