"""Fourier ring correlation: down to which detail two images of one scene agree.

    FRC(f) = Re sum A conj(B) / sqrt(sum |A|^2 sum |B|^2)        sums over the ring of spatial frequency f

A and B are the Fourier transforms of both images, tapered to their edges by a Hann window, because the jump
from one edge to the opposite one would correlate at every frequency (Saxton & Baumeister 1982, J. Microsc.
127, 127-138; for light microscopy Nieuwenhuizen et al. 2013, Nat. Methods 10, 557-562, whose threshold of 1/7
is taken). No linear filter changes it: it tells which detail is right, not how bright it is shown.

The threshold was chosen for two noisy images of equal standing. Against a target, which is better, the same
threshold is crossed at finer detail; compare such values with each other, not with published resolutions.
Noise that both images share, as when the input is one of the frames that the target averages, correlates at
every frequency and looks like detail. `shares_noise` tells such pairs, where nothing can be measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

THRESHOLD = 1 / 7
SHARED = 0.05
"""Mean correlation of the finest details of input and target above which they share their noise."""
FINEST = 0.375  # cycles per pixel, from which details count as the finest
SMOOTHING = 3  # rings in the moving mean that has to cross the threshold: one noisy ring does not


@dataclass(frozen=True)
class RingCorrelation:
    """The correlation of two images by spatial frequency."""

    frequencies: np.ndarray
    """(R,) centres of the rings in cycles per pixel, from above 0 up to 0.5."""
    correlations: np.ndarray
    """(R,) in [-1, 1]; 0 where a ring holds no power."""


def fourier_ring_correlation(a: np.ndarray, b: np.ndarray) -> RingCorrelation:
    """Correlate two images of one shape (H, W), any units, on rings as wide as the longest wave's frequency.

    The mean of each image does not count.
    """
    assert a.shape == b.shape and a.ndim == 2 and min(a.shape) >= 4, (a.shape, b.shape)
    window = np.outer(*(np.hanning(size + 2)[1:-1] for size in a.shape))
    first, second = (np.fft.rfft2((image - image.mean(dtype=np.float64)) * window) for image in (a, b))
    radius = np.hypot(np.fft.fftfreq(a.shape[0])[:, None], np.fft.rfftfreq(a.shape[1])[None])
    rings = min(a.shape) // 2
    ring = np.rint(radius * 2 * rings).astype(int)
    # of two mirrored frequencies rfft2 keeps one, except where they are the same
    weight = np.full(first.shape, 2.0)
    weight[:, 0] = 1
    if a.shape[1] % 2 == 0:
        weight[:, -1] = 1

    def summed(values: np.ndarray) -> np.ndarray:
        return np.bincount(ring.ravel(), (weight * values).ravel())[1 : rings + 1]

    power = np.sqrt(summed(np.abs(first) ** 2) * summed(np.abs(second) ** 2))
    shared = summed((first * second.conj()).real)
    correlations = np.divide(shared, power, out=np.zeros_like(power), where=power > 0)
    return RingCorrelation(np.arange(1, rings + 1) / (2 * rings), correlations)


def resolution_px(curve: RingCorrelation, threshold: float = THRESHOLD) -> float | None:
    """The finest wavelength in pixels up to which both images agree; None where the curve never crosses.

    One over the frequency at which the moving mean of the curve first falls below the threshold, linear
    between rings. Images that agree in nothing give the longest wavelength, that of the first ring.
    """
    padded = np.pad(curve.correlations, SMOOTHING // 2, mode="edge")
    smooth = np.convolve(padded, np.full(SMOOTHING, 1 / SMOOTHING), mode="valid")
    below = np.flatnonzero(smooth < threshold)
    if len(below) == 0:
        return None
    last = int(below[0])
    if last == 0:
        return float(1 / curve.frequencies[0])
    before, after = smooth[last - 1], smooth[last]
    share = (before - threshold) / (before - after)
    step = curve.frequencies[last] - curve.frequencies[last - 1]
    return float(1 / (curve.frequencies[last - 1] + share * step))


def resolution_against(target: np.ndarray, reconstruction: np.ndarray, low: np.ndarray) -> float | None:
    """The resolution in pixels of a reconstruction of `low`, all (H, W); None where it cannot be measured."""
    if shares_noise(low, target):
        return None
    return resolution_px(fourier_ring_correlation(reconstruction, target))


def shares_noise(low: np.ndarray, high: np.ndarray) -> bool:
    """Whether an input and its target, both (H, W), agree in details where only noise is left.

    Images so coarsely sampled that their structure fills the spectrum count as such, too.
    """
    curve = fourier_ring_correlation(low, high)
    return float(curve.correlations[curve.frequencies > FINEST].mean()) > SHARED
