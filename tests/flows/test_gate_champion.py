"""The gate against a champion: the correction of losses, strata, and what cannot always be measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gate_scores import evaluation

from flows.gate import Background, GatePolicy, decide
from flows.gate.holm import holm

POLICY = GatePolicy()
EIGHT = [f"f{i}" for i in range(8)]


def found(decision, name):
    """The test of that name."""
    return next(test for test in decision.tests if test.name == name)


@pytest.mark.parametrize(
    ("given", "adjusted"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 3 x .01, 2 x .03, then 1 x .04 is raised to .06
        ([0.5, 0.001], [0.5, 0.002]),
        ([0.6, 0.7, 0.8], [1.0, 1.0, 1.0]),
        ([], []),
    ],
)
def test_holm_gives_the_values_of_a_hand_calculation(given, adjusted):
    """Multiplied by what is left, never below an earlier one, never above 1."""
    assert holm(given) == pytest.approx(adjusted)


def test_holm_keeps_the_error_over_many_tests():
    """Of twenty true hypotheses, any is rejected in at most alpha of the cases; uncorrected, in most."""
    p_values = np.random.default_rng(0).uniform(size=(2000, 20))
    corrected = np.mean([min(holm(list(row))) <= 0.05 for row in p_values])
    assert corrected <= 0.06 and (p_values.min(axis=1) <= 0.05).mean() > 0.5


def test_a_loss_must_survive_the_correction_for_all_comparisons():
    """A loss with p = 1/64 on six fields would reject alone; beside three other comparisons it is open."""
    candidate, champion = evaluation(fields=6, crps=0.012), evaluation(fields=6)
    decision = decide(candidate, champion, POLICY)
    assert 1 / 64 <= POLICY.alpha < 4 / 64
    assert decision.verdict == "undecided"
    assert decide(evaluation(crps=0.012), evaluation(), POLICY).verdict == "reject"


@pytest.mark.parametrize(
    ("metric", "champions", "allowed", "lost", "told"),
    [
        ("width", 0.1, 0.105, 0.12, "interval width worse than the champion's by more than 10%"),
        ("frc_px", 4.0, 4.1, 4.4, "FRC resolution worse than the champion's by more than 5%"),
        ("residual", 1.2, 1.25, 1.5, "forward-model residual worse than the champion's by more than 10%"),
    ],
)
def test_what_may_be_lost_has_a_margin(metric, champions, allowed, lost, told):
    """Better CRPS with a loss within the margin is promoted; a loss beyond it rejects and is named."""
    champion, candidate = evaluation(), evaluation(crps=0.009)
    champion.metrics[metric] = dict.fromkeys(EIGHT, champions)
    candidate.metrics[metric] = dict.fromkeys(EIGHT, allowed)
    assert decide(candidate, champion, POLICY).verdict == "promote"
    candidate.metrics[metric] = dict.fromkeys(EIGHT, lost)
    decision = decide(candidate, champion, POLICY)
    assert decision.verdict == "reject" and decision.reasons[0].startswith(told)


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_champion_of_other_steps_is_compared_by_the_draws_as_they_come(calibrated):
    """Planted: equal models, of which the champion's spread is not calibrated for the candidate's steps."""
    candidate, champion = evaluation(crps=0.0098), evaluation(crps=0.01)
    for one in (candidate, champion):
        one.metrics["crps_drawn"] = dict.fromkeys(EIGHT, 0.01)
    decision = decide(candidate, replace(champion, spread_calibrated=calibrated), POLICY)
    (test,) = (one for one in decision.tests if one.name == "crps vs champion")
    assert bool(test.passed) == calibrated
    assert test.detail.startswith("CRPS superior" if calibrated else "CRPS as drawn not shown")


def test_a_resolution_that_is_measured_on_few_fields_is_not_counted():
    """Three fields of eight are shown as such and hold nothing up; none at all is no test."""
    champion, candidate = evaluation(), evaluation(crps=0.009)
    assert "frc_px vs champion" not in [test.name for test in decide(candidate, champion, POLICY).tests]
    champion.metrics["frc_px"] = dict.fromkeys(EIGHT, 4.0)
    candidate.metrics["frc_px"] = dict.fromkeys(EIGHT[:3], 9.0)
    decision = decide(candidate, champion, POLICY)
    test = found(decision, "frc_px vs champion")
    assert decision.verdict == "promote" and (test.passed, test.binding) == (None, False)
    assert "3 of 8 test fields" in test.detail


def split(candidate, champion, *, dim: float, bright: float, count: int = 10):
    """A candidate whose CRPS is a multiple of the champion's, another one for each half of the fields."""
    names = [f"f{i}" for i in range(count)]
    labels = {name: "dim input" if i < count // 2 else "bright input" for i, name in enumerate(names)}
    for name, label in labels.items():
        factor = dim if label == "dim input" else bright
        candidate.metrics["crps"][name] = champion.metrics["crps"][name] * factor
    return decide(candidate, champion, POLICY, Background(strata={"input": labels}))


def test_a_gain_everywhere_else_does_not_excuse_a_worse_stratum():
    """Superior over all fields, worse beyond the margin on dim inputs: not promoted, and it says where."""
    decision = split(evaluation(fields=16), evaluation(fields=16), dim=1.08, bright=0.7, count=16)
    assert found(decision, "crps in dim input vs champion").passed is False
    assert decision.verdict == "reject" and decision.reasons[0].startswith("CRPS in dim input worse")
    decision = split(evaluation(fields=10), evaluation(fields=10), dim=1.08, bright=0.7)
    assert decision.verdict == "undecided", "five fields are no proof after correction"
    assert any("dim input" in reason and "beyond the margin" in reason for reason in decision.reasons)


def test_a_stratum_within_the_margin_is_no_obstacle():
    """Two percent worse on one half, much better on the other."""
    decision = split(evaluation(fields=16), evaluation(fields=16), dim=0.97, bright=0.8, count=16)
    assert decision.verdict == "promote"
    assert found(decision, "crps in dim input vs champion").value == pytest.approx(0.03)


def test_a_stratum_of_few_fields_is_shown_but_decides_nothing():
    """Three fields that are far worse: in the table, with their number, but not counted."""
    candidate, champion = evaluation(fields=16, crps=0.007), evaluation(fields=16)
    labels = {f"f{i}": "session a" if i < 3 else "session b" for i in range(16)}
    for field in ("f0", "f1", "f2"):
        candidate.metrics["crps"][field] = 0.0108
    decision = decide(candidate, champion, POLICY, Background(strata={"session": labels}))
    test = found(decision, "crps in session a vs champion")
    assert decision.verdict == "promote"
    assert (test.passed, test.binding) == (None, False) and "below 4 fields" in test.detail
    assert test.value == pytest.approx(-0.08)


def test_a_champion_is_not_measured_by_an_interval_for_other_draws():
    """Its bounds were calibrated for its own preset's: by the candidate's they are too narrow or too wide."""
    candidate, champion = evaluation(crps=0.009), evaluation()
    candidate.metrics["width"] = dict.fromkeys(EIGHT, 0.2)
    assert decide(candidate, champion, POLICY).verdict == "reject"
    decision = decide(candidate, replace(champion, calibrated=False), POLICY)
    assert decision.verdict == "promote"
    assert "not calibrated for 8 draws of 10 steps" in found(decision, "width vs champion").detail


def test_a_champion_that_covers_too_little_does_not_set_the_width():
    """A candidate whose interval is as wide as it must be is not blamed for one that was too narrow."""
    champion, candidate = evaluation(coverage=0.7), evaluation(crps=0.009)
    candidate.metrics["width"] = dict.fromkeys(EIGHT, 0.2)
    decision = decide(candidate, champion, POLICY)
    assert decision.verdict == "promote"
    assert "too narrow to be a measure" in found(decision, "width vs champion").detail
    assert decide(candidate, evaluation(), POLICY).verdict == "reject"
