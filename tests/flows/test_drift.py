"""Drift: new fields of view against those that a champion learned from."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from drift_rows import rows

from flows.validation.drift import drift


@pytest.fixture
def reference():
    return [asdict(row) for row in rows("a", 16, np.random.default_rng(0))]


def test_a_noisier_session_is_told(reference):
    """Twice the noise in twelve new fields is a shift of that feature and of no other."""
    old = rows("a", 16, np.random.default_rng(0))
    found = drift(reference, [*old, *rows("b", 12, np.random.default_rng(1), noise=10.0)])
    assert [one.feature for one in found.shifted] == ["low_noise"]
    assert (found.reference_fields, found.new_fields) == (16, 12) and found.can_tell
    assert found.shifted[0].direction == "higher" and "low_noise higher" in found.summary()
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["shifted"] == ["low_noise"]


def test_more_of_the_same_is_no_drift(reference):
    """False alarms over 200 sessions like the first stay below what the level allows."""
    alarms = sum(
        bool(drift(reference, rows("b", 12, np.random.default_rng(seed))).shifted) for seed in range(1, 201)
    )
    assert alarms <= 16  # 5 % of 200 are 10; P(more than 16) is under 2 %


def test_captures_count_once(reference):
    """Twenty captures of two fields are two values: too few to tell, whatever they show."""
    found = drift(reference, rows("b", 2, np.random.default_rng(1), noise=50.0, captures=20))
    assert not found.shifted and found.new_fields == 2
    assert not found.can_tell and "too few to tell" in found.summary()


def test_the_same_fields_say_nothing(reference):
    """Without a new field there is nothing to compare, and the summary says so."""
    old = [replace(row, gain=9.0) for row in rows("a", 16, np.random.default_rng(0))]
    found = drift(reference, old)
    assert not found.features and not found.shifted and "no field of view" in found.summary()
