"""What few steps cost: CRPS over steps, as drawn and with the spread that calibration fields ask for.

    python benchmarks/spread.py [--tasks T ...] [--steps 2 3 5 10 20] [--crop 256]

The models in models/ restore the busiest crop of the first capture of every calibration and test field.
Calibration crops give the factor of the spread (`cvdm.calibration`), test crops the CRPS, in half-ranges of
the intensity scale, beside the regression mean with one spread for all pixels (`cvdm.constant_interval`).
Some ten minutes on one core. The last line is the summary; exit code 1 when the steps that a model is
shipped with score over two hundredths worse than the best number of steps, spread calibrated.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from machine import machine
from scoring import busiest_crops
from tqdm import tqdm

from cvdm.calibration import CalibrationImage, calibrate, dispersion_losses
from cvdm.checkpoint import Checkpoint, load_checkpoint
from cvdm.constant_interval import ConstantInterval
from cvdm.dataset import load_dataset
from cvdm.field_of_view import FieldOfView
from cvdm.metrics import crps, psnr
from cvdm.patches import ImagePair

CHECKOUT = Path(__file__).resolve().parents[1]
TASKS = ("fmd-confocal-nuclei", "biosr-microtubules")
WORSE_MOST = 0.02
FLOOR = 1e-3
"""Of the interval, which is not looked at here."""


@dataclass(frozen=True)
class Found:
    """Of test crops, in half-ranges of the intensity scale."""

    factor: float
    constant: float
    """CRPS of the regression mean with one spread."""
    drawn: float
    calibrated: float
    psnr: float
    """Of the mean, in the range of the target's half-range, dB."""


@torch.inference_mode()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--steps", nargs="+", type=int, default=(2, 3, 5, 10, 20))
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    print(machine(options.device))
    worse = {}
    for task in options.tasks:
        checkpoint = load_checkpoint(CHECKOUT / "models" / task, device=options.device)
        own = checkpoint.recipe.sampling.steps
        dataset = load_dataset(CHECKOUT / "data" / task)
        calibration, test = (busiest_crops(dataset, split, options.crop) for split in ("calibration", "test"))
        print(f"{task}, {len(test)} test crops, shipped with {own} steps")
        print(
            f"{'steps':>7}{'factor':>8}{'one spread':>12}{'as drawn':>10}{'calibrated':>12}"
            f"{'gain':>7}{'PSNR':>7}"
        )
        scores = {}
        for steps in tqdm(sorted({*options.steps, own}), task, leave=False, file=sys.stderr):
            found = scores[steps] = measured(checkpoint, steps, calibration, test)
            gain = 1 - found.calibrated / found.constant
            print(
                f"{steps:>7}{found.factor:8.2f}{found.constant:12.5f}{found.drawn:10.5f}"
                f"{found.calibrated:12.5f}{gain:7.1%}{found.psnr:7.2f}"
            )
        worse[task] = scores[own].calibrated / min(found.calibrated for found in scores.values()) - 1
    told = ", ".join(f"{task} {share:.1%}" for task, share in worse.items())
    print(
        f"CRPS of the shipped number of steps over the best, spread calibrated (at most {WORSE_MOST:.0%}): "
        f"{told}"
    )
    return int(max(worse.values()) > WORSE_MOST)


def measured(
    checkpoint: Checkpoint, steps: int, calibration: tuple[ImagePair, ...], test: tuple[ImagePair, ...]
) -> Found:
    """A number of steps, calibrated on the one crops and scored on the others."""
    seen = [drawn(checkpoint, crop, steps) for crop in calibration]
    images = [
        CalibrationImage(
            crop.field, np.abs(target - draws.mean(0)), draws.std(0), dispersion_losses(draws, target)
        )
        for crop, (draws, target, _) in zip(calibration, seen, strict=True)
    ]
    factor = calibrate(images, FLOOR).dispersion
    constant = ConstantInterval.of(
        (crop.field, target - regression)
        for crop, (_, target, regression) in zip(calibration, seen, strict=True)
    )
    rows = []
    for crop in test:
        draws, target, regression = drawn(checkpoint, crop, steps)
        mean = draws.mean(0)
        rows.append(
            (
                constant.crps(target - regression),
                crps(draws, target, antithetic=True).mean(),
                crps(mean + factor * (draws - mean), target, antithetic=True).mean(),
                psnr(mean, target, 2.0),
            )
        )
    return Found(factor, *np.mean(rows, axis=0).tolist())


def drawn(checkpoint: Checkpoint, crop: ImagePair, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws (K, H, W), target and regression mean (H, W), in half-ranges."""
    sampling = replace(checkpoint.recipe.sampling, steps=steps)
    view = FieldOfView(checkpoint.model, checkpoint.normalisation, crop.observation, sampling)
    half = view.scale.half_range
    return np.stack(list(view.draws())) / half, crop.high / half, view.regression_mean() / half


if __name__ == "__main__":
    raise SystemExit(main())
