"""Changes planted into calibration fields: as a camera would have seen them, and what intervals need then."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from specimens import TINY_RECIPE, cells, make_dataset

from cvdm.build import build_checkpoint
from cvdm.dataset import load_dataset
from cvdm.inspection.noise import measure_noise
from cvdm.observation import Observation
from cvdm.optics import blur
from cvdm.planted_changes import DEFOCUS, FEWER_PHOTONS, changed, defocused, dimmer, fit_stretches
from cvdm.training import train

GAIN = 4.0


@pytest.fixture(scope="module")
def scene():
    """Smooth cells (256, 256) without noise."""
    return blur(cells(np.random.default_rng(0), 256), 3) + 20


def photographed(scene, gain=GAIN, seed=0):
    return gain * np.random.default_rng(seed).poisson(scene / gain)


@pytest.mark.parametrize("fewer", [3.0, 10.0])
def test_fewer_photons_leave_the_brightness_and_multiply_the_variance(scene, fewer):
    """As an acquisition with a gain that is higher by the same factor has them."""
    found = dimmer(photographed(scene), np.random.default_rng(1), fewer=fewer)
    assert found.mean() == pytest.approx(scene.mean(), rel=0.05)
    again = photographed(scene, GAIN * fewer, seed=2)
    assert measure_noise(found).level == pytest.approx(measure_noise(again).level, rel=0.1)


def test_a_defocused_image_has_the_noise_of_its_camera(scene):
    """As if the blurred scene had been photographed, and not as if the photograph had been blurred."""
    found = defocused(photographed(scene), np.random.default_rng(1), sigma=4.0)
    again = photographed(blur(scene, 4.0), seed=2)
    assert measure_noise(found).level == pytest.approx(measure_noise(again).level, rel=0.1)
    assert np.abs(blur(found, 3) - blur(again, 3)).mean() < 0.02 * scene.max()


def test_planes_that_are_one_stay_one(scene):
    """A plane that stands for its own neighbours is changed once; every change is another image."""
    plane, other = photographed(scene), photographed(scene, seed=5)
    observation = Observation(((plane, plane, plane), (other, other, other)))
    found = list(changed(observation, 0))
    assert len(found) == len(DEFOCUS) + len(FEWER_PHOTONS)
    for one in found:
        assert all(same is one.channels[0][0] for same in one.channels[0])
        assert not np.array_equal(one.channels[0][0], one.channels[1][0])
    assert all(not np.array_equal(a.centres[0], b.centres[0]) for a, b in pairwise(found))
    assert np.array_equal(found[0].centres[0], next(changed(observation, 0)).centres[0])


def test_stretches_are_monotone_and_never_narrow():
    """The nearest such curve: neighbours in the wrong order meet in their mean."""
    assert fit_stretches([(3.0, 2.0), (1.0, 0.5), (2.0, 4.0)]) == ((1.0, 1.0), (2.0, 3.0), (3.0, 3.0))
    assert fit_stretches([]) == ()


def test_a_model_is_built_with_what_it_needs_for_novel_images(tmp_path):
    """From training and calibration fields; what is built again is the same."""
    dataset, state = load_dataset(make_dataset(tmp_path / "cells", size=160)), tmp_path / "state.pt"
    recipe = replace(TINY_RECIPE, training=replace(TINY_RECIPE.training, steps=2))
    list(train(dataset, recipe, state_path=state))
    told = []
    built = [
        build_checkpoint(
            dataset,
            recipe,
            state,
            git_commit=None,
            created="2026-01-01T00:00:00+00:00",
            progress=lambda *done: told.append(done),
        )
        for _ in range(2)
    ]
    assert told[: len(told) // 2] == told[len(told) // 2 :] and told[-1][0] == told[-1][1]
    assert built[0].calibration == built[1].calibration
    novelties, factors = zip(*built[0].calibration.stretches, strict=True)
    assert list(novelties) == sorted(novelties) and list(factors) == sorted(factors) and factors[0] >= 1
    assert max(novelties) > 1.25
