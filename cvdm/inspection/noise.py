"""How noisy one image is, how far its signal stands above that, and by how much a target beats its input.

    residual = third difference along rows and columns, scaled to unit variance for white noise
    variance(block) = mean of residual^2 over 8 x 8 pixels; of blocks of like brightness the median counts
    variance = gain * brightness + offset          Poisson-Gaussian noise (Foi et al. 2008), fitted to those
    SNR = 20 log10(spread of the signal / noise where the signal is)

Third differences remove structure that is smooth over four pixels; the median leaves out blocks on edges and
hot pixels; groups of like brightness keep the photon noise of bright parts, which a median over the whole
image (Immerkaer 1996; Donoho & Johnstone 1994) overlooks where most of the field is background.

Not covered: correlated noise. It counts only as far as it reaches the highest frequencies, so resampled,
deconvolved or structured-illumination images, and those already filtered, are noisier than stated here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cvdm.inspection.blocks import group_medians, percentiles
from cvdm.inspection.numeric_range import moderate

BLOCK = 8  # px
REACH = 3  # px that the third difference looks ahead
GROUPS = 24  # of blocks of like brightness
UNIT_GAIN = 1 / 20  # one over the sum of squares of (-1, 3, -3, 1)
MEDIAN_TO_MEAN = 1.063  # of the block variances of white noise, for blocks of 8 x 8 third differences
MAX_BLOCKS = 2048  # blocks looked at, about; bands of rows of larger images are left out
AT_ONCE = 2**12  # px of a row of pixels in all bands together: stay in the processor's cache
# Pairs of places to bring into order, one after another, which sorts 8 values.
SORTING_NETWORK = (
    *((0, 2), (1, 3), (4, 6), (5, 7), (0, 4), (1, 5), (2, 6), (3, 7), (0, 1), (2, 3)),
    *((4, 5), (6, 7), (2, 4), (3, 5), (1, 4), (3, 6), (1, 2), (3, 4), (5, 6)),
)
SNR_RANGE_DB = (-20.0, 80.0)  # outside, nothing but noise or nothing but signal is seen


@dataclass(frozen=True)
class Noise:
    """Noise of one image, in the image's units, from the signal-free part of its spectrum.

    level:           standard deviation, root mean square over the image.
    background:      standard deviation in the dimmest part of the field.
    gain:            variance per unit of brightness, from photon noise; 0 for noise equal everywhere.
    offset_variance: variance that the fitted line has at brightness 0; may be negative, as brightness holds
                     the camera's offset.
    signal:          spread of the signal, brightest percent minus dimmest tenth of block means.
    signal_noise:    standard deviation of the noise where the signal is, weighted by signal.
    snr_db:          20 log10(signal / signal_noise), within -20 and 80 dB.
    """

    level: float
    background: float
    gain: float
    offset_variance: float
    signal: float
    signal_noise: float
    snr_db: float


def measure_noise(image: np.ndarray) -> Noise | None:
    """Noise of (H, W); None for a constant image or one under 16 px wide or high."""
    if min(image.shape) < 2 * BLOCK or (moderated := moderate(image)) is None:
        return None
    pixels, unit = moderated
    brightness, variance = _blocks(pixels)
    brightness, variance = brightness * unit, variance * unit**2
    order = np.argsort(brightness, kind="stable")
    edges = np.linspace(0, len(order), min(GROUPS, max(1, len(order) // BLOCK)) + 1).astype(int)
    counts = np.diff(edges).astype(float)
    means = np.add.reduceat(brightness[order], edges[:-1]) / counts
    group = np.repeat(np.arange(len(counts)), np.diff(edges))
    typical = group_medians(variance[order], group) * MEDIAN_TO_MEAN
    level = float(np.average(typical, weights=counts))
    gain, offset = _line(means, typical)
    dim, bright = percentiles(brightness, 10, 99)
    above = np.maximum(means - dim, 0) * counts
    at_signal = float(np.average(typical, weights=above)) if above.sum() > 0 else level
    # of the spread of block means, noise alone makes some 3.6 of its own standard deviations
    signal = math.sqrt(max((bright - dim) ** 2 - (3.6 / BLOCK) ** 2 * at_signal, 0.0))
    return Noise(
        level=math.sqrt(level),
        background=math.sqrt(float(typical[0])),
        gain=gain,
        offset_variance=offset,
        signal=signal,
        signal_noise=math.sqrt(at_signal),
        snr_db=_decibel(signal, math.sqrt(at_signal)),
    )


def _decibel(signal: float, noise: float) -> float:
    floor, ceiling = SNR_RANGE_DB
    if signal <= 0:
        return floor
    if noise <= 0:
        return ceiling
    return float(np.clip(20 * math.log10(signal / noise), floor, ceiling))


def _blocks(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean brightness and variance of third differences of each block (N,), float64."""
    height, width = ((side - REACH) // BLOCK for side in image.shape)
    rows = np.arange(height)
    if height * width > MAX_BLOCKS:
        rows = np.unique(np.linspace(0, height - 1, max(1, MAX_BLOCKS // width)).astype(int))
    some = max(1, AT_ONCE // image.shape[1])
    parts = [_of_bands(image, rows[start : start + some], width) for start in range(0, len(rows), some)]
    lines, variance = (np.concatenate(values, axis=-1) for values in zip(*parts, strict=True))
    return _middle_mean(lines).astype(np.float64), variance.astype(np.float64)


def _of_bands(image: np.ndarray, rows: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of the 8 rows (8, N) and variance (N,) of `width` blocks in each of some rows of blocks."""
    bands = image[rows[:, None] * BLOCK + np.arange(BLOCK + REACH)]  # (rows, 8 + 3, W)
    columns = width * BLOCK
    down = np.diff(bands, REACH, axis=1)  # (rows, 8, W)
    across = np.diff(down, REACH, axis=2)[:, :, :columns]
    squares = np.einsum("ryx,ryx->rx", across, across)  # sums over the rows of a block
    # products are many times quicker than sums over a short axis
    ones = np.ones(BLOCK, dtype=np.float32)
    variance = squares.reshape(-1, BLOCK) @ ones * np.float32(UNIT_GAIN**2 / BLOCK**2)
    pieces = bands[:, :BLOCK, :columns].reshape(-1, BLOCK)
    means = (pieces @ ones / BLOCK).reshape(len(rows), BLOCK, width)
    return means.swapaxes(0, 1).reshape(BLOCK, -1), variance


def _middle_mean(lines: np.ndarray) -> np.ndarray:
    """Mean (N,) of the middle half of 8 values (8, N): a hot pixel in one of them must not count.

    A sorting network, since NumPy sorts many short lists slowly.
    """
    for lower, upper in SORTING_NETWORK:
        smaller = np.minimum(lines[lower], lines[upper])
        np.maximum(lines[lower], lines[upper], out=lines[upper])
        lines[lower] = smaller
    return np.asarray(lines[BLOCK // 4 : -BLOCK // 4].mean(axis=0))


def _line(brightness: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    """gain >= 0 and offset of variance = gain * brightness + offset, each group weighted by its precision."""
    weights = 1 / np.maximum(variance, 1e-3 * max(float(variance.max()), 1e-30))
    mean_x, mean_y = np.average(brightness, weights=weights**2), np.average(variance, weights=weights**2)
    spread = np.average((brightness - mean_x) ** 2, weights=weights**2)
    if spread == 0:
        return 0.0, float(mean_y)
    slope = np.average((brightness - mean_x) * (variance - mean_y), weights=weights**2) / spread
    gain = max(float(slope), 0.0)
    return gain, float(mean_y - gain * mean_x)
