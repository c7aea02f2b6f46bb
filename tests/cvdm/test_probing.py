"""Probes: images with a change are as they would have been acquired, and liars are found out."""

import numpy as np
import pytest

from cvdm.optics import ForwardModel, blur
from cvdm.posterior import Estimate
from cvdm.probing import Detection, erase, filament, judge, measured_detection, plant, spots

SHAPE = (96, 96)
CENTRES = [(24, 24), (24, 72), (72, 24), (72, 72)]


def estimate(mean, reach):
    return Estimate(mean, np.full(SHAPE, reach / 2), mean - reach, mean + reach)


def test_a_planted_structure_adds_its_photons_and_their_noise():
    """Mean and variance of many plantings are those of Poisson light through the optics."""
    rng, how = np.random.default_rng(0), Detection(4.0, 2.0)
    structure = spots(SHAPE, CENTRES, 1.5, 900)
    low = np.zeros(SHAPE)
    images = np.stack([plant(low, structure, how, rng) for _ in range(300)])
    seen, bright = blur(structure, 2.0), blur(structure, 2.0) > 50
    assert images.mean(0)[bright].sum() == pytest.approx(seen[bright].sum(), rel=0.01)
    assert images.var(0)[bright].mean() == pytest.approx(4 * seen[bright].mean(), rel=0.03)


def test_an_erased_structure_leaves_what_the_rest_would_have_sent():
    """Photons thinned out: mean and variance are those of an acquisition of the rest alone."""
    rng, how = np.random.default_rng(1), Detection(3.0, 2.0)
    structure = spots(SHAPE, CENTRES, 2.0, 600)
    target = 120 + structure
    images = []
    for _ in range(300):
        low = 3.0 * rng.poisson(blur(target, 2.0) / 3.0)
        images.append(erase(low, target, structure, how, rng))
    found = np.stack(images)
    assert found.mean(0).mean() == pytest.approx(120, rel=0.005)
    middle = structure > 200
    assert found.mean(0)[middle].mean() == pytest.approx(120, rel=0.01)
    assert found.var(0)[middle].mean() == pytest.approx(3 * 120, rel=0.05)


def test_the_units_of_a_photon_are_measured_from_a_pair():
    """Poisson noise of 2.5 units per photon over camera noise of 4 units: found within a tenth."""
    rng = np.random.default_rng(2)
    high = rng.uniform(5, 200, (256, 256))
    low = 2.5 * rng.poisson(high / 2.5) + rng.normal(0, 4, high.shape)
    assert measured_detection(low, high).units_per_photon == pytest.approx(2.5, rel=0.1)


def test_a_forward_model_says_how_light_is_detected():
    """Units per photon are full scale over photons."""
    assert Detection.of(ForwardModel(2.7, 50, 65535, 1.5, 100, 0)) == Detection(65535 / 50, 2.7)


def test_a_perfect_restorer_follows_and_a_hallucinating_one_is_found_out():
    """Oracle: the truth itself follows all of a change; one that shows the same image always, nothing."""
    target = np.full(SHAPE, 100.0)
    change = spots(SHAPE, CENTRES, 1.5, 80)
    before = estimate(target, 5.0)
    perfect = judge(before, estimate(target + change, 5.0), target, change)
    assert (perfect.followed, perfect.covered, perfect.told) == pytest.approx((1, 1, 1))
    blind = judge(before, before, target, change)
    assert (blind.followed, blind.covered, blind.covered_before) == (0, 0, 1)


def test_a_restorer_that_keeps_what_was_erased_is_found_out():
    """Planted: it invents three quarters of the erased filament; honest if its interval says so."""
    line = filament(SHAPE, (20, 20), (70, 60), 1.5, 90)
    target = 50 + line
    before = estimate(target, 5.0)
    sure, unsure = (judge(before, estimate(target - 0.25 * line, r), target, -line) for r in (5.0, 80.0))
    assert sure.followed == pytest.approx(0.25) and sure.covered == 0
    assert unsure.covered == 1 and unsure.told == pytest.approx(16)


def test_structures_have_the_shape_that_was_asked_for():
    """Peak, width and position of spots and filaments."""
    four = spots(SHAPE, CENTRES, 2.0, 10)
    assert four.max() == 10 and four[24, 26] == pytest.approx(10 * np.exp(-0.5))
    line = filament(SHAPE, (10, 10), (10, 50), 2.0, 10)
    assert line[10, 30] == 10 and line[12, 30] == pytest.approx(10 * np.exp(-0.5)) and line[10, 90] < 1e-3
