"""A part of an image, as whoever works on one part after the other names it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

BAND_PIXELS = 2**19
"""Of a band, roughly: what is read or written of a large image at once."""


class Region(NamedTuple):
    """Rows [top, bottom) and columns [left, right) of an image."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Of the last two axes of an array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def bands(height: int, width: int) -> Iterator[Region]:
    """An image of that size from top to bottom, in parts that are no burden on memory."""
    rows = max(1, BAND_PIXELS // width)
    for top in range(0, height, rows):
        yield Region(top, min(top + rows, height), 0, width)


def mirrored(positions: np.ndarray, length: int) -> np.ndarray:
    """Which of `length` pixels stand at positions inside and outside, where an image goes on as its mirror
    image (half-sample symmetric)."""
    positions = positions % (2 * length)
    return np.minimum(positions, 2 * length - 1 - positions)
