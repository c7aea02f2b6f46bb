"""The audit log: every decision about who serves, in a file that cannot be edited silently.

    line n = canonical JSON {number: n, before: SHA-256 of line n - 1, what was decided about which version}

A line that is changed, removed or inserted breaks the chain at the next one. What would break no chain, a
change of the last lines or a cut, is found by the registry: each version bears the number and hash of the
latest entry about it. Whoever can rewrite both must also have the head that a person wrote down elsewhere
(`cvdm audit verify` prints it, and checks an earlier one).

A decision is written before it is carried out, so that an entry may have had no effect (a kill, a move that
was taken back: that has an entry of its own), but no effect is without an entry.

Each machine that moves aliases keeps its own log, known by the beginning of its first line's hash. Where
several share a registry, each is told of the others' logs (CVDM_OTHER_AUDIT_LOGS): what a version names of
those is verified on the machine that keeps them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cvdm.errors import CvdmError
from cvdm.storage import storage_error

Action = Literal["promote", "reject", "undecided", "rollback", "reverted", "removed"]
BEGINNING = "0" * 64
"""What stands for the hash of the line before the first."""
SHORT = 16
"""Digits of a hash that tell entries apart in print."""


class AuditError(CvdmError):
    """The audit log is not what was written."""


@dataclass(frozen=True)
class Entry:
    """One decision."""

    number: int
    """From 1, without gaps."""
    before: str
    """SHA-256 (hex) of the line before."""
    at: str
    """ISO 8601, UTC."""
    action: Action
    task: str
    version: int
    by: str
    """A person's name, or `gate`."""
    reasons: tuple[str, ...]
    details: dict[str, Any] = field(default_factory=dict)
    """What else the decision was about, such as the champion at that time."""

    def line(self) -> bytes:
        """The entry as it is written, without the end of line."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the line."""
        return _hash(self.line())


@dataclass(frozen=True)
class Verification:
    """What reading the whole log came to."""

    entries: tuple[Entry, ...]
    """Those that can be read."""
    problems: tuple[str, ...]
    """Empty for a log as it was written."""
    head: str
    """Hash of the last line: noted elsewhere, it proves all entries up to here later."""
    log: str = ""
    """By what other machines know this log; empty before its first entry."""
    elsewhere: int = 0
    """Versions whose latest entry is in another machine's log, and was not looked at."""

    @property
    def sound(self) -> bool:
        """Whether nothing was changed, as far as can be told."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "ok": self.sound,
            "entries": len(self.entries),
            "head": self.head,
            "log": self.log,
            "elsewhere": self.elsewhere,
            "problems": list(self.problems),
        }

    def summary(self) -> str:
        """The result for people."""
        told = f"{len(self.entries)} entries, head {self.head}, log {self.log or 'not begun'}"
        if self.elsewhere:
            told += (
                f"; the latest about {self.elsewhere} versions is in other logs: verify those where they are"
            )
        if self.sound:
            return f"sound: {told}\nNote the head elsewhere; `cvdm audit verify --head HASH` checks it later."
        return "\n".join((f"NOT as it was written: {told}", *(f"  {problem}" for problem in self.problems)))


@dataclass(frozen=True)
class AuditLog:
    """The log at one place; a file that is not there is an empty log."""

    path: Path
    others: tuple[str, ...] = ()
    """Logs of other machines that share the registry."""

    def append(
        self,
        action: Action,
        *,
        task: str,
        version: int,
        by: str,
        reasons: Sequence[str],
        details: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Write a decision; it is on the disk when this returns. Raises StorageError."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                content = file.read()
                # what has no end of line was never acknowledged: power was lost while it was written
                whole = content[: content.rfind(b"\n") + 1]
                file.truncate(len(whole))
                lines = whole.splitlines()
                entry = Entry(
                    number=len(lines) + 1,
                    before=_hash(lines[-1]) if lines else BEGINNING,
                    at=datetime.now(UTC).isoformat(timespec="seconds"),
                    action=action,
                    task=task,
                    version=version,
                    by=by,
                    reasons=tuple(reasons),
                    details=dict(details or {}),
                )
                file.write(entry.line() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise storage_error(error, self.path) from error
        return entry

    def verify(self, references: Mapping[str, str] | None = None, head: str | None = None) -> Verification:
        """Read the whole log.

        references: by the name of a version, its `reference` in the registry.
        head:       (the beginning of) a hash that must be among the lines'. Raises StorageError.
        """
        lines = self._lines()
        hashes = [_hash(line) for line in lines]
        own = hashes[0][:SHORT] if hashes else ""
        entries, problems, elsewhere = [], [], 0
        for number, line in enumerate(lines, start=1):
            entry = _entry(line)
            if entry is None:
                problems.append(f"line {number} is no entry")
                continue
            entries.append(entry)
            if entry.number != number:
                problems.append(f"line {number} has number {entry.number}: entries were removed or added")
            if entry.before != (hashes[number - 2] if number > 1 else BEGINNING):
                changed = f"line {number - 1}" if number > 1 else "what came before"
                problems.append(f"line {number} does not follow from {changed}, which was changed or removed")
        for name, reference in sorted((references or {}).items()):
            if _log_of(reference) in self.others:
                elsewhere += 1
            else:
                problems += _missing(name, reference, hashes)
        if head is not None and not any(one.startswith(head) for one in hashes):
            problems.append(f"no line has the hash {head}: it, or a line before it, was changed or cut off")
        last = hashes[-1] if hashes else BEGINNING
        return Verification(tuple(entries), tuple(problems), last, own, elsewhere)

    def reference(self, entry: Entry) -> str:
        """How a version in the registry names an entry of this log. Raises StorageError."""
        return f"{entry.number}:{entry.hash}:{_hash(self._lines()[0])[:SHORT]}"

    def entries(self, task: str | None = None) -> tuple[Entry, ...]:
        """The decisions about a task, or all, the oldest first. Raises AuditError, StorageError."""
        found = []
        for number, line in enumerate(self._lines(), start=1):
            entry = _entry(line)
            if entry is None:
                raise AuditError(
                    f"entries in {self.path}", f"line {number}, which is none", "Run `cvdm audit verify`."
                )
            found.append(entry)
        return tuple(entry for entry in found if task in (None, entry.task))

    def latest(self, task: str) -> Entry | None:
        """The newest decision about who serves a task, of those that can be read. Raises StorageError.

        A version that was removed served nobody.
        """
        known = (_entry(line) for line in reversed(self._lines()))
        of_task = (entry for entry in known if entry is not None and entry.task == task)
        return next((entry for entry in of_task if entry.action != "removed"), None)

    def _lines(self) -> list[bytes]:
        try:
            content = self.path.read_bytes() if self.path.exists() else b""
        except OSError as error:
            raise storage_error(error, self.path) from error
        return content[: content.rfind(b"\n") + 1].splitlines()


def audit_table(entries: Iterable[Entry]) -> str:
    """The decisions for people."""
    lines = [
        f"{entry.number:>5}  {entry.at}  {entry.action:9}  {entry.task} version {entry.version}, "
        f"by {entry.by}: {'; '.join(entry.reasons)}"
        for entry in entries
    ]
    return "\n".join(lines) or "No decision yet."


def _log_of(reference: str) -> str:
    """The log of a reference; empty for one from before logs had names."""
    return reference.split(":")[2] if reference.count(":") == 2 else ""


def _missing(name: str, reference: str, hashes: Sequence[str]) -> list[str]:
    """That an entry which a version names is not in the log, if so."""
    number, expected = reference.split(":")[:2] if ":" in reference else (reference, "")
    position = int(number) - 1 if number.isascii() and number.isdigit() else -1
    if 0 <= position < len(hashes) and hashes[position] == expected:
        return []
    what = f"entry {number}, which {name} names: "
    log = _log_of(reference)
    if log and log != (hashes[0][:SHORT] if hashes else ""):
        return [
            f"{what}the log was replaced, or its beginning changed; or it is in the log {log}: name that in "
            "CVDM_OTHER_AUDIT_LOGS if it is another machine's"
        ]
    return [
        what + ("it was changed" if 0 <= position < len(hashes) else "it is not there, the log was cut off")
    ]


def _entry(line: bytes) -> Entry | None:
    """The entry of a line; None for anything else, such as the same content written otherwise."""
    try:
        content = json.loads(line)
        if set(content) != {one.name for one in fields(Entry)}:
            return None
        entry = Entry(**{**content, "reasons": tuple(content["reasons"])})
    except (ValueError, TypeError):
        return None
    return entry if entry.line() == line else None


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
