"""The tests against the champion: paired by field, over all fields and within each stratum.

Promoting needs every claim of this module, so none is corrected for their number. Rejecting needs one
significant loss, so the p-values of all losses are corrected together. A claim that is not shown and no loss
that is significant leave a test open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from cvdm.evaluation import Evaluation
from flows.gate.background import Background
from flows.gate.holm import holm
from flows.gate.merits import some
from flows.gate.outcome import CHANCE, MEAN_GAIN, VERSUS_CHAMPION, GateTest
from flows.gate.policy import GatePolicy
from flows.gate.quantities import COMPARED, CRPS, STRATUM_CRPS, WIDTH, Quantity
from flows.sign_flip import sign_flip_p

CRPS_AS_DRAWN = replace(CRPS, label="CRPS as drawn")


@dataclass(frozen=True)
class Match:
    """One comparison: what each field gains."""

    quantity: Quantity
    gains: np.ndarray
    """(F,) finite; positive is better."""
    least: float
    """The gain that must be exceeded: 0, or minus the margin."""
    stratum: str | None = None
    """Fields of one stratum only, for instance `session 2026-11-20`."""

    @property
    def name(self) -> str:
        """Of its test."""
        where = f" in {self.stratum}" if self.stratum else ""
        return f"{self.quantity.metric}{where}{VERSUS_CHAMPION}"

    @property
    def better(self) -> float:
        """One-sided p of gains above `least`."""
        return sign_flip_p(self.gains - self.least)

    @property
    def worse(self) -> float:
        """One-sided p of gains below `least`, not corrected."""
        return sign_flip_p(self.least - self.gains)

    @property
    def numbers(self) -> str:
        """What was gained."""
        return f"{self.quantity.shown(float(self.gains.mean()))} on average over {len(self.gains)} fields"


def against_champion(
    candidate: Evaluation, champion: Evaluation, policy: GatePolicy, background: Background
) -> list[GateTest]:
    """Every comparison, those over all fields first; both models measured on the same fields and draws."""
    seen = sorted((background.learned_by_champion or frozenset()) & candidate.metrics["crps"].keys())
    if seen:
        detail = (
            f"the champion has learned from fields that are tested on now: {some(seen)}; its scores there "
            "mean nothing: promote by hand with `cvdm promote`"
        )
        return [GateTest(f"unseen{VERSUS_CHAMPION}", None, len(seen), 0, detail, "fields")]
    compared: tuple[Quantity, ...] = COMPARED
    if candidate.spread_calibrated and not champion.spread_calibrated:
        # of equal models the one with the right spread would win
        compared = tuple(CRPS_AS_DRAWN if one is CRPS else one for one in COMPARED)
        candidate, champion = _as_drawn(candidate), _as_drawn(champion)
    found = [_overall(quantity, candidate, champion, policy) for quantity in compared]
    found += _strata(candidate, champion, policy, background)
    matches = [one for one in found if isinstance(one, Match)]
    corrected = iter(holm([match.worse for match in matches]))
    return [
        _judged(one, next(corrected), len(matches), policy.alpha) if isinstance(one, Match) else one
        for one in found
        if one is not None
    ]


def _as_drawn(one: Evaluation) -> Evaluation:
    """With the CRPS of the draws as they come."""
    return replace(one, metrics=one.metrics | {"crps": one.metrics["crps_drawn"]})


def _overall(
    quantity: Quantity, candidate: Evaluation, champion: Evaluation, policy: GatePolicy
) -> Match | GateTest | None:
    """One quantity over all fields; None where neither model was measured on it."""
    name, all_fields = f"{quantity.metric}{VERSUS_CHAMPION}", candidate.metrics["crps"].keys()
    ours, theirs = (one.metrics.get(quantity.metric, {}) for one in (candidate, champion))
    fields = sorted(ours.keys() & theirs.keys()) if quantity.optional else sorted(all_fields)
    if quantity.optional and not (ours or theirs):
        return None
    if quantity.optional and len(fields) < policy.min_fields:
        detail = (
            f"{quantity.label} can be measured on {len(fields)} of {len(all_fields)} test fields for both "
            f"models, {policy.min_fields} are needed: not compared"
        )
        return GateTest(name, None, len(fields), policy.min_fields, detail, "fields", binding=False)
    if quantity is WIDTH and not champion.calibrated:
        sampling = f"{candidate.samples} draws of {candidate.steps} steps"
        detail = f"the champion's interval is not calibrated for {sampling}, the candidate's: no measure"
        return GateTest(name, None, math.nan, math.nan, detail, MEAN_GAIN, binding=False)
    if quantity is WIDTH and champion.coverage < policy.coverage_low:
        covered = f"covers {champion.coverage:.1%} of test pixels"
        detail = f"the champion's interval {covered}: too narrow to be a measure"
        return GateTest(
            name, None, champion.coverage, policy.coverage_low, detail, "share of pixels", binding=False
        )
    gains = quantity.gains(ours, theirs, fields)
    if not np.isfinite(gains).all():
        detail = (
            f"{quantity.label} of the champion is not a finite number on every field, "
            "so nothing can be compared"
        )
        return GateTest(name, None, math.nan, policy.alpha, detail, CHANCE)
    return Match(quantity, gains, quantity.least(policy))


def _strata(
    candidate: Evaluation, champion: Evaluation, policy: GatePolicy, background: Background
) -> list[Match | GateTest]:
    """CRPS within each stratum; strata of too few fields are shown only."""
    found: list[Match | GateTest] = []
    ours, theirs = candidate.metrics["crps"], champion.metrics["crps"]
    for _, labels in sorted(background.strata.items()):
        for label in sorted(set(labels.values())):
            fields = sorted(field for field, own in labels.items() if own == label and field in ours)
            gains = STRATUM_CRPS.gains(ours, theirs, fields)
            if not fields or not np.isfinite(gains).all():
                continue  # said by the comparison over all fields
            match = Match(STRATUM_CRPS, gains, STRATUM_CRPS.least(policy), label)
            found.append(match if len(fields) >= policy.min_stratum_fields else _shown_only(match, policy))
    return found


def _shown_only(match: Match, policy: GatePolicy) -> GateTest:
    detail = (
        f"CRPS in {match.stratum}: {match.numbers}; "
        f"below {policy.min_stratum_fields} fields a stratum decides nothing"
    )
    gain = float(match.gains.mean())
    return GateTest(match.name, None, gain, match.least, detail, MEAN_GAIN, binding=False)


def _judged(match: Match, worse: float, family: int, alpha: float) -> GateTest:
    """worse: p of a loss, corrected for the `family` of comparisons."""
    if worse <= alpha:
        where = f" in {match.stratum}" if match.stratum else ""
        beyond = f" by more than {match.quantity.shown_margin(-match.least)}" if match.least else ""
        detail = (
            f"{match.quantity.label}{where} worse than the champion's{beyond}: {match.numbers}, "
            f"p = {worse:.2g} after correction for {family} comparisons"
        )
        return GateTest(match.name, False, worse, alpha, detail, CHANCE)
    return _stratum_holds(match) if match.stratum else _claim_holds(match, alpha)


def _claim_holds(match: Match, alpha: float) -> GateTest:
    """Superiority or non-inferiority over all fields must be significant."""
    label, better = match.quantity.label, match.better
    margin = match.quantity.shown_margin(-match.least)
    claim = "superior" if match.least == 0 else f"non-inferior within {margin}"
    if better <= alpha:
        detail = f"{label} {claim} to the champion: {match.numbers}, p = {better:.3f}"
        return GateTest(match.name, True, better, alpha, detail, CHANCE)
    detail = (
        f"{label} not shown to be {claim} to the champion: {match.numbers}, p = {better:.3f}, needs {alpha:g}"
    )
    if 0.5 ** len(match.gains) > alpha:
        detail += f", which {len(match.gains)} fields cannot reach"
    return GateTest(match.name, None, better, alpha, detail, CHANCE)


def _stratum_holds(match: Match) -> GateTest:
    """Within a stratum the mean decides: its few fields would seldom be significant."""
    gain = float(match.gains.mean())
    margin = match.quantity.shown_margin(-match.least)
    holds = "within" if gain >= match.least else "beyond"
    detail = f"CRPS in {match.stratum}: {match.numbers}, {holds} the margin of {margin}"
    if gain < match.least:
        detail += " but not significantly: look at these fields, and add more of them"
    passed = True if gain >= match.least else None
    return GateTest(match.name, passed, gain, match.least, detail, MEAN_GAIN)
