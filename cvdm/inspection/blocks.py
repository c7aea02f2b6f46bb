"""Means over squares of pixels, which several measures look at instead of these; medians and percentiles."""

from __future__ import annotations

import numpy as np


def block_means(image: np.ndarray, side: int) -> np.ndarray:
    """(H // side, W // side) float32 means of squares of (H, W) float32; rows and columns that fill none are
    left out.
    """
    height, width = image.shape[0] // side, image.shape[1] // side
    if side == 1 or height == 0 or width == 0:
        return np.asarray(image[:height, :width], dtype=np.float32)
    field = image[: height * side, : width * side]
    rows = field.reshape(height, side, width * side)
    rows = rows[:, 0] + rows[:, 1] if side == 2 else rows.sum(axis=1)
    # a product is many times quicker than a sum over a short axis
    sums = (rows.reshape(-1, side) @ np.ones(side, dtype=rows.dtype)).reshape(height, width)
    return np.asarray(sums / np.float32(side**2), dtype=np.float32)


def group_medians(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(G,) float64 medians of values (N,) in each group that occurs in group (N,), by ascending group."""
    order = np.lexsort((values, group))
    ordered, labels = values[order], group[order]
    starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])
    middle = starts + np.r_[starts[1:], len(labels)]
    return np.asarray((ordered[(middle - 1) // 2].astype(np.float64) + ordered[middle // 2]) / 2)


def median(values: np.ndarray) -> float:
    """The median of finite values; several times quicker than NumPy's for a few thousand of them."""
    middle = values.size // 2
    if values.size % 2:
        return float(np.partition(values, middle, axis=None)[middle])
    parted = np.partition(values, (middle - 1, middle), axis=None)
    return (float(parted[middle - 1]) + float(parted[middle])) / 2


def percentiles(values: np.ndarray, *percents: float) -> tuple[float, ...]:
    """Percentiles of finite values (N,), interpolated as NumPy's are; quicker for a few thousand of them."""
    ordered = np.sort(values).astype(np.float64, copy=False)
    places = [percent / 100 * (len(ordered) - 1) for percent in percents]
    return tuple(_between(ordered, place) for place in places)


def _between(ordered: np.ndarray, place: float) -> float:
    """The value at a place that may lie between two."""
    lower = int(place)
    below, above = float(ordered[lower]), float(ordered[min(lower + 1, len(ordered) - 1)])
    part = place - lower
    # from the nearer end, so that nothing is lost in rounding
    return below + (above - below) * part if part < 0.5 else above - (above - below) * (1 - part)
