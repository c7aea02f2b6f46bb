"""Scores of one restored image (H, W) against its target; averages over fields are the caller's.

THE convention for the range of intensities (PSNR, SSIM, NRMSE, MAE), used for every number in this project:
`data_range` is the span between the 0.1 and 99.9 percentiles of that image's own target (`target_range`).
It is the only one of three tried that gives the published baselines of `fmd-confocal-nuclei` after the
intensity fit (input 29.05 dB / 0.71, Gaussian blur of sigma 1: 36.04 / 0.94); full scale (255) gives
34.2 and 41.2 dB, the target's maximum minus minimum 32.0 and 39.0.

"Fitted" scores are taken after `fit_intensity`, which removes gain and offset; raw scores are not.
Every function works in the input's units; only those that take data_range divide by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

SSIM_SIGMA = 1.5  # px, Wang et al. 2004
SSIM_SIDE = 11  # px, the window of skimage at that sigma
SPARSIFICATION_STEPS = 100


def target_range(target: np.ndarray) -> float:
    """The span of a target's 0.1 to 99.9 percentiles; of all its values where that span is empty.

    A constant target has no range and gives 0: validation refuses it before anything is scored.
    """
    low, high = np.percentile(target, (0.1, 99.9))
    return float(high - low) or float(np.ptp(target))


def fit_intensity(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """a * prediction + b with a and b of least squared error; the target's mean for a flat prediction."""
    p, t = prediction.astype(np.float64), target.astype(np.float64)
    centred = p - p.mean()
    variance = np.mean(centred**2)
    gain = np.mean(centred * (t - t.mean())) / variance if variance > 0 else 0.0
    return gain * centred + t.mean()


def psnr(prediction: np.ndarray, target: np.ndarray, data_range: float) -> float:
    """Peak signal-to-noise ratio in dB; infinite for identical images."""
    if np.array_equal(prediction, target):
        return float("inf")
    p, t = prediction.astype(np.float64), target.astype(np.float64)
    return float(peak_signal_noise_ratio(t, p, data_range=data_range))


def ssim(prediction: np.ndarray, target: np.ndarray, data_range: float) -> float:
    """Structural similarity with Gaussian weights of sigma 1.5 px (Wang et al. 2004).

    Images must be at least 11 px on each side, the window's size.
    """
    assert min(target.shape) >= SSIM_SIDE, target.shape
    p, t = prediction.astype(np.float64), target.astype(np.float64)
    return float(
        structural_similarity(
            t,
            p,
            data_range=data_range,
            gaussian_weights=True,
            sigma=SSIM_SIGMA,
            use_sample_covariance=False,
        )
    )


def nrmse(prediction: np.ndarray, target: np.ndarray, data_range: float) -> float:
    """Root mean squared error as a fraction of data_range."""
    return float(np.sqrt(np.mean((prediction.astype(np.float64) - target) ** 2)) / data_range)


def mae(prediction: np.ndarray, target: np.ndarray, data_range: float) -> float:
    """Mean absolute error as a fraction of data_range."""
    return float(np.mean(np.abs(prediction.astype(np.float64) - target)) / data_range)


def crps(draws: np.ndarray, target: np.ndarray, *, antithetic: bool = False) -> np.ndarray:
    """Continuous ranked probability score per pixel from K draws (K, H, W), in the images' units: (H, W).

    The fair form (Ferro 2014), unbiased in K: mean |draw - target| minus half the mean |draw - other draw|
    over the pairs of independent draws. One draw gives its absolute error.
    antithetic: draws 2k and 2k + 1 share their noise, so those pairs are left out of the spread.
    """
    count = len(draws)
    draws = draws.astype(np.float64)
    error = np.abs(draws - target).mean(axis=0)
    partners = count // 2 if antithetic else 0
    pairs = count * (count - 1) // 2 - partners
    if pairs == 0:
        return error
    # sum over i < j of (x_j - x_i) = sum_k (2k - K + 1) x_k for sorted x, k from 0
    weights = 2.0 * np.arange(count) - count + 1
    spread = np.tensordot(weights, np.sort(draws, axis=0), axes=1)
    if antithetic:
        spread -= np.abs(draws[0 : 2 * partners : 2] - draws[1 : 2 * partners : 2]).sum(axis=0)
    return error - spread / (2 * pairs)


def coverage(lower: np.ndarray, upper: np.ndarray, target: np.ndarray) -> float:
    """The fraction of pixels whose target lies within [lower, upper], bounds included."""
    return float(np.mean((lower <= target) & (target <= upper)))


@dataclass(frozen=True)
class Sparsification:
    """What is left of the error when pixels are removed, worst first; shares of the error of all pixels."""

    by_std: np.ndarray
    """After removing 0, 1, ... 99 % of the pixels, the most uncertain first."""
    by_error: np.ndarray
    """The same with the largest errors first: the oracle, which no ranking goes below."""

    @property
    def area(self) -> float:
        """Mean distance of the two curves, the AUSE."""
        return float(np.mean(self.by_std - self.by_error))

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"ause": self.area, "by_std": self.by_std.tolist(), "by_error": self.by_error.tolist()}


def sparsification(std: np.ndarray, error: np.ndarray) -> Sparsification:
    """The mean |error| of the pixels left, from 1 on, by removed fraction (Ilg et al. 2018).

    Pixels of equal std count with their common mean error, so a flat std scores as chance. Images without
    error give two curves of zeros.
    """
    size = np.abs(error.astype(np.float64)).ravel()
    total = size.mean()
    if total == 0:
        return Sparsification(np.zeros(SPARSIFICATION_STEPS), np.zeros(SPARSIFICATION_STEPS))
    _, group, counts = np.unique(std.ravel(), return_inverse=True, return_counts=True)
    expected = (np.bincount(group, weights=size) / counts)[group]
    by_std = _mean_of_those_left(expected[np.argsort(std.ravel(), kind="stable")])
    return Sparsification(by_std / total, _mean_of_those_left(np.sort(size)) / total)


def ause(std: np.ndarray, error: np.ndarray) -> float:
    """Area under the sparsification error: 0 when std ranks pixels as their absolute error does.

    The area between the two curves of `sparsification`, over fractions 0 to 0.99.
    """
    return sparsification(std, error).area


def rank_correlation(map_: np.ndarray, error: np.ndarray) -> float:
    """Spearman's over the pixels of two images of one shape, in [-1, 1]; 0 where either is constant."""
    if np.ptp(map_) == 0 or np.ptp(error) == 0:
        return 0.0
    return float(spearmanr(map_.ravel(), error.ravel()).statistic)


def _mean_of_those_left(ascending: np.ndarray) -> np.ndarray:
    """Mean error of the pixels left after removing 0, 1, ... 99 % from the end of the ranking."""
    kept = np.ceil(ascending.size * (1 - np.arange(SPARSIFICATION_STEPS) / SPARSIFICATION_STEPS)).astype(int)
    return np.cumsum(ascending)[kept - 1] / kept
