"""One look at everything that may ask for a retraining, besides the clock; see flows/schedule.py."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cvdm.errors import CvdmError
from flows.settings import Settings
from flows.triggers.data_watch import DataWatch, file_times
from flows.triggers.desk import trigger
from flows.triggers.pending import TriggerStore
from flows.triggers.signals import read_signals


@dataclass(frozen=True)
class Start:
    """A retraining that the rules allow."""

    task: str
    kinds: str
    """What it is for, such as `data+drift`."""
    ticket: str


@dataclass(frozen=True)
class Look:
    """What one look came to."""

    starts: tuple[Start, ...]
    problems: tuple[str, ...]
    """Of tasks that could not be looked at; what was noticed is kept, and they are looked at again."""


class Poll:
    """Remembers between two looks what was refused: it is not asked again before something changes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._data = DataWatch(settings)
        self._store = TriggerStore(settings)
        self._refused: dict[str, str] = {}

    def look(self, now: datetime) -> Look:
        """Look at every task; trouble with one does not keep the others waiting."""
        starts: list[Start] = []
        problems: list[str] = []
        signals = self._signals()
        for task in self._settings.known_tasks():
            try:
                start = self._task(task, signals.get(task, ()), now)
            except CvdmError as error:
                problems.append(f"{task}: {error}")
            else:
                starts += [start] if start is not None else []
        return Look(tuple(starts), tuple(problems))

    def _task(self, task: str, signals: tuple[str, ...], now: datetime) -> Start | None:
        if "data" in self._settings.triggers and (new := self._data.look(task, now)) is not None:
            with self._store.alone():
                self._store.add(task, (new.cause,))
            self._data.remember(task, new.digest)
        circumstances = f"{file_times(self._settings, task)} {self._parameters_time()} {signals}"
        asks = self._store.pending(task) is not None
        if not asks and (not signals or self._refused.get(task) == circumstances):
            return None
        outcome = trigger(self._settings, task, now=now)
        if outcome.decision.action == "refuse":
            self._refused[task] = circumstances
        if outcome.ticket is None:
            return None
        return Start(task, outcome.decision.kinds, outcome.ticket)

    def _signals(self) -> dict[str, tuple[str, ...]]:
        """Names of the signals that wait, by task."""
        if "drift" not in self._settings.triggers:
            return {}
        found: dict[str, tuple[str, ...]] = {}
        for path, signal in read_signals(self._settings).items():
            found[signal.task] = (*found.get(signal.task, ()), path.name)
        return found

    def _parameters_time(self) -> int:
        try:
            return self._settings.params_file.stat().st_mtime_ns
        except OSError:
            return 0
