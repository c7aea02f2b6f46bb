"""From a finished training to a checkpoint: its best weights, calibrated, with a golden input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cvdm.calibration import CalibrationImage, calibrate, floor_from
from cvdm.checkpoint import Checkpoint, Record
from cvdm.config import Recipe, SamplingConfig
from cvdm.dataset import Dataset, dataset_digest
from cvdm.field_of_view import FieldOfView, Progress
from cvdm.fine_tuning import Base
from cvdm.model import CVDM
from cvdm.normalisation import Normalisation
from cvdm.patches import ImagePair, read_images, read_pair
from cvdm.posterior import Moments
from cvdm.training import training_normalisation
from cvdm.training_state import read_best
from cvdm.validation import busiest_crop, validation_crops

GOLDEN_EDGE = 96


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

    created: ISO time; base: what the training started from; progress: called with (done, total) images.
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
    images = []
    for done, pair in enumerate(pairs, start=1):
        images += [
            _reconstructed(model, normalisation, image, recipe.sampling) for image in read_images(pair)
        ]
        if progress is not None:
            progress(done, len(pairs))
    return Checkpoint(
        model=model,
        recipe=recipe,
        normalisation=normalisation,
        calibration=calibrate(images, floor),
        record=Record(
            task=dataset.card.task,
            dataset_digest=dataset_digest(dataset),
            git_commit=git_commit,
            seed=recipe.training.seed,
            steps_trained=best.step,
            created=created,
            pixel_size_um=dataset.card.pixel_size_um,
            modality=dataset.card.modality,
            base_digest=None if base is None else base.digest,
            forward_model=dataset.card.forward_model,
        ),
    )


def golden_input(dataset: Dataset) -> np.ndarray:
    """A small input from the validation fields, in file units: (H, W), or (C, H, W) of several channels."""
    seen = busiest_crop(read_pair(dataset.split("validation")[0]), GOLDEN_EDGE).observation
    sight = dataset.card.sight
    planes = [np.asarray(seen.centres[sight.order.index(number)]) for number in range(sight.channel_count)]
    return np.stack(planes) if sight.channels else planes[0]


@torch.inference_mode()
def _reconstructed(
    model: CVDM, normalisation: Normalisation, image: ImagePair, sampling: SamplingConfig
) -> CalibrationImage:
    view = FieldOfView(model, normalisation, image.observation, sampling)
    mean, std = Moments(view).collect().mean_and_std()
    error = np.abs(image.high - mean) / view.scale.half_range
    return CalibrationImage(image.field, error, std / view.scale.half_range)
