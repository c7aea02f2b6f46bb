"""Reconstruct an image: posterior mean, spread and calibrated bounds from K streamed draws.

Memory does not grow with K (Welford's update), nor, in a workspace of files, with the image. Draws come in
antithetic pairs (`cvdm.noise`): each is a draw like any other, but in their mean the noise of sampling
cancels to first order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from cvdm.config import SamplingConfig
from cvdm.errors import ImageError
from cvdm.field_of_view import Drawn, FieldOfView, Progress
from cvdm.normalisation import Pixels, sampled
from cvdm.observation import Observation
from cvdm.optics import psf_radius, residual_map
from cvdm.planes import Workspace
from cvdm.region import Region

if TYPE_CHECKING:
    from cvdm.checkpoint import Checkpoint

Image = Pixels | Sequence[Pixels] | Observation
"""What can be restored: an observation, or one without neighbours as `Observation.of` takes it."""
LONGEST_REACH = 4.0
"""An image that goes further from the model's intensities than so many half ranges is not restored: brighter
than some 2.5 times what the model has seen, its answer would be made up."""

CHANNELS = {"reconstruction": "mean", "uncertainty_std": "std", "lower": "lower", "upper": "upper"}
"""Of a reply in their order, and which quantity of an estimate each of them is."""
SCHEDULE_MAP, RESIDUAL = "schedule_map", "residual"
"""Further channels of a reply, for who asks for them: `Reconstruction.schedule_map`, and what
`cvdm.optics.residual_map` says of the mean, where the model's forward model is known."""


@dataclass(frozen=True)
class Estimate:
    """What is known of every pixel; all arrays (H, W) float32, in the input's units."""

    mean: np.ndarray
    """Mean of the draws."""
    std: np.ndarray
    """Standard deviation of the draws about their mean, times the checkpoint's dispersion."""
    lower: np.ndarray
    """Lower bound of the calibrated interval."""
    upper: np.ndarray
    """Upper bound of the calibrated interval."""

    def channels(self) -> dict[str, np.ndarray]:
        """The channels of a reply in their order."""
        return {name: getattr(self, quantity) for name, quantity in CHANNELS.items()}


@dataclass(frozen=True)
class Reconstruction(Estimate):
    """An estimate, and how the model came to it; (H, W) float32 too."""

    schedule_map: np.ndarray
    """Time in [0, 1] at which signal and noise are equal (log-SNR 0): late where the model keeps signal."""
    regression_mean: np.ndarray
    """mu(x), the reconstruction without diffusion, in the input's units."""


class Moments:
    """Mean and standard deviation of the draws of a field of view, streamed (Welford 1962).

    The denominator is K: the mean of antithetic pairs moves too little with the draws to cost a degree of
    freedom. A batch of draws adds to what the batch before it left and leaves that as it was, so that a batch
    that was interrupted can be taken up at any part.
    """

    def __init__(self, view: FieldOfView) -> None:
        self.view = view
        shape = (1, 2, *view.shape)
        self._turns = [view.workspace.planes(f"moments-{turn}", shape, torch.float64) for turn in (0, 1)]

    def collect(self) -> Moments:
        """Draw what is not drawn yet. Returns itself."""
        for part in self.view.drawn():
            self._add(part)
        return self

    def mean_and_std(self, region: Region | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Of all draws, once collected: both (h, w) float64, in file units, of the image or of a region."""
        last = self._turns[(len(self.view.batches) - 1) % 2]
        mean, squares = last.read(region or self.view.whole)[0].numpy()
        return mean, np.sqrt(squares / self.view.sampling.samples)

    def _add(self, part: Drawn) -> None:
        mean, squares = np.zeros((2, *part.values.shape[1:]))
        if part.batch > 0:
            mean, squares = self._turns[(part.batch - 1) % 2].read(part.region)[0].numpy()
        for count, draw in enumerate(part.values, start=part.draws.start + 1):
            delta = draw - mean
            mean = mean + delta / count
            squares = squares + delta * (draw - mean)
        self._turns[part.batch % 2].write(part.region, torch.from_numpy(np.stack([mean, squares])[None]))


@dataclass(frozen=True)
class Posterior:
    """What a checkpoint says of an image; read as a whole or region by region."""

    checkpoint: Checkpoint
    view: FieldOfView
    moments: Moments
    """Collected."""

    @cached_property
    def stretch(self) -> float:
        """Of the interval, for an image that is novel to the model."""
        return self.checkpoint.stretch(self.view.observation)

    def channels(self, maps: Sequence[str] = ()) -> dict[str, Pixels]:
        """As `Estimate.channels`, worked out for the part that is asked for; that may raise ImageError.

        maps: more of them, out of `maps_of` the checkpoint.
        """
        return {name: _Channel(self, name) for name in (*CHANNELS, *maps)}

    @torch.inference_mode()
    def channel(self, name: str, region: Region) -> np.ndarray:
        """A part (h, w) of one channel, float32. Raises ImageError."""
        if name == SCHEDULE_MAP:
            return self.view.schedule_map(region)
        if name == RESIDUAL:
            return self._residual(region)
        return self.estimate(region).channels()[name]

    def _residual(self, region: Region) -> np.ndarray:
        """Worked out with so much around the region that its cut does not show."""
        optics = self.checkpoint.record.forward_model
        assert optics is not None, "see maps_of"
        height, width = self.view.shape
        around = 2 * psf_radius(optics.psf_sigma_px)  # it is blurred twice
        wide = Region(
            max(region.top - around, 0),
            min(region.bottom + around, height),
            max(region.left - around, 0),
            min(region.right + around, width),
        )
        mean, _ = self.moments.mean_and_std(wide)
        image = np.asarray(self.view.pixels[wide.slices], np.float64)
        found = residual_map(mean, image, optics)
        top, left = region.top - wide.top, region.left - wide.left
        inside = found[top : top + region.bottom - region.top, left : left + region.right - region.left]
        return inside.astype(np.float32)

    def estimate(self, region: Region | None = None) -> Estimate:
        """Of the whole image, or of a region (h, w). Raises ImageError."""
        mean, std = self.moments.mean_and_std(region)
        return estimate(self.checkpoint, self.view, mean, std, self.stretch)

    @torch.inference_mode()
    def reconstruction(self, region: Region | None = None) -> Reconstruction:
        """Everything, of the whole image or of a region (h, w). Raises ImageError."""
        return _with_maps(self.estimate(region), self.view, region)


@dataclass(frozen=True)
class _Channel:
    """One quantity of a posterior; `cvdm.normalisation.Pixels`."""

    posterior: Posterior
    name: str

    @property
    def shape(self) -> tuple[int, int]:
        return self.posterior.view.shape

    def __getitem__(self, index: tuple[slice, slice], /) -> np.ndarray:
        rows, columns = (part.indices(length) for part, length in zip(index, self.shape, strict=True))
        assert rows[2] == columns[2] == 1, index
        return self.posterior.channel(self.name, Region(*rows[:2], *columns[:2]))


def maps_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The maps that a reply of this model may have beside its channels."""
    return (SCHEDULE_MAP,) if checkpoint.record.forward_model is None else (SCHEDULE_MAP, RESIDUAL)


def require_familiar(checkpoint: Checkpoint, observation: Observation) -> None:
    """Raise ImageError when intensities of a channel lie far outside of what a model was trained on."""
    names = checkpoint.sight.names
    for name, own, pixels in zip(names, checkpoint.normalisation.channels, observation.centres, strict=True):
        if own.scale_of(pixels).reach(pixels) > LONGEST_REACH:
            seen, channel = sampled(pixels), f" in channel {name}" if name else ""
            raise ImageError(
                f"intensities like those that the model was trained on, mostly {own.low:.4g} to "
                f"{own.high:.4g}{channel}",
                f"an image of {float(seen.min()):.4g} to {float(seen.max()):.4g}",
                "Use a model for this detector, exposure and bit depth, and do not rescale images on export.",
            )


@torch.inference_mode()
def reconstruct(
    checkpoint: Checkpoint,
    image: Image,
    *,
    sampling: SamplingConfig | None = None,
    progress: Progress | None = None,
) -> Reconstruction:
    """Restore one image of any size, in file units; `sampling` defaults to the checkpoint's own.

    Raises ImageError when the image has other channels than the model sees, or intensities far outside of
    what it was trained on.
    """
    return posterior_of(checkpoint, image, sampling=sampling, progress=progress).reconstruction()


@torch.inference_mode()
def posterior_of(
    checkpoint: Checkpoint,
    image: Image,
    *,
    sampling: SamplingConfig | None = None,
    workspace: Workspace | None = None,
    progress: Progress | None = None,
) -> Posterior:
    """As `reconstruct`, for an image that need not fit into memory, nor its result.

    workspace: a folder for such an image; in one that was used before the work goes on where it ended.
    """
    observation = image if isinstance(image, Observation) else Observation.of(image, checkpoint.sight)
    require_familiar(checkpoint, observation)
    view = FieldOfView(
        checkpoint.model,
        checkpoint.normalisation,
        observation,
        sampling or checkpoint.recipe.sampling,
        workspace=workspace,
        progress=progress,
    )
    return Posterior(checkpoint, view, Moments(view).collect())


def conclude(checkpoint: Checkpoint, view: FieldOfView, draws: np.ndarray) -> Reconstruction:
    """What all draws (K, H, W) of a field of view, in file units, say together. Raises ImageError."""
    mean, std = draws.mean(0, dtype=np.float64), draws.std(0, dtype=np.float64)
    return _with_maps(estimate(checkpoint, view, mean, std, checkpoint.stretch(view.observation)), view)


def dispersed(checkpoint: Checkpoint, sampling: SamplingConfig, draws: np.ndarray) -> np.ndarray:
    """Draws (K, H, W) about the same mean, with the spread that the checkpoint was calibrated to."""
    mean = draws.mean(0)
    return mean + np.float32(checkpoint.dispersion(sampling)) * (draws - mean)


def estimate(
    checkpoint: Checkpoint, view: FieldOfView, mean: np.ndarray, std: np.ndarray, stretch: float
) -> Estimate:
    """What mean and spread of the draws as they come (h, w), in file units, say. Raises ImageError."""
    mean, std = mean.astype(np.float32), std.astype(np.float32)
    lower, upper = checkpoint.calibration.bounds(mean, std, view.scale.half_range, stretch)
    if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
        raise ImageError(
            "an image that this model can restore",
            "one that leads it to infinite or undefined values",
            "Check the image; if it is sound, use a model that was trained on such images.",
        )
    return Estimate(mean, std * np.float32(checkpoint.dispersion(view.sampling)), lower, upper)


def _with_maps(found: Estimate, view: FieldOfView, region: Region | None = None) -> Reconstruction:
    return Reconstruction(
        **vars(found), schedule_map=view.schedule_map(region), regression_mean=view.regression_mean(region)
    )
