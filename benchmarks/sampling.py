"""What a reconstruction costs beside the published way of sampling, with the same network.

    python benchmarks/sampling.py [--checkpoint models/biosr-microtubules] [--device cpu|cuda]

A crop of 256 x 256 pixels of a test field is restored from K = 8 draws, (a) as the product does it with the
checkpoint's own settings and its calibrated spread, and (b) by 200 ancestral steps, the schedule's network
evaluated at each. Promised: at least 20 x fewer evaluations of denoiser and schedule network, 15 x less time,
and a CRPS that is no worse; and one draw of four patches of 64 x 64 on a CPU at least 50 x faster than by the
published code.

(a) is timed before, during and after (b), and its median counts. The last line is the summary; exit code 1
when a number is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from machine import machine
from torch import Tensor, nn
from tqdm import tqdm

from cvdm.checkpoint import Checkpoint, load_checkpoint
from cvdm.config import SamplingConfig
from cvdm.dataset import Dataset, load_dataset
from cvdm.field_of_view import BORDER, FieldOfView
from cvdm.metrics import crps
from cvdm.model import CVDM, signal_from_velocity
from cvdm.normalisation import IntensityScale
from cvdm.patches import ImagePair, read_pair
from cvdm.posterior import dispersed
from cvdm.sampler import SOLVERS, Step
from cvdm.validation import busiest_crop

CHECKOUT = Path(__file__).resolve().parents[1]
FEWER, FASTER, PATCHES_FASTER = 20.0, 15.0, 50.0
WORSE = 1.02
"""Largest ratio of CRPS that counts as no worse: what eight draws leave to chance on one crop."""
PUBLISHED_SECONDS = 94.0
"""One 200-step draw of four 64 x 64 patches by the published code on two CPU cores (94 to 98 s)."""
LOOKS = 5
"""How often the product's way is timed."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=CHECKOUT / "models" / "biosr-microtubules")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--edge", type=int, default=256)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--ancestral-steps", type=int, default=200)
    options = parser.parse_args()
    checkpoint = load_checkpoint(options.checkpoint, device=options.device)
    own = replace(checkpoint.recipe.sampling, samples=options.samples)
    published = replace(own, solver="ancestral", steps=options.ancestral_steps)
    data = load_dataset(CHECKOUT / "data" / checkpoint.record.task)
    crop = busiest_crop(read_pair(data.split("test")[0]), options.edge)
    print(f"{machine(options.device)}; {checkpoint.record.task}, {options.edge} px, K = {own.samples},")
    print(f"{own.steps} steps of {own.solver} against {published.steps} ancestral ones")
    found = [*compared(checkpoint, crop, own, published)]
    if options.device == "cpu":
        found.append(patches(checkpoint, data, own))
    told = "; ".join(text for text, _ in found)
    print(told)
    return int(not all(met for _, met in found))


class Counted:
    """Evaluations of a model's networks, in images."""

    def __init__(self, model: CVDM) -> None:
        self.images: Counter[str] = Counter()
        networks: dict[str, nn.Module] = {"denoiser": model.denoiser, "schedule": model.schedule.network}
        self._hooks = [net.register_forward_hook(self._counter(name)) for name, net in networks.items()]

    def _counter(self, name: str):  # noqa: ANN202  # the hook's signature is torch's
        return lambda module, inputs, output: self.images.update({name: len(output)})

    def stop(self) -> int:
        """No longer count; returns how many there were."""
        for hook in self._hooks:
            hook.remove()
        return self.images.total()


def compared(
    checkpoint: Checkpoint, crop: ImagePair, own: SamplingConfig, published: SamplingConfig
) -> Iterator[tuple[str, bool]]:
    """Evaluations, time and CRPS: what was found, and whether it meets what is promised."""
    taken, theirs = [], Stopwatch()
    counted = Counted(checkpoint.model)
    draws = product_draws(checkpoint, crop, own)
    ours = counted.stop()
    counted = Counted(checkpoint.model)
    scale = checkpoint.normalisation.scale_of(crop.low)
    walk = Walk(checkpoint.model, bordered(scale, crop.low), published, published.samples, every_step=True)
    looks = {round(published.steps * look / (LOOKS - 1)) for look in range(LOOKS)}
    evaluated = 0
    with tqdm(total=published.steps, desc="ancestral", unit="step", file=sys.stderr) as bar:
        for step in range(published.steps + 1):
            if step in looks:
                evaluated += counted.stop()
                begun = time.perf_counter()
                product_draws(checkpoint, crop, own)
                taken.append(time.perf_counter() - begun)
                counted = Counted(checkpoint.model)
            if step < published.steps:
                with theirs:
                    walk.step()
                bar.update()
    evaluated += counted.stop()
    inside = np.s_[:, BORDER : BORDER + crop.low.shape[0], BORDER : BORDER + crop.low.shape[1]]
    with theirs:
        their_draws = scale.invert(walk.draws()[:, 0].cpu().numpy()[inside])
    seconds = statistics.median(taken)
    spread = dispersed(checkpoint, own, draws)
    as_drawn, score = (
        crps(one, crop.high, antithetic=True).mean() / scale.half_range for one in (draws, spread)
    )
    other = crps(their_draws, crop.high).mean() / scale.half_range
    print(f"ours: {ours} evaluations, {seconds:.2f} s, CRPS {score:.5f} ({as_drawn:.5f} as drawn)")
    print(f"ancestral: {evaluated} evaluations, {theirs.seconds:.1f} s, CRPS {other:.5f}")
    for text, value, least in (
        ("fewer evaluations", evaluated / ours, FEWER),
        ("less time", theirs.seconds / seconds, FASTER),
    ):
        yield f"x{value:.1f} {text} (at least {least:.0f})", value >= least
    yield f"CRPS x{score / other:.3f} (at most {WORSE})", bool(score <= WORSE * other)


class Stopwatch:
    """Adds up the seconds within its blocks."""

    seconds = 0.0

    def __enter__(self) -> None:
        self._begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - self._begun


@torch.inference_mode()
def product_draws(checkpoint: Checkpoint, crop: ImagePair, sampling: SamplingConfig) -> np.ndarray:
    """The draws (K, H, W) of a crop in file units, as a reconstruction makes them."""
    view = FieldOfView(checkpoint.model, checkpoint.normalisation, crop.observation, sampling)
    return np.stack(list(view.draws()))


def bordered(scale: IntensityScale, pixels: np.ndarray) -> Tensor:
    """The normalised image (1, 1, H, W), with the border that the product gives it, too."""
    return torch.from_numpy(scale.apply(np.pad(pixels, BORDER, mode="symmetric")))[None, None]


class Walk:
    """Draws of whole images, all at once, step by step: `count` of one image, or one of each of `count`.

    every_step: evaluate the schedule's network at each step, as the published code does, instead of once.
    """

    @torch.inference_mode()
    def __init__(
        self, model: CVDM, x: Tensor, sampling: SamplingConfig, count: int, *, every_step: bool
    ) -> None:
        self.model, self.sampling, self.every_step = model, sampling, every_step
        device = next(model.parameters()).device
        self.x = x.to(device)
        self.condition = model.condition(self.x)
        self.rng = torch.Generator(device).manual_seed(sampling.seed)
        self.solver, self.index = SOLVERS[sampling.solver], 0
        self._shape = (count, *x.shape[1:])
        self.state = self._noise()

    def _noise(self) -> Tensor:
        return torch.randn(self._shape, generator=self.rng, device=self.x.device)

    @torch.inference_mode()
    def step(self) -> None:
        """One evaluation of the denoiser for each image."""
        model, count = self.model, self.sampling.steps
        paths = model.schedule.paths(self.x) if self.every_step else self.condition.paths
        now, after = (
            model.schedule.at(torch.full((1, 1, 1, 1), 1 - at / count, device=self.x.device), paths)
            for at in (self.index, self.index + 1)
        )
        self.index += 1
        z = self.state[:, :1]
        signal = signal_from_velocity(model.velocity(z, now, self.condition.features), z, now)
        self.state = self.solver.advance(self.state, signal, Step(self.index, count, now, after, self._noise))

    def draws(self) -> Tensor:
        """(B, 1, H, W), normalised, when all steps are done."""
        return self.condition.mean + self.condition.scale * self.state[:, :1]


def patches(checkpoint: Checkpoint, data: Dataset, own: SamplingConfig) -> tuple[str, bool]:
    """One draw of each of four patches at once."""
    crop = busiest_crop(read_pair(data.split("test")[0]), 128)
    x = checkpoint.normalisation.scale_of(crop.low).apply(crop.low)
    four = np.stack([x[top : top + 64, left : left + 64] for top in (0, 64) for left in (0, 64)])
    taken = []
    for _ in range(LOOKS):
        begun = time.perf_counter()
        walk = Walk(checkpoint.model, torch.from_numpy(four[:, None]), own, len(four), every_step=False)
        for _ in range(own.steps):
            walk.step()
        walk.draws()
        taken.append(time.perf_counter() - begun)
    gain = PUBLISHED_SECONDS / statistics.median(taken)
    print(f"four patches of 64 px, one draw each: {statistics.median(taken) * 1e3:.0f} ms")
    return (
        f"patches x{gain:.0f} faster than published (at least {PATCHES_FASTER:.0f})",
        gain >= PATCHES_FASTER,
    )


if __name__ == "__main__":
    sys.exit(main())
