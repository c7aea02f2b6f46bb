"""Specimens to test with: a small dataset on disk and a small checkpoint, made by the real code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from cvdm.calibration import Calibration
from cvdm.checkpoint import Checkpoint, Record, save_checkpoint
from cvdm.config import ModelConfig, NetworkConfig, Recipe, SamplingConfig, ScheduleConfig, TrainingConfig
from cvdm.images import write_tiff
from cvdm.model import CVDM
from cvdm.normalisation import Normalisation

TINY = NetworkConfig(width=4, levels=2)
TINY_RECIPE = Recipe(
    ModelConfig(mean=TINY, denoiser=TINY, schedule=ScheduleConfig(width=4)),
    TrainingConfig(steps=4, batch=2, patch=16, warmup=1, validate_every=2, checkpoint_every=1),
    SamplingConfig(samples=2, steps=2, tile=32),
)
WINNING_RECIPE = Recipe(
    ModelConfig(
        mean=NetworkConfig(width=8, levels=3, stem=1),
        denoiser=NetworkConfig(width=8, levels=2),
        schedule=ScheduleConfig(width=8),
    ),
    TrainingConfig(
        steps=400, batch=8, patch=32, warmup=20, ema=0.98, validate_every=200, checkpoint_every=100
    ),
    SamplingConfig(samples=8, steps=4, tile=128),
)
"""Beats every baseline on synthetic cells, calibrated, after some twenty seconds on two cores."""


def tiny_model(recipe: Recipe = TINY_RECIPE, *, seed: int = 0) -> CVDM:
    """An untrained model whose output layers are not zero, so that every path through it counts."""
    torch.manual_seed(seed)
    model = CVDM(recipe.model).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "leave.conv" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def make_checkpoint(*, seed: int = 0, task: str = "test-cells", recipe: Recipe = TINY_RECIPE) -> Checkpoint:
    return Checkpoint(
        model=tiny_model(recipe, seed=seed),
        recipe=recipe,
        normalisation=Normalisation("dataset", 0.0, 200.0),
        calibration=Calibration(level=0.9, quantile=2.0, floor=0.01, fields=3, raw_coverage=0.8),
        record=Record(
            task=task,
            dataset_digest="d" * 64,
            git_commit="0" * 40,
            seed=seed,
            steps_trained=4,
            created="2026-01-01T00:00:00+00:00",
            pixel_size_um=0.1,
            modality="confocal",
        ),
    )


def spoil_weights(directory: Path) -> None:
    """Put another model's weights into a checkpoint: checksums hold, the golden pair does not."""
    other = directory.with_name("other")
    save_checkpoint(other, make_checkpoint(seed=99), cells(np.random.default_rng(7), 32))
    (directory / "weights.pt").write_bytes((other / "weights.pt").read_bytes())
    ours, theirs = (json.loads((d / "model.json").read_text()) for d in (directory, other))
    ours["files"]["weights.pt"] = theirs["files"]["weights.pt"]
    (directory / "model.json").write_text(json.dumps(ours))


def cells(rng: np.random.Generator, size: int = 96) -> np.ndarray:
    """A clean image (size, size) of bright discs on a dark background, 0..200."""
    rows, columns = np.mgrid[:size, :size]
    image = np.full((size, size), 10.0)
    for _ in range(6):
        row, column, radius = *rng.uniform(0, size, 2), rng.uniform(6, 14)
        image += rng.uniform(60, 160) / (1 + np.exp((np.hypot(rows - row, columns - column) - radius) / 1.5))
    return (image * min(1.0, 200 / image.max())).astype(np.float32)


def noisy(clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(clean + rng.normal(0, 3 + np.sqrt(clean)), 0, 255)


CARD = """\
task: {task}
modality: confocal
structure: discs
pixel_size_um: 0.1
numerical_aperture: null
wavelength_nm: null
licence: MIT
citation: made by the tests
name_pattern: '^(?P<field>f\\d+)_c\\d+$'
inputs: measured
forward_model: null
split: {{seed: {seed}, train: 0.4, validation: 0.2, calibration: 0.2, test: 0.2}}
"""


def make_dataset(
    root: Path, *, fields: int = 12, captures: int = 1, size: int = 96, task: str = "test-cells"
) -> Path:
    """Write a dataset whose splits are all populated; returns its folder."""
    rng = np.random.default_rng(0)
    (root / "low").mkdir(parents=True)
    (root / "high").mkdir()
    for field in range(fields):
        clean, grain = cells(rng, size), rng.normal(0, 2, (size, size))
        for capture in range(captures):
            name = f"f{field:02d}_c{capture}.tif"
            write_tiff(root / "low" / name, np.round(noisy(clean, rng)).astype(np.uint8))
            write_tiff(root / "high" / name, np.round(np.clip(clean + grain, 0, 255)).astype(np.uint8))
    (root / "card.yaml").write_text(CARD.format(task=task, seed=2), encoding="utf-8")
    return root
