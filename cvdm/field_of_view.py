"""One image under restoration: normalised, conditioned on, drawn from.

The state of the sampler is the whole field of view; only evaluations of the networks are cut into
tiles, at every step, so tiles never drift apart and a result does not depend on their size. The arrays live
in a workspace (`cvdm.planes`), of which a tile at a time is in use: in memory for an image that fits, in
files for one that does not. The image gets a border of its own reflection, up to a multiple of the
networks' stride, which no result shows.

What is conditioned on is a `cvdm.observation`; all that is said here of an image, its size, tiles and noise,
is on the grid of that observation, which is the result's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from cvdm.config import SamplingConfig
from cvdm.model import CVDM, Condition, signal_from_velocity
from cvdm.noise import gaussian_field
from cvdm.normalisation import Normalisation
from cvdm.observation import Observation
from cvdm.planes import Memory, Planes, Position, Workspace
from cvdm.region import Region, mirrored
from cvdm.sampler import SOLVERS, Step
from cvdm.schedule import SchedulePoint
from cvdm.tiling import Tiling, evaluate_tiles, exact_tiling, fast_tiling

BORDER = 16
"""Pixels of mirrored surroundings on each side, so that the image's edge is not the network's edge."""
PIXELS_AT_ONCE = 2**19
"""Draws of small images are sampled together up to this many pixels."""
EVALUATION_BYTES, TILE_BYTES = 28, 350
"""Memory per pixel of an evaluation and feature that the denoiser's first level has for it, and per pixel of
a tile besides: up to half as much again as benchmarks/large_image.py measures, with models of the presets
`smoke` and `base`."""
SEAM_BYTES = 96
"""Per pixel of the seam between two strips, while it is put together from the tiles'."""

Progress = Callable[[int, int], None]
"""Called with (done, total) evaluations of a tile; an exception raised inside cancels."""


@dataclass(frozen=True)
class Drawn:
    """A part of a batch of draws."""

    batch: int
    """Number of the batch."""
    draws: range
    """Which draws it is."""
    region: Region
    """Of the image, without its border."""
    values: np.ndarray
    """(B, h, w), in file units."""


class FieldOfView:
    """One image under restoration.

    Made, it is conditioned on: the networks have seen it once. Everything after that is a sweep over the
    image for each step of each batch of draws. A sweep hands out its results in reading order and, in a
    workspace that has been used before, begins where the last one ended.
    """

    def __init__(
        self,
        model: CVDM,
        normalisation: Normalisation,
        observation: Observation,
        sampling: SamplingConfig,
        *,
        workspace: Workspace | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.model = model
        self.observation = observation
        self.shape = observation.shape
        self.scales = normalisation.scales_of(observation.centres)
        self.scale = self.scales[0]
        self.sampling = sampling
        self.tiling = _tiling(model, sampling)
        self.pixels = observation.restored
        self._padded = _padded(self.shape, model.stride)
        self.batches = _batches(sampling.samples, self._padded)
        self._device = next(model.parameters()).device
        self.workspace = workspace or Memory()
        self._progress = progress
        self._total = evaluations(model, self.shape, sampling)
        self._evaluated = self._evaluated_before()
        self._condition = self._planes("condition", 1, model.inputs + 2 + model.schedule.path_channels)
        self._see()

    def drawn(self) -> Iterator[Drawn]:
        """All draws, part by part: one batch of them after the other, each in reading order.

        In a workspace that has been used before, without the parts after which a strip was marked as done.
        """
        for number, draws in enumerate(self.batches):
            if self.workspace.position.sweep > (number + 1) * self.sampling.steps:
                continue  # its arrays may be those of a later batch by now, which is smaller
            planes = [
                self._planes(f"state-{turn}", len(draws), SOLVERS[self.sampling.solver].channels)
                for turn in (0, 1)
            ]
            for index in range(1, self.sampling.steps + 1):
                sweep = number * self.sampling.steps + index
                before, after = planes[(index + 1) % 2], planes[index % 2]
                for region, state, condition in self._step(sweep, index, draws, before):
                    if index < self.sampling.steps:
                        after.write(region, state)
                    else:
                        residual = condition.mean + condition.scale * state[:, :1]
                        yield from self._parts(number, region, residual)

    def draws(self) -> Iterator[np.ndarray]:
        """The K draws (H, W), in file units, in order; of a workspace that is new."""
        for batch, parts in groupby(self.drawn(), key=lambda part: part.batch):
            whole = np.empty((len(self.batches[batch]), *self.shape), np.float32)
            for part in parts:
                whole[:, *part.region.slices] = part.values
            yield from whole

    @property
    def whole(self) -> Region:
        """All of the image, without its border."""
        return Region(0, self.shape[0], 0, self.shape[1])

    @property
    def condition(self) -> Condition:
        """Of the whole image and its border."""
        return self._condition_of(Region(0, self._padded[0], 0, self._padded[1]))

    def regression_mean(self, region: Region | None = None) -> np.ndarray:
        """mu(x) (h, w) of the whole image or of a region, in file units."""
        return self.scale.invert(_plain(self._condition_of(self._in_border(region)).mean))

    def schedule_map(self, region: Region | None = None, intervals: int = 32) -> np.ndarray:
        """The time of equal signal and noise per pixel, (h, w) in [0, 1], linear between the grid's times."""
        times = torch.linspace(0, 1, intervals + 1, device=self._device).view(-1, 1, 1, 1, 1)
        paths = self._condition_of(self._in_border(region)).paths
        before = self.model.schedule.at(times[0], paths).log_snr
        reached = torch.zeros_like(before)
        for t in times[1:]:
            after = self.model.schedule.at(t, paths).log_snr
            # The share of the interval with more signal than noise.
            reached += (before / (before - after)).clamp(0, 1)
            before = after
        return _plain(reached / intervals)

    def _see(self) -> None:
        """Sweep 0: condition on the image."""

        def seen(region: Region) -> Tensor:
            condition = self.model.condition(self._observed(region))
            return torch.cat([condition.x, condition.mean, condition.scale, condition.paths], dim=1)

        for region, values in self._sweep(0, seen):
            self._condition.write(region, values)
            del values  # as in `_sweep`

    def _step(
        self, sweep: int, index: int, draws: range, before: Planes
    ) -> Iterator[tuple[Region, Tensor, Condition]]:
        """What is left of one step: region, the solver's state after it, and the condition there."""
        sampling, schedule = self.sampling, self.model.schedule
        solver = SOLVERS[sampling.solver]
        # An image of one piece is asked for the same region again and again.
        condition_of = lru_cache(maxsize=1)(self._condition_of)
        noise = lru_cache(maxsize=1)(partial(self._noise, draws))

        def point(at: int, region: Region) -> SchedulePoint:
            time = torch.full((1, 1, 1, 1), 1 - at / sampling.steps, device=self._device)
            return schedule.at(time, condition_of(region).paths)

        now = lru_cache(maxsize=1)(partial(point, index - 1))

        def state(region: Region) -> Tensor:
            return noise(0, region) if index == 1 else before.read(region).to(self._device)

        def velocity(region: Region) -> Tensor:
            return self.model.velocity(state(region)[:, :1], now(region), condition_of(region).features)

        for region, seen in self._sweep(sweep, velocity):
            old = state(region)
            signal = signal_from_velocity(seen, old[:, :1], now(region))
            step = Step(
                index, sampling.steps, now(region), point(index, region), partial(noise, index, region)
            )
            yield region, solver.advance(old, signal, step), condition_of(region)

    def _sweep(self, number: int, network: Callable[[Region], Tensor]) -> Iterator[tuple[Region, Tensor]]:
        """What is left of one sweep over the image; a strip is done when its successor is asked for."""
        position = self.workspace.position
        if number < position.sweep:
            return
        height, width = self._padded

        def evaluated(region: Region) -> Tensor:
            values = network(region)
            self._evaluated += 1
            if self._progress is not None:
                self._progress(self._evaluated, self._total)
            return values

        begin = position.row if number == position.sweep else 0
        for region, values in evaluate_tiles(evaluated, height, width, self.tiling, begin=begin):
            yield region, values
            del values  # or it would be there still while the next tile is evaluated
            if region.right == width:
                self.workspace.mark(Position(number, region.bottom))
        self.workspace.mark(Position(number + 1, 0))

    def _evaluated_before(self) -> int:
        """Those that another process has done in this workspace."""
        sweep, row = self.workspace.position
        left = self.tiling.count(*self._padded, begin=row)
        return (sweep + 1) * self.tiling.count(*self._padded) - left

    def _planes(self, name: str, batch: int, channels: int) -> Planes:
        return self.workspace.planes(name, (batch, channels, *self._padded))

    def _observed(self, region: Region) -> Tensor:
        """x (1, C, h, w) of a region of the image and its border."""
        height, width = self.shape
        rows = mirrored(np.arange(region.top, region.bottom) - BORDER, height)
        columns = mirrored(np.arange(region.left, region.right) - BORDER, width)
        top, left = int(rows.min()), int(columns.min())
        window = Region(top, int(rows.max()) + 1, left, int(columns.max()) + 1)
        x = self.observation.normalised(window, self.scales)
        inside = np.ix_(np.arange(len(x)), rows - top, columns - left)
        return torch.from_numpy(x[inside]).to(self._device)[None]

    def _condition_of(self, region: Region) -> Condition:
        values = self._condition.read(region).to(self._device)
        x, mean, scale, paths = torch.tensor_split(
            values, (self.model.inputs, self.model.inputs + 1, self.model.inputs + 2), dim=1
        )
        return Condition(x, mean, scale, paths)

    def _noise(self, draws: range, step: int, region: Region) -> Tensor:
        fields = (
            gaussian_field(
                region.bottom - region.top,
                region.right - region.left,
                seed=self.sampling.seed,
                draw=draw,
                step=step,
                top=region.top - BORDER,
                left=region.left - BORDER,
                device=str(self._device),
            )
            for draw in draws
        )
        return torch.cat(list(fields))

    def _parts(self, batch: int, region: Region, values: Tensor) -> Iterator[Drawn]:
        """What lies within the image of values (B, 1, h, w) in network units."""
        height, width = self.shape
        top, bottom = max(region.top - BORDER, 0), min(region.bottom - BORDER, height)
        left, right = max(region.left - BORDER, 0), min(region.right - BORDER, width)
        if top < bottom and left < right:
            inside = values[
                :,
                0,
                top + BORDER - region.top : bottom + BORDER - region.top,
                left + BORDER - region.left : right + BORDER - region.left,
            ]
            pixels = self.scale.invert(inside.float().cpu().numpy())
            yield Drawn(batch, self.batches[batch], Region(top, bottom, left, right), pixels)

    def _in_border(self, region: Region | None) -> Region:
        """Where a region of the image, or all of it, lies in the image with its border."""
        top, bottom, left, right = region or self.whole
        return Region(top + BORDER, bottom + BORDER, left + BORDER, right + BORDER)


def evaluations(model: CVDM, shape: tuple[int, int], sampling: SamplingConfig) -> int:
    """How many evaluations of a tile it takes to restore an image (H, W)."""
    padded = _padded(shape, model.stride)
    sweeps = 1 + len(_batches(sampling.samples, padded)) * sampling.steps
    return sweeps * _tiling(model, sampling).count(*padded)


def working_bytes(model: CVDM, features: float, shape: tuple[int, int], sampling: SamplingConfig) -> int:
    """About how much memory it takes at most to restore an image (H, W) through files, beyond the model.

    features: of the denoiser's first level, per pixel of the image.
    """
    padded = _padded(shape, model.stride)
    tiling = _tiling(model, sampling)
    rows, columns = (max(one.last - one.first for one in tiling.windows(length)) for length in padded)
    draws = max(len(batch) for batch in _batches(sampling.samples, padded))
    pixel = draws * features * EVALUATION_BYTES + TILE_BYTES + 4 * (model.inputs - 1)
    return round(rows * columns * pixel) + 2 * tiling.ramp * padded[1] * SEAM_BYTES


def _tiling(model: CVDM, sampling: SamplingConfig) -> Tiling:
    if sampling.halo:
        return fast_tiling(sampling.tile, sampling.halo, model.stride)
    return exact_tiling(sampling.tile, model.receptive_radius(), model.stride)


def _batches(samples: int, padded: tuple[int, int]) -> list[range]:
    """The draws that are sampled together."""
    at_once = max(1, PIXELS_AT_ONCE // (padded[0] * padded[1]))
    return [range(first, min(first + at_once, samples)) for first in range(0, samples, at_once)]


def _padded(shape: tuple[int, int], stride: int) -> tuple[int, int]:
    """With the border, and what is missing to a multiple of the stride."""
    height, width = (length + 2 * BORDER + -(length + 2 * BORDER) % stride for length in shape)
    return height, width


def _plain(values: Tensor) -> np.ndarray:
    """(1, 1, h, w) as an array (h, w)."""
    return values[0, 0].float().cpu().numpy()
