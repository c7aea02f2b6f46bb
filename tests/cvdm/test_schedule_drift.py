"""The drift of a learned schedule: zero for the same one, known for shifted ones, in time units."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from specimens import TINY_RECIPE, cells, make_checkpoint

from cvdm.config import Recipe
from cvdm.observation import Observation
from cvdm.patches import ImagePair
from cvdm.schedule_drift import schedule_drift


@pytest.fixture
def images() -> list[ImagePair]:
    clean = [cells(np.random.default_rng(seed), 48) for seed in (1, 2)]
    return [ImagePair(f"f{index}", Observation.of(image), image) for index, image in enumerate(clean)]


def of_kind(kind: str) -> Recipe:
    return replace(TINY_RECIPE, model=replace(TINY_RECIPE.model, schedule=schedule(kind)))


def schedule(kind: str):
    return replace(TINY_RECIPE.model.schedule, kind=kind)


def test_a_schedule_has_not_drifted_from_itself(images):
    """Equal models: exactly zero, with both models' curves and maps of every image."""
    one = make_checkpoint()
    drift = schedule_drift(one, make_checkpoint(), images)
    assert drift.value == 0
    assert [seen.field for seen in drift.ours] == ["f0", "f1"]
    assert drift.theirs[1].time_map.shape == (48, 48)


def test_the_drift_is_the_area_between_two_known_curves(images):
    """For two schedules chosen by hand it is the integral of |difference| over time, worked out apart."""
    drift = schedule_drift(
        make_checkpoint(recipe=of_kind("log-snr-linear")), make_checkpoint(recipe=of_kind("cosine")), images
    )
    t = np.linspace(0, 1, 20_001)
    u0, u1 = TINY_RECIPE.model.schedule.log_snr_clean, TINY_RECIPE.model.schedule.log_snr_noise
    linear = 1 / (1 + np.exp(-(u0 + (u1 - u0) * t)))
    first, last = (np.arctan(np.exp(-u / 2)) for u in (u0, u1))
    cosine = np.cos(first + (last - first) * t) ** 2
    assert drift.value == pytest.approx(np.abs(linear - cosine).mean(), rel=0.01)


def test_a_schedule_that_learned_more_has_drifted_further(images):
    """The drift grows with the distance of the weights, is symmetric, and stays below one."""
    reference = make_checkpoint()

    def moved(amount: float):
        other = make_checkpoint()
        with torch.no_grad():
            other.model.schedule.network.leave.conv.bias[0] += amount
        return other

    near, far = (schedule_drift(moved(amount), reference, images).value for amount in (0.1, 1.0))
    assert 0 < near < far < 1
    assert schedule_drift(reference, moved(1.0), images).value == pytest.approx(far)
