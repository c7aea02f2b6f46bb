"""Evaluate a local network on an image of any size, tile by tile, as if it had been one piece.

Tiles are taken in reading order, and what no later tile will change is handed out at once, so that neither
the image nor the result need fit into memory: what is held is one tile, and the seams that are blended.

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
        their number allows, and where they do not add up the last window sees more of the image: all windows
        are as long, because convolutions keep something for every shape that they have seen.
        """
        assert length % self.stride == 0, "pad the image to a multiple of the stride first"
        core = -(-self.tile // self.stride) * self.stride
        halo = -(-(self.margin + self.ramp) // self.stride) * self.stride
        inner = max(length - 2 * halo, self.stride)
        count = -(-inner // core)
        core = -(-inner // (count * self.stride)) * self.stride
        cuts = [0, *range(halo + core, length - halo, core), length]
        for start, stop in pairwise(cuts):
            yield Window(
                start,
                stop,
                first=max(0, min(start - halo, length - 2 * halo - core)),
                last=min(length, stop + halo),
                begin=max(0, start - self.ramp),
                end=min(length, stop + self.ramp),
                settled=length if stop == length else stop - self.ramp,
            )

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
    begin: int
    """Where the values that are used begin: those of the core and of the ramps beside it."""
    end: int
    """Where they end."""
    settled: int
    """Up to where no later window has a say."""

    @property
    def used(self) -> slice:
        """Of what the network is shown, that of which the values are used."""
        return slice(self.begin - self.first, self.end - self.first)

    def weights(self, ramp: int, device: torch.device) -> Tensor:
        """Of the values that are used: 1 inside the core, falling to 0 over `ramp` pixels outside it."""
        position = torch.arange(self.begin, self.end, device=device, dtype=torch.float32)
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
    columns, done, seams = list(tiling.windows(width)), begin, _Seams(tiling.ramp, width)
    for row in tiling.strips(height, begin):
        if len(columns) == 1 and row.last - row.first == height:
            whole = Region(0, height, 0, width)
            yield whole, network(whole)
            return
        for column in columns:
            seen = Region(row.first, row.last, column.first, column.last)
            if row.settled <= done:
                seams.blend(row, column, network(seen))
                continue
            # Kept under no name: it would be there still while the next tile is evaluated.
            yield (
                Region(done, row.settled, column.begin, column.settled),
                seams.blend(row, column, network(seen))[:, :, done - row.begin :],
            )
        done = max(done, row.settled)


class _Seams:
    """What the tiles so far have said of pixels in which later ones have a say, too.

    Sums (B, D + 1, h, w) of the weighted values and, last, of the weights.
    """

    def __init__(self, ramp: int, width: int) -> None:
        self.ramp, self.width = ramp, width
        self.above: Tensor | None = None  # the first rows of the current strip, as wide as the image
        self.beside: Tensor | None = None  # the first columns of the current tile, as high as the strip
        self.below: list[Tensor] = []  # of each tile of the current strip the first rows of the next one

    def blend(self, row: Window, column: Window, part: Tensor) -> Tensor:
        """Take in the next tile (B, D, h, w); returns the values of what is settled by it."""
        values = part[..., row.used, column.used]
        weight = row.weights(self.ramp, part.device).view(-1, 1) * column.weights(self.ramp, part.device)
        sums = torch.cat([values * weight, weight.expand(len(part), 1, -1, -1)], dim=1)
        known = 0
        if self.beside is not None:
            known = self.beside.shape[-1]
            sums[..., :known] += self.beside
        if self.above is not None:
            sums[:, :, : self.above.shape[2], known:] += self.above[..., column.begin + known : column.end]
        rows, columns = row.settled - row.begin, column.settled - column.begin
        self.beside = sums[..., columns:].clone()
        self.below.append(sums[:, :, rows:, :columns].clone())
        if column.settled == self.width:
            self.above, self.beside, self.below = torch.cat(self.below, dim=-1), None, []
        return sums[:, :-1, :rows, :columns] / sums[:, -1:, :rows, :columns]
