"""One spread for all pixels: exact where it is right, beaten where pixels differ."""

import numpy as np
import pytest

from cvdm.constant_interval import ConstantInterval
from cvdm.metrics import crps


def test_equal_errors_score_the_closed_form():
    """Errors N(0, s^2) everywhere: the CRPS of the true Gaussian is s / sqrt(pi) (Gneiting 2007)."""
    rng = np.random.default_rng(0)
    fitted = ConstantInterval.of([(f"f{n}", rng.normal(0, 0.3, (200, 200))) for n in range(3)])
    assert fitted.crps(rng.normal(0, 0.3, (400, 400))) == pytest.approx(0.3 / np.sqrt(np.pi), rel=0.01)


def test_it_is_the_score_of_its_own_offsets():
    """The formula without draws is that of an ensemble of all offsets, but for the ensemble's own bias."""
    rng = np.random.default_rng(1)
    fitted = ConstantInterval.of([("f", rng.exponential(1, (64, 64)))])
    errors = rng.normal(0, 1, (20, 20))
    draws = np.broadcast_to(fitted.offsets[:, None, None], (len(fitted.offsets), *errors.shape))
    fair = crps(draws, errors).mean()
    count = len(fitted.offsets)
    spread = np.abs(fitted.offsets[:, None] - fitted.offsets).sum() / (2 * count)
    assert fitted.crps(errors) == pytest.approx(fair + spread / (count - 1) - spread / count)


def test_a_spread_per_pixel_beats_it_where_pixels_differ():
    """Half of the pixels err ten times as much: knowing which is worth an eighth of the score."""
    rng = np.random.default_rng(2)
    sigma = np.where(np.arange(300) % 2, 1.0, 0.1) * np.ones((300, 1))
    fitted = ConstantInterval.of([("f", rng.normal(0, sigma))])
    assert (sigma / np.sqrt(np.pi)).mean() < 0.9 * fitted.crps(rng.normal(0, sigma))


def test_every_field_weighs_the_same():
    """A field of many captures has no more say than one of a single capture."""
    few, many = [("a", np.zeros((10, 10)))], [("b", np.ones((10, 10)))] * 9
    assert ConstantInterval.of(few + many).offsets.mean() == pytest.approx(0.5, abs=0.02)
