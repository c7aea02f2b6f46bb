"""An observation: all that a model sees of one plane of a field of view, on the grid of its target.

    channels    the restored one first, then the others in the order of the card
    planes      of each channel: the plane itself, and its neighbours along z or time
    grid        the target's; an input that is coarser by a factor is interpolated (`cvdm.upsampling`)

`normalised` stacks them as (C', H, W), the plane that is restored first, so whoever works on the stack finds
that one at channel 0 and need not know what the others are. An observation is read region by region: its
planes may be arrays or files. Training cuts its patches out of it and restoration its tiles, so both see
the same values, and tiles, noise and schedule live on the target's grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cvdm.errors import ImageError
from cvdm.normalisation import IntensityScale, Pixels
from cvdm.region import Region
from cvdm.sight import PLAIN, Sight
from cvdm.upsampling import on_grid


@dataclass(frozen=True)
class Observation:
    """What is seen of one plane."""

    channels: tuple[tuple[Pixels, ...], ...]
    """By channel, the restored one first: its planes (H, W) in file units as they lie along their axis, the
    plane itself in the middle."""
    factor: int = 1
    """By which the target's grid is finer than that of the planes."""

    @classmethod
    def of(cls, image: Pixels | Sequence[Pixels], sight: Sight = PLAIN) -> Observation:
        """An image without neighbours, which stands for them itself.

        image: (H, W), or one for each channel in the order of the sight. Raises ImageError for another
        number of channels.
        """
        several = isinstance(image, Sequence) or (isinstance(image, np.ndarray) and image.ndim > 2)
        planes: list[Pixels] = list(image) if several else [image]  # type: ignore[list-item, arg-type]
        if len(planes) != sight.channel_count:
            named = f" ({', '.join(sight.channels)})" if sight.channels else ""
            raise ImageError(
                f"an image of {sight.channel_count} channels{named}",
                f"one of {len(planes)}",
                "Give the model the channels that it was trained on.",
            )
        return cls(tuple((planes[number],) * sight.planes for number in sight.order), sight.factor)

    @property
    def centres(self) -> tuple[Pixels, ...]:
        """Of each channel the plane itself, on the grid of the input."""
        return tuple(planes[len(planes) // 2] for planes in self.channels)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the target's grid."""
        height, width = self.centres[0].shape
        return height * self.factor, width * self.factor

    @property
    def restored(self) -> Pixels:
        """The plane that is restored, on the target's grid, in file units."""
        return on_grid(self.centres[0], self.factor)

    def normalised(self, region: Region, scales: Sequence[IntensityScale]) -> np.ndarray:
        """(C', h, w) float32 of a region of the target's grid; scales: of the channels."""
        return np.stack(
            [
                scale.apply(np.asarray(on_grid(plane, self.factor)[region.slices]))
                for planes, scale in zip(self.channels, scales, strict=True)
                for plane in _itself_first(planes)
            ]
        )

    def middle(self, side: int) -> Region:
        """The middle of at most side x side, in whole pixels of the input."""
        (top, bottom), (left, right) = (
            (first * self.factor, (first + min(length, side // self.factor)) * self.factor)
            for length in self.centres[0].shape
            for first in (max(0, (length - side // self.factor) // 2),)
        )
        return Region(top, bottom, left, right)

    def cropped(self, region: Region) -> Observation:
        """A part whose edges lie between pixels of the input; beyond them nothing is seen any more."""
        assert all(edge % self.factor == 0 for edge in region), (region, self.factor)
        part = Region(*(edge // self.factor for edge in region)).slices
        return Observation(
            tuple(tuple(np.asarray(plane[part]) for plane in planes) for planes in self.channels), self.factor
        )


def _itself_first(planes: Sequence[Pixels]) -> tuple[Pixels, ...]:
    middle = len(planes) // 2
    return (planes[middle], *planes[:middle], *planes[middle + 1 :])
