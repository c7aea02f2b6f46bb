"""From a finished training to a checkpoint: its best weights, calibrated, with a golden input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import torch

from cvdm.calibration import FEWEST_DRAWS, CalibrationImage, calibrate, dispersion_losses, floor_from
from cvdm.checkpoint import Checkpoint, Record
from cvdm.config import Recipe, SamplingConfig
from cvdm.dataset import Dataset, Pair
from cvdm.errors import ImageError
from cvdm.field_of_view import FieldOfView, Progress
from cvdm.fine_tuning import Base
from cvdm.model import CVDM
from cvdm.normalisation import IntensityScale, Normalisation, Pixels
from cvdm.novelty import Familiar, fit_familiar
from cvdm.patches import ImagePair, read_images, read_pair
from cvdm.planted_changes import changed, fit_stretches
from cvdm.posterior import require_familiar
from cvdm.training import training_normalisation
from cvdm.training_state import read_best
from cvdm.validation import busiest_crop, validation_crops

GOLDEN_EDGE = 96
PLANTED_FIELDS, PLANTED_EDGE = 3, 192
"""Calibration fields into which changes are planted, and pixels along a side of what is restored of them."""


def build_checkpoint(
    dataset: Dataset,
    recipe: Recipe,
    state_path: Path,
    *,
    git_commit: str | None,
    created: str,
    device: str = "cpu",
    base: Base | None = None,
    progress: Progress | None = None,
) -> Checkpoint:
    """Calibrate the best weights of the training at `state_path` on the calibration fields.

    The floor of the interval comes from crops of the validation fields, so that the score is settled before
    a calibration field is looked at.

    Then images changed as in `cvdm.planted_changes` tell by how much intervals stretch with novelty.

    created: ISO time; base: what the training started from; progress: called with (done, total), pairs and
    crops that are changed.
    Raises CheckpointError when the state cannot be read.
    """
    recipe = recipe.seeing(dataset.card.sight)
    best = read_best(state_path)
    model = CVDM(recipe.model)
    model.load_state_dict(best.weights)
    model.to(device=device).eval().requires_grad_(False)
    normalisation = training_normalisation(dataset, recipe)
    crops = validation_crops(dataset)
    floor = floor_from([_reconstructed(model, normalisation, crop, recipe.sampling).std for crop in crops])
    pairs = dataset.split("calibration")
    to_change = _planted_crops(pairs)
    done = count(1)

    def told() -> None:
        if progress is not None:
            progress(next(done), len(pairs) + len(to_change))

    images = []
    for pair in pairs:
        images += [
            _reconstructed(model, normalisation, image, recipe.sampling) for image in read_images(pair)
        ]
        told()
    checkpoint = Checkpoint(
        model=model,
        recipe=recipe,
        normalisation=normalisation,
        calibration=calibrate(images, floor),
        record=Record(
            task=dataset.card.task,
            dataset_digest=dataset.digest,
            git_commit=git_commit,
            seed=recipe.training.seed,
            steps_trained=best.step,
            created=created,
            pixel_size_um=dataset.card.pixel_size_um,
            modality=dataset.card.modality,
            base_digest=None if base is None else base.digest,
            forward_model=dataset.card.forward_model,
        ),
        familiar=_familiar(dataset, normalisation),
    )
    needed: list[tuple[float, float]] = []
    for crop in to_change:
        needed += _needed(checkpoint, crop)
        told()
    return replace(checkpoint, calibration=replace(checkpoint.calibration, stretches=fit_stretches(needed)))


def golden_input(dataset: Dataset) -> np.ndarray:
    """A small input from the validation fields, in file units: (H, W), or (C, H, W) of several channels."""
    seen = busiest_crop(read_pair(dataset.split("validation")[0]), GOLDEN_EDGE).observation
    sight = dataset.card.sight
    planes = [np.asarray(seen.centres[sight.order.index(number)]) for number in range(sight.channel_count)]
    return np.stack(planes) if sight.channels else planes[0]


def _familiar(dataset: Dataset, normalisation: Normalisation) -> Familiar | None:
    """What the training fields look like, by the first image of each."""
    first = {pair.field: pair for pair in reversed(dataset.split("train"))}

    def seen() -> Iterator[tuple[str, Pixels, IntensityScale]]:
        for field, pair in sorted(first.items()):
            centres = read_pair(pair).observation.centres
            yield field, centres[0], normalisation.scales_of(centres)[0]

    return fit_familiar(seen())


def _planted_crops(pairs: Sequence[Pair]) -> list[ImagePair]:
    """Of calibration fields: what changes are planted into."""
    first = {pair.field: pair for pair in reversed(pairs)}
    return [busiest_crop(read_pair(pair), PLANTED_EDGE) for _, pair in sorted(first.items())[:PLANTED_FIELDS]]


def _needed(checkpoint: Checkpoint, crop: ImagePair) -> Iterator[tuple[float, float]]:
    """Of a crop after each change: its novelty, and the stretch with which its interval covers its level."""
    calibration = checkpoint.calibration
    for observation in changed(crop.observation, checkpoint.record.seed):
        novelty = checkpoint.novelty(observation)
        if novelty is None:
            return
        try:
            require_familiar(checkpoint, observation)
        except ImageError:  # as a service would refuse it
            continue
        image = replace(crop, observation=observation)
        found = _reconstructed(checkpoint.model, checkpoint.normalisation, image, checkpoint.recipe.sampling)
        reach = calibration.quantile * (found.std + calibration.floor)
        yield novelty, float(np.quantile(found.error / reach, calibration.level))


@torch.inference_mode()
def _reconstructed(
    model: CVDM, normalisation: Normalisation, image: ImagePair, sampling: SamplingConfig
) -> CalibrationImage:
    view = FieldOfView(model, normalisation, image.observation, sampling)
    draws, target = np.stack(list(view.draws())) / view.scale.half_range, image.high / view.scale.half_range
    losses = dispersion_losses(draws, target) if len(draws) >= FEWEST_DRAWS else None
    return CalibrationImage(image.field, np.abs(target - draws.mean(0)), draws.std(0), losses)
