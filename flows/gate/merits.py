"""The tests of a candidate by itself: they stand whoever is champion."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from cvdm.evaluation import CONSTANT, REGRESSION, Evaluation
from flows.gate.background import Background
from flows.gate.outcome import MEAN_GAIN, VERSUS_CHAMPION, GateTest
from flows.gate.policy import GatePolicy
from flows.gate.quantities import CRPS, PSNR, SSIM, Quantity

LISTED = 5  # names in one sentence


def unseen(candidate: Evaluation, background: Background) -> GateTest:
    """No test field was learned from; open where that is not on record."""
    if background.learned is None:
        detail = "it is not on record which fields the candidate has learned from: train it anew"
        return GateTest("unseen", None, math.nan, 0, detail, "fields")
    leaked = sorted(background.learned & candidate.metrics["crps"].keys())
    detail = (
        f"trained on fields that it is tested on: {some(leaked)}"
        if leaked
        else "no test field was learned from"
    )
    return GateTest("unseen", not leaked, len(leaked), 0, detail, "fields")


def finite(candidate: Evaluation) -> GateTest:
    """Every score is a number."""
    broken = [
        f"{name} of {field}"
        for name, values in sorted(candidate.metrics.items())
        for field, value in values.items()
        if not math.isfinite(value)
    ]
    detail = f"not a finite number: {some(broken)}" if broken else "every score is a finite number"
    return GateTest("finite", not broken, len(broken), 0, detail, "scores")


def enough_fields(candidate: Evaluation, policy: GatePolicy) -> GateTest:
    """As many fields as a promotion needs; open below."""
    count = len(candidate.metrics["crps"])
    enough = count >= policy.min_fields
    detail = f"{count} test fields, the gate needs {policy.min_fields} to promote"
    if not enough:
        detail += ": add data, or promote by hand with `cvdm promote`"
    return GateTest("fields", True if enough else None, count, policy.min_fields, detail, "fields")


def few_looks(background: Background, policy: GatePolicy) -> GateTest:
    """Not too many candidates tried their luck on these fields; open beyond."""
    looks, most = background.looks, policy.max_looks
    detail = f"candidate {looks} of at most {most} that are judged on these test fields"
    if looks > most:
        detail += (
            ": the best of many wins by chance; add fields, or rotate them by another split.seed and promote "
            "the next champion by hand"
        )
    return GateTest("looks", True if looks <= most else None, looks, most, detail, "candidates")


def coverage(candidate: Evaluation, policy: GatePolicy) -> GateTest:
    """The calibrated interval holds what it says."""
    value, low, high = candidate.coverage, policy.coverage_low, policy.coverage_high
    detail = f"the calibrated interval covers {value:.1%} of test pixels, policy {low:.0%} to {high:.0%}"
    nearer = low if value < (low + high) / 2 else high
    return GateTest("coverage", low <= value <= high, value, nearer, detail, "share of pixels")


def sane_schedule(candidate: Evaluation, policy: GatePolicy) -> GateTest:
    """The schedule of every test pixel is finite, falls, and reaches both ends."""
    schedule, least = candidate.schedule, policy.schedule_log_snr
    ends = f"log signal-to-noise ratio from {schedule.clean:.3g} to {schedule.noise:.3g}"
    reach = min(schedule.clean, -schedule.noise)
    faults = []
    if not schedule.finite:
        faults.append("is not finite everywhere")
    if not schedule.falling:
        faults.append("does not fall all the way")
    if not reach >= least:  # NaN too
        faults.append(f"does not reach both ends ({ends}, policy {least:g} to {-least:g})")
    detail = f"the noise schedule {' and '.join(faults)}" if faults else f"the noise schedule falls, {ends}"
    return GateTest("schedule", not faults, reach, least, detail, "log-SNR")


def against_baselines(candidate: Evaluation, policy: GatePolicy) -> list[GateTest]:
    """On average over fields better than everything that needs no diffusion."""
    draws_cost_db = 10 * math.log10(1 + 1 / candidate.samples)
    tests = []
    for name, scores in sorted(candidate.baselines.items()):
        demands = {PSNR: 0.0, SSIM: 0.0}
        if name == REGRESSION:
            demands = {
                PSNR: -draws_cost_db - policy.psnr_margin_db,
                SSIM: -policy.regression_ssim_margin,
                CRPS: 0.0,
            }
        elif name == CONSTANT:  # the same mean: its spread is what counts
            demands = {CRPS: 0.0}
        tests += [
            _against_baseline(candidate, name, scores, quantity, least) for quantity, least in demands.items()
        ]
    return tests


def _against_baseline(
    candidate: Evaluation,
    name: str,
    scores: Mapping[str, Mapping[str, float]],
    quantity: Quantity,
    least: float,
) -> GateTest:
    metric = quantity.metric
    gain = float(np.mean(quantity.gains(candidate.metrics[metric], scores[metric])))
    passed = gain > least if least == 0 else gain >= least
    demand = "above 0" if least == 0 else f"at least {least:.3g}"
    detail = f"{quantity.label} against {name}: {quantity.shown(gain)} on average, needs {demand}"
    return GateTest(f"{metric} vs {name}", bool(passed), gain, least, detail, MEAN_GAIN)


def on_users_images(background: Background, policy: GatePolicy) -> list[GateTest]:
    """As sure as the champion of what users send; open where it is not, no word where nobody looked."""
    seen = background.shadow
    if seen is None:
        return []
    worst = max(seen.width_change - policy.width_margin, (seen.residual_change or 0) - policy.residual_margin)
    return [
        GateTest(
            f"users' images{VERSUS_CHAMPION}",
            True if worst <= 0 else None,
            seen.width_change,
            policy.width_margin,
            seen.words(),
            "width change",
            binding=seen.sittings >= policy.min_sittings,
        )
    ]


def some(names: list[str]) -> str:
    """The first few of a list."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
