"""The power simulation: what it calls equal is equal, and what it calls better is seen."""

from __future__ import annotations

import numpy as np
import pytest
from gate import METRICS, Pool, verdicts  # benchmarks/gate.py

from flows.gate import GatePolicy


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Ten fields of a champion that beats its regression mean, and a rival that differs by a few percent."""
    rng = np.random.default_rng(0)
    scores = {"crps": 0.01, "psnr_fit": 38.0, "ssim_fit": 0.95, "width": 0.1, "coverage": 0.9}
    noise = {"crps": 0.02, "psnr_fit": 0.1, "ssim_fit": 0.002, "width": 0.02, "coverage": 0.0}
    differences = {name: rng.normal(0, noise[name], 10) for name in METRICS}
    regression = {"crps": np.full(10, 0.02), "psnr_fit": np.full(10, 38.0), "ssim_fit": np.full(10, 0.95)}
    return Pool({name: np.full(10, value) for name, value in scores.items()}, regression, differences)


@pytest.mark.parametrize("fields", [4, 8, 12])
def test_an_equal_model_is_promoted_and_rejected_in_few_test_sets(pool, fields):
    """At most alpha and two standard errors, for any number of fields; with four, never."""
    found = verdicts([pool], fields, 0.0, GatePolicy(), 200)
    assert found["promote"] <= (0 if fields == 4 else 200 * 0.08) and found["reject"] <= 200 * 0.08


def test_a_better_model_is_promoted_and_a_worse_one_rejected(pool):
    """Ten percent on ten fields, with differences of two percent."""
    assert verdicts([pool], 10, 0.1, GatePolicy(), 50)["promote"] >= 45
    assert verdicts([pool], 10, -0.1, GatePolicy(), 50)["reject"] >= 45
