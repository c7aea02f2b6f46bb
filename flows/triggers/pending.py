"""Triggers that wait, one file for each task, and what became of all of them, a line for each step.

    mlruns/triggers/pending/TASK.json   causes that wait, or whose retraining is about to begin
    mlruns/triggers/history.jsonl       {"at", "task", "step", "kinds", "rule", "words", "ticket"}

A trigger leaves `pending/` when it is refused, or when its retraining holds the device: a process that ends
in between loses nothing. Two triggers of a task are one.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Literal

from cvdm.storage import replacing, storage_error
from flows.settings import Settings
from flows.triggers.rules import Cause, Rule, joined

Step = Literal["wait", "refuse", "start", "began", "put back", "failed"]
LATEST_BEGIN = timedelta(minutes=10)
"""A retraining that was started and has not begun by then never will: its process was killed."""


@dataclass(frozen=True)
class Pending:
    """A trigger that has not come to its end."""

    causes: tuple[Cause, ...]
    told: Rule | None = None
    """The rule by which it waits, once that is in the history."""
    ticket: str | None = None
    """Of the retraining that was started for it and has not begun."""
    started: str | None = None
    """When that was, ISO 8601."""
    signals: tuple[str, ...] = ()
    """Files of the signals that the retraining answers."""

    def is_starting(self, now: datetime) -> bool:
        """Whether its retraining is about to begin."""
        return self.started is not None and now < datetime.fromisoformat(self.started) + LATEST_BEGIN


@dataclass(frozen=True)
class Happening:
    """One line of the history."""

    at: str
    task: str
    step: Step
    kinds: str
    """Such as `data+drift`."""
    rule: Rule
    words: str
    ticket: str | None = None


class TriggerStore:
    """Both kinds of files. Methods raise StorageError when they cannot be written."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.mlruns_dir / "triggers"
        self.history_file = self._folder / "history.jsonl"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process decides during the block."""
        lock = self._folder / ".lock"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = lock.open("w")
        except OSError as error:
            raise storage_error(error, lock) from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def pending(self, task: str) -> Pending | None:
        """What waits for a task; a file that cannot be read counts as none, and is written anew."""
        try:
            content = json.loads(self._file(task).read_text(encoding="utf-8"))
            causes = tuple(Cause(**one) for one in content.pop("causes"))
            return Pending(causes, **{**content, "signals": tuple(content["signals"])})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def put(self, task: str, pending: Pending | None) -> None:
        """Keep what waits for a task; None when it has come to its end."""
        if pending is None:
            self._file(task).unlink(missing_ok=True)
            return
        with replacing(self._file(task)) as temporary:
            temporary.write_text(json.dumps(asdict(pending), indent=2) + "\n", encoding="utf-8")

    def add(self, task: str, causes: tuple[Cause, ...]) -> Pending:
        """Let causes join what waits."""
        before = self.pending(task) or Pending(())
        after = replace(before, causes=joined(before.causes, causes))
        if after != before:
            self.put(task, after)
        return after

    def starting(self, now: datetime) -> str | None:
        """A task whose retraining is about to begin, if any."""
        for path in sorted(self._file("any").parent.glob("[!.]*.json")):
            pending = self.pending(path.stem)
            if pending is not None and pending.is_starting(now):
                return path.stem
        return None

    def tell(self, happening: Happening) -> None:
        """Append a line to the history."""
        line = json.dumps(asdict(happening), ensure_ascii=False) + "\n"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self.history_file.open("a+b") as file:
                if file.seek(0, os.SEEK_END) and not _ends_a_line(file):
                    line = "\n" + line  # after one that was cut off
                file.write(line.encode())
        except OSError as error:
            raise storage_error(error, self.history_file) from error

    def history(self) -> list[dict[str, Any]]:
        """Every line, the oldest first; one that was cut off is passed over."""
        try:
            lines = self.history_file.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [document for line in lines if (document := _line(line)) is not None]

    def last_start(self, task: str) -> datetime | None:
        """When the last retraining of a task began that no person asked for."""
        begun = [
            line["at"]
            for line in self.history()
            if (line["task"], line["step"]) == (task, "began") and line["kinds"] != "manual"
        ]
        return datetime.fromisoformat(begun[-1]).astimezone(UTC) if begun else None

    def _file(self, task: str) -> Path:
        return self._folder / "pending" / f"{task}.json"


def _ends_a_line(file: IO[bytes]) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read() == b"\n"


def _line(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and {"at", "task", "step", "kinds"} <= set(found) else None
