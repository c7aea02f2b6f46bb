"""How odd rows of an image lie against even rows, as after a scan in both directions.

    C(f) = sum over odd rows of HERE(f) conj(BESIDE(f)) f^2 exp(-(sigma f)^2)     one row's Fourier transform,
                                                             and that of the rows above and below together
    shift = where  Re sum C(f) exp(i f shift)  is largest

The weight stands for derivatives of a Gaussian along the row, which removes illumination and most noise.

Not covered: stagger that varies within a line.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from scipy import fft

LINES = 256  # at most compared
BANDS = 8
SIGMA = 2.0  # px, of the Gaussian along the row
TOP_FREQUENCY = 1.75  # radians per px; beyond, the Gaussian leaves a thousandth of its weight
REACH = 8  # px, largest shift looked for
GRID_STEP = 0.5  # px, of the first look
NEWTON_STEPS = 4
SIGNIFICANCE = 10.0  # standard deviations of a chance correlation


@dataclass(frozen=True)
class Stagger:
    """How odd rows lie against even rows, as after a bidirectional scan.

    shift: of odd rows to the right, in px, -8 to 8.
    error: its standard error, in px: large where noise or structure allows no better.
    """

    shift: float
    error: float


def scan_stagger(pixels: np.ndarray) -> Stagger | None:
    """How far odd rows of (H, W) are shifted to the right against even ones; None without structure along them.

    Each odd row is correlated with the mean of the even rows above and below, so that slanted structure
    cancels. The error is the jackknife's over eight bands of the image.
    """
    height, width = pixels.shape
    if height < 4 * BANDS or width < 4 * REACH:
        return None
    every = 2 * max(1, -(-((height - 1) // 2) // LINES))
    frequency, weight = _frequencies(width)
    beside = pixels[0 : height - 2 : every] + pixels[2:height:every]
    one, other = (
        _row_spectra(rows)[:, : len(frequency)] for rows in (pixels[1 : height - 1 : every], beside)
    )
    bands = np.linspace(0, len(one), BANDS, endpoint=False).astype(int)
    cross = np.add.reduceat(one * np.conj(other), bands, axis=0) * weight
    powers = [((rows.real**2 + rows.imag**2).sum(axis=0) * weight).sum() for rows in (one, other)]
    power = float(np.sqrt(powers[0]) * np.sqrt(powers[1]))
    if power == 0:
        return None
    total = cross.sum(axis=0)
    shifts, peaks = _best_shifts(np.concatenate((total[None], total - cross)), width)
    # chance correlations of rows, each with about width / sigma independent values
    if peaks[0] / power * np.sqrt(len(one) * width / SIGMA) < SIGNIFICANCE:
        return None
    without = shifts[1:]
    error = np.sqrt((BANDS - 1) / BANDS * ((without - without.mean()) ** 2).sum())
    return Stagger(round(float(shifts[0]), 3), float(error))


def _row_spectra(rows: np.ndarray) -> np.ndarray:
    """Fourier transforms of rows without their mean, faded out at both ends."""
    taper = np.hanning(rows.shape[1]).astype(np.float32)
    return np.asarray(fft.rfft((rows - rows.mean(axis=1, keepdims=True)) * taper, axis=1))


@functools.lru_cache(maxsize=8)
def _frequencies(width: int) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (F,) of a row in radians per px, and their float64 weights."""
    frequency = 2 * np.pi * fft.rfftfreq(width)
    frequency = frequency[frequency <= TOP_FREQUENCY]
    return frequency, frequency**2 * np.exp(-((frequency * SIGMA) ** 2))


@functools.lru_cache(maxsize=8)
def _turns(width: int) -> tuple[np.ndarray, np.ndarray]:
    """Shifts (G,) of the first look, and the phases (F, G) that they stand for."""
    shifts = np.arange(-REACH, REACH + GRID_STEP / 2, GRID_STEP)
    return shifts, np.exp(1j * np.outer(_frequencies(width)[0], shifts))


def _best_shifts(cross: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The shifts (N,) in px at which the correlations of cross spectra (N, F) are largest, and these (N,)."""
    grid, turns = _turns(width)
    frequency, _ = _frequencies(width)
    first = grid[np.argmax((cross @ turns).real, axis=1)]
    shift = first
    orders = np.stack((np.ones_like(frequency), 1j * frequency, -(frequency**2)), axis=1)  # of derivatives
    for step in range(NEWTON_STEPS + 1):
        height, slope, bend = ((cross * np.exp(1j * shift[:, None] * frequency)) @ orders).real.T
        if step < NEWTON_STEPS:
            move = np.where(bend < 0, -slope / np.where(bend < 0, bend, -1), 0)
            shift = np.clip(shift + move, first - GRID_STEP, first + GRID_STEP)
    return shift, height
