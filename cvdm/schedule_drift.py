"""How far a learned schedule has moved from another model's, seen on the same images.

    drift = mean over pixels x of the integral over t of |gamma_a(t, x) - gamma_b(t, x)|

gamma falls from nearly 1 to nearly 0, so this area between two curves is also the mean difference of the
times at which a pixel has lost a given share of its signal power: 0.02 says that pixels lose their signal 2 %
of the diffusion time earlier or later than they did. It is 0 for equal schedules and below 1 for any two.
Each model reads the image on its own intensity scale, as it does when it restores it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cvdm.checkpoint import Checkpoint
from cvdm.field_of_view import BORDER, FieldOfView
from cvdm.patches import ImagePair
from cvdm.schedule import ScheduleCurves, schedule_curves

TIMES = 65
"""Of the integral, by the trapezoidal rule."""


@dataclass(frozen=True)
class SeenSchedule:
    """One model's schedule on one image (h, w)."""

    field: str
    curves: ScheduleCurves
    time_map: np.ndarray
    """Time of equal signal and noise, (h, w) in [0, 1]."""
    gamma: np.ndarray
    """Signal power at `TIMES` even times, (T, h, w)."""


@dataclass(frozen=True)
class ScheduleDrift:
    """Two models' schedules on the same images."""

    value: float
    """The drift, mean over images."""
    ours: tuple[SeenSchedule, ...]
    theirs: tuple[SeenSchedule, ...]


def schedule_drift(ours: Checkpoint, theirs: Checkpoint, images: Sequence[ImagePair]) -> ScheduleDrift:
    """Compare the schedules of two models on the same images."""
    assert images
    pairs = [(seen_schedule(ours, image), seen_schedule(theirs, image)) for image in images]
    areas = [np.trapezoid(np.abs(a.gamma - b.gamma), dx=1 / (TIMES - 1), axis=0).mean() for a, b in pairs]
    return ScheduleDrift(float(np.mean(areas)), tuple(a for a, _ in pairs), tuple(b for _, b in pairs))


@torch.inference_mode()
def seen_schedule(checkpoint: Checkpoint, image: ImagePair) -> SeenSchedule:
    """The schedule that a model gives to the pixels of an image."""
    view = FieldOfView(
        checkpoint.model, checkpoint.normalisation, image.observation, checkpoint.recipe.sampling
    )
    height, width = view.shape
    paths = view.condition.paths[..., BORDER : BORDER + height, BORDER : BORDER + width]
    schedule = checkpoint.model.schedule
    times = torch.linspace(0, 1, TIMES, device=paths.device).view(-1, 1, 1, 1, 1)
    gamma = torch.stack([schedule.at(t, paths).gamma[0, 0] for t in times])
    return SeenSchedule(
        image.field, schedule_curves(schedule, paths, count=TIMES), view.schedule_map(), gamma.cpu().numpy()
    )
