"""Reconstruct an image: posterior mean, spread and calibrated bounds from K streamed draws.

The state of the sampler is the whole field of view; only evaluations of the networks are cut into
tiles, at every step, so tiles never drift apart and a result does not depend on their size.
Memory does not grow with K (Welford's update). Draws come in antithetic pairs (`cvdm.noise`):
each is a draw like any other, but in their mean the noise of sampling cancels to first order. The image gets
a border of its own reflection, up to a multiple of the networks' stride, and is cropped back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cvdm.config import SamplingConfig
from cvdm.errors import ImageError
from cvdm.model import CVDM, Condition, signal_from_velocity
from cvdm.noise import gaussian_field
from cvdm.normalisation import Normalisation
from cvdm.sampler import sample
from cvdm.schedule import SchedulePoint
from cvdm.tiling import Tiling, evaluate_tiled, exact_tiling, fast_tiling

if TYPE_CHECKING:
    from cvdm.checkpoint import Checkpoint

BORDER = 16
"""Pixels of mirrored surroundings on each side, so that the image's edge is not the network's edge."""
LONGEST_REACH = 4.0
"""An image that goes further from the model's intensities than so many half ranges is not restored: brighter
than some 2.5 times what the model has seen, its answer would be made up."""
PIXELS_AT_ONCE = 2**19
"""Draws of small images are sampled together up to this many pixels."""

Progress = Callable[[int, int], None]
"""Called with (done, total) steps, each over a batch of draws; an exception raised inside cancels."""


@dataclass(frozen=True)
class Reconstruction:
    """All arrays (H, W) float32, in the input's units unless said otherwise."""

    mean: np.ndarray
    """Mean of the draws."""
    std: np.ndarray
    """Standard deviation of the draws about their mean."""
    lower: np.ndarray
    """Lower bound of the calibrated interval."""
    upper: np.ndarray
    """Upper bound of the calibrated interval."""
    schedule_map: np.ndarray
    """Time in [0, 1] at which signal and noise are equal (log-SNR 0): late where the model keeps signal."""
    regression_mean: np.ndarray
    """mu(x), the reconstruction without diffusion."""

    def channels(self) -> dict[str, np.ndarray]:
        """The channels of a reply in their order, all in the input's units."""
        return {
            "reconstruction": self.mean,
            "uncertainty_std": self.std,
            "lower": self.lower,
            "upper": self.upper,
        }


class Moments:
    """Streaming mean and standard deviation (Welford 1962).

    The denominator is K: the mean of antithetic pairs moves too little with the draws to cost a degree of
    freedom.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = np.zeros(())
        self._squares = np.zeros(())

    def add(self, draw: np.ndarray) -> None:
        self.count += 1
        delta = draw - self.mean
        self.mean = self.mean + delta / self.count
        self._squares = self._squares + delta * (draw - self.mean)

    @property
    def std(self) -> np.ndarray:
        assert self.count >= 2, "a spread needs two draws"
        return np.sqrt(self._squares / self.count)


class FieldOfView:
    """One image under restoration: normalised, padded, conditioned on, ready to be drawn from."""

    def __init__(
        self, model: CVDM, normalisation: Normalisation, pixels: np.ndarray, sampling: SamplingConfig
    ) -> None:
        assert pixels.ndim == 2
        self.model = model
        self.shape = pixels.shape
        self.scale = normalisation.scale_of(pixels)
        self.sampling = sampling
        self.tiling = (
            fast_tiling(sampling.tile, sampling.halo, model.stride)
            if sampling.halo
            else exact_tiling(sampling.tile, model.receptive_radius(), model.stride)
        )
        padding = [(BORDER, BORDER + -(size + 2 * BORDER) % model.stride) for size in pixels.shape]
        padded = np.pad(self.scale.apply(pixels), padding, mode="symmetric")
        device = next(model.parameters()).device
        x = torch.from_numpy(padded).to(device)[None, None]
        self.condition = condition_tiled(model, x, self.tiling)

    def draws(self, progress: Progress | None = None) -> Iterator[np.ndarray]:
        """Yield the K draws (H, W), in file units, in order."""
        sampling = self.sampling
        at_once = max(1, PIXELS_AT_ONCE // self.condition.x.numel())
        batches = [
            range(first, min(first + at_once, sampling.samples))
            for first in range(0, sampling.samples, at_once)
        ]
        total = len(batches) * sampling.steps
        for index, batch in enumerate(batches):
            for step, last in enumerate(self._sample(batch), start=1):  # noqa: B007 - used below
                if progress is not None:
                    progress(index * sampling.steps + step, total)
            for residual in last:
                yield self._in_file_units(self.condition.mean[0] + self.condition.scale[0] * residual)

    def _sample(self, draws: range) -> Iterator[Tensor]:
        sampling = self.sampling
        condition = self.condition.repeat(len(draws))
        features = condition.features

        def predict(z: Tensor, point: SchedulePoint) -> Tensor:
            stacked = self.model.stack(z, point, features)
            velocity = evaluate_tiled(self.model.denoiser, stacked, self.tiling)
            return signal_from_velocity(velocity, z, point)

        def schedule_at(t: float) -> SchedulePoint:
            time = torch.full((len(draws), 1, 1, 1), t, device=condition.x.device)
            return self.model.schedule.at(time, condition.paths)

        def noise_at(step: int) -> Tensor:
            height, width = condition.x.shape[-2:]
            device = str(condition.x.device)
            fields = (
                gaussian_field(
                    height,
                    width,
                    seed=sampling.seed,
                    draw=draw,
                    step=step,
                    top=-BORDER,
                    left=-BORDER,
                    device=device,
                )
                for draw in draws
            )
            return torch.cat(list(fields))

        return sample(sampling.solver, predict, schedule_at, noise_at, sampling.steps)

    def regression_mean(self) -> np.ndarray:
        """mu(x) (H, W), in file units."""
        return self._in_file_units(self.condition.mean[0])

    def schedule_map(self, intervals: int = 32) -> np.ndarray:
        """The time of equal signal and noise per pixel, (H, W) in [0, 1], linear between the grid's times."""
        times = torch.linspace(0, 1, intervals + 1, device=self.condition.x.device).view(-1, 1, 1, 1, 1)
        paths, before = self.condition.paths, self.model.schedule.at(times[0], self.condition.paths).log_snr
        reached = torch.zeros_like(before)
        for t in times[1:]:
            after = self.model.schedule.at(t, paths).log_snr
            reached += (before / (before - after)).clamp(
                0, 1
            )  # share of the interval with more signal than noise
            before = after
        return self._cropped(reached[0] / intervals)

    def _in_file_units(self, values: Tensor) -> np.ndarray:
        return self.scale.invert(self._cropped(values))

    def _cropped(self, values: Tensor) -> np.ndarray:
        height, width = self.shape
        return values[0, BORDER : BORDER + height, BORDER : BORDER + width].float().cpu().numpy()


def require_familiar(normalisation: Normalisation, pixels: np.ndarray) -> None:
    """Raise ImageError when intensities lie far outside of what a model was trained on."""
    scale = normalisation.scale_of(pixels)
    reach = scale.reach(pixels)
    if reach > LONGEST_REACH:
        raise ImageError(
            f"intensities like those that the model was trained on, mostly {normalisation.low:.4g} to "
            f"{normalisation.high:.4g}",
            f"an image of {float(pixels.min()):.4g} to {float(pixels.max()):.4g}",
            "Use a model for this detector, exposure and bit depth, and do not rescale images on export.",
        )


def condition_tiled(model: CVDM, x: Tensor, tiling: Tiling) -> Condition:
    """`model.condition(x)` for an x of any size that is a multiple of the stride."""

    def stacked(part: Tensor) -> Tensor:
        condition = model.condition(part)
        return torch.cat([condition.mean, condition.scale, condition.paths], dim=1)

    values = evaluate_tiled(stacked, x, tiling)
    return Condition(x, values[:, :1], values[:, 1:2], values[:, 2:])


@torch.inference_mode()
def reconstruct(
    checkpoint: Checkpoint,
    pixels: np.ndarray,
    *,
    sampling: SamplingConfig | None = None,
    progress: Progress | None = None,
) -> Reconstruction:
    """Restore one image (H, W) of any size, in file units; `sampling` defaults to the checkpoint's own.

    Raises ImageError when the image's intensities lie far outside of what the model was trained on.
    """
    sampling = sampling or checkpoint.recipe.sampling
    require_familiar(checkpoint.normalisation, pixels)
    view = FieldOfView(checkpoint.model, checkpoint.normalisation, pixels, sampling)
    return conclude(checkpoint, view, view.draws(progress))


def conclude(checkpoint: Checkpoint, view: FieldOfView, draws: Iterable[np.ndarray]) -> Reconstruction:
    """What draws of a field of view, each (H, W) in file units, say together. Raises ImageError."""
    moments = Moments()
    for draw in draws:
        moments.add(draw)
    mean, std = moments.mean.astype(np.float32), moments.std.astype(np.float32)
    lower, upper = checkpoint.calibration.bounds(mean, std, view.scale.half_range)
    if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
        raise ImageError(
            "an image that this model can restore",
            "one that leads it to infinite or undefined values",
            "Check the image; if it is sound, use a model that was trained on such images.",
        )
    return Reconstruction(mean, std, lower, upper, view.schedule_map(), view.regression_mean())
