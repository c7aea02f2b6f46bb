"""Evaluate a local network on an image of any size, tile by tile, as if it had been one piece.

A tile's window is its core plus a halo on every side that lies inside the image. The halo has two parts:
the outer `margin` is thrown away, because pixels there miss neighbours that the window cut off; over
the inner `ramp` neighbouring tiles blend linearly. With a margin of at least the network's receptive
radius every kept pixel saw all it can see, and the result does not depend on the tile size. Windows
start at multiples of the network's stride, so that the coarse grids of all tiles coincide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tiling:
    """How an image is cut; all lengths in pixels."""

    tile: int
    """Edge of a core between others; rounded up to a multiple of the stride."""
    margin: int
    """Outer part of the halo, not used; exact when at least the receptive radius."""
    ramp: int
    """Inner part of the halo, blended."""
    stride: int
    """Total stride of the network."""

    def windows(self, length: int) -> Iterator[Window]:
        """The windows along one axis of `length` pixels, a multiple of the stride.

        None is longer than a core with both halos. At the image's edges, where there is no halo, that much
        more goes to the core: an image that is as long as one window is one piece.
        """
        assert length % self.stride == 0, "pad the image to a multiple of the stride first"
        core = -(-self.tile // self.stride) * self.stride
        halo = -(-(self.margin + self.ramp) // self.stride) * self.stride
        cuts = [0, *range(halo + core, length - halo, core), length]
        for start, stop in pairwise(cuts):
            yield Window(start, stop, max(0, start - halo), min(length, stop + halo))


@dataclass(frozen=True)
class Window:
    """One tile along one axis: its core [start, stop) inside what the network is shown [first, last)."""

    start: int
    stop: int
    first: int
    last: int

    def weights(self, ramp: int, device: torch.device) -> Tensor:
        """1 inside the core, falling to 0 over `ramp` pixels outside it."""
        position = torch.arange(self.first, self.last, device=device, dtype=torch.float32)
        outside = torch.maximum(self.start - position, position - (self.stop - 1)).clamp(min=0)
        return (1 - outside / (ramp + 1)).clamp(min=0)


def exact_tiling(tile: int, receptive_radius: int, stride: int) -> Tiling:
    """The tiling whose result does not depend on `tile`."""
    return Tiling(tile, margin=receptive_radius, ramp=0, stride=stride)


def fast_tiling(tile: int, halo: int, stride: int) -> Tiling:
    """A smaller halo for speed, half thrown away and half blended; the result depends a little on `tile`."""
    return Tiling(tile, margin=halo - halo // 2, ramp=halo // 2, stride=stride)


def evaluate_tiled(network: Callable[[Tensor], Tensor], inputs: Tensor, tiling: Tiling) -> Tensor:
    """network(inputs) for inputs (B, C, H, W); the network maps (B, C, h, w) to (B, D, h, w)."""
    height, width = inputs.shape[-2:]
    rows, columns = list(tiling.windows(height)), list(tiling.windows(width))
    if len(rows) == len(columns) == 1:
        return network(inputs)
    result, weight = None, inputs.new_zeros(1, 1, height, width)
    for row in rows:
        for column in columns:
            part = network(inputs[:, :, row.first : row.last, column.first : column.last])
            ramp = row.weights(tiling.ramp, inputs.device).view(-1, 1) * column.weights(
                tiling.ramp, inputs.device
            )
            if result is None:
                result = inputs.new_zeros(*part.shape[:2], height, width)
            result[:, :, row.first : row.last, column.first : column.last] += part * ramp
            weight[:, :, row.first : row.last, column.first : column.last] += ramp
    assert result is not None
    return result / weight
