"""Scores against closed forms and independent implementations."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import norm

from cvdm.baselines import gaussian_blur
from cvdm.dataset import load_dataset
from cvdm.images import read_image
from cvdm.metrics import (
    ause,
    coverage,
    crps,
    fit_intensity,
    mae,
    nrmse,
    psnr,
    sparsification,
    ssim,
    target_range,
)

FMD = Path(__file__).parents[2] / "data" / "fmd-confocal-nuclei"


@pytest.fixture
def images(rng):
    target = gaussian_filter(rng.normal(size=(64, 48)), 2) * 100 + 50
    return target + rng.normal(size=target.shape), target


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_psnr_nrmse_and_mae_follow_their_definitions(images):
    """PSNR is -20 log10 NRMSE; errors are fractions of the range; a perfect image has infinite PSNR."""
    prediction, target = images
    error = prediction - target
    assert nrmse(prediction, target, 50) == pytest.approx(np.sqrt((error**2).mean()) / 50)
    assert mae(prediction, target, 50) == pytest.approx(np.abs(error).mean() / 50)
    assert psnr(prediction, target, 50) == pytest.approx(-20 * math.log10(nrmse(prediction, target, 50)))
    assert psnr(target, target, 50) == math.inf


def test_integer_images_do_not_wrap(images):
    """uint8 differences are taken as real numbers."""
    low, high = np.full((16, 16), 10, np.uint8), np.full((16, 16), 250, np.uint8)
    assert mae(low, high, 240) == 1
    assert nrmse(low, high, 240) == 1
    assert psnr(low, high, 240) == 0


def test_ssim_follows_wang_et_al(images):
    """SSIM equals the formula written out with Gaussian windows of sigma 1.5, cut at radius 5."""
    p, t = images
    span, c1, c2 = 40.0, (0.01 * 40) ** 2, (0.03 * 40) ** 2

    def mean(image):
        return gaussian_filter(image, 1.5, truncate=3.5)

    mp, mt = mean(p), mean(t)
    covariance = mean(p * t) - mp * mt
    top = (2 * mp * mt + c1) * (2 * covariance + c2)
    bottom = (mp**2 + mt**2 + c1) * (mean(p * p) - mp**2 + mean(t * t) - mt**2 + c2)
    inside = np.s_[5:-5, 5:-5]
    assert ssim(p, t, span) == pytest.approx((top / bottom)[inside].mean(), abs=1e-9)
    assert ssim(t, t, span) == pytest.approx(1)


def test_intensity_fit_removes_gain_and_offset(images, rng):
    """The fit equals numpy's least squares and undoes any affine change, also a negative one."""
    prediction, target = images
    gain, offset = np.polyfit(prediction.ravel(), target.ravel(), 1)
    np.testing.assert_allclose(fit_intensity(prediction, target), gain * prediction + offset)
    np.testing.assert_allclose(fit_intensity(-3 * target + 7, target), target)
    np.testing.assert_allclose(fit_intensity(np.ones((64, 48)), target), target.mean())


def test_target_range_ignores_outliers_but_never_vanishes_with_contrast():
    """One hot pixel does not set the range; a sparse target falls back on its extremes."""
    ramp = np.linspace(0, 100, 10_000).reshape(100, 100)
    hot = ramp.copy()
    hot[0, 0] = 1e6
    assert target_range(hot) == pytest.approx(99.8, abs=0.1)
    sparse = np.zeros((100, 100))
    sparse[3, 3] = 5
    assert target_range(sparse) == 5
    assert target_range(np.ones((8, 8))) == 0


def gaussian_crps(mean, std, target):
    """Closed form of the CRPS of a Gaussian (Gneiting & Raftery 2007, eq. 21)."""
    z = (target - mean) / std
    return std * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / math.sqrt(math.pi))


@pytest.mark.parametrize("count", [2, 3, 16])
def test_crps_of_gaussian_draws_is_unbiased_for_any_number_of_draws(count, rng):
    """Averaged over many pixels, K draws of a Gaussian score its closed form, however small K."""
    draws = rng.normal(2.0, 3.0, size=(count, 400, 400))
    for target in (2.0, 6.0):
        score = crps(draws, np.full((400, 400), target))
        assert score.shape == (400, 400)
        assert score.mean() == pytest.approx(gaussian_crps(2.0, 3.0, target), rel=0.015)


def test_crps_equals_its_definition_and_for_one_draw_the_error(rng):
    """The sorted form equals the double sum over different draws."""
    draws, target = rng.normal(size=(5, 4, 3)), rng.normal(size=(4, 3))
    spread = sum(np.abs(a - b) for a in draws for b in draws) / (2 * 5 * 4)
    np.testing.assert_allclose(crps(draws, target), np.abs(draws - target).mean(0) - spread)
    np.testing.assert_allclose(crps(draws[:1], target), np.abs(draws[0] - target))


def test_coverage_counts_the_bounds_themselves():
    """Bounds belong to the interval."""
    target = np.array([[0.0, 1.0, 2.0, 3.0]])
    assert coverage(np.full((1, 4), 1.0), np.full((1, 4), 2.0), target) == 0.5


def test_coverage_of_a_gaussian_interval_is_its_level(rng):
    """mean -+ 1.645 std covers 90 % of Gaussian targets."""
    target = rng.normal(5, 2, size=(500, 500))
    bound = np.full_like(target, 1.645 * 2)
    assert coverage(5 - bound, 5 + bound, target) == pytest.approx(0.9, abs=0.005)


def test_ause_is_zero_for_a_perfect_ranking_and_largest_for_the_reverse(rng):
    """Only the order of std matters: perfect < noisy < chance < reversed; ties count as chance."""
    error = rng.normal(size=(100, 100))
    size = np.abs(error)
    perfect = ause(size**3 + 1, error)
    noisy = ause(size + rng.exponential(0.5, size.shape), error)
    chance = ause(rng.random(size.shape), error)
    assert perfect == pytest.approx(0, abs=1e-12)
    assert 0.01 < noisy < chance < ause(-size, error)
    assert ause(np.ones_like(size), error) == pytest.approx(chance, abs=0.02)
    assert ause(size, np.zeros_like(size)) == 0


def test_ause_of_chance_has_its_closed_form(rng):
    """For errors uniform on [0, 1], chance stays at 1 and the oracle falls as 1 - f: an area of one half."""
    error = rng.random((300, 300))
    assert ause(np.ones_like(error), error) == pytest.approx(0.495, abs=0.003)  # 100 steps: 0.99 / 2


def test_sparsification_starts_at_one_and_the_oracle_is_lowest(rng):
    """Removing nothing leaves all of the error; no order leaves less than removing the largest first."""
    error = rng.exponential(1, (80, 80))
    curves = sparsification(error * rng.lognormal(0, 0.5, error.shape), error)
    assert curves.by_std[0] == pytest.approx(1) and curves.by_error[0] == pytest.approx(1)
    assert (curves.by_std >= curves.by_error - 1e-12).all()
    assert 0 < curves.area < ause(np.ones_like(error), error)


def test_convention_reproduces_the_published_baselines():
    """The 57 pairs of the real set score 29.0 dB / 0.71 as they are, 36.0 / 0.94 after the best blur."""
    scores = []
    for pair in load_dataset(FMD).pairs:
        low, high = read_image(pair.low).pixels, read_image(pair.high).pixels
        for image in (low, gaussian_blur(1.0)(low)):
            fitted, span = fit_intensity(image, high), target_range(high)
            scores.append((psnr(fitted, high, span), ssim(fitted, high, span)))
    means = np.reshape(scores, (-1, 2, 2)).mean(axis=0)
    np.testing.assert_allclose(means, [[29.0, 0.71], [36.0, 0.94]], atol=0.1)
    assert means[1, 1] == pytest.approx(0.94, abs=0.01)


def test_crps_of_antithetic_draws_estimates_the_same_score():
    """Mirrored draws give the Gaussian's closed-form CRPS once their pairs are left out of the spread."""
    rng = np.random.default_rng(5)
    half = rng.normal(0, 1, (4, 200, 200))
    draws = np.empty((8, 200, 200))
    draws[0::2], draws[1::2] = half, -half
    target = np.full((200, 200), 0.5)
    density, below = np.exp(-0.125) / np.sqrt(2 * np.pi), 0.691462461274013
    expected = 0.5 * (2 * below - 1) + 2 * density - 1 / np.sqrt(np.pi)
    assert crps(draws, target, antithetic=True).mean() == pytest.approx(expected, abs=0.005)
    assert crps(draws, target).mean() < expected - 0.01  # the mistake that the option avoids
