"""Which noise schedule, which objective: same network, data order, budget and regression mean for all.

    python benchmarks/schedules.py [--quick] [--tasks T ...] [--seeds 0 1 2] [--steps 700] [--device cpu]

For each task and seed the regression mean and the residual's scale are trained once, as the platform does;
then each rival of `benchmarks/rivals.py` trains a denoiser around them. A row of the CSV is one rival under
one solver with one number of steps: CRPS, PSNR and SSIM of the posterior mean and coverage on the test
fields, before calibration and after (on the calibration fields), and how well spread and schedule map rank
the error.
Run again, it goes on after the last row. The last line is the summary.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import platform
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from rivals import RIVALS, Rival, denoised
from scipy.stats import spearmanr
from torch import Tensor
from tqdm import tqdm

from cvdm.calibration import Calibration, CalibrationImage, calibrate
from cvdm.config import Recipe, SamplingConfig
from cvdm.dataset import Dataset, load_dataset
from cvdm.field_of_view import FieldOfView
from cvdm.gradients import Batch
from cvdm.losses import PENALTY_WEIGHT
from cvdm.metrics import crps, psnr, ssim, target_range
from cvdm.model import CVDM
from cvdm.params import load_recipe
from cvdm.patches import ImagePair, PatchSource, read_pair
from cvdm.training import learning_rate_at, train, training_normalisation
from cvdm.training_state import ADAM_BETAS, read_best
from cvdm.validation import busiest_crop

HOME = Path(__file__).resolve().parents[1]
TASKS = ("fmd-confocal-nuclei", "biosr-microtubules")
EDGE, DRAWS = 160, 8
"""Of the crop of each field that is scored, in pixels, and posterior draws of it."""
SWEEP = (
    *product(("angular-euler",), (3, 5, 10, 20, 50, 200)),
    *product(("dpm-solver++",), (5, 10, 20)),
)
QUICK_SWEEP = (("angular-euler", 5), ("angular-euler", 20), ("dpm-solver++", 5))
QUICK_RIVALS = ("pinned", "log-SNR linear", "flow matching")


@dataclass(frozen=True)
class Row:
    """One rival under one way of sampling."""

    task: str
    seed: int
    rival: str
    training_steps: int
    solver: str
    steps: int
    crps: float
    """Mean over test fields, in half-ranges of the intensity scale."""
    psnr: float
    ssim: float
    raw_coverage: float
    """Of mean -+ 1.645 std."""
    coverage: float
    """Of the interval that was calibrated with the same sampling."""
    width: float
    """Mean width of that interval, in half-ranges."""
    spread_rank: float
    """Spearman's correlation of std and true error over pixels, mean over fields."""
    map_rank: float
    """The same of the schedule map; 0 where all pixels share a curve."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="three rivals, one task, one seed: minutes")
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--rivals", nargs="+", choices=RIVALS, default=tuple(RIVALS))
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--output", type=Path, default=HOME / "benchmarks/reports/schedules.csv")
    options = parser.parse_args()
    sweep = SWEEP
    if options.quick:
        options.tasks, options.seeds, options.rivals = TASKS[:1], (0,), QUICK_RIVALS
        options.steps, sweep = 200, QUICK_SWEEP
        options.output = Path(tempfile.mkdtemp(prefix="cvdm-schedules-")) / "schedules.csv"
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    rows = read_rows(options.output)
    done = {(row.task, row.seed, row.rival) for row in rows}
    for task, seed in product(options.tasks, options.seeds):
        missing = [name for name in options.rivals if (task, seed, name) not in done]
        if missing:
            bench = Bench(task, seed, options.steps, options.device)
            for name in missing:
                rows += add_rows(options.output, list(bench.rows(name, sweep)))
    print(table(rows))
    print(summary(rows))
    return 0


class Bench:
    """A task under one seed: data, and the regression that all rivals share."""

    def __init__(self, task: str, seed: int, steps: int, device: str) -> None:
        self.task, self.seed, self.device = task, seed, device
        dataset = load_dataset(HOME / "data" / task)
        recipe = load_recipe(HOME / "params.yaml", "demo").with_seed(seed)
        training = replace(recipe.training, steps=steps, validate_every=steps, patience=0)
        self.recipe = replace(recipe, training=training)
        self.normalisation = training_normalisation(dataset, self.recipe)
        self.source = PatchSource(
            dataset, self.normalisation, patch=training.patch, batch=training.batch, seed=seed
        )
        self.tests, self.calibrations = (crops(dataset, split) for split in ("test", "calibration"))
        self.shared = self._regression(dataset)

    def rows(self, name: str, sweep: tuple[tuple[str, int], ...]) -> Iterator[Row]:
        """Train one rival and score it."""
        model = self._train(RIVALS[name], f"{self.task} seed {self.seed}: {name}")
        for solver, steps in tqdm(sweep, "score", leave=False):
            sampling = SamplingConfig(samples=DRAWS, steps=steps, solver=solver)
            calibration = calibrate([self._spread(model, crop, sampling) for crop in self.calibrations])
            scores = [self._scores(model, crop, sampling, calibration) for crop in self.tests]
            means = (float(np.mean(values)) for values in zip(*scores, strict=True))
            yield Row(self.task, self.seed, name, self.recipe.training.steps, solver, steps, *means)

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
        model, average = (rival.build(self.recipe.model).to(self.device) for _ in range(2))
        model.load_state_dict(self.shared, strict=False)
        average.load_state_dict(model.state_dict())
        average.eval().requires_grad_(False)
        denoiser, schedule = list(model.denoiser.parameters()), list(model.schedule.parameters())
        optimiser = torch.optim.Adam([*denoiser, *schedule], betas=ADAM_BETAS)
        config = self.recipe.training
        for step in tqdm(range(config.steps), title, leave=False):
            set_gradients(rival, model, self._batch(step), self.recipe, denoiser, schedule)
            torch.nn.utils.clip_grad_norm_([*denoiser, *schedule], config.clip_norm)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate_at(step, config)
            optimiser.step()
            decay = min(config.ema, (2 + step) / (11 + step))
            with torch.no_grad():
                for mine, theirs in zip(average.parameters(), model.parameters(), strict=True):
                    mine.lerp_(theirs, 1 - decay)
        return average

    def _batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        batch = Batch.drawn(*self.source.batch_at(step), self.seed, step)
        return batch.piece(0, len(batch), self.device)

    @torch.inference_mode()
    def _draws(
        self, model: CVDM, crop: ImagePair, sampling: SamplingConfig
    ) -> tuple[np.ndarray, FieldOfView]:
        view = FieldOfView(model, self.normalisation, crop.observation, sampling)
        return np.stack(list(view.draws())).astype(np.float64), view

    def _spread(self, model: CVDM, crop: ImagePair, sampling: SamplingConfig) -> CalibrationImage:
        draws, view = self._draws(model, crop, sampling)
        half = view.scale.half_range
        return CalibrationImage(crop.field, np.abs(crop.high - draws.mean(0)) / half, draws.std(0) / half)

    def _scores(
        self, model: CVDM, crop: ImagePair, sampling: SamplingConfig, calibration: Calibration
    ) -> tuple[float, ...]:
        """The measured columns of a row, of one crop."""
        draws, view = self._draws(model, crop, sampling)
        half, span = view.scale.half_range, target_range(crop.high)
        mean, std = draws.mean(0), draws.std(0)
        error = np.abs(crop.high - mean)
        lower, upper = calibration.bounds(mean, std, half)
        return (
            float(crps(draws, crop.high, antithetic=True).mean()) / half,
            psnr(mean, crop.high, span),
            ssim(mean, crop.high, span),
            float((error <= 1.645 * std).mean()),
            float(((lower <= crop.high) & (crop.high <= upper)).mean()),
            float((upper - lower).mean()) / half,
            rank_correlation(std, error),
            rank_correlation(view.schedule_map(), error),
        )


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


def crops(dataset: Dataset, split: str) -> list[ImagePair]:
    """The busiest crop of the first capture of each field."""
    first = {pair.field: pair for pair in reversed(dataset.split(split))}
    return [busiest_crop(read_pair(pair), EDGE) for _, pair in sorted(first.items())]


def rank_correlation(map_: np.ndarray, error: np.ndarray) -> float:
    """Spearman's; 0 for a constant map."""
    found = float(spearmanr(map_.ravel(), error.ravel()).statistic) if np.ptp(map_) > 0 else 0.0
    return found if math.isfinite(found) else 0.0


def read_rows(path: Path) -> list[Row]:
    """What an earlier run has measured."""
    if not path.exists():
        return []
    kinds = {"str": str, "int": int, "float": float}
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Row(**{field.name: kinds[str(field.type)](line[field.name]) for field in fields(Row)})
            for line in csv.DictReader(file)
        ]


def add_rows(path: Path, rows: list[Row]) -> list[Row]:
    """Append to the CSV; returns the rows."""
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        if new:
            writer.writeheader()
        writer.writerows(
            {
                name: round(value, 6) if isinstance(value, float) else value
                for name, value in asdict(row).items()
            }
            for row in rows
        )
    return rows


def table(rows: list[Row]) -> str:
    """Means over seeds, with the spread of CRPS over them."""
    groups: dict[tuple[str, str, str, int], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.task, row.rival, row.solver, row.steps].append(row)
    head = f"{'CRPS':>9}{'+-':>8}{'PSNR':>7}{'SSIM':>7}{'raw':>6}{'90 %':>6}{'std~err':>9}{'map~err':>9}"
    lines = [f"{'':66}{head}"]
    for (task, rival, solver, steps), group in groups.items():
        mean = {f.name: np.mean([getattr(row, f.name) for row in group]) for f in fields(Row)[6:]}
        spread = np.std([row.crps for row in group])
        lines.append(
            f"{task:22}{rival:29}{solver:14}{steps:3} {mean['crps']:9.5f}{spread:8.5f}{mean['psnr']:7.2f}"
            f"{mean['ssim']:7.3f}{mean['raw_coverage']:6.2f}{mean['coverage']:6.2f}"
            f"{mean['spread_rank']:9.2f}{mean['map_rank']:9.2f}"
        )
    return "\n".join(lines)


def summary(rows: list[Row]) -> str:
    """The default schedule against the others, at the fewest steps that all have in common."""
    steps = min(row.steps for row in rows if row.solver == "angular-euler" and row.steps >= 5)
    told = []
    for task in dict.fromkeys(row.task for row in rows):
        found: dict[str, list[float]] = defaultdict(list)
        for row in rows:
            if (row.task, row.solver, row.steps) == (task, "angular-euler", steps):
                found[row.rival].append(row.crps)
        means = {rival: float(np.mean(values)) for rival, values in found.items()}
        ratios = (f"{means['pinned'] / value:.3f} of {rival}'s" for rival, value in means.items())
        told.append(f"{task}: pinned has {', '.join(list(ratios)[1:])}")
    return f"CRPS at {steps} steps, {'; '.join(told)}"


if __name__ == "__main__":
    sys.exit(main())
