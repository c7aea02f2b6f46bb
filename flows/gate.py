"""The gate: may a candidate replace the champion? A pure decision, with every number that it rests on.

The unit of evidence is the field of view. The tests, in the order in which reasons are given:

1. finite       every score of the candidate is a finite number; NaN never passes.
2. fields       fewer test fields than `min_fields` allow no promotion and no comparison with the champion; a
                candidate that fails nothing else is `undecided`, and only a person can promote it.
3. coverage     the calibrated interval covers what policy demands, on fields that calibration never saw.
4. baselines    the mean over fields of PSNR and SSIM (after intensity fit) beats every baseline. The
                regression mean is a special case: it minimises the squared error itself, and the mean of K
                draws carries up to 1/K of the posterior variance on top, which costs a calibrated
                posterior up to 10 log10(1 + 1/K) dB. So on PSNR and SSIM the candidate must be no worse
                than that, plus a margin, and what draws are for is tested where it shows: CRPS, against
                the regression mean's absolute error.
5. champion     paired by field, exact sign-flip test, one-sided at `alpha`: superior on CRPS, and
                non-inferior within a margin on PSNR and SSIM. All three must hold (an intersection-union
                test), so `alpha` needs no correction for their number.

A failure of 1, 3 or 4, however few the fields, or a significant loss in 5, rejects. A comparison significant
in neither direction is `undecided`, and so is an equal model. With four fields the smallest possible p is
1/16, so at alpha = 0.1 promotion needs all four to agree; of ten fields with gains of equal size, eight must.
Not covered yet: several looks at the same test fields, strata, the sanity of the schedule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cvdm.errors import ConfigError
from cvdm.evaluation import Evaluation
from cvdm.params import from_mapping, load_section
from flows.sign_flip import sign_flip_p

Verdict = Literal["promote", "reject", "undecided"]

REGRESSION = "regression-mean"
VERSUS_CHAMPION = " vs champion"
"""How the names of the paired tests end."""


@dataclass(frozen=True)
class GatePolicy:
    """What a candidate must show; section `gate` of params.yaml."""

    min_fields: int = 4
    """Test fields below which nothing is promoted and nothing compared with the champion."""
    alpha: float = 0.1
    """One-sided level of the paired tests against the champion; four fields can reach 1/16 at best."""
    coverage_low: float = 0.85
    """Least mean coverage of the calibrated 90 % interval on test fields."""
    coverage_high: float = 0.95
    """Largest mean coverage; a wider interval says nothing."""
    psnr_margin_db: float = 0.1
    """PSNR that a candidate may lose to the champion or, beyond 10 log10(1 + 1/K), to its regression mean."""
    ssim_margin: float = 0.005
    """SSIM that a candidate may lose to the champion."""
    regression_ssim_margin: float = 0.02
    """SSIM that the mean of few draws may lose to the regression mean."""

    def __post_init__(self) -> None:
        _require(self.min_fields >= 1, "gate.min_fields of at least 1", self.min_fields)
        _require(0 < self.alpha < 0.5, "gate.alpha between 0 and 0.5", self.alpha)
        low, high = self.coverage_low, self.coverage_high
        _require(0 <= low < high <= 1, "0 <= gate.coverage_low < gate.coverage_high <= 1", (low, high))
        for name in ("psnr_margin_db", "ssim_margin", "regression_ssim_margin"):
            _require(getattr(self, name) >= 0, f"gate.{name} of at least 0", getattr(self, name))


@dataclass(frozen=True)
class GateTest:
    """One test with its numbers."""

    name: str
    passed: bool | None
    """None: the fields at hand show neither that it holds nor that it fails."""
    value: float
    threshold: float
    detail: str
    """The test in words, numbers included."""


@dataclass(frozen=True)
class Decision:
    """The verdict, why, and every test behind it."""

    verdict: Verdict
    reasons: tuple[str, ...]
    """The most important first; never empty."""
    tests: tuple[GateTest, ...]

    @property
    def rests_on_champion(self) -> bool:
        """Whether another champion could change it; failures of the candidate by itself stand."""
        failed = [test.name for test in self.tests if test.passed is False]
        return all(name.endswith(VERSUS_CHAMPION) for name in failed)

    def as_json(self) -> dict[str, Any]:
        """Plain values; numbers that are not finite become null."""
        document = asdict(self)
        for test in document["tests"]:
            numbers = {key: test[key] for key in ("value", "threshold")}
            test.update({key: x if math.isfinite(x) else None for key, x in numbers.items()})
        return document


def load_policy(params: Path) -> GatePolicy:
    """The section `gate` of a params.yaml. Raises ConfigError on unknown keys."""
    return from_mapping(GatePolicy, load_section(params, "gate"), "gate")


def decide(candidate: Evaluation, champion: Evaluation | None, policy: GatePolicy) -> Decision:
    """Judge a candidate, against the champion if there is one; both measured on the same fields and draws."""
    finite = _finite(candidate)
    if not finite.passed:
        return _concluded("reject", [finite])
    enough = _enough_fields(candidate, policy)
    absolute = [finite, enough, _coverage(candidate, policy), *_against_baselines(candidate, policy)]
    relative = _against_champion(candidate, champion, policy) if champion and enough.passed else []
    tests = absolute + relative
    if any(test.passed is False for test in tests):
        return _concluded("reject", tests)
    if any(test.passed is None for test in tests):
        return _concluded("undecided", tests)
    reason = (
        "better than the champion and every baseline"
        if champion
        else "first model, better than every baseline"
    )
    return Decision(
        "promote", (f"{reason}, with calibrated uncertainty", *(t.detail for t in relative)), tuple(tests)
    )


def _concluded(verdict: Verdict, tests: list[GateTest]) -> Decision:
    """A verdict other than promote: failures are the reasons, then what stayed open."""
    failed = [test.detail for test in tests if test.passed is False]
    open_ = [test.detail for test in tests if test.passed is None]
    return Decision(verdict, tuple(failed if verdict == "reject" else open_), tuple(tests))


def _finite(candidate: Evaluation) -> GateTest:
    broken = [
        f"{name} of {field}"
        for name, values in sorted(candidate.metrics.items())
        for field, value in values.items()
        if not math.isfinite(value)
    ]
    detail = f"not a finite number: {', '.join(broken[:5])}" if broken else "every score is a finite number"
    return GateTest("finite", not broken, len(broken), 0, detail)


def _enough_fields(candidate: Evaluation, policy: GatePolicy) -> GateTest:
    count = len(candidate.metrics["crps"])
    passed = True if count >= policy.min_fields else None
    detail = (
        f"{count} test fields, the gate needs {policy.min_fields} to promote: "
        "add data, or promote by hand with `cvdm promote`"
    )
    return GateTest("fields", passed, count, policy.min_fields, detail)


def _coverage(candidate: Evaluation, policy: GatePolicy) -> GateTest:
    value, low, high = candidate.coverage, policy.coverage_low, policy.coverage_high
    detail = f"the calibrated interval covers {value:.1%} of test pixels, policy {low:.0%} to {high:.0%}"
    return GateTest(
        "coverage", low <= value <= high, value, low if value < (low + high) / 2 else high, detail
    )


def _against_baselines(candidate: Evaluation, policy: GatePolicy) -> list[GateTest]:
    draws_cost_db = 10 * math.log10(1 + 1 / candidate.samples)
    tests = []
    for name, scores in sorted(candidate.baselines.items()):
        demands = {"psnr_fit": 0.0, "ssim_fit": 0.0}
        if name == REGRESSION:
            demands = {
                "psnr_fit": -draws_cost_db - policy.psnr_margin_db,
                "ssim_fit": -policy.regression_ssim_margin,
            }
            demands["crps"] = 0.0
        tests += [
            _against_baseline(candidate, name, scores, metric, least) for metric, least in demands.items()
        ]
    return tests


def _against_baseline(
    candidate: Evaluation, name: str, scores: Mapping[str, Mapping[str, float]], metric: str, least: float
) -> GateTest:
    gain = float(np.mean(_gains(metric, candidate.metrics[metric], scores[metric])))
    passed = gain > least if least == 0 else gain >= least
    demand = "above 0" if least == 0 else f"at least {least:.3g}"
    detail = f"{_label(metric)} against {name}: {gain:+.4g}{_unit(metric)} on average, needs {demand}"
    return GateTest(f"{metric} vs {name}", bool(passed), gain, least, detail)


def _against_champion(candidate: Evaluation, champion: Evaluation, policy: GatePolicy) -> list[GateTest]:
    demands = {"crps": 0.0, "psnr_fit": -policy.psnr_margin_db, "ssim_fit": -policy.ssim_margin}
    return [
        _paired(metric, candidate.metrics[metric], champion.metrics[metric], least, policy.alpha)
        for metric, least in demands.items()
    ]


def _paired(
    metric: str, candidate: Mapping[str, float], champion: Mapping[str, float], least: float, alpha: float
) -> GateTest:
    """Passed when gains above `least` are significant, failed when gains below it are, else open."""
    name, label = f"{metric}{VERSUS_CHAMPION}", _label(metric)
    gains = _gains(metric, candidate, champion)
    if not np.isfinite(gains).all():
        detail = f"{label} of the champion is not a finite number on every field, so nothing can be compared"
        return GateTest(name, None, math.nan, alpha, detail)
    better, worse = sign_flip_p(gains - least), sign_flip_p(least - gains)
    claim = "superior" if least == 0 else f"non-inferior within {-least:g}{_unit(metric)}"
    numbers = f"{gains.mean():+.4g}{_unit(metric)} on average over {len(gains)} fields"
    if better <= alpha:
        return GateTest(
            name, True, better, alpha, f"{label} {claim} to the champion: {numbers}, p = {better:.3f}"
        )
    if worse <= alpha:
        detail = f"{label} worse than the champion's: {numbers}, p = {worse:.3f}"
        return GateTest(name, False, better, alpha, detail)
    detail = f"{label} not shown to be {claim} to the champion: {numbers}, p = {better:.3f}, needs {alpha:g}"
    return GateTest(name, None, better, alpha, detail)


def _gains(metric: str, candidate: Mapping[str, float], other: Mapping[str, float]) -> np.ndarray:
    """Per field, how much better the candidate is; positive is better for every metric."""
    sign = -1.0 if metric == "crps" else 1.0
    return np.array([sign * (candidate[field] - other[field]) for field in sorted(candidate)])


def _label(metric: str) -> str:
    return {"crps": "CRPS", "psnr_fit": "PSNR", "ssim_fit": "SSIM"}[metric]


def _unit(metric: str) -> str:
    return " dB" if metric == "psnr_fit" else ""


def _require(holds: bool, expected: str, actual: object) -> None:
    if not holds:
        raise ConfigError(expected, str(actual), "Correct the section `gate` of params.yaml.")
