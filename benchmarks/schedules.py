"""Which noise schedule, which objective: same network, data order, budget and regression mean for all.

    python benchmarks/schedules.py [--quick] [--tasks T ...] [--seeds 0 1 2] [--steps 700] [--device cpu]

For each task and seed the regression mean and the residual's scale are trained once, as the platform does;
then each rival of `benchmarks/rivals.py` trains a denoiser around them. A row of the CSV is one rival under
one solver with one number of steps (`benchmarks/scoring.py` says what is measured). Run again, it goes on
after the last row; two processes may share a CSV if they have different tasks. `--show` trains nothing. The
last line is the summary.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from rivals import RIVALS, Rival, denoised, without_regression
from scoring import DRAWS, Crops, Row, Scores, add_rows, read_rows
from torch import Tensor
from tqdm import tqdm
from trials import HALF_RESOLUTION, trained

from cvdm.config import Recipe, SamplingConfig
from cvdm.dataset import Dataset, load_dataset
from cvdm.gradients import Batch
from cvdm.losses import PENALTY_WEIGHT
from cvdm.model import CVDM
from cvdm.params import load_recipe
from cvdm.patches import PatchSource
from cvdm.training import train, training_normalisation
from cvdm.training_state import read_best

HOME = Path(__file__).resolve().parents[1]
TASKS = ("fmd-confocal-nuclei", "biosr-microtubules")
SCHEDULES = ("pinned", "separable", "linear", "cosine", "log-SNR linear", "flow matching")
"""Rivals whose steps are swept; the others answer how a schedule should be taught."""
LONG = ("pinned", "pinned, noise error", "cosine", "flow matching")
"""Those that are swept up to 200 steps, which costs as much as all the rest."""
SHORT_SWEEP = (("angular-euler", 5), ("angular-euler", 10))
SWEEP = (*SHORT_SWEEP, ("angular-euler", 20), ("dpm-solver++", 5))
LONG_SWEEP = (*SWEEP, ("angular-euler", 50), ("angular-euler", 200))
CALIBRATED = 20
"""Steps up to which intervals are calibrated too; beyond, that costs as much as all the rest."""
QUICK_RIVALS = ("no diffusion", "pinned", "log-SNR linear", "flow matching")
Sweep = Sequence[tuple[str, int]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help="four rivals, one task, one seed of 200 steps: minutes; shows the way, proves nothing",
    )
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--rivals", nargs="+", choices=RIVALS, default=tuple(RIVALS))
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--show", action="store_true", help="only what an earlier run has measured")
    parser.add_argument("--output", type=Path, default=HOME / "benchmarks/reports/schedules.csv")
    options = parser.parse_args()
    if options.quick:
        options.tasks, options.seeds, options.rivals = TASKS[:1], (0,), QUICK_RIVALS
        options.steps = 200
        options.output = Path(tempfile.mkdtemp(prefix="cvdm-schedules-")) / "schedules.csv"
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    rows = read_rows(options.output)
    done = {(row.task, row.seed, row.variant) for row in rows}
    for task, seed in product(() if options.show else options.tasks, options.seeds):
        missing = [name for name in options.rivals if (task, seed, name) not in done]
        if missing:
            bench = Bench(task, seed, options.steps, options.device)
            for name in missing:
                sweep = SHORT_SWEEP if options.quick else sweep_of(name)
                rows += add_rows(options.output, list(bench.rows(name, sweep)))
    print(table(rows))
    print(summary(rows))
    return 0


def sweep_of(name: str) -> Sweep:
    """How a rival is sampled."""
    if name in LONG:
        return LONG_SWEEP
    return SWEEP if name in SCHEDULES else SHORT_SWEEP


class Bench:
    """A task under one seed: data, and the regression that all rivals share."""

    def __init__(self, task: str, seed: int, steps: int, device: str) -> None:
        self.task, self.seed, self.device = task, seed, device
        dataset = load_dataset(HOME / "data" / task)
        recipe = load_recipe(HOME / "params.yaml", "demo").with_seed(seed)
        recipe = replace(recipe, model=replace(recipe.model, denoiser=HALF_RESOLUTION))
        training = replace(recipe.training, steps=steps, validate_every=steps, patience=0)
        self.recipe = replace(recipe, training=training)
        self.normalisation = training_normalisation(dataset, self.recipe)
        self.source = PatchSource(
            dataset, self.normalisation, patch=training.patch, batch=training.batch, seed=seed
        )
        self.crops = Crops.of(dataset, self.normalisation)
        self.shared = self._regression(dataset)

    def rows(self, name: str, sweep: Sweep) -> Iterator[Row]:
        """Train one rival and score it."""
        model = self._train(RIVALS[name], f"{self.task} seed {self.seed}: {name}")
        for solver, steps in tqdm(sweep, "score", leave=False):
            sampling = SamplingConfig(samples=DRAWS, steps=steps, solver=solver)
            scores = self.crops.scores(model, sampling, calibrated=steps <= CALIBRATED)
            yield Row(self.task, self.seed, name, self.recipe.training.steps, solver, steps, scores)

    def _regression(self, dataset: Dataset) -> dict[str, Tensor]:
        """Weights of mean and scale after a training of the platform's own, to twice the rivals' steps."""
        training = replace(self.recipe.training, steps=2 * self.recipe.training.steps)
        training = replace(training, validate_every=training.steps)
        with tempfile.TemporaryDirectory() as folder:
            state = Path(folder) / "state.pt"
            steps = train(
                dataset, replace(self.recipe, training=training), state_path=state, device=self.device
            )
            for _ in tqdm(
                steps, f"{self.task} seed {self.seed}: regression", total=training.steps, leave=False
            ):
                pass
            weights = read_best(state).weights
        return {k: v for k, v in weights.items() if k.startswith(("mean_network.", "scale_network."))}

    def _train(self, rival: Rival, title: str) -> CVDM:
        """The averaged weights of a training of denoiser and schedule alone."""
        torch.manual_seed(self.seed)
        model, average = (self._untrained(rival) for _ in range(2))
        if not rival.trained:
            return model.eval().requires_grad_(False)
        denoiser, schedule = list(model.denoiser.parameters()), list(model.schedule.parameters())

        def gradients(step: int) -> None:
            set_gradients(rival, model, self._batch(step), self.recipe, denoiser, schedule)

        return trained(model, average, [*denoiser, *schedule], self.recipe.training, gradients, title)

    def _untrained(self, rival: Rival) -> CVDM:
        model = rival.build(self.recipe.model)
        if rival.regression:
            model.load_state_dict(self.shared, strict=False)
            return model.to(self.device)
        x, y = self.source.batch_at(0)
        return without_regression(model, float((y - x).square().mean().sqrt())).to(self.device)

    def _batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        batch = Batch.drawn(*self.source.batch_at(step), self.seed, step)
        return batch.piece(0, len(batch), self.device)


def set_gradients(
    rival: Rival,
    model: CVDM,
    batch: tuple[Tensor, Tensor, Tensor, Tensor],
    recipe: Recipe,
    denoiser: list[torch.nn.Parameter],
    schedule: list[torch.nn.Parameter],
) -> None:
    """Of the rival's objectives, into the parameters."""
    x, y, t, eps = batch
    with torch.no_grad():
        shared = model.condition(x)
    condition = replace(shared, paths=model.schedule.paths(x))
    z = (y - condition.mean) / condition.scale
    seen = denoised(model, condition, z, t, eps)
    network = rival.network(seen)
    end = model.schedule.at(torch.ones_like(t), condition.paths)
    start = model.schedule.at(torch.zeros_like(t), condition.paths)
    own = (rival.own or rival.network)(seen) + PENALTY_WEIGHT * (
        recipe.training.smoothness * seen.point.gamma_curvature.square().mean()
        + (end.gamma * z.square() - end.gamma - end.noise_power.log()).mean() / 2
        + (start.noise_power.square() + end.gamma.square()).mean()
    )
    gradients = torch.autograd.grad(network, denoiser, retain_graph=bool(schedule))
    if schedule:
        gradients += torch.autograd.grad(own, schedule)
    for parameter, gradient in zip([*denoiser, *schedule], gradients, strict=True):
        parameter.grad = gradient


def table(rows: list[Row]) -> str:
    """Means over seeds, with the spread of CRPS over them."""
    groups: dict[tuple[str, str, str, int], list[Scores]] = defaultdict(list)
    for row in rows:
        groups[row.task, row.variant, row.solver, row.steps].append(row.scores)
    widths = {
        "CRPS": 8,
        "+-": 8,
        "blocks": 9,
        "PSNR": 7,
        "SSIM": 7,
        "raw": 6,
        "90 %": 6,
        "std~err": 9,
        "map~err": 9,
    }
    lines = [" " * 73 + "".join(f"{name:>{width}}" for name, width in widths.items())]
    order = [*dict.fromkeys((task, rival) for task, rival, _, _ in groups)]
    for (task, rival, solver, steps), group in sorted(
        groups.items(), key=lambda item: (order.index(item[0][:2]), *item[0][2:])
    ):
        mean = {f.name: np.mean([getattr(scores, f.name) for scores in group]) for f in fields(Scores)}
        spread = np.std([scores.crps for scores in group])
        lines.append(
            f"{task:20} {rival:35}{solver:14}{steps:3}"
            f"{mean['crps']:8.5f}{spread:8.5f}{mean['block_crps']:9.5f}{mean['psnr']:7.2f}{mean['ssim']:7.3f}{mean['raw_coverage']:6.2f}{mean['coverage']:6.2f}"
            f"{mean['spread_rank']:9.2f}{mean['map_rank']:9.2f}"
        )
    return "\n".join(lines)


def summary(rows: list[Row], steps: int = 10) -> str:
    """The default schedule against the others, over the seeds that they share."""
    told = []
    for task in dict.fromkeys(row.task for row in rows):
        found: dict[str, dict[int, float]] = defaultdict(dict)
        for row in rows:
            if (row.task, row.solver, row.steps) == (task, "angular-euler", steps):
                found[row.variant][row.seed] = row.scores.crps
        ours = found.pop("pinned", {})
        ratios = [f"{ratio(ours, theirs):.3f} of {rival}'s" for rival, theirs in found.items()]
        told.append(f"{task}: pinned has {', '.join(ratios)}")
    return f"CRPS at {steps} steps, {'; '.join(told)}"


def ratio(ours: dict[int, float], theirs: dict[int, float]) -> float:
    """Of the means over the seeds of both; NaN where there are none."""
    shared = ours.keys() & theirs.keys()
    if not shared:
        return float("nan")
    return sum(ours[seed] for seed in shared) / sum(theirs[seed] for seed in shared)


if __name__ == "__main__":
    sys.exit(main())
