"""Score a model on small crops of the held-out fields: what the comparing benchmarks share.

Small crops of few fields rank variants that were trained with the same data, order and budget; what a model
is worth is said by `cvdm.measuring`, on whole images.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from cvdm.config import SamplingConfig
from cvdm.dataset import Dataset
from cvdm.field_of_view import FieldOfView
from cvdm.metrics import coverage, crps, psnr, rank_correlation, ssim, target_range
from cvdm.model import CVDM
from cvdm.normalisation import Normalisation
from cvdm.patches import ImagePair, read_pair
from cvdm.validation import busiest_crop

EDGE, BLOCK, DRAWS = 128, 8, 8
"""Of the crop of each field and of a block, in pixels; and posterior draws."""


LEVEL, FLOOR_SHARE = 0.9, 0.1
"""Of the calibrated interval mean -+ q (std + floor), and of the floor in the mean spread: fixed here, so
that results of other days compare, whatever the product does."""


@dataclass(frozen=True)
class Scores:
    """Means over test fields; intensities in half-ranges of the intensity scale."""

    crps: float
    """Of pixels: is the spread of each right?"""
    block_crps: float
    """Of the means of BLOCK x BLOCK pixels: do neighbours vary together as they should?"""
    psnr: float
    """Of the posterior mean, dB."""
    ssim: float
    raw_coverage: float
    """Of mean -+ 1.645 std."""
    coverage: float
    """Of the 90 % interval that was calibrated with the same sampling; NaN where it was not."""
    width: float
    """Mean width of that interval."""
    spread_rank: float
    """Spearman's correlation of std and true error over pixels."""
    map_rank: float
    """The same of the schedule map; 0 where all pixels share a curve."""


@dataclass(frozen=True)
class Crops:
    """What models of one dataset are scored on."""

    normalisation: Normalisation
    tests: tuple[ImagePair, ...]
    calibrations: tuple[ImagePair, ...]

    @classmethod
    def of(cls, dataset: Dataset, normalisation: Normalisation) -> Crops:
        """The busiest crop of the first capture of each held-out field."""
        return cls(normalisation, *(busiest_crops(dataset, split) for split in ("test", "calibration")))

    def scores(self, model: CVDM, sampling: SamplingConfig, *, calibrated: bool = True) -> Scores:
        """Of a model under one way of sampling; without calibration in half of the time."""
        quantile, floor = math.nan, math.nan
        if calibrated:
            seen = [self._spread(model, crop, sampling) for crop in self.calibrations]
            floor = FLOOR_SHARE * float(np.mean([std for _, std in seen]))
            # crops are of one size, so every field weighs the same
            quantile = float(np.quantile([error / (std + floor) for error, std in seen], LEVEL))
        rows = [self._row(model, crop, sampling, quantile, floor) for crop in self.tests]
        return Scores(*(float(np.mean(values)) for values in zip(*rows, strict=True)))

    @torch.inference_mode()
    def _draws(
        self, model: CVDM, crop: ImagePair, sampling: SamplingConfig
    ) -> tuple[np.ndarray, FieldOfView]:
        view = FieldOfView(model, self.normalisation, crop.observation, sampling)
        return np.stack(list(view.draws())).astype(np.float64), view

    def _spread(
        self, model: CVDM, crop: ImagePair, sampling: SamplingConfig
    ) -> tuple[np.ndarray, np.ndarray]:
        """Error of the mean and std, in half-ranges."""
        draws, view = self._draws(model, crop, sampling)
        half = view.scale.half_range
        return np.abs(crop.high - draws.mean(0)) / half, draws.std(0) / half

    def _row(
        self, model: CVDM, crop: ImagePair, sampling: SamplingConfig, quantile: float, floor: float
    ) -> tuple[float, ...]:
        """The fields of `Scores`, of one crop."""
        draws, view = self._draws(model, crop, sampling)
        half, span = view.scale.half_range, target_range(crop.high)
        mean, std = draws.mean(0), draws.std(0)
        error, reach = np.abs(crop.high - mean), quantile * (std + floor * half)
        covered = coverage(mean - reach, mean + reach, crop.high) if math.isfinite(quantile) else math.nan
        return (
            float(crps(draws, crop.high, antithetic=True).mean()) / half,
            float(crps(blocks(draws), blocks(crop.high), antithetic=True).mean()) / half,
            psnr(mean, crop.high, span),
            ssim(mean, crop.high, span),
            float((error <= 1.645 * std).mean()),
            covered,
            2 * float(reach.mean()) / half,
            rank_correlation(std, error),
            rank_correlation(view.schedule_map(), error),
        )


def busiest_crops(dataset: Dataset, split: str, edge: int = EDGE) -> tuple[ImagePair, ...]:
    """The busiest crop of the first capture of each field."""
    first = {pair.field: pair for pair in reversed(dataset.split(split))}
    return tuple(busiest_crop(read_pair(pair), edge) for _, pair in sorted(first.items()))


def blocks(images: np.ndarray) -> np.ndarray:
    """Means of BLOCK x BLOCK pixels, (..., H / BLOCK, W / BLOCK); what is left over is cut off."""
    height, width = (size // BLOCK for size in images.shape[-2:])
    whole = images[..., : height * BLOCK, : width * BLOCK]
    return whole.reshape(*images.shape[:-2], height, BLOCK, width, BLOCK).mean(axis=(-3, -1))


@dataclass(frozen=True)
class Row:
    """One variant, trained once, under one way of sampling."""

    task: str
    seed: int
    variant: str
    training_steps: int
    solver: str
    steps: int
    scores: Scores


def read_rows(path: Path) -> list[Row]:
    """What an earlier run has measured."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Row(
                line["task"],
                int(line["seed"]),
                line["variant"],
                int(line["training_steps"]),
                line["solver"],
                int(line["steps"]),
                Scores(*(float(line[field.name]) for field in fields(Scores))),
            )
            for line in csv.DictReader(file)
        ]


def add_rows(path: Path, rows: Sequence[Row]) -> Sequence[Row]:
    """Append to the CSV; returns the rows."""
    names = [field.name for field in fields(Row)][:-1]
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow([*names, *(field.name for field in fields(Scores))])
        for row in rows:
            scores = (round(value, 6) for value in vars(row.scores).values())
            writer.writerow([*(getattr(row, name) for name in names), *scores])
    return rows
