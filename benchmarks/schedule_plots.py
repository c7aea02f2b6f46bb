"""The pictures of docs/schedule.md, from what benchmarks/schedules.py measured and from the base models.

    python benchmarks/schedule_plots.py [--csv benchmarks/reports/schedules.csv] [--output docs]

schedules.png        every rival beside the others: CRPS of pixels and of blocks, each seed a dot
schedule-steps.png   what few steps cost, schedule by schedule
schedule-error.png   the denoiser's error over the log-SNR, as noise and as velocity: what an objective sees
schedule-map.png     a test field: input, error, spread, and the learned schedule's map

and, in schedule.md itself, the table between the marks.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from schedules import HOME, SCHEDULES, TASKS
from scoring import BLOCK, Row, busiest_crops, read_rows

from cvdm.checkpoint import Checkpoint, load_checkpoint
from cvdm.config import ScheduleConfig
from cvdm.dataset import load_dataset
from cvdm.field_of_view import FieldOfView
from cvdm.model import velocity_between
from cvdm.observation import Observation
from cvdm.patches import ImagePair
from cvdm.schedule import build_schedule, schedule_curves

STEPS = 10
BEGIN, END = "<!-- written by benchmarks/schedule_plots.py -->\n", "<!-- to here -->\n"
TIMES = 40
"""Noise levels at which the denoiser's error is looked at."""
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
"""Okabe and Ito's, which the colour-blind can tell apart."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--csv", type=Path, default=HOME / "benchmarks/reports/schedules.csv")
    parser.add_argument("--output", type=Path, default=HOME / "docs")
    options = parser.parse_args()
    rows = read_rows(options.csv)
    tasks = [task for task in TASKS if any(row.task == task for row in rows)]
    draw(options.output / "schedules.png", draw_rivals(rows, tasks))
    draw(options.output / "schedule-steps.png", draw_steps(rows, tasks))
    page = options.output / "schedule.md"
    head, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    page.write_text(head + BEGIN + table(rows, tasks) + END + rest.partition(END)[2], encoding="utf-8")
    models = {task: load_checkpoint(HOME / "models" / task) for task in TASKS}
    draw(options.output / "schedule-error.png", draw_errors(models))
    draw(options.output / "schedule-map.png", draw_maps(models))


def table(rows: Sequence[Row], tasks: Sequence[str]) -> str:
    """Scores relative to draws without diffusion at STEPS steps, means over the seeds of each rival."""
    scores = ("crps", "block_crps")
    found = {(task, score): relative(rows, task, score) for task in tasks for score in scores}
    head = " | ".join(f"`{task}`: {word}" for task in tasks for word in ("pixels", "blocks", "seeds"))
    lines = [f"| | {head} |\n", "| --- " * (1 + 3 * len(tasks)) + "|\n"]
    for name in dict.fromkeys(name for by_name in found.values() for name in by_name):
        cells = []
        for task in tasks:
            pixels, blocks = (found[task, score].get(name, []) for score in scores)
            cells += [f"{np.mean(pixels):.3f}", f"{np.mean(blocks):.3f}"] if pixels else ["", ""]
            cells.append(str(len(pixels)))
        lines.append(f"| {name} | {' | '.join(cells)} |\n")
    return "".join(lines)


def draw(path: Path, figure: Figure) -> None:
    """Write a picture and say so."""
    figure.savefig(path, dpi=110)
    print(path)


def draw_rivals(rows: Sequence[Row], tasks: Sequence[str]) -> Figure:
    """A dot for each seed at STEPS steps, the mean as a line; 1 is a draw without diffusion of that seed."""
    figure = Figure(figsize=(11, 4.2 * len(tasks)), layout="constrained")
    axes = figure.subplots(len(tasks), 2, squeeze=False, sharey="row")
    for line, task in zip(axes, tasks, strict=True):
        found = {score: relative(rows, task, score) for score in ("crps", "block_crps")}
        names = sorted(found["crps"], key=lambda name: -float(np.mean(found["crps"][name])))
        for axis, by_name in zip(line, found.values(), strict=True):
            for position, name in enumerate(names):
                values = by_name[name]
                colour = COLOURS[0] if name == "pinned" else "0.35"
                axis.plot(values, [position] * len(values), "o", color=colour, alpha=0.6, markersize=4)
                axis.plot([np.mean(values)] * 2, [position - 0.3, position + 0.3], color=colour, lw=2)
            axis.axvline(1, color="0.6", linestyle="--", linewidth=1)
            axis.grid(axis="y", color="0.9")
        line[0].set_yticks(range(len(names)), names)
        line[0].set(xlabel=f"CRPS of pixels, {STEPS} steps; 1: no diffusion", title=task)
        line[1].set(xlabel=f"CRPS of means of {BLOCK} x {BLOCK} pixels; 1: no diffusion")
    return figure


def relative(rows: Sequence[Row], task: str, score: str) -> dict[str, list[float]]:
    """By rival, its score over that without diffusion, seed by seed: they share a regression mean."""
    at = {
        (row.variant, row.seed): getattr(row.scores, score)
        for row in rows
        if (row.task, row.solver, row.steps) == (task, "angular-euler", STEPS)
    }
    found: dict[str, list[float]] = defaultdict(list)
    for (name, seed), value in at.items():
        if ("no diffusion", seed) in at:
            found[name].append(value / at["no diffusion", seed])
    return found


def draw_steps(rows: Sequence[Row], tasks: Sequence[str]) -> Figure:
    """CRPS over the number of steps, mean over the seeds (how many, in brackets) that have all of them."""
    figure = Figure(figsize=(5.5 * len(tasks), 4), layout="constrained")
    for axis, task in zip(np.atleast_1d(figure.subplots(1, len(tasks))), tasks, strict=True):
        for name, colour in zip(SCHEDULES, COLOURS, strict=True):
            by_steps: dict[int, dict[int, float]] = defaultdict(dict)
            for row in rows:
                if (row.task, row.variant, row.solver) == (task, name, "angular-euler"):
                    by_steps[row.steps][row.seed] = row.scores.crps
            seeds = set.intersection(*map(set, by_steps.values()))  # else a mean jumps where one is missing
            steps = sorted(by_steps)
            values = [np.mean([by_steps[n][seed] for seed in seeds]) for n in steps]
            axis.plot(steps, values, marker="o", color=colour, label=f"{name} ({len(seeds)})")
        axis.set(xscale="log", xlabel="steps of the sampler", ylabel="CRPS of pixels", title=task)
        axis.set_xticks((5, 10, 20, 50, 200), ("5", "10", "20", "50", "200"))
    figure.axes[0].legend(frameon=False)
    return figure


def draw_errors(models: dict[str, Checkpoint]) -> Figure:
    """The error by log-SNR, and how schedules spend their time over it."""
    figure = Figure(figsize=(5.5 * len(models), 7), layout="constrained")
    axes = figure.subplots(2, len(models), squeeze=False)
    for (above, below), (task, checkpoint) in zip(axes.T, models.items(), strict=True):
        log_snr, velocity = error_by_log_snr(checkpoint)
        noise = velocity / (1 + np.exp(-log_snr))
        above.plot(log_snr, velocity, color=COLOURS[0], label="as velocity, $|v - \\hat v|^2$")
        above.plot(log_snr, noise, color=COLOURS[5], label="as noise, $|\\epsilon - \\hat\\epsilon|^2$")
        above.set(title=task, ylabel="mean squared error", ylim=(0, None))
        draw_curves(below, checkpoint)
        for axis in (above, below):
            axis.invert_xaxis()
            axis.set_xlabel("log signal-to-noise ratio: clean left, noise right")
    axes[0, 0].legend(frameon=False)
    axes[1, 0].legend(frameon=False)
    return figure


def draw_curves(axis: Axes, checkpoint: Checkpoint) -> None:
    """Time over log-SNR: the learned schedule's pixels, and the fixed ones."""
    view = view_of(checkpoint)
    learned = schedule_curves(checkpoint.model.schedule, view.condition.paths)
    low, middle, high = (np.array(curve) for curve in learned.log_snr)
    axis.plot(middle, learned.times, color=COLOURS[0], lw=2, label="learned, median of the pixels")
    axis.fill_betweenx(
        learned.times, low, high, color=COLOURS[0], alpha=0.25, label="5 to 95 % of the pixels"
    )
    for name, colour in (("cosine", COLOURS[1]), ("linear", COLOURS[2]), ("log-snr-linear", COLOURS[3])):
        schedule = build_schedule(ScheduleConfig(kind=name))
        curves = schedule_curves(schedule, torch.zeros(1, 1, 2, 2))
        axis.plot(curves.log_snr[1], curves.times, "--", color=colour, label=name)
    axis.set_ylabel("diffusion time t")


@torch.inference_mode()
def error_by_log_snr(checkpoint: Checkpoint) -> tuple[np.ndarray, np.ndarray]:
    """Mean velocity error over a test crop, at log-SNRs that all of its pixels share."""
    crop = crop_of(checkpoint)
    view = view_of(checkpoint)
    condition = view.condition
    seen = Observation.of(crop.high)
    target = FieldOfView(checkpoint.model, checkpoint.normalisation, seen, view.sampling).condition.x
    z = (target - condition.mean) / condition.scale
    flat = build_schedule(replace(checkpoint.recipe.model.schedule, kind="log-snr-linear"))
    levels, errors = [], []
    generator = torch.Generator().manual_seed(0)
    for t in torch.linspace(0, 1, TIMES):
        point = flat.at(t.view(1, 1, 1, 1), torch.zeros_like(z))
        eps = torch.randn(z.shape, generator=generator)
        z_t = point.gamma.sqrt() * z + point.noise_power.sqrt() * eps
        error = velocity_between(z, eps, point) - checkpoint.model.velocity(z_t, point, condition.features)
        levels.append(float(point.log_snr.mean()))
        errors.append(float(error.square().mean()))
    return np.array(levels), np.array(errors)


def draw_maps(models: dict[str, Checkpoint]) -> Figure:
    """Where the model errs, where it says so, and where its schedule keeps signal."""
    figure = Figure(figsize=(12, 3.3 * len(models)), layout="constrained")
    axes = figure.subplots(len(models), 4, squeeze=False)
    for line, (task, checkpoint) in zip(axes, models.items(), strict=True):
        crop, view = crop_of(checkpoint), view_of(checkpoint)
        with torch.inference_mode():
            draws = np.stack(list(view.draws()))
            map_ = view.schedule_map()
        error, std = np.abs(crop.high - draws.mean(0)), draws.std(0)
        top = float(np.percentile(error, 99))
        low, high = np.percentile(crop.high, (0.1, 99.9))
        pictures = (
            ("input", crop.low, "gray", low, high),
            ("|error|", error, "inferno", 0, top),
            ("spread of the draws", std, "inferno", 0, top),
            ("schedule map", map_, "viridis", *np.percentile(map_, (1, 99))),
        )
        for axis, (title, image, colours, least, most) in zip(line, pictures, strict=True):
            shown = axis.imshow(image, cmap=colours, vmin=least, vmax=most)
            figure.colorbar(shown, ax=axis, shrink=0.85)
            axis.set(xticks=(), yticks=(), title=title)
        line[0].set_ylabel(task)
    return figure


def crop_of(checkpoint: Checkpoint) -> ImagePair:
    """The busiest crop of the first test field."""
    return busiest_crops(load_dataset(HOME / "data" / checkpoint.record.task), "test")[0]


def view_of(checkpoint: Checkpoint) -> FieldOfView:
    """That crop under restoration."""
    with torch.inference_mode():
        crop = crop_of(checkpoint)
        return FieldOfView(
            checkpoint.model, checkpoint.normalisation, crop.observation, checkpoint.recipe.sampling
        )


if __name__ == "__main__":
    main()
