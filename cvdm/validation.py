"""Look at a model in training: draw the posterior of fixed crops of the validation fields."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from cvdm.config import SamplingConfig
from cvdm.dataset import Dataset
from cvdm.field_of_view import FieldOfView
from cvdm.metrics import crps, psnr, target_range
from cvdm.model import CVDM
from cvdm.normalisation import Normalisation
from cvdm.patches import ImagePair, read_pair
from cvdm.region import Region
from cvdm.schedule import ScheduleCurves, schedule_curves

CROP, CROPS, DRAWS = 128, 4, 4
"""Edge of a validation crop, how many at most, and draws of each: seconds, not minutes, on a CPU."""


@dataclass(frozen=True)
class Validation:
    """Scores and pictures of one validation."""

    crps: float
    """Mean CRPS over the crops, in half-ranges of the intensity scale."""
    psnr: float
    """Mean PSNR in dB of the posterior mean over the crops, `cvdm.metrics.target_range` as range."""
    panels: tuple[Panel, ...]
    """One for each crop."""
    schedule: ScheduleCurves
    """Over the pixels of the first crop."""


@dataclass(frozen=True)
class Panel:
    """One crop, arrays (h, w) in file units except schedule_map."""

    field: str
    low: np.ndarray
    mean: np.ndarray
    high: np.ndarray
    std: np.ndarray
    schedule_map: np.ndarray
    """Time of equal signal and noise, in [0, 1]."""


class Validator:
    """The validation crops, fixed for a whole training."""

    def __init__(self, dataset: Dataset, normalisation: Normalisation, sampling: SamplingConfig) -> None:
        self.normalisation = normalisation
        self.sampling = replace(sampling, samples=DRAWS)
        self.crops = validation_crops(dataset)

    @torch.inference_mode()
    def validate(self, model: CVDM) -> Validation:
        """Draw every crop and score it."""
        views = [
            FieldOfView(model, self.normalisation, crop.observation, self.sampling) for crop in self.crops
        ]
        drawn = [np.stack(list(view.draws())) for view in views]
        scores = [
            _scores(draws, crop, view.scale.half_range)
            for draws, crop, view in zip(drawn, self.crops, views, strict=True)
        ]
        panels = [
            Panel(crop.field, crop.low, draws.mean(0), crop.high, draws.std(0), view.schedule_map())
            for crop, draws, view in zip(self.crops, drawn, views, strict=True)
        ]
        return Validation(
            crps=float(np.mean([c for c, _ in scores])),
            psnr=float(np.mean([p for _, p in scores])),
            panels=tuple(panels),
            schedule=schedule_curves(model.schedule, views[0].condition.paths),
        )


def validation_crops(dataset: Dataset) -> list[ImagePair]:
    """The crops by which models are looked at: the same ones for every model of a dataset."""
    first_of_field = {pair.field: pair for pair in reversed(dataset.split("validation"))}
    return [busiest_crop(read_pair(pair)) for _, pair in sorted(first_of_field.items())[:CROPS]]


def busiest_crop(image: ImagePair, edge: int = CROP) -> ImagePair:
    """The crop of at most edge x edge, on a grid of half its size, whose target varies most.

    On the target's grid, in whole pixels of the input.
    """
    height, width = image.high.shape
    factor = image.observation.factor
    edge -= edge % factor
    step = edge // 2 - edge // 2 % factor
    corners = [
        (top, left)
        for top in range(0, max(1, height - edge + 1), step)
        for left in range(0, max(1, width - edge + 1), step)
    ]
    top, left = max(
        corners, key=lambda at: float(image.high[at[0] : at[0] + edge, at[1] : at[1] + edge].std())
    )
    return image.cropped(Region(top, min(top + edge, height), left, min(left + edge, width)))


def _scores(draws: np.ndarray, crop: ImagePair, half_range: float) -> tuple[float, float]:
    span = target_range(crop.high) or 1.0
    score = float(crps(draws, crop.high, antithetic=True).mean()) / half_range
    return score, psnr(draws.mean(0), crop.high, span)
