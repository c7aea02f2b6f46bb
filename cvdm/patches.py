"""Training patches: the batch of step n is a pure function of (dataset, seed, n).

Nothing is consumed in order, so a resumed training sees what an uninterrupted one would have seen.
Fields are drawn evenly, whatever their number of captures; patches are flipped and turned at random. They
are cut on the grid of the target, out of the same observation that is restored later.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from cvdm.dataset import Dataset, Pair
from cvdm.errors import DatasetError, TrainingError
from cvdm.images import MAX_PIXELS, read_image
from cvdm.metrics import fit_intensity
from cvdm.normalisation import Normalisation
from cvdm.observation import Observation
from cvdm.places import observed, read_observation
from cvdm.reading import Stack, read_stack
from cvdm.region import Region
from cvdm.sight import Sight


@dataclass(frozen=True)
class ImagePair:
    """A pair in memory, in file units."""

    field: str
    observation: Observation
    """What a model sees; its grid is that of the target."""
    high: np.ndarray
    """(H, W) float32."""

    @cached_property
    def low(self) -> np.ndarray:
        """(H, W) float32: the input's restored channel on the target's grid."""
        return np.asarray(self.observation.restored[:, :], np.float32)

    def in_units_of_input(self) -> ImagePair:
        """With a * target + b, of least squares onto the input: its noise is no bias, unlike the reverse."""
        return replace(self, high=fit_intensity(self.high, self.low).astype(np.float32))

    def cropped(self, region: Region) -> ImagePair:
        """A part whose edges lie between pixels of the input."""
        return ImagePair(self.field, self.observation.cropped(region), self.high[region.slices])


def read_pair(pair: Pair) -> ImagePair:
    """The image of a pair; of stacks the one in the middle. Raises as `read_images`."""
    images = read_images(pair)
    return images[len(images) // 2]


def read_images(pair: Pair) -> tuple[ImagePair, ...]:
    """Both images of a pair; of a task with context, whose pairs are stacks, one for each plane.

    Raises ImageError, DatasetError when shapes or numbers of planes do not correspond.
    """
    sight = pair.sight
    if sight.context:
        with (
            read_stack(pair.low, max_pixels=MAX_PIXELS) as low,
            read_stack(pair.high, max_pixels=MAX_PIXELS) as high,
        ):
            require_stacks(pair.name, low, high, sight)
            observations = observed(low, sight)
            targets = tuple(plane.pixels for plane in high.planes())
    else:
        observations = (read_observation(pair.low, sight),)
        targets = (read_image(pair.high).pixels,)
    if observations[0].shape != targets[0].shape:
        raise _apart(pair.name, observations[0], targets[0], sight.factor)
    images = tuple(map(partial(ImagePair, pair.field), observations, targets))
    return images if pair.target_units == "input" else tuple(image.in_units_of_input() for image in images)


def require_stacks(name: str, low: Stack, high: Stack, sight: Sight) -> None:
    """Raise DatasetError unless two files are stacks of the same planes."""
    axis = sight.context_axis
    planes = tuple(dict(zip(one.axes, one.shape, strict=True)).get(axis, 1) for one in (low, high))
    inner = ({*low.axes[:-2]} - ({"C"} if sight.channels else set()), {*high.axes[:-2]})
    if any(not found <= {axis} for found in inner) or planes[0] != planes[1]:
        raise DatasetError(
            f"input and target of {name} to be stacks along {axis} of as many planes",
            f"{low.axes} with {planes[0]} and {high.axes} with {planes[1]}",
            "Export both stacks whole, or correct context_axis in the card.",
        )


def _apart(name: str, observation: Observation, target: np.ndarray, factor: int) -> DatasetError:
    (height, width), (rows, columns) = observation.centres[0].shape, target.shape
    return DatasetError(
        f"input and target of {name} to have "
        + ("one shape" if factor == 1 else f"shapes apart by the card's factor of {factor}"),
        f"{height} x {width} and {rows} x {columns}",
        "Export both at the same size and position."
        if factor == 1
        else "Export both at the same position, and see that `factor` in the card is theirs.",
    )


class PatchSource:
    """The training fields of a dataset, held in memory, cut into random patches."""

    def __init__(
        self, dataset: Dataset, normalisation: Normalisation, *, patch: int, batch: int, seed: int
    ) -> None:
        self.patch, self.batch, self.seed = patch, batch, seed
        self.normalisation = normalisation
        self._by_field: dict[str, list[ImagePair]] = {}
        for pair in dataset.split("train"):
            images = read_images(pair)
            height, width = images[0].high.shape
            if min(height, width) < patch:
                raise TrainingError(
                    f"training images of at least {patch} x {patch} pixels",
                    f"{pair.name} with {height} x {width}",
                    "Lower training.patch or leave the pair out.",
                )
            self._by_field.setdefault(pair.field, []).extend(images)
        self._fields = sorted(self._by_field)

    def batch_at(self, step: int) -> tuple[Tensor, Tensor]:
        """Observations (B, C, P, P) and targets (B, 1, P, P) of a training step, normalised, on the CPU."""
        rng = np.random.default_rng((self.seed, step))
        patches = [self._patch(rng) for _ in range(self.batch)]
        low, high = (torch.from_numpy(np.stack(images)) for images in zip(*patches, strict=True))
        return low, high

    def _patch(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        captures = self._by_field[self._fields[rng.integers(len(self._fields))]]
        image = captures[rng.integers(len(captures))]
        top, left = (int(rng.integers(size - self.patch + 1)) for size in image.high.shape)
        region = Region(top, top + self.patch, left, left + self.patch)
        scales = self.normalisation.scales_of(image.observation.centres)
        turns, flip = int(rng.integers(4)), rng.integers(2)
        low = image.observation.normalised(region, scales)
        high = scales[0].apply(image.high[region.slices])[None]
        low, high = (np.rot90(pixels, turns, axes=(1, 2)) for pixels in (low, high))
        return (low[..., ::-1].copy(), high[..., ::-1].copy()) if flip else (low.copy(), high.copy())
