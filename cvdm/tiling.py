"""Evaluate a local network on an image of any size, tile by tile, as if it had been one piece.

Tiles are taken in reading order, and what no later tile will change is handed out at once, so that neither
the image nor the result need fit into memory: what is held is one strip, as high as a tile.

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

from cvdm.region import Region


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
        more goes to the core: an image that is as long as one window is one piece. Cores are as small as
        their number allows, so that all windows are about as long.
        """
        assert length % self.stride == 0, "pad the image to a multiple of the stride first"
        core = -(-self.tile // self.stride) * self.stride
        halo = -(-(self.margin + self.ramp) // self.stride) * self.stride
        inner = max(length - 2 * halo, self.stride)
        count = -(-inner // core)
        core = -(-inner // (count * self.stride)) * self.stride
        cuts = [0, *range(halo + core, length - halo, core), length]
        for start, stop in pairwise(cuts):
            yield Window(start, stop, max(0, start - halo), min(length, stop + halo))

    def count(self, height: int, width: int, *, begin: int = 0) -> int:
        """How many tiles of an image `evaluate_tiles` evaluates, without those that say nothing of rows from
        `begin` on.
        """
        return len(self.strips(height, begin)) * len(list(self.windows(width)))

    def strips(self, height: int, begin: int) -> list[Window]:
        """The windows along the vertical axis on which rows from `begin` on depend."""
        return [row for row in self.windows(height) if row.stop + self.ramp > begin]


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


def evaluate_tiles(
    network: Callable[[Region], Tensor], height: int, width: int, tiling: Tiling, *, begin: int = 0
) -> Iterator[tuple[Region, Tensor]]:
    """A network's values (B, D, h, w) over an image, block by block in reading order.

    network: maps a region of the image, whose values it looks up itself, to (B, D, h, w). begin: rows above
    are not wanted; those below get the same values to the last bit, wherever an evaluation begins.
    """
    columns, ramp, done = list(tiling.windows(width)), tiling.ramp, begin
    carried: Tensor | None = None
    for row in tiling.strips(height, begin):
        if len(columns) == 1 and row.last - row.first == height:
            whole = Region(0, height, 0, width)
            yield whole, network(whole)
            return
        top, bottom = max(0, row.start - ramp), min(height, row.stop + ramp)
        sums: Tensor | None = None  # (B, D + 1, bottom - top, W); of weighted values, and of the weights
        for column in columns:
            left, right = max(0, column.start - ramp), min(width, column.stop + ramp)
            part = network(Region(row.first, row.last, column.first, column.last))
            weight = row.weights(ramp, part.device).view(-1, 1) * column.weights(ramp, part.device)
            weighted = torch.cat([part * weight, weight.expand(len(part), 1, -1, -1)], dim=1)
            if sums is None:
                sums = part.new_zeros(*weighted.shape[:2], bottom - top, width)
                if carried is not None:
                    sums[:, :, : carried.shape[2]] = carried
            sums[..., left:right] += weighted[
                ..., top - row.first : bottom - row.first, left - column.first : right - column.first
            ]
        assert sums is not None
        settled = height if row.stop == height else row.stop - ramp
        if settled > done:
            for column in columns:
                region = Region(done, settled, column.start, column.stop)
                block = sums[:, :, done - top : settled - top, column.start : column.stop]
                yield region, block[:, :-1] / block[:, -1:]
            done = settled
        carried = sums[:, :, settled - top :].clone()
