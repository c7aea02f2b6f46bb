"""How many steps fine-tuning saves: a training from scratch beside fine-tunings from a base.

    python benchmarks/fine_tuning.py --data DIR --base models/fmd-confocal-nuclei [--rates 1 0.3 0.1]

Prints CRPS and PSNR on the validation fields (of the averaged weights, at points of each training), and the
step at which each fine-tuning is as good as the training from scratch at its best, which is what is kept.
Exit code 1 when the default rate needs more than a quarter of the steps.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from cvdm.config import Recipe, TrainingConfig
from cvdm.dataset import Dataset, load_dataset
from cvdm.fine_tuning import Base, read_base
from cvdm.params import load_recipe
from cvdm.training import train

PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"
GOAL = 0.25
"""Share of the steps from scratch in which a fine-tuning should be as good."""


@dataclass(frozen=True)
class Curve:
    """Validations of one training."""

    name: str
    steps: tuple[int, ...]
    crps: tuple[float, ...]
    psnr: tuple[float, ...]

    def reaches(self, crps: float) -> int | None:
        """The first validated step with a CRPS no larger than this."""
        return next((step for step, value in zip(self.steps, self.crps, strict=True) if value <= crps), None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="dataset folder with a card.yaml")
    parser.add_argument("--base", type=Path, required=True, nargs="+", help="checkpoint directories")
    parser.add_argument("--preset", default="demo", help="of params.yaml")
    parser.add_argument("--rates", type=float, nargs="+", default=[TrainingConfig.fine_tuning_rate])
    parser.add_argument("--every", type=int, default=50, help="steps between validations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, help="picture of the curves to write (PNG)")
    options = parser.parse_args()
    print(f"{platform.platform()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    dataset = load_dataset(options.data)
    recipe = load_recipe(PARAMS, options.preset).with_seed(options.seed)
    recipe = replace(recipe, training=replace(recipe.training, validate_every=options.every))
    scratch = follow("scratch", dataset, recipe, None)
    curves = [scratch]
    for directory in options.base:
        base = read_base(directory, recipe.model)
        for rate in options.rates:
            own = replace(recipe, training=replace(recipe.training, fine_tuning_rate=rate))
            name = f"{directory.name}, rate x {rate:g}"
            curves.append(follow(name, dataset, own.for_fine_tuning(), base))
    for curve in curves:
        show(curve, scratch)
    if options.plot:
        draw(curves, options.data.name, options.plot)
    needed = [
        curve.reaches(min(scratch.crps))
        for curve in curves
        if curve.name.endswith(f"x {TrainingConfig.fine_tuning_rate:g}")
    ]
    return int(not all(step is not None and step <= GOAL * recipe.training.steps for step in needed))


def follow(name: str, dataset: Dataset, recipe: Recipe, base: Base | None) -> Curve:
    """Train once, and keep what each validation said."""
    seen = []
    with tempfile.TemporaryDirectory() as folder, tqdm(desc=name, total=recipe.training.steps) as bar:
        for step in train(dataset, recipe, state_path=Path(folder) / "state.pt", base=base):
            bar.update()
            if step.validation is not None:
                seen.append((step.step, step.validation.crps, step.validation.psnr))
    steps, crps, psnr = zip(*seen, strict=True)
    return Curve(name, steps, crps, psnr)


def show(curve: Curve, scratch: Curve) -> None:
    """A line for the end of a training: when it was as good as the one from scratch, and the reverse."""
    reached, matched = curve.reaches(min(scratch.crps)), scratch.reaches(min(curve.crps))
    told = "never" if reached is None else f"at step {reached} ({reached / scratch.steps[-1]:.0%})"
    reverse = "never" if matched is None else f"at step {matched}"
    print(
        f"{curve.name:40} {curve.steps[-1]:6} steps: CRPS {min(curve.crps):.5f}, "
        f"PSNR {max(curve.psnr):.2f} dB at best; as good as scratch at its best {told}; "
        f"scratch as good as this {reverse}"
    )


def draw(curves: list[Curve], title: str, path: Path) -> None:
    """CRPS over steps, the smaller the better."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for curve in curves:
        axes.plot(curve.steps, curve.crps, marker=".", label=curve.name)
    axes.axhline(min(curves[0].crps), color="0.6", linewidth=0.8)
    axes.set(xlabel="training steps", ylabel="CRPS on validation fields", title=f"Fine-tuning on {title}")
    axes.set_yscale("log")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
