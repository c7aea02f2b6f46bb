"""Training patches: the batch of step n is a pure function of (dataset, seed, n).

Nothing is consumed in order, so a resumed training sees what an uninterrupted one would have seen.
Fields are drawn evenly, whatever their number of captures; patches are flipped and turned at random.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cvdm.dataset import Dataset, Pair
from cvdm.errors import DatasetError, TrainingError
from cvdm.images import read_image
from cvdm.normalisation import Normalisation


@dataclass(frozen=True)
class ImagePair:
    """A pair in memory, in file units."""

    field: str
    low: np.ndarray
    """(H, W) float32."""
    high: np.ndarray
    """(H, W) float32."""


def read_pair(pair: Pair) -> ImagePair:
    """Read both images of a pair. Raises ImageError, DatasetError when their shapes differ."""
    low, high = read_image(pair.low).pixels, read_image(pair.high).pixels
    if low.shape != high.shape:
        raise DatasetError(
            f"input and target of {pair.name} to have one shape",
            f"{low.shape[0]} x {low.shape[1]} and {high.shape[0]} x {high.shape[1]}",
            "Export both at the same size and position.",
        )
    return ImagePair(pair.field, low, high)


class PatchSource:
    """The training fields of a dataset, held in memory, cut into random patches."""

    def __init__(
        self, dataset: Dataset, normalisation: Normalisation, *, patch: int, batch: int, seed: int
    ) -> None:
        self.patch, self.batch, self.seed = patch, batch, seed
        self.normalisation = normalisation
        self._by_field: dict[str, list[ImagePair]] = {}
        for pair in dataset.split("train"):
            image = read_pair(pair)
            if min(image.low.shape) < patch:
                raise TrainingError(
                    f"training images of at least {patch} x {patch} pixels",
                    f"{pair.name} with {image.low.shape[0]} x {image.low.shape[1]}",
                    "Lower training.patch or leave the pair out.",
                )
            self._by_field.setdefault(pair.field, []).append(image)
        self._fields = sorted(self._by_field)

    def batch_at(self, step: int) -> tuple[Tensor, Tensor]:
        """Observations and targets of training step `step`, each (B, 1, P, P), normalised, on the CPU."""
        rng = np.random.default_rng((self.seed, step))
        patches = [self._patch(rng) for _ in range(self.batch)]
        low, high = (torch.from_numpy(np.stack(images)[:, None]) for images in zip(*patches, strict=True))
        return low, high

    def _patch(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        captures = self._by_field[self._fields[rng.integers(len(self._fields))]]
        image = captures[rng.integers(len(captures))]
        top, left = (rng.integers(size - self.patch + 1) for size in image.low.shape)
        window = np.s_[top : top + self.patch, left : left + self.patch]
        scale = self.normalisation.scale_of(image.low)
        turns, flip = rng.integers(4), rng.integers(2)
        low, high = (np.rot90(scale.apply(pixels[window]), int(turns)) for pixels in (image.low, image.high))
        return (low[:, ::-1].copy(), high[:, ::-1].copy()) if flip else (low.copy(), high.copy())
