"""The intensity scale between a file's units and the network's, stored with the model by name.

`dataset`: one affine map for all images, from percentiles of the training inputs. It keeps the link
between brightness and noise level, so it is right where exposure and detector stay the same.
`image`: the same percentiles taken from each image. It serves images of any exposure or bit depth.

Inputs and targets share the map of the input, so a reconstruction comes back in the input's units. Of an
input of several channels each has a map of its own, and the target shares that of the restored one. What is
looked at are the pixels of the input, before they are brought to another grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from cvdm.errors import ConfigError

LOW_PERCENTILE, HIGH_PERCENTILE = 1.0, 99.8
NORMALISATIONS = ("dataset", "image")
SAMPLED_PIXELS = 2**22
"""Of one image, at most, from which percentiles are taken: as many as 4096 x 4096 pixels give, of which every
other one in both directions is looked at."""


class Pixels(Protocol):
    """An image (H, W) in file units: an array, or what reads the part that is asked for from a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W)."""

    def __getitem__(self, index: tuple[slice, slice], /) -> np.ndarray:
        """The part at these rows and columns."""


@dataclass(frozen=True)
class IntensityScale:
    """An affine map: normalised = (value - centre) / half_range."""

    centre: float
    half_range: float

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """File units to network units, float32."""
        return ((pixels - self.centre) / self.half_range).astype(np.float32)

    def reach(self, pixels: Pixels) -> float:
        """How far an image (H, W) in file units goes from the centre, in half ranges; the training's reach 1.

        The larger one of its low and its high percentile, so that a few hot pixels do not count.
        """
        return float(max(abs((value - self.centre) / self.half_range) for value in _range(sampled(pixels))))

    def invert(self, values: np.ndarray) -> np.ndarray:
        """Network units to file units, float32."""
        return (values * self.half_range + self.centre).astype(np.float32)


@dataclass(frozen=True)
class Normalisation:
    """How an image gets its `IntensityScale`."""

    kind: str
    """`dataset` or `image`."""
    low: float
    """Value of the training inputs' low percentile, in file units; maps to -1 when kind is `dataset`."""
    high: float
    """Value of the training inputs' high percentile; maps to +1 when kind is `dataset`."""
    others: tuple[Normalisation, ...] = ()
    """Of further channels; the above is that of the restored one."""

    def __post_init__(self) -> None:
        if self.kind not in NORMALISATIONS:
            raise ConfigError(
                f"a normalisation of kind {' or '.join(NORMALISATIONS)}", f"'{self.kind}'", "Correct it."
            )

    @property
    def channels(self) -> tuple[Normalisation, ...]:
        """Of each channel, the restored one first."""
        return (replace(self, others=()), *self.others)

    def scales_of(self, centres: Sequence[Pixels]) -> tuple[IntensityScale, ...]:
        """The scale of each channel of an input, the restored one first."""
        return tuple(own.scale_of(pixels) for own, pixels in zip(self.channels, centres, strict=True))

    def scale_of(self, pixels: Pixels) -> IntensityScale:
        """The scale for the restored channel (H, W) of one input, in file units."""
        low, high = (self.low, self.high) if self.kind == "dataset" else _range(sampled(pixels))
        half_range = (high - low) / 2
        return IntensityScale((high + low) / 2, half_range if half_range > 0 else 1.0)


def fit_normalisation(kind: str, inputs: Iterable[Sequence[Pixels]]) -> Normalisation:
    """The normalisation of a training set, from the channels of its input images, the restored one first."""
    by_channel = zip(*([sampled(pixels).ravel() for pixels in channels] for channels in inputs), strict=True)
    restored, *others = (Normalisation(kind, *_range(np.concatenate(channel))) for channel in by_channel)
    return replace(restored, others=tuple(others))


def sampled(pixels: Pixels) -> np.ndarray:
    """A grid of an image's pixels, enough of them to know its intensities by."""
    height, width = pixels.shape
    step = max(2, math.ceil(math.sqrt(height * width / SAMPLED_PIXELS)))
    return np.asarray(pixels[::step, ::step])


def _range(values: np.ndarray) -> tuple[float, float]:
    """Low and high percentile."""
    low, high = np.percentile(values, [LOW_PERCENTILE, HIGH_PERCENTILE])
    return float(low), float(high)
