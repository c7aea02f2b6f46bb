"""Measure a checkpoint on held-out fields, beside the baselines that it must beat: a `cvdm.evaluation`.

Scores are computed per image and averaged within a field of view. For a baseline, which gives one value per
pixel and no spread, CRPS is by definition its mean absolute error; but the constant interval is the
regression mean with the spread of its errors on the calibration fields (`cvdm.constant_interval`). Two
metrics of the model alone are there where they can be measured: the resolution against the target (`frc_px`,
pixels) on pairs that do not share their noise, and the forward-model residual (`residual`, standard
deviations of noise) of tasks whose card states the optics. Interval and spread are scored for kinds of
pixels, too (`cvdm.stratified`).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch

from cvdm.baselines import Restorer, fit_baselines
from cvdm.checkpoint import Checkpoint
from cvdm.config import SamplingConfig
from cvdm.constant_interval import ConstantInterval
from cvdm.dataset import Dataset
from cvdm.errors import CheckpointError, DatasetError
from cvdm.evaluation import CONSTANT, REGRESSION, Evaluation, PerField
from cvdm.field_of_view import FieldOfView, Progress
from cvdm.metrics import (
    ause,
    coverage,
    crps,
    fit_intensity,
    mae,
    nrmse,
    psnr,
    rank_correlation,
    ssim,
    target_range,
)
from cvdm.optics import ForwardModel, forward_residual
from cvdm.patches import ImagePair, read_images
from cvdm.posterior import dispersed, estimate
from cvdm.resolution import resolution_against
from cvdm.schedule import ScheduleExtremes, schedule_extremes
from cvdm.stratified import Judged, stratified

Scores = dict[str, float]
"""Metric to value, of one image."""
OnImage = Callable[[ImagePair, FieldOfView, np.ndarray], None]
"""Called with an image, its field of view and the draws (K, H, W) in file units."""
CANDIDATE = "candidate"

POINT_METRICS: dict[str, Callable[[np.ndarray, np.ndarray, float], float]] = {
    "psnr": psnr,
    "ssim": ssim,
    "nrmse": nrmse,
    "mae": mae,
}


@dataclass(frozen=True)
class _Measured:
    """One image: scores by the candidate's and the baselines' names."""

    scores: dict[str, Scores]
    strata: dict[str, Scores]
    """Of the candidate, by kind of pixels."""
    seconds: float
    """That the candidate took."""
    schedule: ScheduleExtremes


@torch.inference_mode()
def evaluate(
    checkpoint: Checkpoint,
    dataset: Dataset,
    split: str = "test",
    *,
    sampling: SamplingConfig | None = None,
    with_baselines: bool = True,
    progress: Progress | None = None,
    on_image: OnImage | None = None,
) -> Evaluation:
    """Score the checkpoint and every baseline on all pairs of a split.

    with_baselines: False where the same dataset's are known; the regression mean, which is the checkpoint's
    own, is scored nevertheless. progress: called with (done, total) pairs.
    on_image: called with each image, so that who wants to show some need not restore them again.
    Raises CheckpointError for a model of another task or sight, DatasetError when the split is empty.
    """
    if checkpoint.record.task != dataset.card.task:
        raise CheckpointError(
            f"a model of {dataset.card.task}, the task of {dataset.root}",
            f"one of {checkpoint.record.task}",
            "Choose the checkpoint and the data of one task.",
        )
    if checkpoint.sight != dataset.card.sight:
        raise CheckpointError(
            f"a model that sees what the card of {dataset.root} states: {dataset.card.sight}",
            f"one of {checkpoint.sight}",
            "Give data of other channels, context or factor a task of their own.",
        )
    sampling = sampling or checkpoint.recipe.sampling
    pairs = dataset.split(split)
    if not pairs:
        raise DatasetError(
            f"at least one field in the {split} split of {dataset.root}", "none", "Add fields of view."
        )
    restorers = fit_baselines(dataset).restorers() if with_baselines else {}
    constant = _constant_interval(checkpoint, dataset, sampling) if with_baselines else None
    rows: dict[str, list[tuple[str, Scores]]] = defaultdict(list)
    strata: dict[str, list[tuple[str, Scores]]] = defaultdict(list)
    pixels, seconds = 0, 0.0
    schedules: list[ScheduleExtremes] = []
    optics = dataset.card.forward_model
    for done, pair in enumerate(pairs, start=1):
        for image in read_images(pair):
            measured = _measure(checkpoint, restorers, constant, image, sampling, optics, on_image)
            for name, values in measured.scores.items():
                rows[name].append((image.field, values))
            for name, values in measured.strata.items():
                strata[name].append((image.field, values))
            pixels, seconds = pixels + image.high.size, seconds + measured.seconds
            schedules.append(measured.schedule)
        if progress is not None:
            progress(done, len(pairs))
    per_field = {name: _per_field(values) for name, values in rows.items()}
    return Evaluation(
        task=dataset.card.task,
        split=split,
        metrics=per_field.pop(CANDIDATE),
        baselines=per_field,
        samples=sampling.samples,
        steps=sampling.steps,
        solver=sampling.solver,
        seed=sampling.seed,
        seconds_per_megapixel=seconds / pixels * 1e6,
        schedule=reduce(ScheduleExtremes.joined, schedules),
        strata={name: _per_field(values) for name, values in strata.items()},
        calibrated=checkpoint.is_calibrated_for(sampling),
        spread_calibrated=checkpoint.has_spread_for(sampling),
    )


def _measure(
    checkpoint: Checkpoint,
    restorers: Mapping[str, Restorer],
    constant: ConstantInterval | None,
    image: ImagePair,
    sampling: SamplingConfig,
    optics: ForwardModel | None,
    on_image: OnImage | None,
) -> _Measured:
    """Candidate and every baseline on one image."""
    start = time.perf_counter()
    view = FieldOfView(checkpoint.model, checkpoint.normalisation, image.observation, sampling)
    draws = np.stack(list(view.draws()))
    seconds = time.perf_counter() - start
    if on_image is not None:
        on_image(image, view, draws)
    stretch = checkpoint.stretch(view.observation)
    moments = draws.mean(0), draws.std(0)
    told, unstretched = (estimate(checkpoint, view, *moments, factor) for factor in (stretch, 1.0))
    pixels = crps(dispersed(checkpoint, sampling, draws), image.high, antithetic=True)
    judged = Judged(**vars(told), crps=pixels, target=image.high)
    own = _posterior_scores(judged, view.schedule_map(), image) | {
        "crps_drawn": float(crps(draws, image.high, antithetic=True).mean()) / target_range(image.high),
        "stretch": stretch,
        "unstretched_coverage": coverage(unstretched.lower, unstretched.upper, image.high),
    }
    scores = {CANDIDATE: own | _scores_where_measurable(draws.mean(0), image, optics)}
    points = {name: restore(image.low) for name, restore in restorers.items()}
    regression = view.regression_mean()
    for name, point in (points | {REGRESSION: regression}).items():
        scores[name] = _point_scores(point, image) | _crps_of_point(point, image)
    if constant is not None:
        half = view.scale.half_range
        found = constant.crps((image.high - regression) / half) * half / target_range(image.high)
        scores[CONSTANT] = scores[REGRESSION] | {"crps": found}
    extremes = schedule_extremes(checkpoint.model.schedule, view.condition.paths)
    return _Measured(scores, stratified(judged), seconds, extremes)


def _constant_interval(
    checkpoint: Checkpoint, dataset: Dataset, sampling: SamplingConfig
) -> ConstantInterval | None:
    """Of the calibration fields; None where there are none."""

    def residuals() -> Iterator[tuple[str, np.ndarray]]:
        for pair in dataset.split("calibration"):
            for image in read_images(pair):
                view = FieldOfView(checkpoint.model, checkpoint.normalisation, image.observation, sampling)
                yield image.field, (image.high - view.regression_mean()) / view.scale.half_range

    return ConstantInterval.of(residuals()) if dataset.split("calibration") else None


def _posterior_scores(judged: Judged, schedule_map: np.ndarray, image: ImagePair) -> Scores:
    span, error = target_range(image.high), np.abs(judged.mean - image.high)
    return _point_scores(judged.mean, image) | {
        "crps": float(judged.crps.mean()) / span,
        "coverage": coverage(judged.lower, judged.upper, image.high),
        "width": float((judged.upper - judged.lower).mean()) / span,
        "ause": ause(judged.std, error),
        "std_rank": rank_correlation(judged.std, error),
        "map_rank": rank_correlation(schedule_map, error),
    }


def _point_scores(prediction: np.ndarray, image: ImagePair) -> Scores:
    span, fitted = target_range(image.high), fit_intensity(prediction, image.high)
    raw = {name: metric(prediction, image.high, span) for name, metric in POINT_METRICS.items()}
    return raw | {f"{name}_fit": metric(fitted, image.high, span) for name, metric in POINT_METRICS.items()}


def _scores_where_measurable(mean: np.ndarray, image: ImagePair, optics: ForwardModel | None) -> Scores:
    """Resolution and forward-model residual, without those that the pair or the card do not allow."""
    scores = {}
    resolution = resolution_against(image.high, mean, image.low)
    if resolution is not None:
        scores["frc_px"] = resolution
    if optics is not None:
        scores["residual"] = forward_residual(mean, image.low, optics)
    return scores


def _crps_of_point(prediction: np.ndarray, image: ImagePair) -> Scores:
    return {"crps": mae(prediction, image.high, target_range(image.high))}


def _per_field(rows: list[tuple[str, Scores]]) -> dict[str, PerField]:
    by_field: dict[str, list[Scores]] = defaultdict(list)
    for field, values in rows:
        by_field[field].append(values)
    names = dict.fromkeys(name for _, values in rows for name in values)
    return {
        name: {
            field: float(np.mean([v[name] for v in values if name in v]))
            for field, values in sorted(by_field.items())
            if any(name in v for v in values)
        }
        for name in names
    }
