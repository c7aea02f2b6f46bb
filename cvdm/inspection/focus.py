"""How sharp one image is: its loss of power towards fine detail, whatever its brightness and noise.

    P(f) = mean over windows with signal of |FFT|^2 / sqrt(coarse power of the window)
    S(f) = P(f) - noise                               noise: mean of P beyond 0.42 cycles per pixel, where the
                                                      optics of well sampled images do not reach
    log S(f) = constant - 2 log f - (2 pi blur f)^2   lines and edges of a scene, seen through a Gaussian
    focus = -10 log10(e) (2 pi blur / 10 px)^2        loss at a period of 10 px, in dB

The line is fitted to the rings of frequency in which the signal stands out of the noise, so the measure uses
what each image has instead of two fixed bands. Blurring by a Gaussian of sigma s px takes about 1.7 s^2 dB
off, whatever the image was like before; up to 40 % more where the scene's power falls faster than f^-2.
Meant for comparison with images of the same kind: the power law stands for their structure, so a single value
is no absolute sharpness, and may be above 0.

Not covered: blur beyond some five pixels, of which only "very blurred" remains; images that were sharpened or
whose noise is not white; under-sampled images, whose detail is taken for noise.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy import fft

from cvdm.inspection.blocks import block_means
from cvdm.inspection.numeric_range import moderate

WINDOW = 64  # px, smaller in small images
MAX_WINDOWS = 48  # taken where the signal is
AT_ONCE = 8  # windows whose spectra are taken together: stay in the processor's cache
SIGNAL_SHARE = 0.5  # of the windows, those of most signal
LEAST_SIGNAL = 0.1  # of the coarse power of the window that has most; rounding and noise hide the rest
NOISE_FROM = 0.42  # cycles per pixel
SIGNAL_TO = 0.35
DEPTH = 1e-3  # of coarse power; below, the window's own side lobes and rounding matter
SCENE_EXPONENT = 2.0  # of the power spectrum of lines and edges
SCATTER = 0.3  # of the logarithm of a ring's power about that law
DB_PER_PX2 = (
    10 / math.log(10) * (2 * math.pi / 10) ** 2
)  # loss of a Gaussian of sigma 1 px at a period of 10 px


@dataclass(frozen=True)
class Focus:
    """Sharpness of one image.

    focus_db: power at a period of 10 px relative to that of a perfectly sharp scene, in dB; falls with blur.
    blur_px:  sigma of the Gaussian blur that this loss stands for, 0 where the image is sharper than that.
    windows:  how many windows held signal.
    """

    focus_db: float
    blur_px: float
    windows: int


def measure_focus(image: np.ndarray) -> Focus | None:
    """Focus of (H, W); None where no signal stands out of the noise, or under 16 px wide or high."""
    side = WINDOW
    while side > min(image.shape):
        side //= 2
    if side < 16 or (moderated := moderate(image)) is None:
        return None
    rings = _rings(side)
    windows = _windows_with_signal(moderated[0], side)
    power = rings.power(windows)  # (N, rings)
    noise = power[:, rings.frequency > NOISE_FROM].mean(1)
    coarse = power[:, : rings.coarse].mean(1) - noise
    kept = (coarse > noise) & (coarse >= max(LEAST_SIGNAL * float(coarse.max(initial=0)), 1e-30))
    if not kept.any():
        return None
    # dim windows count less, but no bright one decides alone
    weights = 1 / np.sqrt(coarse[kept])
    weights /= np.sum(weights * coarse[kept])
    effective = float(1 / np.sum((weights * coarse[kept]) ** 2))
    square = _blur_square(weights @ power[kept], float(weights @ noise[kept]), effective, rings)
    return Focus(-DB_PER_PX2 * square, math.sqrt(max(square, 0.0)), int(kept.sum()))


def _blur_square(power: np.ndarray, noise: float, windows: float, rings: _Rings) -> float:
    """blur^2 in px^2 of the weighted line through log(S f^2) against f^2."""
    modes = rings.modes * windows / 2
    error = power / np.sqrt(modes)
    signal = power - noise
    seen = (signal > np.maximum(4 * error, DEPTH * signal[0])) & (rings.frequency < SIGNAL_TO)
    last = max(int(np.argmin(seen)), 3)  # rings up to the first in which the signal is lost
    f = rings.frequency[:last]
    signal, error = np.maximum(signal[:last], error[:last]), error[:last]
    weights = 1 / (SCATTER**2 + (error / signal) ** 2)
    x, y = f**2, np.log(signal) + SCENE_EXPONENT * np.log(f)
    centred = x - np.average(x, weights=weights)
    slope = float((weights * centred * y).sum() / (weights * centred**2).sum())
    return -slope / (2 * math.pi) ** 2


class _Rings:
    """Rings of frequency of side x side windows, one per 1 / side cycles per pixel from 1.5 / side on."""

    def __init__(self, side: int) -> None:
        line = np.sin(np.pi * (np.arange(side) + 1) / (side + 1)) ** 2
        self.taper = np.outer(line, line).astype(np.float32)
        radius = np.hypot(fft.fftfreq(side)[:, None], fft.rfftfreq(side)[None])
        index = np.maximum(np.floor(radius * side - 0.5).astype(int), 0).ravel()
        twice = np.full(side // 2 + 1, 2.0)
        twice[[0, -1]] = 1.0
        weights = np.broadcast_to(twice, radius.shape).ravel()
        count = np.bincount(index, weights)
        used = np.flatnonzero((np.arange(len(count)) >= 1) & (count > 8))
        self.modes = count[used]
        self.frequency = np.bincount(index, radius.ravel() * weights)[used] / self.modes
        # a product with this matrix is several times quicker than sums over each ring
        self._means = ((index[:, None] == used) * weights[:, None] / self.modes).astype(np.float32)
        self.coarse = max(1, int((self.frequency < 0.08).sum()))

    def power(self, windows: np.ndarray) -> np.ndarray:
        """Mean power (N, rings) of windows (N, side, side)."""
        parts = (windows[start : start + AT_ONCE] for start in range(0, len(windows), AT_ONCE))
        return np.concatenate([self._power(part) for part in parts])

    def _power(self, windows: np.ndarray) -> np.ndarray:
        flat = windows.reshape(len(windows), -1)
        means = flat @ self.taper.ravel() / self.taper.sum()
        tapered = windows - means[:, None, None]
        tapered *= self.taper
        spectra = fft.rfft2(tapered)
        size = (spectra.real**2 + spectra.imag**2).reshape(len(spectra), -1)
        return np.asarray(size @ self._means, dtype=np.float64)


@functools.lru_cache(maxsize=4)
def _rings(side: int) -> _Rings:
    return _Rings(side)


def _windows_with_signal(image: np.ndarray, side: int) -> np.ndarray:
    """The windows (N, side, side) of a regular grid in which means of blocks vary most."""
    block = side // 8
    height, width = (length // side for length in image.shape)
    field = image[: height * side, : width * side]
    tiles = field.reshape(height, side, width, side)
    # every second row and column of a block is enough to find where the signal is
    means = block_means(field[::2, ::2], block // 2)
    by_tile = means.reshape(height, 8, width, 8).swapaxes(1, 2).reshape(height * width, 64)
    variance = by_tile.var(axis=1)
    number = min(MAX_WINDOWS, max(4, math.ceil(SIGNAL_SHARE * height * width)), height * width)
    best = np.argsort(-variance, kind="stable")[:number]
    return np.stack([tiles[i // width, :, i % width] for i in best])
