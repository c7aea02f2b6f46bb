"""How the target lies on the input: shift, rotation and scale from the correlation of local windows.

    C(f) = conj(LOW(f)) HIGH(f)                    cross-power of one tapered window; high(x) = low(x - shift)
    c(f) = |sum C|^2 / (sum |LOW|^2 sum |HIGH|^2)  coherence of a ring of frequencies, all windows pooled
    peak of  sum w(f) Re C(f) exp(2 pi i f shift),  w = c / (1 - c) / |C|

The weight w is the maximum-likelihood one of Hannan & Thomson (1973) and Knapp & Carter (1976): it whitens,
and trusts each band of frequencies as far as the two images agree in it, so it needs no tuning to noise or
blur. Correlation at all frequencies is pulled to zero where the input is one of the frames averaged into its
target, since their common noise is at rest: it finds half of the real shift on such pairs.

A first estimate comes from the whole field, reduced to `FIELD_SIDE`; then windows follow their own predicted
shift, and a similarity (shift, rotation, scale) is fitted to theirs. Each window's shift is that of the
centroid of what both images show in it. Last, the shift is refined at finer levels.

Not covered: shifts beyond a third of the field, rotation beyond some three degrees, local deformation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import fft

from cvdm.inspection.blocks import block_means, median
from cvdm.inspection.numeric_range import moderate
from cvdm.inspection.similarity import Motion, fit_motion
from cvdm.inspection.windows import Field, Matches, band_of, grid, hann, square

FIELD_SIDE = 256  # px, longest side at which local windows are compared, about; larger fields are reduced
FINEST = 2  # reduction of the finest level; little is seen beyond a quarter of the sampling rate
REFINED_WINDOWS = 16  # windows at the finer levels
SIGNIFICANT = 7.0  # a window counts above this many standard deviations of windows without common structure


@dataclass(frozen=True)
class Registration:
    """How high lies on low: p of low is found at centre + (1 + scale) R(rotation) (p - centre) + shift.

    dy, dx:       shift in pixels at the centre of the field, positive downwards and to the right.
    error_px:     standard error of the shift, from the sharpness of the correlation peak.
    rotation_deg: in degrees, positive counter-clockwise as displayed; None with fewer than eight windows.
    scale:        relative enlargement, 0.01 is one percent; None with fewer than eight windows.
    residual_px:  root mean square of what the fit leaves of the windows' shifts, robust; None likewise.
    confidence:   agreement of the phases with the shift, from 0 (none) to 1 (images equal but for the shift).
    significance: height of the correlation peak in standard deviations of unrelated images.
    windows:      how many windows had enough structure in common to count.
    """

    dy: float
    dx: float
    error_px: float
    rotation_deg: float | None
    scale: float | None
    residual_px: float | None
    confidence: float
    significance: float
    windows: int

    @property
    def shift_px(self) -> float:
        """Length of the shift."""
        return math.hypot(self.dy, self.dx)


def register(low: np.ndarray, high: np.ndarray) -> Registration | None:
    """Measure how high (H, W) lies on low (H, W); None where they have no structure in common.

    Both of the same shape, of 16 px at least on each side.
    """
    assert low.shape == high.shape, (low.shape, high.shape)
    moderate_low, moderate_high = moderate(low), moderate(high)
    if min(low.shape) < 16 or moderate_low is None or moderate_high is None:
        return None
    factor = _reduction(low.shape)
    pyramid = _pyramid(moderate_low[0], moderate_high[0], factor)
    field = Field(*pyramid[0], grid(pyramid[0][0].shape))
    matches = field.match(_coarse(*pyramid[0]), whitened=True)
    motion, _ = _followed(matches)
    motion, fitted = _followed(field.match(motion, whitened=False))
    matches = field.match(motion, whitened=False)
    counted = matches.significance >= SIGNIFICANT
    if matches.common_significance < SIGNIFICANT and not counted.any():
        return None
    left = np.hypot(*(matches.shifts - motion.at(matches.points))[counted].T)
    dy, dx, error = _refined(pyramid, field, matches, motion)
    return Registration(
        dy=dy * factor,
        dx=dx * factor,
        error_px=error * factor,
        rotation_deg=math.degrees(motion.rotation) if fitted else None,
        scale=motion.scale if fitted else None,
        residual_px=factor * 1.2 * median(left) if fitted else None,
        confidence=field.agreement(matches),
        significance=matches.common_significance,
        windows=int(counted.sum()),
    )


def _followed(matches: Matches) -> tuple[Motion, bool]:
    """The motion that windows of common structure share, and whether it holds rotation and scale."""
    counted = matches.significance >= SIGNIFICANT
    fitted = fit_motion(matches.points[counted], matches.shifts[counted], matches.significance[counted])
    return (matches.common, False) if fitted is None else (fitted, True)


def _refined(
    pyramid: list[tuple[np.ndarray, np.ndarray]], field: Field, matches: Matches, motion: Motion
) -> tuple[float, float, float]:
    """Shift and its standard error in pixels of the first level, from all levels by precision."""
    best = field.points[np.argsort(-matches.significance)[:REFINED_WINDOWS]]
    shifts, precisions = [(matches.common.dy, matches.common.dx)], [matches.precision]
    for level, pair in enumerate(pyramid[1:], start=1):
        finer = 2.0**level
        found = Field(*pair, best * finer).match(motion.enlarged(finer), whitened=False)
        if found.common_significance >= SIGNIFICANT:
            shifts.append((found.common.dy / finer, found.common.dx / finer))
            precisions.append(found.precision * finer**2)
    dy, dx = np.average(shifts, axis=0, weights=precisions) if sum(precisions) > 0 else shifts[0]
    return float(dy), float(dx), 1 / math.sqrt(max(*precisions, 1e-6))


def _reduction(shape: tuple[int, ...]) -> int:
    """A power of two that brings the field near FIELD_SIDE, leaving 32 px on the shorter side."""
    factor = 1
    while max(shape) / factor > 1.5 * FIELD_SIDE and min(shape) / factor >= 64:
        factor *= 2
    return factor


def _pyramid(low: np.ndarray, high: np.ndarray, factor: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The pair at `factor`, factor / 2, ... and FINEST, or at `factor` alone."""
    finest = min(factor, FINEST)
    pairs = [(block_means(low, finest), block_means(high, finest))]
    while finest < factor:
        finest *= 2
        pairs.insert(0, (block_means(pairs[0][0], 2), block_means(pairs[0][1], 2)))
    return pairs


def _coarse(low: np.ndarray, high: np.ndarray) -> Motion:
    """The whole field's shift to the pixel, or none where that explains the pair as well."""
    rows, columns = (hann(length) for length in low.shape)
    taper, total = np.outer(rows, columns), rows.sum() * columns.sum()
    a, b = (fft.rfft2((image - rows @ image @ columns / total) * taper) for image in (low, high))
    cross = a.conj() * b
    band = band_of(low.shape)
    size = np.abs(cross)
    low_pass = np.exp(-((band.fy / 0.3) ** 2)) * np.exp(-((band.fx / 0.3) ** 2))
    soft = low_pass / np.sqrt(size + 1e-12 * size.max() + 1e-30)
    candidates = [(0, 0)]
    for spectrum in (cross, cross * soft):
        surface = fft.irfft2(spectrum, s=low.shape)
        peak = np.unravel_index(np.argmax(surface), surface.shape)
        y, x = (int((p + n // 2) % n - n // 2) for p, n in zip(peak, low.shape, strict=True))
        candidates.append((y, x))
    different = list(dict.fromkeys(candidates))
    if len(different) == 1:
        return Motion(*different[0])
    power = band.sums(square(a)) * band.sums(square(b))

    def explained(candidate: tuple[int, int]) -> float:
        turned = cross * np.exp(2j * np.pi * band.fy * candidate[0]).astype(np.complex64)
        turned *= np.exp(2j * np.pi * band.fx * candidate[1]).astype(np.complex64)
        common = np.maximum(band.sums(turned.real), 0)
        return float(np.sum(band.counts * common**2 / np.maximum(power, 1e-300)))

    return Motion(*max(different, key=explained))
