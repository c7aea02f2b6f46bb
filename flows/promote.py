"""Who serves: moves of the aliases `champion` and `previous`, each verified and reversible.

A version is downloaded and replays its golden pair before an alias points to it, and again as everybody will
find it, by its alias. If the second replay fails, the aliases go back. Every decision is written on the
version: verdict, reasons, decided_at, decided_by.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cvdm.checkpoint import load_checkpoint, verify_golden
from cvdm.errors import CheckpointError
from flows.gate import Decision
from flows.registry import CHAMPION, PREVIOUS, Registry, RegistryError


@dataclass(frozen=True)
class Standing:
    """Who serves a task now, and who served before."""

    task: str
    champion: int | None
    previous: int | None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"task": self.task, "champion": self.champion, "previous": self.previous}


def standing(registry: Registry, task: str) -> Standing:
    """The aliases of a task."""
    return Standing(task, registry.models.champion(task), registry.models.previous(task))


def promote(registry: Registry, task: str, version: int, *, reasons: Sequence[str], by: str) -> Standing:
    """Make a version the champion. Raises CheckpointError, and moves nothing, if its golden replay fails.

    by: who decided, `gate` or a person's name.
    """
    verify(registry, task, version)
    before = standing(registry, task)
    with reverting(registry, before, version):
        if before.champion != version:
            registry.models.set_alias(task, PREVIOUS, before.champion)
            registry.models.set_alias(task, CHAMPION, version)
        verify(registry, task, CHAMPION)
    record(registry, task, version, verdict="promote", reasons=reasons, by=by)
    return standing(registry, task)


def rollback(registry: Registry, task: str, to: int | None = None, *, reason: str, by: str) -> Standing:
    """Let the previous version, or version `to`, serve again; the champion becomes the previous.

    Raises RegistryError when there is nothing to go back to, CheckpointError when it fails its golden replay.
    """
    before = standing(registry, task)
    target = before.previous if to is None else registry.models.version(task, to).number
    if target is None or target == before.champion:
        raise RegistryError(
            f"a version of {task} other than the champion to go back to",
            "no previous version" if target is None else f"version {target}, which serves already",
            f"Choose one of `cvdm models --task {task}` with --to.",
        )
    verify(registry, task, target)
    with reverting(registry, before, target):
        registry.models.set_alias(task, PREVIOUS, before.champion)
        registry.models.set_alias(task, CHAMPION, target)
        verify(registry, task, CHAMPION)
    if before.champion is not None:
        note = f"{_now()} by {by}, for version {target}: {reason}"
        registry.models.set_tags(task, before.champion, {"rolled_back": note})
    registry.models.set_tags(task, target, {"restored": f"{_now()} by {by}: {reason}"})
    return standing(registry, task)


def record(
    registry: Registry, task: str, version: int, *, verdict: str, reasons: Sequence[str], by: str
) -> None:
    """Write a decision on the version that it is about."""
    tags = {"verdict": verdict, "reasons": "; ".join(reasons), "decided_at": _now(), "decided_by": by}
    registry.models.set_tags(task, version, tags)


def settle(registry: Registry, task: str, version: int, decision: Decision) -> Decision:
    """Carry the gate's decision out; a candidate that fails its golden replay is rejected after all."""
    if decision.verdict == "promote":
        try:
            promote(registry, task, version, reasons=decision.reasons, by="gate")
            return decision
        except CheckpointError as error:
            decision = Decision("reject", (f"not servable: {error}", *decision.reasons), decision.tests)
    record(registry, task, version, verdict=decision.verdict, reasons=decision.reasons, by="gate")
    return decision


def verify(registry: Registry, task: str, which: int | str) -> None:
    """Download a version as the service does and replay its golden pair. Raises CheckpointError."""
    with tempfile.TemporaryDirectory(prefix="cvdm-verify-") as scratch:
        directory = registry.models.download(task, which, Path(scratch) / "checkpoint")
        verify_golden(directory, load_checkpoint(directory))


@contextmanager
def reverting(registry: Registry, before: Standing, version: int) -> Iterator[None]:
    """Put the aliases back when the block fails, and write on the version why."""
    try:
        yield
    except BaseException as error:
        registry.models.set_alias(before.task, CHAMPION, before.champion)
        registry.models.set_alias(before.task, PREVIOUS, before.previous)
        registry.models.set_tags(
            before.task, version, {"reverted": f"{_now()}: {type(error).__name__}: {error}"}
        )
        raise


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
