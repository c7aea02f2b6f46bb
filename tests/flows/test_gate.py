"""The gate: its statistics against values derived by hand, and planted candidates against its verdicts."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from cvdm.errors import ConfigError
from cvdm.evaluation import Evaluation
from flows.gate import GatePolicy, decide, load_policy
from flows.sign_flip import sign_flip_p

POLICY = GatePolicy()


def evaluation(*, fields: int = 4, crps=0.010, psnr=38.0, ssim=0.95, coverage=0.9, spread=0.0) -> Evaluation:
    """Scores of a model that beats all its baselines, the same on each field but for a spread."""
    names = [f"f{i}" for i in range(fields)]
    shift = np.linspace(-spread, spread, fields)

    def flat(value: float) -> dict[str, float]:
        return dict(zip(names, [value] * fields, strict=True))

    def varied(value: float, scale: float) -> dict[str, float]:
        return dict(zip(names, (value + scale * shift).tolist(), strict=True))

    baselines = {
        "input": {"psnr_fit": flat(29.0), "ssim_fit": flat(0.71), "crps": flat(0.04)},
        "best-blur": {"psnr_fit": flat(36.0), "ssim_fit": flat(0.94), "crps": flat(0.02)},
        "regression-mean": {"psnr_fit": flat(38.2), "ssim_fit": flat(0.955), "crps": flat(0.014)},
    }
    metrics = {
        "crps": varied(crps, -0.001),
        "psnr_fit": varied(psnr, 1.0),
        "ssim_fit": varied(ssim, 0.01),
        "coverage": flat(coverage),
    }
    return Evaluation(
        task="t",
        split="test",
        metrics=metrics,
        baselines=baselines,
        samples=8,
        steps=10,
        solver="dpm-solver++",
        seed=0,
        seconds_per_megapixel=1.0,
    )


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1.0], 1 / 2),  # {+1} of {+1, -1}
        ([1, 1, 1, 1], 1 / 16),  # only the observed signs reach the sum of 4
        ([-1, -1, -1, -1], 1.0),  # every flip reaches the smallest sum
        ([0, 0, 0], 1.0),  # no flip changes anything
        ([3, 2, -1], 2 / 8),  # sums >= 4: +++ (6) and ++- (4)
        ([1, 1, 1, -1], 5 / 16),  # sums >= 2: one with no minus, four with one
        ([0.1, 0.2, -0.3], 5 / 8),  # sums .6 .4 .2 0 0 -.2 -.4 -.6: two ties with 0, in spite of rounding
    ],
)
def test_sign_flip_p_is_the_share_of_flips_at_least_as_large(differences, p):
    """The exact p equals the one counted by hand."""
    assert sign_flip_p(differences) == pytest.approx(p, abs=1e-12)


def test_many_fields_are_sampled_and_agree_with_the_exact_tail():
    """Seventeen equal gains have an exact p of 2^-17; the sampled one is nearly as small."""
    assert sign_flip_p([1.0] * 17) <= 5 / 2**16
    assert sign_flip_p([1.0, -1.0] * 10) == pytest.approx(0.588, abs=0.01)  # P(binomial(20, 1/2) >= 10)


def test_a_first_model_that_beats_every_baseline_is_promoted():
    """Without a champion the baselines are the measure."""
    decision = decide(evaluation(), None, POLICY)
    assert decision.verdict == "promote"
    assert all(test.passed for test in decision.tests)


def test_a_clearly_better_candidate_is_promoted():
    """Better on every one of four fields: p = 1/16 passes alpha = 0.1."""
    decision = decide(evaluation(crps=0.009, psnr=38.5, spread=0.1), evaluation(spread=0.1), POLICY)
    assert decision.verdict == "promote"
    assert {t.value for t in decision.tests if "champion" in t.name} == {1 / 16}


def test_a_worse_candidate_is_rejected():
    """Worse on every field is a reason, named first."""
    decision = decide(evaluation(crps=0.012), evaluation(), POLICY)
    assert decision.verdict == "reject"
    assert decision.reasons[0].startswith("CRPS worse than the champion's")


def test_an_equal_model_is_not_promoted():
    """The same numbers again prove nothing."""
    decision = decide(evaluation(), evaluation(), POLICY)
    assert decision.verdict == "undecided"
    assert "CRPS not shown to be superior" in decision.reasons[0]


def test_a_candidate_better_on_three_fields_of_four_stays_undecided():
    """Chance gives such a result in 5 of 16 cases."""
    candidate, champion = evaluation(), evaluation()
    candidate.metrics["crps"].update(f0=0.009, f1=0.009, f2=0.009, f3=0.011)
    assert decide(candidate, champion, POLICY).verdict == "undecided"


def test_better_crps_does_not_buy_a_loss_of_psnr():
    """A loss beyond the margin on every field rejects, whatever CRPS says."""
    decision = decide(evaluation(crps=0.009, psnr=37.7), evaluation(), POLICY)
    assert decision.verdict == "reject"
    assert decision.reasons[0].startswith("PSNR worse than the champion's")


def test_a_loss_of_psnr_within_the_margin_is_allowed():
    """Non-inferior is enough where CRPS is superior."""
    assert decide(evaluation(crps=0.009, psnr=37.95), evaluation(), POLICY).verdict == "promote"


@pytest.mark.parametrize("champion", [None, evaluation(fields=3)])
def test_too_few_fields_decide_nothing(champion):
    """Three fields are undecided, however good the candidate; the reason says what helps."""
    decision = decide(evaluation(fields=3, crps=0.001, psnr=45), champion, POLICY)
    assert decision.verdict == "undecided"
    assert decision.reasons[0].startswith("3 test fields, the gate needs 4 to promote")
    assert "`cvdm promote`" in decision.reasons[0]
    assert not any("champion" in test.name for test in decision.tests)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [({"coverage": 0.6}, "the calibrated interval"), ({"psnr": 35.0}, "PSNR against best-blur")],
)
def test_too_few_fields_do_not_excuse_an_absolute_failure(broken, reason):
    """Two fields suffice to see that a model misses its coverage or loses to a blur."""
    decision = decide(evaluation(fields=2, **broken), None, POLICY)
    assert decision.verdict == "reject"
    assert decision.reasons[0].startswith(reason)


@pytest.mark.parametrize("coverage", [0.6, 0.99])
def test_broken_coverage_is_the_first_reason(coverage):
    """Bounds that hold too little or too much reject, before any comparison is mentioned."""
    decision = decide(evaluation(coverage=coverage, crps=0.02), evaluation(), POLICY)
    assert decision.verdict == "reject"
    assert decision.reasons[0].startswith("the calibrated interval covers")


def test_a_model_worse_than_the_blur_is_rejected():
    """What a blur does better needs no diffusion."""
    decision = decide(evaluation(psnr=35.0), None, POLICY)
    assert decision.verdict == "reject"
    assert decision.reasons[0].startswith("PSNR against best-blur")


def test_a_posterior_worth_less_than_its_own_regression_is_rejected():
    """Spread that makes CRPS worse than the regression's absolute error is noise, not uncertainty."""
    decision = decide(evaluation(crps=0.015), None, POLICY)
    assert decision.verdict == "reject"
    assert decision.reasons[0].startswith("CRPS against regression-mean")


def test_few_draws_may_cost_what_their_number_explains():
    """Eight draws cost 0.51 dB against the regression mean (38.2 dB), plus the margin of 0.1 dB."""
    assert decide(evaluation(psnr=37.60), None, POLICY).verdict == "promote"
    assert decide(evaluation(psnr=37.58), None, POLICY).verdict == "reject"


def test_nan_never_passes():
    """One NaN in any score rejects and is named; a NaN of the champion leaves the comparison open."""
    broken = evaluation(crps=0.009)
    broken.metrics["ssim_fit"]["f2"] = float("nan")
    decision = decide(broken, None, POLICY)
    assert decision.verdict == "reject"
    assert decision.reasons == ("not a finite number: ssim_fit of f2",)
    assert decide(evaluation(crps=0.009), broken, POLICY).verdict == "undecided"
    blind = evaluation()
    blind.baselines["best-blur"]["psnr_fit"]["f0"] = float("nan")
    assert decide(blind, None, POLICY).verdict == "reject"


def test_an_equal_model_is_seldom_promoted():
    """Over 2000 simulated equal candidates on six fields, promotions stay below alpha."""
    rng = np.random.default_rng(0)
    promoted = 0
    for _ in range(2000):
        candidate, champion = evaluation(fields=6), evaluation(fields=6)
        for field in candidate.metrics["crps"]:
            candidate.metrics["crps"][field] += rng.normal(0, 1e-4)
        promoted += decide(candidate, champion, POLICY).verdict == "promote"
    assert promoted / 2000 < POLICY.alpha


def test_the_decision_is_json_without_nan():
    """What is logged can be read by any JSON parser."""
    broken = evaluation()
    broken.metrics["crps"]["f0"] = float("nan")
    document = json.dumps(decide(evaluation(), broken, POLICY).as_json(), allow_nan=False)
    assert json.loads(document)["verdict"] == "undecided"


def test_the_policy_is_read_and_unknown_keys_are_refused(tmp_path):
    """params.yaml overrides defaults; a misspelt key is an error, not a silent default."""
    params = tmp_path / "params.yaml"
    params.write_text("gate: {min_fields: 6}\n")
    assert load_policy(params) == replace(POLICY, min_fields=6)
    params.write_text("gate: {min_field: 6}\n")
    with pytest.raises(ConfigError, match="min_field"):
        load_policy(params)
    with pytest.raises(ConfigError, match="alpha"):
        GatePolicy(alpha=0.9)
