"""Tests of two sets of fields: false alarms under the null, power on planted shifts, honesty when few."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvdm.images import read_image
from cvdm.inspection.background import background_offset
from cvdm.inspection.shift import distribution_shift

NUCLEI = Path(__file__).parents[2] / "data" / "fmd-confocal-nuclei"


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def features(images):
    """Three plain features per field."""
    return {
        "background": np.array([background_offset(image) for image in images]),
        "mean": np.array([image.mean() for image in images]),
        "noise": np.array([np.median(np.abs(np.diff(image, axis=1))) for image in images]),
    }


@pytest.fixture(scope="module")
def fields():
    paths = sorted((NUCLEI / "low").glob("*_cap00.tif"))
    return [read_image(path).pixels[:256, :256] for path in paths]


def by_name(rows):
    return {row.feature: row for row in rows}


@pytest.mark.parametrize("count", [3, 8, 40])
def test_false_alarms_stay_within_the_nominal_rate(rng, count):
    """Without any shift at most 5 % of 120 comparisons of five features call one of them shifted."""
    alarms = 0
    for _ in range(120):
        reference = {name: rng.normal(size=count) for name in "abcde"}
        current = {name: rng.normal(size=count) for name in "abcde"}
        alarms += any(row.q_value <= 0.05 for row in distribution_shift(reference, current))
    assert alarms <= 0.05 * 120 + 2 * np.sqrt(120 * 0.05 * 0.95)


def test_discrete_values_raise_no_more_alarms(rng):
    """Counts with many ties make the test more careful, not less."""
    alarms = sum(
        distribution_shift({"n": rng.poisson(1, 15)}, {"n": rng.poisson(1, 15)})[0].p_value <= 0.05
        for _ in range(400)
    )
    assert alarms <= 0.05 * 400 + 2 * np.sqrt(400 * 0.05 * 0.95)


@pytest.mark.parametrize(("size", "least", "most"), [(0.1, 0.0, 0.2), (1.0, 0.5, 1.0), (2.0, 0.98, 1.0)])
def test_the_larger_the_shift_the_surer_it_is_found(rng, size, least, most):
    """Twenty against twenty: a tenth of a deviation is missed, one is mostly found, two almost always."""
    found = 0
    for _ in range(120):
        reference = {"moved": rng.normal(size=20), "still": rng.normal(size=20)}
        current = {"moved": rng.normal(size, 1, 20), "still": rng.normal(size=20)}
        found += by_name(distribution_shift(reference, current))["moved"].q_value <= 0.05
    assert least * 120 <= found <= most * 120


def test_false_discoveries_among_many_features_are_controlled(rng):
    """With ten of forty features shifted, at most 5 % of what is called shifted is not, on average."""
    shares = []
    for _ in range(30):
        reference = {f"f{n:02}": rng.normal(size=30) for n in range(40)}
        current = {f"f{n:02}": rng.normal(1.5 if n < 10 else 0, 1, 30) for n in range(40)}
        called = [row.feature for row in distribution_shift(reference, current) if row.q_value <= 0.05]
        assert len(called) >= 8
        shares.append(np.mean([name >= "f10" for name in called]))
    assert np.mean(shares) <= 0.05


def test_three_against_three_are_never_certain():
    """Complete separation of three from three has p = 0.1, and the row says that no less is possible."""
    row = distribution_shift({"x": [1, 2, 3]}, {"x": [101, 102, 103]})[0]
    assert row.p_value == pytest.approx(0.1) == row.smallest_p
    assert row.effect == 1 and row.direction == "higher"


@pytest.mark.parametrize(("reference", "current"), [(3, 3), (3, 9), (10, 4), (12, 12)])
def test_the_smallest_p_is_that_of_complete_separation(reference, current):
    """No values give less than smallest_p, and separated ones give just that."""
    row = distribution_shift({"x": np.arange(reference)}, {"x": 1000 + np.arange(current)})[0]
    assert row.p_value == pytest.approx(row.smallest_p, rel=1e-6)


def test_cliffs_delta_follows_its_definition(rng):
    """The effect is the share of pairs above minus the share below; its sign is the direction."""
    reference, current = rng.poisson(4, 15), rng.poisson(2, 11)
    sign = np.sign(current[:, None].astype(int) - reference[None].astype(int)).mean()
    row = distribution_shift({"x": reference}, {"x": current})[0]
    assert row.effect == pytest.approx(sign)
    assert row.direction == "lower" and row.standardised < 0


def test_the_standardised_difference_counts_deviations_of_the_reference(rng):
    """A shift by two standard deviations of many Gaussian values reads about 2."""
    row = distribution_shift({"x": rng.normal(5, 3, 4000)}, {"x": rng.normal(11, 3, 4000)})[0]
    assert row.standardised == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(("offset", "shifted"), [(0.0, False), (2.0, True), (10.0, True)])
def test_a_background_drift_between_real_sessions_is_named(fields, offset, shifted):
    """Nine real fields against ten with an added offset: the background moves upward, the noise does not."""
    reference = features(fields[::2])
    current = features([image + np.float32(offset) for image in fields[1::2]])
    rows = by_name(distribution_shift(reference, current))
    assert (rows["background"].q_value <= 0.05) == shifted
    assert not shifted or rows["background"].direction == "higher"
    assert rows["noise"].q_value > 0.05


def test_missing_values_and_features_are_counted_not_tested():
    """NaN and infinity are left out; a feature that one table lacks has no verdict and costs no power."""
    full = np.arange(10.0)
    rows = by_name(
        distribution_shift(
            {"x": [*full, np.nan, np.inf], "gone": full, "bad": full},
            {"x": full + 100, "new": full, "bad": [np.nan]},
        )
    )
    assert rows["x"].reference_count == 10 and rows["x"].q_value == rows["x"].p_value
    for name in ("gone", "new", "bad"):
        assert rows[name].p_value is rows[name].q_value is rows[name].effect is rows[name].smallest_p is None
        assert rows[name].direction == "neither"
    assert rows["gone"].reference_median == 4.5 and rows["gone"].current_median is None


def test_constant_features_do_not_shift():
    """Equal constants are no shift; different ones are, without a deviation to measure it in."""
    same, moved = distribution_shift(
        {"a": np.ones(20), "b": np.ones(20)}, {"a": np.ones(20), "b": np.full(20, 2.0)}
    )
    assert same.p_value == 1 and same.effect == 0 and same.direction == "neither"
    assert moved.p_value < 1e-6 and moved.effect == 1 and moved.standardised is None


def test_no_tables_give_no_rows():
    """Nothing against nothing is nothing."""
    assert distribution_shift({}, {}) == ()
