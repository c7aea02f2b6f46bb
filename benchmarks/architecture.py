"""Which network: each choice against its alternatives, same data, seeds and steps.

    python benchmarks/architecture.py [--tasks T ...] [--seeds 0 1] [--steps 800] [--device cpu]

A row of the CSV is one variant, trained whole (regression mean, scale, denoiser, schedule) and scored with
8 draws of 5 steps (`benchmarks/scoring.py` says what is measured). Run again, it goes on after the last
row; `--show` trains nothing. Beside the scores: millions of parameters, and seconds of a training step and
of a restored megapixel, measured in turns with the reference's and given as its multiples.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from scoring import Crops, Row, add_rows, read_rows
from torch import Tensor, nn
from torch.nn import functional
from trials import HALF_RESOLUTION, trained

from cvdm.config import ModelConfig, NetworkConfig, Recipe, SamplingConfig
from cvdm.dataset import load_dataset
from cvdm.field_of_view import FieldOfView
from cvdm.gradients import Batch, accumulate_gradient
from cvdm.losses import batch_losses
from cvdm.model import CVDM
from cvdm.networks import UNet, UnitConv
from cvdm.normalisation import Normalisation
from cvdm.observation import Observation
from cvdm.params import load_recipe
from cvdm.patches import PatchSource
from cvdm.region import Region
from cvdm.schedule import SchedulePoint
from cvdm.training import training_normalisation

HOME = Path(__file__).resolve().parents[1]
TASKS = ("fmd-confocal-nuclei", "biosr-microtubules")
NEIGHBOURHOOD = 7
"""Edge of the window that a pixel of the coarsest level attends to."""
STEPS = 5
"""Of a draw."""
ROUNDS = 5
"""Of the measurement of time."""
REFERENCE = "reference"
"""The default model with a denoiser at half resolution: what each variant changes in one place."""


class LocalAttention(nn.Module):
    """Each pixel attends to its neighbourhood, four heads; sees a bounded part of the image like all else."""

    heads = 4

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ask = UnitConv(channels, 3 * channels, 1)
        self.answer = UnitConv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        query, key, value = self.ask(x).chunk(3, dim=1)
        around = [
            functional.unfold(part, NEIGHBOURHOOD, padding=NEIGHBOURHOOD // 2).view(
                batch, self.heads, channels // self.heads, NEIGHBOURHOOD**2, height * width
            )
            for part in (key, value)
        ]
        query = query.view(batch, self.heads, -1, 1, height * width)
        weights = ((query * around[0]).sum(2, keepdim=True) / (channels / self.heads) ** 0.5).softmax(dim=3)
        seen = (weights * around[1]).sum(3).view(batch, channels, height, width)
        return 0.7 * x + 0.7 * self.answer(seen)


class AttentiveUNet(UNet):
    """With attention at the coarsest level."""

    def __init__(self, inputs: int, outputs: int, config: NetworkConfig) -> None:
        super().__init__(inputs, outputs, config)
        self.down[-1].append(LocalAttention(config.width * 2 ** (config.levels - 1)))

    def receptive_radius(self) -> int:
        return super().receptive_radius() + NEIGHBOURHOOD // 2 * self.stride


class WithAttention(CVDM):
    """Both U-Nets attend."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.mean_network = AttentiveUNet(self.inputs, 1, config.mean)
        self.denoiser = AttentiveUNet(self.inputs + 5, 1, config.denoiser)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class WithoutMap(CVDM):
    """The denoiser is told the image's mean log-SNR instead of every pixel's."""

    def velocity(self, z_t: Tensor, point: SchedulePoint, features: Tensor) -> Tensor:
        flat = point.log_snr.mean(dim=(2, 3), keepdim=True).expand_as(point.log_snr)
        return super().velocity(z_t, replace(point, log_snr=flat), features)


class Unaugmented(PatchSource):
    """Patches as they lie in the image: neither flipped nor turned."""

    def _patch(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        captures = self._by_field[self._fields[rng.integers(len(self._fields))]]
        image = captures[rng.integers(len(captures))]
        top, left = (int(rng.integers(size - self.patch + 1)) for size in image.high.shape)
        region = Region(top, top + self.patch, left, left + self.patch)
        scales = self.normalisation.scales_of(image.observation.centres)
        return image.observation.normalised(region, scales), scales[0].apply(image.high[region.slices])[None]


class GainJitter(PatchSource):
    """Flipped, turned, and brighter or darker by up to a quarter about the black level."""

    def _patch(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        low, high = super()._patch(rng)
        gain = np.float32(rng.uniform(0.75, 1.25))
        return (low + 1) * gain - 1, (high + 1) * gain - 1


@dataclass(frozen=True)
class Variant:
    """One way to build and feed a model."""

    change: Callable[[ModelConfig], ModelConfig] = lambda config: config
    model: type[CVDM] = CVDM
    source: type[PatchSource] = PatchSource


def mean(**changes: int) -> Variant:
    """Another regression network."""
    return Variant(lambda config: replace(config, mean=replace(config.mean, **changes)))


def denoiser(**changes: int) -> Variant:
    """Another denoiser."""
    return Variant(lambda config: replace(config, denoiser=replace(config.denoiser, **changes)))


VARIANTS = {
    REFERENCE: Variant(),
    "mean: width 8": mean(width=8),
    "mean: width 24": mean(width=24),
    "mean: 3 levels": mean(levels=3),
    "mean: half resolution, width 32": mean(width=32, levels=3, stem=2),
    "denoiser: width 16": denoiser(width=16),
    "denoiser: width 48": denoiser(width=48),
    "denoiser: full resolution, width 8": denoiser(width=8, levels=4, stem=1),
    "denoiser: full resolution, width 16": denoiser(width=16, levels=4, stem=1),  # the default
    "attention at the coarsest level": Variant(model=WithAttention),
    "no map of gamma": Variant(model=WithoutMap),
    "no augmentation": Variant(source=Unaugmented),
    "gain augmented too": Variant(source=GainJitter),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=tuple(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1))
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--show", action="store_true", help="only what an earlier run has measured")
    parser.add_argument("--costs", action="store_true", help="only parameters and times")
    parser.add_argument("--output", type=Path, default=HOME / "benchmarks/reports/architecture.csv")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    demo = load_recipe(HOME / "params.yaml", "demo")
    recipe = replace(
        demo,
        model=replace(demo.model, denoiser=HALF_RESOLUTION),
        sampling=replace(demo.sampling, steps=STEPS),
    )
    training = replace(recipe.training, steps=options.steps)
    rows = read_rows(options.output)
    done = {(row.task, row.seed, row.variant) for row in rows}
    for seed, task in product(() if options.show or options.costs else options.seeds, options.tasks):
        for name in options.variants:
            if (task, seed, name) not in done:
                own = replace(recipe, training=replace(training, seed=seed))
                rows += add_rows(options.output, [measured(name, task, own, options.device)])
    if not options.show:
        print(costs(recipe, options.variants, options.device))
    print(table(rows))
    return 0


def measured(name: str, task: str, recipe: Recipe, device: str) -> Row:
    """Train one variant and score it."""
    dataset = load_dataset(HOME / "data" / task)
    variant, training = VARIANTS[name], recipe.training
    normalisation = training_normalisation(dataset, recipe)
    source = variant.source(
        dataset, normalisation, patch=training.patch, batch=training.batch, seed=training.seed
    )
    model = train_variant(variant, recipe, source, f"{task} seed {training.seed}: {name}", device)
    sampling = recipe.sampling
    scores = Crops.of(dataset, normalisation).scores(model, sampling)
    return Row(task, training.seed, name, training.steps, sampling.solver, sampling.steps, scores)


def train_variant(variant: Variant, recipe: Recipe, source: PatchSource, title: str, device: str) -> CVDM:
    """The averaged weights at the end of a training."""
    config = recipe.training
    torch.manual_seed(config.seed)
    model, average = (variant.model(variant.change(recipe.model)).to(device) for _ in range(2))

    def set_gradients(step: int) -> None:
        batch = Batch.drawn(*source.batch_at(step), config.seed, step)
        accumulate_gradient(model, batch, batch_losses, smoothness=config.smoothness, pieces=1, device=device)

    return trained(model, average, list(model.parameters()), config, set_gradients, title)


def costs(recipe: Recipe, names: list[str], device: str) -> str:
    """Parameters of each variant, and its times as multiples of the reference's."""
    lines = [f"{'':38}{'parameters':>11}{'training step':>15}{'restoring':>11}"]
    for name in names:
        models = [VARIANTS[n].model(VARIANTS[n].change(recipe.model)).to(device) for n in (REFERENCE, name)]
        times = [
            [(step_time(m, recipe, device), restoring_time(m, recipe)) for m in models] for _ in range(ROUNDS)
        ]
        step, restoring = (
            statistics.median(theirs[k] / reference[k] for reference, theirs in times) for k in (0, 1)
        )
        millions = sum(p.numel() for p in models[1].parameters()) / 1e6
        lines.append(f"{name:38}{millions:9.2f} M{step:14.2f}x{restoring:10.2f}x")
    return "\n".join(lines)


def step_time(model: CVDM, recipe: Recipe, device: str) -> float:
    """Seconds of the gradient of one batch."""
    shape = (recipe.training.batch, 1, recipe.training.patch, recipe.training.patch)
    batch = Batch.drawn(torch.zeros(shape), torch.ones(shape), seed=0, step=0)
    return seconds(
        lambda: accumulate_gradient(model, batch, batch_losses, smoothness=0.0, pieces=1, device=device),
        device,
    )


@torch.inference_mode()
def restoring_time(model: CVDM, recipe: Recipe) -> float:
    """Seconds of the draws of a small image."""
    seen = Observation.of(np.zeros((128, 128), np.float32))
    sampling: SamplingConfig = recipe.sampling
    device = next(model.parameters()).device.type
    return seconds(
        lambda: list(FieldOfView(model, Normalisation("dataset", -1, 1), seen, sampling).draws()), device
    )


def seconds(work: Callable[[], object], device: str) -> float:
    """Of a piece of work, to its end on the device."""
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def table(rows: list[Row]) -> str:
    """Means over seeds; the reference's CRPS is 1."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.task, row.variant].append(row)
    lines = [f"{'':60}{'CRPS':>9}{'of reference':>14}{'blocks':>9}{'PSNR':>7}{'90 %':>6}{'seeds':>7}"]
    for (task, variant), group in groups.items():
        score = {
            name: statistics.mean(getattr(row.scores, name) for row in group)
            for name in ("crps", "block_crps", "psnr", "coverage")
        }
        reference = (
            {row.seed: row.scores.crps for row in groups[task, REFERENCE]}
            if (task, REFERENCE) in groups
            else {}
        )
        ratios = [row.scores.crps / reference[row.seed] for row in group if row.seed in reference]
        ratio = f"{statistics.mean(ratios):.3f}" if ratios else "-"
        lines.append(
            f"{task:22}{variant:38}{score['crps']:9.5f}{ratio:>14}{score['block_crps']:9.5f}"
            f"{score['psnr']:7.2f}{score['coverage']:6.2f}{len(group):7}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
