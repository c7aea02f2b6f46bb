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
from cvdm.errors import CvdmError, StorageError
from flows.aliases import Standing, alone, move, standing
from flows.audit import Action, Entry
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
    prove(registry, task, version, deployment)
    with alone(registry, task):
        carry_out(registry, task, version, reasons=reasons, by=by, deployment=deployment)
        return standing(registry, task)


def prove(registry: Registry, task: str, version: int, deployment: Deployment | None) -> None:
    """Golden replays before anything moves. They take minutes: nobody's rollback waits for them."""
    verify(registry, task, version)
    if deployment is not None:
        deployment.rehearse(task, version)


def carry_out(
    registry: Registry,
    task: str,
    version: int,
    *,
    reasons: Sequence[str],
    by: str,
    deployment: Deployment | None,
) -> None:
    """Move the aliases to a version that is proven, within `alone`; parameters and errors are `promote`'s."""
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
    return entry if is_unfinished(entry, registry.models.version(now.task, now.champion)) else None


def _finish_rollback(
    registry: Registry, task: str, restored: int, taken_back: int | None, *, reason: str, by: str
) -> None:
    if taken_back is not None:
        take_back(registry, task, taken_back, instead=restored, reason=reason, by=by)
    registry.models.set_tags(task, restored, {"restored": f"{_now()} by {by}: {reason}"})


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
    begun = entry is not None and (entry.action, entry.by) == (action, by) and is_unfinished(entry, about)
    if entry is None or not begun or entry.reasons != tuple(reasons):
        details = {"champion": before.champion, "previous": before.previous, "run_id": about.run_id}
        if entry is not None and begun:
            details = entry.details
        entry = registry.audit.append(
            action, task=before.task, version=version, by=by, reasons=reasons, details=details
        )
    registry.models.set_tags(before.task, version, {AUDIT: registry.audit.reference(entry)})
    return entry


def is_unfinished(entry: Entry, about: Version) -> bool:
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
