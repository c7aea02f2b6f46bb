"""The gate: its statistics against values derived by hand, and planted candidates against its verdicts."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from gate_scores import evaluation

from cvdm.errors import ConfigError
from flows.gate import Background, GatePolicy, decide, load_policy
from flows.shadow import ShadowSummary, shadow_summary
from flows.sign_flip import sign_flip_p

POLICY = GatePolicy()


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
    """Better on every one of five fields: p = 1/32 passes alpha = 0.05."""
    decision = decide(
        evaluation(fields=5, crps=0.009, psnr=38.5, spread=0.1), evaluation(fields=5, spread=0.1), POLICY
    )
    assert decision.verdict == "promote"
    assert {t.value for t in decision.tests if "champion" in t.name} == {1 / 32}


def test_four_fields_cannot_show_anything_against_a_champion():
    """The smallest possible p is 1/16: undecided, and the reason says that fields are lacking."""
    decision = decide(evaluation(fields=4, crps=0.009, psnr=38.5), evaluation(fields=4), POLICY)
    assert decision.verdict == "undecided"
    assert "which 4 fields cannot reach" in decision.reasons[0]


def test_a_worse_candidate_is_rejected():
    """Worse on every field is a reason, named first; on few fields the same is undecided, not noise."""
    decision = decide(evaluation(crps=0.012), evaluation(), POLICY)
    assert decision.verdict == "reject"
    assert decision.reasons[0].startswith("CRPS worse than the champion's")
    assert decide(evaluation(fields=6, crps=0.012), evaluation(fields=6), POLICY).verdict == "undecided"


def test_an_equal_model_is_not_promoted():
    """The same numbers again prove nothing."""
    decision = decide(evaluation(), evaluation(), POLICY)
    assert decision.verdict == "undecided"
    assert "CRPS not shown to be superior" in decision.reasons[0]


def test_a_candidate_better_on_six_fields_of_eight_stays_undecided():
    """Chance gives such a result in 37 of 256 cases."""
    candidate, champion = evaluation(crps=0.0099), evaluation()
    candidate.metrics["crps"].update(f0=0.0101, f1=0.0101)
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


def test_an_equal_model_is_seldom_promoted_and_seldom_rejected():
    """Over 1000 simulated equal candidates on eight fields with strata, both stay below alpha."""
    rng = np.random.default_rng(0)
    halves = {f"f{i}": "dim input" if i < 4 else "bright input" for i in range(8)}
    background, verdicts = Background(strata={"input": halves}), Counter()
    for _ in range(1000):
        candidate, champion = evaluation(), evaluation()
        for scores, noise in (("crps", 1e-3), ("psnr_fit", 0.2), ("ssim_fit", 0.01), ("width", 0.02)):
            for field in halves:
                candidate.metrics[scores][field] += rng.normal(0, noise)
        verdicts[decide(candidate, champion, POLICY, background).verdict] += 1
    assert verdicts["promote"] / 1000 < POLICY.alpha
    assert verdicts["reject"] / 1000 < POLICY.alpha


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
    for broken in ({"alpha": 0.9}, {"max_looks": 0}, {"stratum_margin": -0.1}, {"min_stratum_fields": 0}):
        with pytest.raises(ConfigError, match=next(iter(broken))):
            GatePolicy(**broken)


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"falling": False}, "does not fall all the way"),
        ({"finite": False}, "is not finite everywhere"),
        ({"noise": -3.6}, "does not reach both ends"),  # gamma(1) = 0.026: the prior is never reached
        ({"clean": float("nan")}, "does not reach both ends"),
    ],
)
def test_a_broken_schedule_is_rejected(broken, told):
    """Whatever its scores, a model whose noise schedule cannot be right is not promoted."""
    candidate = evaluation()
    candidate = replace(candidate, schedule=replace(candidate.schedule, **broken))
    decision = decide(candidate, None, POLICY)
    assert decision.verdict == "reject" and told in decision.reasons[0]


def test_a_leaked_field_is_the_first_reason():
    """Scores on learned fields mean nothing, so nothing else is said first, not even a NaN."""
    candidate = evaluation(crps=0.001, coverage=0.2)
    leaked = Background(learned=frozenset({"f1", "g7"}))
    decision = decide(candidate, evaluation(), POLICY, leaked)
    assert decision.verdict == "reject"
    assert decision.reasons[0] == "trained on fields that it is tested on: f1"
    assert not decision.rests_on_champion
    candidate.metrics["crps"]["f0"] = float("nan")
    assert decide(candidate, None, POLICY, leaked).reasons[0].startswith("trained on fields")


def test_an_unknown_past_decides_nothing():
    """Where it is not on record what a candidate learned from, its scores cannot be trusted."""
    decision = decide(evaluation(), None, POLICY, Background(learned=None))
    assert decision.verdict == "undecided" and "not on record" in decision.reasons[0]


def test_a_champion_that_saw_the_test_fields_is_no_measure():
    """Its scores are too good to compare with: undecided, with the remedy; the candidate is not blamed."""
    background = Background(learned_by_champion=frozenset({"f2"}))
    decision = decide(evaluation(crps=0.02), evaluation(), POLICY, background)
    assert decision.verdict == "reject" and "regression-mean" in decision.reasons[0]
    decision = decide(evaluation(), evaluation(crps=0.001), POLICY, background)
    assert decision.verdict == "undecided"
    assert "the champion has learned from fields that are tested on now: f2" in decision.reasons[0]


def test_too_many_looks_decide_nothing():
    """The last allowed look promotes, the next is undecided with its remedy; a failure stays a failure."""
    last, beyond = Background(looks=POLICY.max_looks), Background(looks=POLICY.max_looks + 1)
    better = evaluation(crps=0.009)
    assert decide(better, evaluation(), POLICY, last).verdict == "promote"
    decision = decide(better, evaluation(), POLICY, beyond)
    assert decision.verdict == "undecided"
    assert decision.reasons[0].startswith("candidate 11 of at most 10") and "rotate" in decision.reasons[0]
    assert decide(evaluation(coverage=0.5), evaluation(), POLICY, beyond).verdict == "reject"


def shadowed(**changes):
    """A gate's background with what a service saw of the candidate."""
    seen = ShadowSummary(images=40, sittings=6, width_change=-0.1, difference=0.01, residual_change=None)
    return Background(shadow=replace(seen, **changes))


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "promote"),
        ({"width_change": 0.09}, "promote"),
        ({"width_change": 0.3}, "undecided"),
        ({"residual_change": 0.3}, "undecided"),
        ({"width_change": 0.3, "sittings": 3}, "promote"),  # too few to hold anything up
    ],
)
def test_what_a_service_saw_in_the_shadow_counts(changes, verdict):
    """A candidate that is better on test fields, but less sure of what users send, waits for a person."""
    ours, theirs = evaluation(fields=5, crps=0.009, psnr=38.5, spread=0.1), evaluation(fields=5, spread=0.1)
    decision = decide(ours, theirs, POLICY, shadowed(**changes))
    assert decision.verdict == verdict
    (test,) = [one for one in decision.tests if one.name.startswith("users' images")]
    assert "40 images of users" in test.detail
    if verdict == "undecided":
        assert decision.reasons == (test.detail,)


def test_shadow_lines_are_summed_up_by_sitting(tmp_path):
    """A hundred images of one day weigh as one sitting; other versions and a torn last line do not count."""
    line = {
        "at": "2026-01-01T10:00:00+00:00",
        "champion_run": "a",
        "challenger_run": "b",
        "owner": "ann",
        "champion_width": 0.1,
        "challenger_width": 0.2,
        "difference": 0.05,
        "champion_residual": 1.0,
        "challenger_residual": 1.5,
    }
    others = [line | {"at": f"2026-01-0{day}T10:00:00+00:00", "challenger_width": 0.09} for day in (2, 3)]
    rows = [line] * 100 + others + [line | {"challenger_run": "c"}]
    text = "".join(json.dumps(row) + "\n" for row in rows) + json.dumps(line)[:30]
    (tmp_path / "shadow.jsonl").write_text(text)
    found = shadow_summary(tmp_path, "a", "b")
    assert (found.images, found.sittings) == (102, 3)
    assert found.width_change == pytest.approx(-0.1) and found.residual_change == pytest.approx(0.5)
    assert "10% narrower" in found.words() and "+50%" in found.words()
    assert shadow_summary(tmp_path, "a", "x") is None and shadow_summary(tmp_path / "none", "a", "b") is None
