"""An input brought to its target's finer grid, by cubic convolution (Keys 1981, a = -1/2).

Centres of pixels correspond: pixel p of the fine grid lies at u = (p + 1/2) / factor - 1/2 of the coarse one.
Four pixels along each axis decide about one of the result, and the image goes on as its mirror image beyond
its edges, so a part of the result is the same to the last bit whether it is worked out alone or with
everything around it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvdm.normalisation import Pixels
from cvdm.region import mirrored


@dataclass(frozen=True)
class Upsampled:
    """An image (H, W) on a grid that is `factor` times finer; `cvdm.normalisation.Pixels`, float32."""

    pixels: Pixels
    factor: int

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.pixels.shape
        return height * self.factor, width * self.factor

    def __getitem__(self, index: tuple[slice, slice], /) -> np.ndarray:
        (rows, down), (columns, across) = (
            _taps(np.arange(*part.indices(fine)), self.factor, coarse)
            for part, fine, coarse in zip(index, self.shape, self.pixels.shape, strict=True)
        )
        top, left = rows.min(), columns.min()
        window = np.asarray(self.pixels[top : rows.max() + 1, left : columns.max() + 1], np.float32)
        tall = sum(window[rows[:, k] - top] * down[:, k, None] for k in range(4))
        found: np.ndarray = sum(tall[:, columns[:, k] - left] * across[:, k] for k in range(4))
        return found


def on_grid(pixels: Pixels, factor: int) -> Pixels:
    """An image on a grid that is `factor` times finer; itself where that is 1."""
    return pixels if factor == 1 else Upsampled(pixels, factor)


def _taps(positions: np.ndarray, factor: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """For each position of the fine grid: the four coarse pixels (n, 4) that decide, and their weights."""
    twice = 2 * positions + 1 - factor  # u in units of 1 / (2 factor), whole numbers
    before = twice // (2 * factor)
    t = ((twice - 2 * factor * before) / (2 * factor)).astype(np.float32)
    weights = np.stack(
        [
            ((-t + 2) * t - 1) * t / 2,
            ((3 * t - 5) * t * t + 2) / 2,
            ((-3 * t + 4) * t + 1) * t / 2,
            (t - 1) * t * t / 2,
        ],
        axis=1,
    )
    return mirrored(before[:, None] + np.arange(-1, 3), length), weights
