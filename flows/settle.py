"""The gate's decision, carried out once: what stands may be another one, as others decide meanwhile."""

from __future__ import annotations

from cvdm.errors import CheckpointError
from flows.aliases import alone, standing
from flows.gate import Decision, Verdict
from flows.promote import (
    GATE,
    ROLLED_BACK,
    Deployment,
    NotTakenOverError,
    carry_out,
    enter,
    is_unfinished,
    prove,
    record,
)
from flows.registry import Registry

SERVES_ALL_THE_SAME = (
    "serves all the same, for only a person takes a champion away: `cvdm rollback`, or `cvdm promote` another"
)
"""First reason for rejecting the version that is champion, where it is judged again."""
WENT_BACK = "the aliases went back"
"""How the first reason begins where the service did not come to serve the version."""


def settle(
    registry: Registry,
    task: str,
    version: int,
    decision: Decision,
    *,
    compared: int | None,
    deployment: Deployment | None = None,
) -> Decision:
    """Carry the gate's decision out and return the one that stands; what was carried out is not repeated.

    compared: the champion that the decision was made against. If another version serves by now, there is
    nothing to conclude, and the decision becomes undecided. So it does for a version that a person has rolled
    back, and where the service does not come to serve it, for no fault of its own. A candidate that fails a
    golden replay is rejected after all.
    """
    if _is_carried_out(registry, task, version, decision):
        return decision
    decision = _as_things_stand(registry, task, version, decision, compared)
    if decision.verdict == "promote":
        try:
            prove(registry, task, version, deployment)
        except CheckpointError as error:
            decision = _instead(decision, "reject", f"not servable: {error}")
    with alone(registry, task):
        decision = _as_things_stand(registry, task, version, decision, compared)
        if decision.verdict == "promote":
            try:
                carry_out(registry, task, version, reasons=decision.reasons, by=GATE, deployment=deployment)
                return decision
            except CheckpointError as error:
                decision = _instead(decision, "reject", f"{WENT_BACK}, not servable: {error}")
            except NotTakenOverError as error:
                decision = _instead(decision, "undecided", f"{WENT_BACK}: {error}")
        now = standing(registry, task)
        if decision.verdict == "reject" and now.champion == version:
            decision = _instead(decision, "reject", SERVES_ALL_THE_SAME)
        enter(registry, decision.verdict, now, version, reasons=decision.reasons, by=GATE)
        record(registry, task, version, verdict=decision.verdict, reasons=decision.reasons, by=GATE)
        return decision


def _is_carried_out(registry: Registry, task: str, version: int, decision: Decision) -> bool:
    """Whether this very promotion was finished by an attempt that ended afterwards, by a kill or an outage.

    Again, it would have the version itself to go back to.
    """
    entry = registry.audit.latest(task)
    if decision.verdict != "promote" or entry is None or registry.models.champion(task) != version:
        return False
    about = registry.models.version(task, version)
    said = (entry.action, entry.by, entry.version, entry.details.get("run_id"), entry.reasons)
    meant = ("promote", GATE, version, about.run_id, decision.reasons)
    return said == meant and not is_unfinished(entry, about)


def _as_things_stand(
    registry: Registry, task: str, version: int, decision: Decision, compared: int | None
) -> Decision:
    """The decision, or undecided where another version serves by now or a person took this one back."""
    decision = _against_whoever_serves(registry, task, version, decision, compared)
    return _unless_rolled_back(registry, task, version, decision)


def _instead(decision: Decision, verdict: Verdict, reason: str) -> Decision:
    """Another verdict on the same tests, whose reason comes first."""
    return Decision(verdict, (reason, *decision.reasons), decision.tests)


def _against_whoever_serves(
    registry: Registry, task: str, version: int, decision: Decision, compared: int | None
) -> Decision:
    champion = registry.models.champion(task)
    if champion in (compared, version) or not decision.rests_on_champion:
        return decision
    judged, serves = (
        "no champion" if number is None else f"version {number}" for number in (compared, champion)
    )
    reason = f"judged against {judged}, but {serves} serves by now: retrain again to compare with that"
    return _instead(decision, "undecided", reason)


def _unless_rolled_back(registry: Registry, task: str, version: int, decision: Decision) -> Decision:
    note = registry.models.version(task, version).tags.get(ROLLED_BACK)
    if not note or decision.verdict != "promote":
        return decision
    reason = f"a person took version {version} back ({note}): only `cvdm promote` lets it serve again"
    return _instead(decision, "undecided", reason)


def went_back(decision: Decision) -> bool:
    """Whether the aliases had moved, and went back."""
    return decision.reasons[0].startswith(WENT_BACK)
