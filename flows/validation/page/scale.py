"""The axis of a measured quantity: linear, or logarithmic where values and thresholds span decades.

Positions are in the units of the drawing, values as they are shown (shares in percent). A logarithmic axis
has a gutter on its left for values at or below its floor, so that zeros have a place. Values beyond the ends
of an axis stand at its edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DECADES_FROM = 30  # ratio of largest value to smallest threshold from which an axis is logarithmic
CLIPPED_FROM = 1.5  # widths of the bulk beyond which an outlier stands at the edge
GUTTER = 24  # for zeros on a logarithmic axis
TICKS = 7


@dataclass(frozen=True)
class Scale:
    """Values to positions."""

    low: float
    high: float
    left: float
    right: float
    log: bool = False

    def position(self, value: float) -> float:
        """Where a value stands, between left and right."""
        if self.log:
            if value <= self.low:
                return self.left + GUTTER / 3
            share = math.log(value / self.low) / math.log(self.high / self.low)
            start = self.left + GUTTER
        else:
            share = (value - self.low) / (self.high - self.low)
            start = self.left
        return start + min(1.0, max(0.0, share)) * (self.right - start)

    def beyond(self, value: float) -> int:
        """-1 or 1 for a value that stands at an edge although it lies farther out, else 0."""
        if value > self.high:
            return 1
        return -1 if value < self.low and not self.log else 0

    def ticks(self) -> list[float]:
        """Round values along the axis."""
        if not self.log:
            return _round_values(self.low, self.high)
        exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        steps = (1, 2, 5) if len(exponents) <= 3 else (1,)
        values = [step * 10.0**exponent for exponent in exponents for step in steps]
        inside = [value for value in values if self.low < value <= self.high]
        return inside[:: math.ceil(len(inside) / 7)] if inside else []


def fitting_scale(
    values: Sequence[float], thresholds: Sequence[float], *, left: float, right: float, may_log: bool
) -> Scale:
    """The axis on which values and thresholds are seen best; far outliers do not squeeze the rest.

    may_log: False for a quantity that is a logarithm itself.
    """
    top = max(*values, *thresholds, 0.0)
    positive = [value for value in thresholds if value > 0]
    smallest = min(positive) if positive else float(np.median(values))
    if may_log and min(*values, *thresholds, 0.0) >= 0 and smallest > 0 and top / smallest >= DECADES_FROM:
        lowest = min([value for value in values if value > 0] + [smallest])
        floor = max(lowest, smallest / 100) / 1.5
        return Scale(floor, top * 1.3, left, right, log=True)
    q05, q95 = (float(value) for value in np.percentile(values, (5, 95)))
    inner = (min(q05, *thresholds, q95), max(q95, *thresholds, q05))
    reach = CLIPPED_FROM * (inner[1] - inner[0]) or max(abs(inner[0]), 1.0)
    low, high = max(min(values), inner[0] - reach), min(max(values), inner[1] + reach)
    low, high = min(low, inner[0]), max(high, inner[1])
    margin = 0.06 * (high - low) or 0.5
    low = 0.0 if low >= 0 and low - margin < 0 else low - margin
    return Scale(low, high + margin, left, right)


def _round_values(low: float, high: float) -> list[float]:
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]
