"""Who serves: moves of the aliases `champion` and `previous`, each verified and reversible.

A version is downloaded and replays its golden pair before an alias points to it, and again as everybody will
find it, by its alias. If the second replay fails, the aliases go back. Every decision is written on the
version: verdict, reasons, decided_at, decided_by; and, before it is carried out, in the audit log.

With a deployment (flows/deployment.py), the version also answers through a service process of its own before
it becomes champion, and the running service must take it over within a window; else the aliases go back.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from cvdm.checkpoint import load_checkpoint, verify_golden
from cvdm.errors import CheckpointError, CvdmError, StorageError
from flows.aliases import Standing, alone, move, standing
from flows.audit import Action, Entry
from flows.gate import Decision, Verdict
from flows.registry import CHAMPION, Registry, RegistryError, Version
from flows.servers import waiting_line

AUDIT = "audit"
"""Tag on a version: number and hash of the latest entry about it in the audit log."""
GATE = "gate"
"""Who decides when no person does."""
PROMOTED_AT = "promoted_at"
"""Tag on a version: when it last became champion, whatever was said of it later."""
ROLLED_BACK = "rolled_back"
"""Tag on a version that a person took back: when, who and why. Empty once a person promotes it again."""

SERVES_ALL_THE_SAME = (
    "serves all the same, for only a person takes a champion away: `cvdm rollback`, or `cvdm promote` another"
)
"""First reason for rejecting the version that is champion, where it is judged again."""
WENT_BACK = "the aliases went back"
"""How the first reason begins where the service did not come to serve the version."""


class NotTakenOverError(CvdmError):
    """The running service did not come to serve a version in time, for no fault of it that is known."""


class Deployment(Protocol):
    """What stands between a registered version and its users."""

    def rehearse(self, task: str, version: int) -> None:
        """Before the alias moves: raise CheckpointError if the version cannot serve."""

    def watch(self, task: str, version: int) -> None:
        """After the alias has moved: return once the version serves.

        Raises CheckpointError where the service refuses the version, else NotTakenOverError.
        """


def promote(
    registry: Registry,
    task: str,
    version: int,
    *,
    reasons: Sequence[str],
    by: str,
    deployment: Deployment | None = None,
) -> Standing:
    """Make a version the champion. Raises CheckpointError, and moves nothing, if its golden replay fails.

    by: who decided, `GATE` or a person's name. deployment: None where nothing serves; where it does not come
    to serve the version, the aliases go back: NotTakenOverError, CheckpointError.
    """
    _prove(registry, task, version, deployment)
    with alone(registry, task):
        _promote(registry, task, version, reasons=reasons, by=by, deployment=deployment)
        return standing(registry, task)


def _prove(registry: Registry, task: str, version: int, deployment: Deployment | None) -> None:
    """Golden replays before anything moves. They take minutes: nobody's rollback waits for them."""
    verify(registry, task, version)
    if deployment is not None:
        deployment.rehearse(task, version)


def _promote(
    registry: Registry,
    task: str,
    version: int,
    *,
    reasons: Sequence[str],
    by: str,
    deployment: Deployment | None,
) -> None:
    entry = enter(registry, "promote", standing(registry, task), version, reasons=reasons, by=by)
    before = Standing(task, entry.details["champion"], entry.details["previous"])
    with reverting(registry, before, version, by=by):
        previous = before.previous if before.champion == version else before.champion
        move(registry, Standing(task, version, previous))
        verify(registry, task, CHAMPION)
        if deployment is not None:
            deployment.watch(task, version)
    record(registry, task, version, verdict="promote", reasons=reasons, by=by)
    registry.models.set_tags(task, version, {ROLLED_BACK: ""})
    if by != GATE and before.champion not in (None, version):
        take_back(registry, task, before.champion, instead=version, reason="; ".join(reasons), by=by)


def rollback(registry: Registry, task: str, to: int | None = None, *, reason: str, by: str) -> Standing:
    """Let the previous version, or version `to`, serve again; the champion becomes the previous.

    Raises RegistryError when there is nothing to go back to, CheckpointError when it fails its golden replay.
    """
    with alone(registry, task):
        _rollback(registry, task, to, reason=reason, by=by)
        return standing(registry, task)


def _rollback(registry: Registry, task: str, to: int | None, *, reason: str, by: str) -> None:
    before = standing(registry, task)
    if to in (None, before.champion) and (entry := _moved_only(registry, before)) is not None:
        verify(registry, task, CHAMPION)
        taken_back = entry.details["champion"]
        _finish_rollback(registry, task, entry.version, taken_back, reason=reason, by=by)
        return
    target = before.previous if to is None else registry.models.version(task, to).number
    if target is None or target == before.champion:
        raise RegistryError(
            f"a version of {task} other than the champion to go back to",
            "no previous version" if target is None else f"version {target}, which serves already",
            f"Choose one of `cvdm models --task {task}` with --to.",
        )
    verify(registry, task, target)
    enter(registry, "rollback", before, target, reasons=(reason,), by=by)
    with reverting(registry, before, target, by=by):
        move(registry, Standing(task, target, before.champion))
        verify(registry, task, CHAMPION)
    _finish_rollback(registry, task, target, before.champion, reason=reason, by=by)


def _moved_only(registry: Registry, now: Standing) -> Entry | None:
    """The rollback to the present champion that a kill ended after its aliases had moved, if there is one.

    Asked for again it is finished; to roll back once more would let the version serve that was taken back.
    """
    entry = registry.audit.latest(now.task)
    if entry is None or entry.action != "rollback" or entry.version != now.champion:
        return None
    return entry if _is_unfinished(entry, registry.models.version(now.task, now.champion)) else None


def _finish_rollback(
    registry: Registry, task: str, restored: int, taken_back: int | None, *, reason: str, by: str
) -> None:
    if taken_back is not None:
        take_back(registry, task, taken_back, instead=restored, reason=reason, by=by)
    registry.models.set_tags(task, restored, {"restored": f"{_now()} by {by}: {reason}"})


def went_back(decision: Decision) -> bool:
    """Whether the aliases had moved, and went back."""
    return decision.reasons[0].startswith(WENT_BACK)


def take_back(registry: Registry, task: str, version: int, *, instead: int, reason: str, by: str) -> None:
    """Write on a version that a person preferred another one; the gate does not overrule that."""
    note = f"{_now()} by {by}, for version {instead}: {reason}"
    registry.models.set_tags(task, version, {ROLLED_BACK: note})


def record(
    registry: Registry, task: str, version: int, *, verdict: str, reasons: Sequence[str], by: str
) -> None:
    """Write a decision on the version that it is about; the gate's word stays beside a person's.

    What a person has decided the gate replaces only by carrying out a promotion.
    """
    told = "; ".join(reasons)
    tags = {"verdict": verdict, "reasons": told, "decided_at": _now(), "decided_by": by}
    if by == GATE:
        if verdict != "promote" and decided_by_person(registry.models.version(task, version)):
            tags = {}
        tags |= {"gate_verdict": verdict, "gate_reasons": told}
    if verdict == "promote":
        tags[PROMOTED_AT] = _now()
    registry.models.set_tags(task, version, tags)


def decided_by_person(version: Version) -> bool:
    """Whether the standing decision about a version is a person's."""
    return version.tags.get("decided_by", GATE) != GATE


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
            _prove(registry, task, version, deployment)
        except CheckpointError as error:
            decision = _instead(decision, "reject", f"not servable: {error}")
    with alone(registry, task):
        decision = _as_things_stand(registry, task, version, decision, compared)
        if decision.verdict == "promote":
            try:
                _promote(registry, task, version, reasons=decision.reasons, by=GATE, deployment=deployment)
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
    return said == meant and not _is_unfinished(entry, about)


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


def verify(registry: Registry, task: str, which: int | str) -> None:
    """Download a version as the service does and replay its golden pair. Raises CheckpointError.

    On the CPU on purpose: there the answer depends on no driver, and a busy GPU cannot hold up a rollback.
    """
    with (
        tempfile.TemporaryDirectory(prefix="cvdm-verify-") as scratch,
        waiting_line(f"verifying {task} {which}"),
    ):
        directory = registry.models.download(task, which, Path(scratch) / "checkpoint")
        verify_golden(directory, load_checkpoint(directory))


def enter(
    registry: Registry, action: Action, before: Standing, version: int, *, reasons: Sequence[str], by: str
) -> Entry:
    """Write a decision into the audit log, and on the version which entry is the latest about it.

    before: who serves until it is carried out. Returns the entry, whose details say who served then, also
    where a kill came between an earlier entry and the end of carrying the same decision out: that one's where
    the words are the same, else one that takes its details over. Raises StorageError, RegistryError.
    """
    about = registry.models.version(before.task, version)
    entry = registry.audit.latest(before.task)
    begun = entry is not None and (entry.action, entry.by) == (action, by) and _is_unfinished(entry, about)
    if entry is None or not begun or entry.reasons != tuple(reasons):
        details = {"champion": before.champion, "previous": before.previous, "run_id": about.run_id}
        if entry is not None and begun:
            details = entry.details
        entry = registry.audit.append(
            action, task=before.task, version=version, by=by, reasons=reasons, details=details
        )
    registry.models.set_tags(before.task, version, {AUDIT: registry.audit.reference(entry)})
    return entry


def _is_unfinished(entry: Entry, about: Version) -> bool:
    """Whether an entry decides about a version, and the version does not say that it was carried out.

    By its run too: another registry, of which the log tells as well, has a version of the same number.
    """
    done = about.tags.get("restored" if entry.action == "rollback" else "decided_at", "")
    return entry.version == about.number and entry.details.get("run_id") == about.run_id and done < entry.at


def audit_references(registry: Registry) -> dict[str, str]:
    """By version, the entry that it names as the latest about it, for `AuditLog.verify`."""
    return {
        f"{task} version {version.number}": version.tags[AUDIT]
        for task in registry.models.tasks()
        for version in registry.models.versions(task)
        if AUDIT in version.tags
    }


@contextmanager
def reverting(registry: Registry, before: Standing, version: int, *, by: str) -> Iterator[None]:
    """Put the aliases back when the block fails, and write on the version why."""
    try:
        yield
    except BaseException as error:
        why = f"{type(error).__name__}: {error}"
        try:
            move(registry, before)
            enter(registry, "reverted", before, version, reasons=(why,), by=by)
            registry.models.set_tags(before.task, version, {"reverted": f"{_now()}: {why}"})
        except (RegistryError, StorageError) as unreachable:
            error.add_note(f"The aliases of {before.task} could not be put back: {unreachable}")
        raise


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
