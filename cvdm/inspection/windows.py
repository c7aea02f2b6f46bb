"""Local windows of a pair of images: where each of the input's windows lies in the target.

Windows of the target are taken where a motion predicts them; what is left in the phases of the cross-power is
what the prediction missed. Formulas and sources are in cvdm/inspection/registration.py.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy import fft

from cvdm.inspection.similarity import Motion

WINDOW = 64  # px, side of a local window; smaller in small fields
TOP_FREQUENCY = 0.45  # cycles per pixel of the reduced field


@dataclass(frozen=True)
class Matches:
    """What N windows say, and what all of them say together.

    points, shifts:      (N, 2), centroids of their structure and where those moved.
    significance:        (N,) of their correlation peaks.
    common:              the predicted motion plus the one shift that fits all windows best.
    common_significance: of that shift's correlation peak.
    precision:           of that shift, 1 / px^2.
    left:                (2,), what that shift adds to the predicted one.
    cross:               (N, side, side / 2 + 1), cross-powers with the predicted shifts undone.
    """

    points: np.ndarray
    shifts: np.ndarray
    significance: np.ndarray
    common: Motion
    common_significance: float
    precision: float
    left: np.ndarray
    cross: np.ndarray


class Band:
    """Frequencies of a real spectrum (H, W/2 + 1) in cycles per pixel, and their rings."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.fy = fft.fftfreq(shape[0]).astype(np.float32)[:, None]
        self.fx = fft.rfftfreq(shape[1]).astype(np.float32)[None]
        radius = np.hypot(self.fy, self.fx)
        self.used = (radius > 0) & (radius <= TOP_FREQUENCY)
        self.ring = np.where(self.used, np.rint(radius * min(shape)), 0).astype(int)
        self.counts = self.sums(np.ones(self.ring.shape))
        self.stands_for = np.where(self.fx > 0, np.float32(2), np.float32(1))  # columns of the full spectrum
        self.radius = np.arange(len(self.counts)) / min(shape)
        # i times angular frequency to the powers 0, 1, 2: derivatives of a wave by its shift
        powers = np.arange(3)[:, None]
        self.down = ((2j * np.pi * self.fy[:, 0]) ** powers).astype(np.complex64)  # (3, H)
        self.across = ((2j * np.pi * self.fx[0]) ** powers).astype(np.complex64)  # (3, W/2 + 1)

    def turns(self, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """exp(2 pi i f shift) of shifts (N, 2): (N, H) of the rows and (N, W/2 + 1) of the columns.

        Of square images of even sides only: their rows have the columns' frequencies and the negatives.
        """
        waves = np.exp(2j * np.pi * shifts[:, :, None] * self.fx).astype(np.complex64)
        down, across = waves[:, 0], waves[:, 1]
        return np.concatenate((down[:, :-1], down[:, :0:-1].conj()), axis=1), across

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum of (H, W/2 + 1) over each ring; 0 for ring 0, which stands for what is not used."""
        found = np.bincount(self.ring.ravel(), values.ravel())
        found[0] = 0
        return found


@functools.lru_cache(maxsize=8)
def band_of(shape: tuple[int, ...]) -> Band:
    return Band(shape)


class Field:
    """Local windows of a pair around given points; the input's spectra are computed once."""

    def __init__(self, low: np.ndarray, high: np.ndarray, points: np.ndarray) -> None:
        self.high = high
        shape = np.array(low.shape)
        self.side = window_side(low.shape)
        self.room = shape - self.side
        self.corners = np.clip(np.rint(points + (shape - self.side) / 2).astype(int), 0, self.room)
        self.points = self.corners + (self.side - shape) / 2
        self.band = band_of((self.side, self.side))
        self.low_windows = self._windows(low, self.corners, np.zeros_like(self.points))
        self.low = fft.rfft2(self.low_windows)
        self.low_power = self.band.sums(square(self.low).sum(0))

    def _windows(self, image: np.ndarray, corners: np.ndarray, fractions: np.ndarray) -> np.ndarray:
        """Windows (N, side, side) without their mean, tapered about points `fractions` off their centres."""
        n = self.side
        windows = np.empty((len(corners), n, n), dtype=image.dtype)
        for window, (y, x) in zip(windows, corners.tolist(), strict=True):
            window[:] = image[y : y + n, x : x + n]
        rows, columns = hann(n, fractions[:, :1]), hann(n, fractions[:, 1:])
        sums = (rows[:, None, :] @ windows @ columns[:, :, None])[:, 0]
        windows -= (sums / (rows.sum(1) * columns.sum(1))[:, None])[:, :, None]
        windows *= rows[:, :, None]
        windows *= columns[:, None, :]
        return windows

    def _centroids(self, high: np.ndarray) -> np.ndarray:
        """Points (N, 2) at which the structure lies that each pair of windows has in common."""
        shared = self.low_windows * high
        position = np.arange(self.side) + 0.5 - self.side / 2
        ones = np.ones(self.side, dtype=np.float32)
        down, across = shared @ ones, ones @ shared
        total = np.maximum(down.sum(1), 1e-30)
        off = np.stack((down @ position, across @ position), axis=1) / total[:, None]
        return self.points + np.clip(off, -self.side / 4, self.side / 4)

    def match(self, motion: Motion, *, whitened: bool) -> Matches:
        """Compare each window of low with high where `motion` predicts it."""
        predicted = motion.at(self.points)
        corners = np.clip(np.rint(self.corners + predicted).astype(int), 0, self.room)
        offsets = corners - self.corners
        fractions = np.clip(predicted - offsets, -self.side / 8, self.side / 8)
        windows = self._windows(self.high, corners, fractions)
        high = fft.rfft2(windows)
        points = self._centroids(windows)
        expected = motion.at(points)
        down, across = self.band.turns(expected - offsets)
        cross = self.low.conj() * high
        cross *= down[:, :, None]
        cross *= across[:, None, :]
        # what is left in the phases is what the prediction missed
        weighted = cross * self._weights(cross, high, whitened=whitened).astype(np.float32)
        parts = weighted.view(np.float32).reshape(len(weighted), -1)  # real and imaginary
        variance = 0.5 * np.einsum("np,np->n", parts, parts)
        tiny = 1e-30 + 1e-6 * math.sqrt(float(variance.max(initial=0)))
        left, heights, bends = _peaks(np.concatenate((weighted, weighted.sum(0)[None])), self.band)
        common = left[-1]
        return Matches(
            points=points,
            shifts=expected + left[:-1],
            significance=heights[:-1] / (np.sqrt(variance) + tiny),
            common=Motion(motion.dy + common[0], motion.dx + common[1], motion.scale, motion.rotation),
            common_significance=float(heights[-1] / (math.sqrt(float(variance.sum())) + tiny)),
            precision=float(bends[-1]),
            left=common,
            cross=cross,
        )

    def agreement(self, matches: Matches) -> float:
        """How well the phases agree once the common shift is undone, 0 to 1.

        Their mean cosine, each weighted by the root of its amplitude.
        """
        size = np.abs(matches.cross)
        scale = np.sqrt(size.sum(0))
        pooled = matches.cross.sum(0) * self.band.used
        root = np.sqrt(size).sum(0) * scale * self.band.used
        shift = matches.left
        turn = np.exp(2j * np.pi * (self.band.fy * shift[0] + self.band.fx * shift[1]))
        scale += 1e-30
        total = float((root / scale).sum())
        real = float(((pooled * turn).real / scale).sum())
        return float(np.clip(real / total, 0, 1)) if total > 0 else 0.0

    def _weights(self, cross: np.ndarray, high: np.ndarray, *, whitened: bool) -> np.ndarray:
        """Weight of each frequency, from the coherence of its ring over all windows."""
        band = self.band
        power = np.sqrt(self.low_power * band.sums(square(high).sum(0)))
        tiny = 1e-6 * float(power.max(initial=0)) + 1e-30
        counted = band.stands_for * band.used
        if whitened:
            return counted * (np.exp(-((band.radius / 0.2) ** 2)) / (power + tiny))[band.ring]
        common = np.maximum(band.sums(cross.real.sum(0)), 0)
        coherence = np.minimum((common / (power + tiny)) ** 2, 0.99)
        coherence = np.where(len(cross) * band.counts * coherence > 6, coherence, 0)  # less is chance
        mean = common / np.maximum(band.counts, 1)
        return counted * (coherence / (1 - coherence) / (mean + tiny))[band.ring]


def square(values: np.ndarray) -> np.ndarray:
    """Squared magnitudes of complex values."""
    return np.asarray(values.real**2 + values.imag**2)


def _peaks(spectra: np.ndarray, band: Band) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where (N, 2), how high and how sharply bent (N,) sum Re spectra exp(2 pi i f d) peaks.

    d within a sixth of the side. The best whole pixel, then Newton's method on the band-limited surface.
    """
    side = spectra.shape[1]
    surface = fft.irfft2(spectra * (1 / band.stands_for), s=(side, side))
    reach = max(side // 6, 1)
    near = np.r_[0 : reach + 1, -reach:0]
    surface = surface[:, near][:, :, near]
    best = np.argmax(surface.reshape(len(spectra), -1), axis=1)
    whole = np.stack((near[best // len(near)], near[best % len(near)]), axis=1).astype(float)
    shift = whole
    for step in range(3):
        rows, columns = band.turns(shift)
        # derivatives of order (y, x)
        table = (rows[:, None, :] * band.down) @ spectra @ (columns[:, None, :] * band.across).swapaxes(1, 2)
        table = table.real.astype(float)
        height, hyy, hxx, hxy = table[:, 0, 0], table[:, 2, 0], table[:, 0, 2], table[:, 1, 1]
        determinant = hyy * hxx - hxy**2
        bent = (hyy < 0) & (determinant > 0)
        if step == 2:
            break
        hy, hx = table[:, 1, 0], table[:, 0, 1]
        move = np.stack((hxx * hy - hxy * hx, hyy * hx - hxy * hy), axis=1)
        move *= (bent / np.where(bent, determinant, 1))[:, None]
        shift = np.minimum(np.maximum(shift - move, whole - 1), whole + 1)
    return shift, height, np.where(bent, np.sqrt(np.maximum(determinant, 0)), 0)


def grid(shape: tuple[int, ...]) -> np.ndarray:
    """Centres (N, 2) of windows that cover the field side by side, relative to its centre."""
    side = window_side(shape)
    lines = []
    for length in shape:
        count = max(1, round(length / side))
        lines.append(np.linspace(side / 2, length - side / 2, count) - length / 2)
    return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 2)


def window_side(shape: tuple[int, ...]) -> int:
    side = WINDOW
    while side > min(shape):
        side //= 2
    return side


def hann(length: int, offset: np.ndarray | float = 0.0) -> np.ndarray:
    """A Hann window centred `offset` samples off the middle, zero outside; (N, length) for offsets (N, 1)."""
    position = (np.arange(length) - (length - 1) / 2 - offset) / (length + 1)
    return np.where(np.abs(position) < 0.5, np.cos(np.pi * position) ** 2, 0).astype(np.float32)
