"""How the input's intensities relate to the target's: monotone, linear, curved, or stretched separately.

    x, y = means of blocks of input and target, which noise and small shifts hardly move
    sample = as many blocks of each brightness, so that the background, often most of a field, does not decide
    y = gain x + offset     median of slopes (Theil 1950, Sen 1968) over medians of groups of like brightness

Two images stretched to the file's range each on its own fill that range exactly and share neither gain nor
zero. That is what `separate_stretch` looks for; it cannot see a stretch that leaves the ends unused.

Not covered: relations that differ from place to place (bleaching, uneven illumination), which lower the rank
correlation; a relation between images that have nothing in common is noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cvdm.inspection.blocks import block_means, group_medians, median, percentiles
from cvdm.inspection.numeric_range import moderate

BLOCK = 16  # px; less in small images
GROUPS = 16  # of brightness
PER_GROUP = 32  # blocks of each brightness in the balanced sample
SPAN_PERCENTILES = (0.5, 99.5)  # of block means: the span that groups divide


@dataclass(frozen=True)
class Relation:
    """The relation of target to input over blocks; intensities in each image's own units.

    rank_correlation: Spearman's, over a sample balanced in brightness: 1 where the relation is monotone,
                      about 0 where there is none, -1 where one image is inverted.
    gain, offset:     target = gain * input + offset.
    curvature:        how far the middle of a parabola through the relation lies above its chord, as a
                      fraction of the target's span: 0 for a line, positive where dim parts were
                      brightened; -0.25 for y = x^2.
    scatter:          robust deviation of group medians from the line, as a fraction of the target's span.
    dim_offset:       input minus target in the dimmest part, as a fraction of the target's span.
    scale_departure:  how far the pair is from a shared scale: the larger of |log gain| and |dim_offset|.
    both_fill_range:  whether each image reaches both ends of its range exactly; None where no range is known.
    separate_stretch: scale_departure where both fill their range, else 0; None where no range is known.
    """

    rank_correlation: float
    gain: float
    offset: float
    curvature: float
    scatter: float
    dim_offset: float
    scale_departure: float
    both_fill_range: bool | None
    separate_stretch: float | None


def measure_relation(
    low: np.ndarray, high: np.ndarray, *, full_range: float | None = None
) -> Relation | None:
    """Relation of high (H, W) to low (H, W); None where either is constant or has under 16 blocks.

    full_range: the largest value that the files can hold (255, 65535); None for floating point, or where the
    two files differ in type.
    """
    assert low.shape == high.shape, (low.shape, high.shape)
    side = max(1, min(BLOCK, min(low.shape) // 4))
    moderate_low, moderate_high = moderate(low), moderate(high)
    if moderate_low is None or moderate_high is None:
        return None
    x, y = (block_means(pixels, side).ravel() * float(unit) for pixels, unit in (moderate_low, moderate_high))
    if x.size < 16 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    chosen = _balanced(x)
    correlation = _spearman(x[chosen], y[chosen])
    group_x, group_y = _group_medians(x, y, math.copysign(1.0, correlation))
    span_x, span_y = np.ptp(group_x), np.ptp(group_y)
    if span_x == 0 or span_y == 0:
        return None
    gain, offset = _theil_sen(group_x, group_y)
    scatter = 1.4826 * median(np.abs(group_y - gain * group_x - offset)) / span_y
    dim = (percentiles(x, 5)[0] - percentiles(y, 5)[0]) / span_y
    departure = max(abs(math.log(gain)) if gain > 0 else math.inf, abs(dim))
    departure = min(departure, 10.0)
    fill = None if full_range is None else _fills(low, full_range) and _fills(high, full_range)
    return Relation(
        rank_correlation=correlation,
        gain=gain,
        offset=offset,
        curvature=_curvature(group_x, group_y),
        scatter=scatter,
        dim_offset=dim,
        scale_departure=departure,
        both_fill_range=fill,
        separate_stretch=None if fill is None else departure * fill,
    )


def _brightness_group(values: np.ndarray) -> np.ndarray:
    """The group (N,) of each value among GROUPS equal steps of the values' span."""
    low, high = percentiles(values, *SPAN_PERCENTILES)
    if high <= low:
        low, high = values.min(), values.max()
    step = (high - low) / GROUPS or 1.0
    return np.clip(((values - low) / step).astype(int), 0, GROUPS - 1)


def _balanced(x: np.ndarray) -> np.ndarray:
    """Indices of at most PER_GROUP blocks of each brightness, spread evenly over the field."""
    group = _brightness_group(x)
    order = np.argsort(group, kind="stable")
    chosen = []
    for members in np.split(order, np.cumsum(np.bincount(group, minlength=GROUPS))[:-1]):
        if len(members) > PER_GROUP:
            members = members[np.linspace(0, len(members) - 1, PER_GROUP).astype(int)]
        chosen.append(members)
    return np.concatenate(chosen)


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    a, b = _ranks(x), _ranks(y)
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / size if size > 0 else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    """Twice the rank (N,) of each value from 0, equal values sharing their mean rank."""
    ordered = np.sort(values)
    return np.searchsorted(ordered, values) + np.searchsorted(ordered, values, side="right") - 1


def _group_medians(x: np.ndarray, y: np.ndarray, sign: float) -> tuple[np.ndarray, np.ndarray]:
    """Medians of x and y in groups of like joint brightness, which favours neither image's noise."""
    joint = x / np.ptp(x) + sign * y / np.ptp(y)
    group = _brightness_group(joint)
    if np.count_nonzero(np.bincount(group)) < 3:  # a few bright blocks far above the rest
        group = np.argsort(np.argsort(joint)) * GROUPS // len(joint)
    return group_medians(x, group), group_medians(y, group)


def _theil_sen(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Median slope of all pairs of points, those further apart counting more; median offset."""
    first, second = np.triu_indices(len(x), 1)
    run, rise = x[second] - x[first], y[second] - y[first]
    run, rise = run[run != 0], rise[run != 0]
    slopes = rise / run
    order = np.argsort(slopes)
    share = np.cumsum(np.abs(run)[order])
    gain = float(slopes[order][np.searchsorted(share, share[-1] / 2)])
    return gain, median(y - gain * x)


def _curvature(x: np.ndarray, y: np.ndarray) -> float:
    if len(x) < 4:
        return 0.0
    t = (x - x.min()) / np.ptp(x)
    terms = np.stack((t**2, t, np.ones_like(t)), axis=1)
    square = np.linalg.lstsq(terms, (y - y.min()) / np.ptp(y), rcond=1e-9)[0][0]
    return float(-square / 4)


def _fills(image: np.ndarray, full_range: float) -> bool:
    return float(image.min()) <= 0 and float(image.max()) >= full_range
