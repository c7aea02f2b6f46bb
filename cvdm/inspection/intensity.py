"""How an image (H, W) uses its scale of intensities: clipped ends, range in use, grey levels.

All numbers come from one histogram: of every pixel where the values are whole numbers, else of a regular
sample of at most 2^18 pixels.

Clipping is told from values that are merely rare or merely common: the histogram of an image that is not
clipped runs on smoothly to its last value, so the count there is compared with the one that the next four
values lead to expect.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SAMPLE = 2**18  # pixels, of images whose values are not whole numbers
LARGEST_HISTOGRAM = 2**17  # values
AT_ONCE = 2**15  # pixels that are counted together: stay in the processor's cache
# Weights of the logarithms of the next four counts in a straight line's value at the end itself.
TREND = np.array([1.0, 0.5, 0.0, -0.5])
INNER = (0.001, 0.999)  # of the pixels: what lies outside is no use of the range
POPULATED = 5  # pixels of a value, beside which a missing value is a gap
STEP_QUANTILE = 0.1


@dataclass(frozen=True)
class End:
    """One end of the histogram.

    value:   the lowest or highest value.
    share:   of the pixels that have it, 0 to 1.
    excess:  share of the pixels that have it beyond what the next values lead to expect: the clipped ones.
    pile_up: share over expected share; about 1 or less where nothing is clipped.
    """

    value: float
    share: float
    excess: float
    pile_up: float


@dataclass(frozen=True)
class Intensity:
    """Use of the intensity scale.

    low, high:   the two ends.
    span:        between the 0.1 and 99.9 percentiles, in the image's units.
    range_share: span over the full range of the file's type, 0 to 1; None for floating point.
    levels:      different values in the image (in the sample).
    step:        mean distance of neighbouring values that occur, in the image's units, where the histogram is
                 populated enough to tell: 1 for an integer image as recorded, more after a stretch.
    span_levels: values that fit into the span at this step: what is left of the bit depth.
    """

    low: End
    high: End
    span: float
    range_share: float | None
    levels: int
    step: float
    span_levels: float


def intensity(pixels: np.ndarray, *, full_range: float | None) -> Intensity | None:
    """Measure one image; full_range is the largest value of its type. None for a constant image."""
    values, counts = _histogram(pixels)
    if len(values) < 2:
        return None
    total = int(counts.sum())
    cumulative = np.cumsum(counts)
    low, high = (values[np.searchsorted(cumulative, share * total)] for share in INNER)
    step = _step(values, counts, low, high)
    span = float(high - low)
    return Intensity(
        low=_end(values, counts, total),
        high=_end(values[::-1], counts[::-1], total),
        span=span,
        range_share=None if full_range is None else span / full_range,
        levels=len(values),
        step=step,
        span_levels=span / step + 1,
    )


def _histogram(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values that occur, ascending, and how often."""
    if pixels.dtype in (np.uint8, np.uint16):
        occurring = _short_counts(pixels.ravel())
        levels = np.flatnonzero(occurring)
        return levels.astype(np.float64), occurring[levels]
    lowest, highest = float(pixels.min()), float(pixels.max())
    if highest - lowest < LARGEST_HISTOGRAM and lowest == round(lowest):
        counts = _counts(pixels.ravel(), lowest, int(highest - lowest) + 1)
        if counts is not None:
            present = np.flatnonzero(counts)
            return present + lowest, counts[present]
    return np.unique(
        pixels.ravel()[:: max(1, -(-pixels.size // SAMPLE))].astype(np.float64), return_counts=True
    )


def _short_counts(values: np.ndarray) -> np.ndarray:
    """How often each value from 0 up occurs among values (N,) of uint8 or uint16."""
    if values.dtype != np.uint8 or values.size % 2:
        return np.bincount(values)
    # two bytes at a time, which takes half as long
    pairs = np.bincount(values.view(np.uint16), minlength=2**16).reshape(2**8, 2**8)
    return np.asarray(pairs.sum(axis=0) + pairs.sum(axis=1))


def _counts(values: np.ndarray, lowest: float, length: int) -> np.ndarray | None:
    """How often each whole number from `lowest` up occurs; None where some value is none."""
    counts = np.zeros(length, dtype=np.int64)
    whole_type = np.uint16 if length <= 2**16 else np.uint32
    step = max(AT_ONCE, 4 * length)
    for start in range(0, len(values), step):
        above = values[start : start + step] - np.float32(lowest)
        whole = above.astype(whole_type)
        if not (whole == above).all():
            return None
        counts += np.bincount(whole, minlength=length)
    return counts


def _end(values: np.ndarray, counts: np.ndarray, total: int) -> End:
    """The first of the given values against a log-linear trend through the next four."""
    beside = counts[1 : 1 + len(TREND)].astype(np.float64)
    expected = float(beside.mean())
    if len(beside) == len(TREND):
        trend = float(np.exp(TREND @ np.log(beside)))
        # a trend may rise or fall towards the end, but no faster than fourfold
        expected = float(np.clip(trend, expected / 4, 4 * beside.max()))
    here = float(counts[0])
    return End(float(values[0]), here / total, max(0.0, here - expected) / total, here / expected)


def _step(values: np.ndarray, counts: np.ndarray, low: float, high: float) -> float:
    """Mean distance of neighbouring values, weighted by pixels; only among values of five pixels and more.

    Between such values a gap is no accident of few pixels. Where there are none, the smallest distances say
    at least how fine the scale is.
    """
    inside = (values[:-1] >= low) & (values[1:] <= high)
    gaps, weights = np.diff(values), np.minimum(counts[:-1], counts[1:])
    if inside.any():
        gaps, weights = gaps[inside], weights[inside]
    populated = weights >= POPULATED
    if populated.any():
        return float(np.average(gaps[populated], weights=weights[populated]))
    return float(np.quantile(gaps, STEP_QUANTILE))
