"""Calibration: intervals that hold what they say."""

import numpy as np
import pytest

from cvdm.calibration import CalibrationImage, calibrate, field_quantile


def images(rng, fields, *, true_over_said=1.5):
    """Errors `true_over_said` times larger than the spread that the model reports."""
    std = rng.uniform(0.1, 1, (fields, 64, 64))
    errors = np.abs(rng.normal(0, true_over_said * std))
    return [CalibrationImage(f"f{i}", e, s) for i, (e, s) in enumerate(zip(errors, std, strict=True))]


def test_overconfident_spread_is_calibrated_on_fresh_fields():
    """A spread that is a third too small covers too little raw, and 90 % of fresh pixels once calibrated."""
    calibration = calibrate(images(np.random.default_rng(0), 5), 0.9)
    assert calibration.raw_coverage < 0.8
    covered = []
    for image in images(np.random.default_rng(1), 5):
        lower, upper = calibration.bounds(np.zeros_like(image.std), image.std, 1.0)
        covered.append(((image.error >= lower) & (image.error <= upper)).mean())
    assert np.mean(covered) == pytest.approx(0.9, abs=0.01)


def test_every_field_weighs_the_same():
    """A field with ten times the captures does not pull the quantile to itself."""
    quiet, loud = np.full((8, 8), 1.0), np.full((8, 8), 3.0)
    assert field_quantile([quiet] * 10 + [loud], ["a"] * 10 + ["b"], 0.6) == 3.0
    assert field_quantile([quiet, loud], ["a", "b"], 0.4) == 1.0


def test_no_interval_is_empty():
    """Where all draws agree exactly, the floor still leaves room for error."""
    flat = CalibrationImage("f", np.full((8, 8), 0.1), np.zeros((8, 8)))
    busy = CalibrationImage("g", np.full((8, 8), 0.1), np.ones((8, 8)))
    calibration = calibrate([flat, busy])
    lower, upper = calibration.bounds(np.zeros((2, 2)), np.zeros((2, 2)), 100.0)
    assert (upper > lower).all()
