"""From all tests to one verdict; the tests and their order are in `flows.gate`."""

from __future__ import annotations

from cvdm.evaluation import Evaluation
from flows.gate import merits
from flows.gate.background import Background
from flows.gate.comparing import against_champion
from flows.gate.outcome import Decision, GateTest, Verdict
from flows.gate.policy import GatePolicy

NOTHING_KNOWN = Background()


def decide(
    candidate: Evaluation,
    champion: Evaluation | None,
    policy: GatePolicy,
    background: Background = NOTHING_KNOWN,
) -> Decision:
    """Judge a candidate, against the champion if there is one; both measured on the same fields and draws."""
    trusted = [merits.unseen(candidate, background), merits.finite(candidate)]
    if not trusted[-1].passed:
        return _concluded("reject", trusted)
    enough = merits.enough_fields(candidate, policy)
    absolute = [
        *trusted,
        enough,
        merits.few_looks(background, policy),
        merits.coverage(candidate, policy),
        merits.sane_schedule(candidate, policy),
        *merits.against_baselines(candidate, policy),
    ]
    relative = against_champion(candidate, champion, policy, background) if champion and enough.passed else []
    relative += merits.on_users_images(background, policy) if relative else []
    tests = absolute + relative
    if any(test.passed is False for test in tests):
        return _concluded("reject", tests)
    if any(test.passed is None and test.binding for test in tests):
        return _concluded("undecided", tests)
    reason = (
        "better than the champion and every baseline"
        if champion
        else "first model, better than every baseline"
    )
    shown = (test.detail for test in relative if test.passed)
    return Decision("promote", (f"{reason}, with calibrated uncertainty", *shown), tuple(tests))


def _concluded(verdict: Verdict, tests: list[GateTest]) -> Decision:
    """A verdict other than promote: failures are the reasons, or what stayed open."""
    failed = [test.detail for test in tests if test.passed is False]
    open_ = [test.detail for test in tests if test.passed is None and test.binding]
    return Decision(verdict, tuple(failed if verdict == "reject" else open_), tuple(tests))
