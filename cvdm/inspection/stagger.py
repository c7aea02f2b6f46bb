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
    """How far odd rows of (H, W) are shifted to the right against even ones; None without structure in rows.

    Each odd row is correlated with the mean of the even rows above and below, so that slanted structure
    cancels. The error is the jackknife's over eight bands of the image.
    """
    height, width = pixels.shape
    if height < 4 * BANDS or width < 4 * REACH:
        return None
    every = 2 * max(1, -(-((height - 1) // 2) // LINES))
    row = _row(width)
    odd = np.arange(1, height - 1, every)
    cross = np.empty((BANDS, len(row.frequency)), dtype=complex)
    powers = np.zeros((2, len(row.frequency)))
    edges = np.linspace(0, len(odd), BANDS + 1).astype(int)
    for band, lines in enumerate(np.split(odd, edges[1:-1])):
        before, rows, after = (slice(lines[0] + way, lines[-1] + way + 1, every) for way in (-1, 0, 1))
        both = row.spectra(np.concatenate((pixels[rows], pixels[before] + pixels[after])))
        here, beside = both[: len(lines)], both[len(lines) :]
        cross[band] = (here * beside.conj()).sum(axis=0)
        powers += [(part.real**2 + part.imag**2).sum(axis=0) for part in (here, beside)]
    cross *= row.weight
    power = float(np.prod(np.sqrt(powers @ row.weight)))
    if power == 0:
        return None
    total = cross.sum(axis=0)
    shifts, peaks = _best_shifts(np.concatenate((total[None], total - cross)), row)
    # chance correlations of rows, each with about width / sigma independent values
    if peaks[0] / power * np.sqrt(len(odd) * width / SIGMA) < SIGNIFICANCE:
        return None
    without = shifts[1:]
    error = np.sqrt((BANDS - 1) / BANDS * ((without - without.mean()) ** 2).sum())
    return Stagger(round(float(shifts[0]), 3), float(error))


class _Row:
    """Frequencies of rows of one width, and what depends on them alone.

    frequency, weight: (F,) in radians per px, and the weight of each.
    shifts, turns:     (G,) shifts of the first look in px, and the phases (F, G) that they stand for.
    """

    def __init__(self, width: int) -> None:
        self.length = fft.next_fast_len(width, real=True)
        frequency = 2 * np.pi * fft.rfftfreq(self.length)
        self.frequency = frequency[frequency <= TOP_FREQUENCY]
        self.weight = self.frequency**2 * np.exp(-((self.frequency * SIGMA) ** 2))
        self.shifts = np.arange(-REACH, REACH + GRID_STEP / 2, GRID_STEP)
        self.turns = np.exp(1j * np.outer(self.frequency, self.shifts))
        self._taper = np.hanning(width).astype(np.float32)
        self._mean = np.full(width, 1 / width, dtype=np.float32)  # a product is quicker than a mean of rows

    def spectra(self, rows: np.ndarray) -> np.ndarray:
        """(N, F) Fourier transforms of rows (N, W) without their mean, faded out at both ends."""
        even = rows - (rows @ self._mean)[:, None]
        even *= self._taper
        return np.asarray(fft.rfft(even, self.length, axis=1)[:, : len(self.frequency)])


@functools.lru_cache(maxsize=8)
def _row(width: int) -> _Row:
    return _Row(width)


def _best_shifts(cross: np.ndarray, row: _Row) -> tuple[np.ndarray, np.ndarray]:
    """The shifts (N,) in px at which the correlations of cross spectra (N, F) are largest, and these (N,)."""
    first = row.shifts[np.argmax((cross @ row.turns).real, axis=1)]
    shift = first
    turn = 1j * row.frequency
    orders = np.stack((np.ones_like(turn), turn, turn**2), axis=1)  # of derivatives
    for step in range(NEWTON_STEPS + 1):
        height, slope, bend = ((cross * np.exp(shift[:, None] * turn)) @ orders).real.T
        if step < NEWTON_STEPS:
            move = np.where(bend < 0, -slope / np.where(bend < 0, bend, -1), 0)
            shift = np.clip(shift + move, first - GRID_STEP, first + GRID_STEP)
    return shift, height
