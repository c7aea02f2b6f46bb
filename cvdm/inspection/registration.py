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

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy import fft

from cvdm.inspection.numeric_range import moderate

FIELD_SIDE = 256  # px, longest side at which local windows are compared, about; larger fields are reduced
FINEST = 2  # reduction of the finest level; little is seen beyond a quarter of the sampling rate
WINDOW = 64  # px, side of a local window; smaller in small fields
REFINED_WINDOWS = 16  # windows at the finer levels
TOP_FREQUENCY = 0.45  # cycles per pixel of the reduced field
SIGNIFICANT = 7.0  # a window counts above this many standard deviations of windows without common structure
ENOUGH_WINDOWS = 4  # for rotation and scale


@dataclass(frozen=True)
class Registration:
    """How high lies on low: p of low is found at centre + (1 + scale) R(rotation) (p - centre) + shift.

    dy, dx:       shift in pixels at the centre of the field, positive downwards and to the right.
    error_px:     standard error of the shift, from the sharpness of the correlation peak.
    rotation_deg: in degrees, positive counter-clockwise as displayed; None with fewer than four windows.
    scale:        relative enlargement, 0.01 is one percent; None with fewer than four windows.
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


@dataclass(frozen=True)
class _Motion:
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

    def enlarged(self, factor: float) -> _Motion:
        return _Motion(self.dy * factor, self.dx * factor, self.scale, self.rotation)


@dataclass(frozen=True)
class _Matches:
    """What N windows say, and what all of them say together.

    points, shifts:      (N, 2), centroids of their structure and where those moved.
    significance:        (N,) of their correlation peaks.
    common:              the predicted motion plus the one shift that fits all windows best.
    common_significance: of that shift's correlation peak.
    precision:           of that shift, 1 / px^2.
    agreement:           of the phases with that shift, 0 to 1.
    """

    points: np.ndarray
    shifts: np.ndarray
    significance: np.ndarray
    common: _Motion
    common_significance: float
    precision: float
    agreement: float


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
    field = _Field(*pyramid[0], _grid(pyramid[0][0].shape))
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
        residual_px=factor * 1.2 * float(np.median(left)) if fitted else None,
        confidence=matches.agreement,
        significance=matches.common_significance,
        windows=int(counted.sum()),
    )


def _followed(matches: _Matches) -> tuple[_Motion, bool]:
    """The motion that windows of common structure share, and whether it holds rotation and scale."""
    counted = matches.significance >= SIGNIFICANT
    fitted = _fit(matches.points[counted], matches.shifts[counted], matches.significance[counted])
    return (matches.common, False) if fitted is None else (fitted, True)


def _refined(
    pyramid: list[tuple[np.ndarray, np.ndarray]], field: _Field, matches: _Matches, motion: _Motion
) -> tuple[float, float, float]:
    """Shift and its standard error in pixels of the first level, from all levels by precision."""
    best = field.points[np.argsort(-matches.significance)[:REFINED_WINDOWS]]
    shifts, precisions = [(matches.common.dy, matches.common.dx)], [matches.precision]
    for level, pair in enumerate(pyramid[1:], start=1):
        finer = 2.0**level
        found = _Field(*pair, best * finer).match(motion.enlarged(finer), whitened=False)
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
    pairs = [(_reduced(low, finest), _reduced(high, finest))]
    while finest < factor:
        finest *= 2
        pairs.insert(0, (_reduced(pairs[0][0], 2), _reduced(pairs[0][1], 2)))
    return pairs


def _reduced(image: np.ndarray, factor: int) -> np.ndarray:
    """Means of factor x factor blocks, float32; rows and columns that fill no block are left out."""
    image = np.asarray(image, np.float32)
    if factor == 1:
        return image
    height, width = (side // factor * factor for side in image.shape)
    total = sum(image[i:height:factor, j:width:factor] for i in range(factor) for j in range(factor))
    return np.asarray(total, np.float32) / np.float32(factor**2)


def _coarse(low: np.ndarray, high: np.ndarray) -> _Motion:
    """The whole field's shift to the pixel, or none where that explains the pair as well."""
    taper = np.outer(_hann(low.shape[0]), _hann(low.shape[1]))
    a, b = (fft.rfft2((image - np.average(image, weights=taper)) * taper) for image in (low, high))
    cross = a.conj() * b
    band = _band(low.shape)
    size = np.abs(cross)
    soft = np.exp(-((band.fy**2 + band.fx**2) / 0.3**2)) / np.sqrt(size + 1e-12 * size.max() + 1e-30)
    candidates = [(0, 0)]
    for spectrum in (cross, cross * soft):
        surface = fft.irfft2(spectrum, s=low.shape)
        peak = np.unravel_index(np.argmax(surface), surface.shape)
        y, x = (int((p + n // 2) % n - n // 2) for p, n in zip(peak, low.shape, strict=True))
        candidates.append((y, x))
    power = band.sums(np.abs(a) ** 2) * band.sums(np.abs(b) ** 2)

    def explained(candidate: tuple[int, int]) -> float:
        turned = cross * np.exp(2j * np.pi * band.fy * candidate[0]).astype(np.complex64)
        turned *= np.exp(2j * np.pi * band.fx * candidate[1]).astype(np.complex64)
        common = np.maximum(band.sums(turned.real), 0)
        return float(np.sum(band.counts * common**2 / np.maximum(power, 1e-300)))

    dy, dx = max(dict.fromkeys(candidates), key=explained)
    return _Motion(dy, dx)


class _Band:
    """Frequencies of a real spectrum (H, W/2 + 1) in cycles per pixel, and their rings."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.fy = fft.fftfreq(shape[0]).astype(np.float32)[:, None]
        self.fx = fft.rfftfreq(shape[1]).astype(np.float32)[None]
        radius = np.hypot(self.fy, self.fx)
        self.used = (radius > 0) & (radius <= TOP_FREQUENCY)
        self.ring = np.where(self.used, np.rint(radius * min(shape)), 0).astype(int)
        self.counts = self.sums(np.ones(self.ring.shape))
        self.radius = np.arange(len(self.counts)) / min(shape)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum of (H, W/2 + 1) over each ring; ring 0 holds what is not used."""
        return np.bincount(self.ring.ravel(), (values * self.used).ravel())


@functools.lru_cache(maxsize=8)
def _band(shape: tuple[int, ...]) -> _Band:
    return _Band(shape)


class _Field:
    """Local windows of a pair around given points; the input's spectra are computed once."""

    def __init__(self, low: np.ndarray, high: np.ndarray, points: np.ndarray) -> None:
        self.high = high
        shape = np.array(low.shape)
        self.side = _window_side(low.shape)
        self.room = shape - self.side
        self.corners = np.clip(np.rint(points + (shape - self.side) / 2).astype(int), 0, self.room)
        self.points = self.corners + (self.side - shape) / 2
        self.band = _band((self.side, self.side))
        self.low_windows = self._windows(low, self.corners, np.zeros_like(self.points))
        self.low = fft.rfft2(self.low_windows)
        self.low_power = self.band.sums((np.abs(self.low) ** 2).sum(0))

    def _windows(self, image: np.ndarray, corners: np.ndarray, fractions: np.ndarray) -> np.ndarray:
        """Windows (N, side, side) without their mean, tapered about points `fractions` off their centres."""
        n = self.side
        windows = np.stack([image[y : y + n, x : x + n] for y, x in corners])
        rows, columns = _hann(n, fractions[:, :1]), _hann(n, fractions[:, 1:])
        taper = rows[:, :, None] * columns[:, None, :]
        means = (windows * taper).sum((1, 2)) / (rows.sum(1) * columns.sum(1))
        windows -= means[:, None, None]
        return np.asarray(windows * taper)

    def _centroids(self, high: np.ndarray) -> np.ndarray:
        """Points (N, 2) at which the structure lies that each pair of windows has in common."""
        shared = self.low_windows * high
        position = np.arange(self.side) + 0.5 - self.side / 2
        total = np.maximum(shared.sum((1, 2)), 1e-30)
        off = np.stack((shared.sum(2) @ position, shared.sum(1) @ position), axis=1) / total[:, None]
        return self.points + np.clip(off, -self.side / 4, self.side / 4)

    def match(self, motion: _Motion, *, whitened: bool) -> _Matches:
        """Compare each window of low with high where `motion` predicts it."""
        predicted = motion.at(self.points)
        corners = np.clip(np.rint(self.corners + predicted).astype(int), 0, self.room)
        offsets = corners - self.corners
        fractions = np.clip(predicted - offsets, -self.side / 8, self.side / 8)
        windows = self._windows(self.high, corners, fractions)
        high = fft.rfft2(windows)
        points = self._centroids(windows)
        expected = motion.at(points)
        turned = 2j * np.pi * (expected - offsets)
        cross = self.low.conj() * high
        cross *= np.exp(turned[:, :1] * self.band.fy[:, 0]).astype(np.complex64)[:, :, None]
        cross *= np.exp(turned[:, 1:] * self.band.fx[0]).astype(np.complex64)[:, None, :]
        # what is left in the phases is what the prediction missed
        weighted = cross * self._weights(cross, high, whitened=whitened).astype(np.float32)
        variance = 0.5 * (np.abs(weighted) ** 2).sum((1, 2))
        tiny = 1e-30 + 1e-6 * math.sqrt(float(variance.max(initial=0)))
        left, heights, _ = _peaks(weighted, self.band)
        common, height, bend = _peaks(weighted.sum(0)[None], self.band)
        return _Matches(
            points=points,
            shifts=expected + left,
            significance=heights / (np.sqrt(variance) + tiny),
            common=_Motion(motion.dy + common[0, 0], motion.dx + common[0, 1], motion.scale, motion.rotation),
            common_significance=float(height[0] / (math.sqrt(float(variance.sum())) + tiny)),
            precision=float(bend[0]),
            agreement=self._agreement(cross, common[0]),
        )

    def _agreement(self, cross: np.ndarray, shift: np.ndarray) -> float:
        """Mean cosine of the phases once `shift` is undone, each weighted by the root of its amplitude."""
        pooled = cross.sum(0) * self.band.used
        root = np.sqrt(np.abs(cross)).sum(0) * np.sqrt(np.abs(cross).sum(0)) * self.band.used
        turn = np.exp(2j * np.pi * (self.band.fy * shift[0] + self.band.fx * shift[1]))
        scale = np.sqrt(np.abs(cross).sum(0)) + 1e-30
        total = float((root / scale).sum())
        real = float(((pooled * turn).real / scale).sum())
        return float(np.clip(real / total, 0, 1)) if total > 0 else 0.0

    def _weights(self, cross: np.ndarray, high: np.ndarray, *, whitened: bool) -> np.ndarray:
        """Weight of each frequency, from the coherence of its ring over all windows."""
        band = self.band
        power = np.sqrt(self.low_power * band.sums((np.abs(high) ** 2).sum(0)))
        tiny = 1e-6 * float(power.max(initial=0)) + 1e-30
        twice = np.where(band.fx > 0, 2.0, 1.0) * band.used  # most columns stand for two
        if whitened:
            return twice * (np.exp(-((band.radius / 0.2) ** 2)) / (power + tiny))[band.ring]
        common = np.maximum(band.sums(cross.real.sum(0)), 0)
        coherence = np.minimum((common / (power + tiny)) ** 2, 0.99)
        coherence = np.where(len(cross) * band.counts * coherence > 6, coherence, 0)  # less is chance
        return twice * (coherence / (1 - coherence) / (common / np.maximum(band.counts, 1) + tiny))[band.ring]


def _peaks(spectra: np.ndarray, band: _Band) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where (N, 2), how high and how sharply bent (N,) sum Re spectra exp(2 pi i f d) peaks.

    d within a sixth of the side. The best whole pixel, then Newton's method on the band-limited surface.
    """
    side = spectra.shape[1]
    surface = fft.irfft2(spectra * np.where(band.fx > 0, 0.5, 1.0).astype(np.float32), s=(side, side))
    reach = max(side // 6, 1)
    near = np.r_[0 : reach + 1, -reach:0]
    surface = surface[:, near][:, :, near]
    best = np.argmax(surface.reshape(len(spectra), -1), axis=1)
    whole = np.stack((near[best // len(near)], near[best % len(near)]), axis=1).astype(float)
    shift = whole
    py, px = 2j * np.pi * band.fy[:, 0], 2j * np.pi * band.fx[0]
    for step in range(3):
        ey, ex = np.exp(shift[:, :1] * py), np.exp(shift[:, 1:] * px)
        rows = np.stack((ey, ey * py, ey * py**2), axis=1).astype(np.complex64)  # (N, 3, side)
        columns = np.stack((ex, ex * px, ex * px**2), axis=2).astype(np.complex64)
        table = (rows @ spectra @ columns).real.astype(float)  # derivatives of order (y, x)
        height, hyy, hxx, hxy = table[:, 0, 0], table[:, 2, 0], table[:, 0, 2], table[:, 1, 1]
        determinant = hyy * hxx - hxy**2
        bent = (hyy < 0) & (determinant > 0)
        if step == 2:
            break
        scale = np.where(bent, determinant, 1)
        dy = np.where(bent, (hxx * table[:, 1, 0] - hxy * table[:, 0, 1]) / scale, 0)
        dx = np.where(bent, (hyy * table[:, 0, 1] - hxy * table[:, 1, 0]) / scale, 0)
        shift = np.clip(shift - np.stack((dy, dx), axis=1), whole - 1, whole + 1)
    return shift, height, np.where(bent, np.sqrt(np.maximum(determinant, 0)), 0)


def _fit(points: np.ndarray, shifts: np.ndarray, trust: np.ndarray) -> _Motion | None:
    """The similarity of weighted least squares, outliers losing weight (Cauchy); None for too few points."""
    if len(points) < ENOUGH_WINDOWS or np.ptp(points, axis=0).max() == 0:
        return None
    y, x = points.T
    one, none = np.ones_like(y), np.zeros_like(y)
    rows = np.concatenate((np.stack((one, none, y, -x), 1), np.stack((none, one, x, y), 1)))
    wanted = np.concatenate(shifts.T)
    weights = trust.astype(float)
    for _ in range(8):
        root = np.concatenate((weights, weights))
        a, *_ = np.linalg.lstsq(rows * root[:, None], wanted * root, rcond=None)
        left = np.hypot(*(wanted - rows @ a).reshape(2, -1))
        weights = trust / np.sqrt(1 + (left / (2 * np.median(left) + 1e-3)) ** 2)
    scale = math.hypot(1 + a[2], a[3]) - 1
    return _Motion(float(a[0]), float(a[1]), scale, math.atan2(a[3], 1 + a[2]))


def _grid(shape: tuple[int, ...]) -> np.ndarray:
    """Centres (N, 2) of windows that cover the field side by side, relative to its centre."""
    side = _window_side(shape)
    lines = []
    for length in shape:
        count = max(1, round(length / side))
        lines.append(np.linspace(side / 2, length - side / 2, count) - length / 2)
    return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 2)


def _window_side(shape: tuple[int, ...]) -> int:
    side = WINDOW
    while side > min(shape):
        side //= 2
    return side


def _hann(length: int, offset: np.ndarray | float = 0.0) -> np.ndarray:
    """A Hann window centred `offset` samples off the middle, zero outside; (N, length) for offsets (N, 1)."""
    position = (np.arange(length) - (length - 1) / 2 - offset) / (length + 1)
    return np.where(np.abs(position) < 0.5, np.cos(np.pi * position) ** 2, 0).astype(np.float32)
