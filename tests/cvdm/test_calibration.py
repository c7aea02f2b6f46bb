"""Calibration: intervals that hold what they say, and say what they hold."""

from dataclasses import asdict

import numpy as np
import pytest
from scipy.stats import norm
from specimens import make_checkpoint

from cvdm.calibration import Calibration, CalibrationImage, calibrate, fields_needed, floor_from
from cvdm.params import from_mapping

EDGE = 32
HALF_NORMAL = norm.ppf((1 + (np.arange(EDGE * EDGE) + 0.5) / EDGE**2) / 2).reshape(EDGE, EDGE)
"""Scores of an ideal field, without chance within it: the quantiles of |N(0, 1)|."""
FLOOR = 1e-9


def images(rng, fields, *, true_over_said=1.5):
    """Errors `true_over_said` times larger than the spread that the model reports."""
    std = rng.uniform(0.1, 1, (fields, 64, 64))
    errors = np.abs(rng.normal(0, true_over_said * std))
    return [CalibrationImage(f"f{i}", e, s) for i, (e, s) in enumerate(zip(errors, std, strict=True))]


def constant(field, score):
    return CalibrationImage(field, np.full((8, 8), score), np.ones((8, 8)))


def hierarchy(rng, fields, between):
    """Fields whose errors differ by a log-normal factor each: the two-layer model."""
    factors = np.exp(rng.normal(0, between, fields))
    return [
        CalibrationImage(f"f{i}", factor * HALF_NORMAL, np.ones((EDGE, EDGE)))
        for i, factor in enumerate(factors)
    ]


def true_coverage(reach, between):
    """Expected coverage of a new field of that model, in closed form but for a sum over its factor."""
    factors = np.exp(between * norm.ppf((np.arange(999) + 0.5) / 999))
    return float(np.mean(2 * norm.cdf(reach / factors) - 1))


def test_overconfident_spread_is_calibrated_on_fresh_fields():
    """A spread that is a third too small covers too little raw, and 90 % of fresh pixels once calibrated."""
    calibration = calibrate(images(np.random.default_rng(0), 5), 0.05)
    assert calibration.raw_coverage < 0.8
    covered = []
    for image in images(np.random.default_rng(1), 5):
        lower, upper = calibration.bounds(np.zeros_like(image.std), image.std, 1.0)
        covered.append(((image.error >= lower) & (image.error <= upper)).mean())
    assert np.mean(covered) == pytest.approx(0.9, abs=0.01)


def test_every_field_weighs_the_same():
    """A field with ten times the captures does not pull the quantile to itself."""
    many = [constant("quiet", 1.0)] * 10
    loud = [constant("loud", 3.0)]
    assert calibrate(many + loud, FLOOR, 0.6).quantile >= 3.0
    one_field = calibrate(many, FLOOR, 0.6)
    assert one_field.quantile == pytest.approx(1.0) and one_field.fields == 1


@pytest.mark.parametrize("fields", [2, 3, 6])
@pytest.mark.parametrize("between", [0.1, 0.4])
def test_the_correction_brings_few_fields_to_the_nominal_level(fields, between):
    """Oracle, two-layer model: over many calibration sets the corrected interval covers 90 % or more."""
    rng, sets = np.random.default_rng(fields), 600 // fields
    found = [calibrate(hierarchy(rng, fields, between), FLOOR) for _ in range(sets)]
    corrected = [true_coverage(one.quantile, between) for one in found]
    plain = [true_coverage(one.quantile / one.widening, between) for one in found]
    error = np.std(corrected) / np.sqrt(sets)
    assert np.mean(corrected) >= 0.9 - 3 * error
    assert np.mean(corrected) <= 0.93
    if between == 0.4 and fields == 2:
        assert np.mean(plain) < 0.9 - 3 * np.std(plain) / np.sqrt(sets)


@pytest.mark.parametrize("between", [0.05, 0.4, 1.5])
def test_the_guarantee_holds_however_much_fields_differ(between):
    """Oracle: average coverage stays above level n / (n + 1), though two fields are all that is known."""
    rng = np.random.default_rng(0)
    found = [calibrate(hierarchy(rng, 2, between), FLOOR) for _ in range(100)]
    covered = [true_coverage(one.quantile, between) for one in found]
    assert np.mean(covered) - 2 * np.std(covered) / 10 >= found[0].guaranteed_level == pytest.approx(0.6)


def test_fields_that_agree_are_hardly_widened():
    """Two fields that differ by three percent cost less than three percent of width, and none if equal."""
    equal = [CalibrationImage(name, HALF_NORMAL, np.ones((EDGE, EDGE))) for name in "ab"]
    alike = [equal[0], CalibrationImage("b", 1.03 * HALF_NORMAL, np.ones((EDGE, EDGE)))]
    assert calibrate(equal, FLOOR).widening == 1.0
    assert 1 <= calibrate(alike, FLOOR).widening < 1.03
    assert calibrate(equal, FLOOR).quantile == pytest.approx(1.645, abs=0.02)


def test_one_field_is_said_to_be_uncorrected():
    """With nothing to leave out there is no correction, and half of the level is all that is guaranteed."""
    alone = calibrate(images(np.random.default_rng(0), 1), FLOOR)
    assert alone.widening is None and alone.corrected_level is None
    assert alone.guaranteed_level == pytest.approx(0.45)
    assert "not corrected" in alone.guarantee() and "one field" in alone.guarantee()


def test_the_guarantee_is_told_in_words():
    """Level, fields, factor, what holds whatever the distribution, and what would be needed for more."""
    said = calibrate(images(np.random.default_rng(0), 3), FLOOR).guarantee()
    for part in ("90%", "3 fields", "factor of 1.0", "67.5% on average", "9 fields are the fewest"):
        assert part in said
    assert said.isascii(), "it travels in HTTP headers"
    assert "fewest" not in calibrate(images(np.random.default_rng(0), 12), FLOOR).guarantee()
    assert [fields_needed(level) for level in (0.5, 0.8, 0.9, 0.95)] == [1, 4, 9, 19]


def test_a_calibration_of_an_earlier_release_is_read_and_says_that_it_is_uncorrected():
    """Its five numbers are enough; a new one survives the way through JSON values."""
    old = {"level": 0.9, "quantile": 2.0, "floor": 0.01, "fields": 2, "raw_coverage": 0.8}
    assert "not corrected" in from_mapping(Calibration, old).guarantee()
    new = calibrate(images(np.random.default_rng(0), 3), FLOOR)
    assert from_mapping(Calibration, asdict(new)) == new


def test_no_interval_is_empty():
    """Where all draws agree exactly, the floor still leaves room for error."""
    flat, busy = np.zeros((8, 8)), np.ones((8, 8))
    floor = floor_from([flat, busy])
    assert 0 < floor < 0.1
    calibration = calibrate([CalibrationImage("f", np.full((8, 8), 0.1), flat)], floor)
    lower, upper = calibration.bounds(np.zeros((2, 2)), np.zeros((2, 2)), 100.0)
    assert (upper > lower).all()


def test_a_reply_tells_the_guarantee():
    """The metadata of a reconstruction carry the words, beside the level."""
    checkpoint = make_checkpoint()
    told = checkpoint.annotations(checkpoint.recipe.sampling)
    assert told["interval_guarantee"] == checkpoint.calibration.guarantee()
