"""When each task is retrained: what `cvdm schedule` writes, and a running `cvdm up` obeys within seconds.

    mlruns/schedule.json    {"TASK": {"cron": "0 2 * * *", "enabled": false, "by": "ada", "at": "2026-..."}}

The file holds what people have changed and nothing else; the rest comes from CVDM_SCHEDULE_*. It is written
whole, under a lock, and outlives every server: the orchestrator is told from it, never asked.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from cvdm.errors import ConfigError
from cvdm.params import load_recipe
from cvdm.storage import replacing, storage_error
from flows.settings import Settings

REMEDY = "For example '30 2 * * 1-5', in quotation marks: half past two at night, Monday to Friday."
CRON_FIELDS = 5
KINDS: Mapping[str, type] = {
    "cron": str,
    "timezone": str,
    "preset": str,
    "enabled": bool,
    "by": str,
    "at": str,
}
"""Keys that a task may have in the file."""
SHOWN_STARTS = 3


@dataclass(frozen=True)
class Entry:
    """When and how one task is retrained."""

    task: str
    cron: str
    timezone: str
    """An IANA name."""
    preset: str
    enabled: bool
    """False where a person has paused it: then nothing starts by itself, by the clock or by events."""
    by: str | None = None
    """Who changed it last; None where the settings hold as they are."""
    at: str | None = None
    """When, ISO 8601 with its offset."""

    def next_starts(self, now: datetime, count: int = SHOWN_STARTS) -> tuple[datetime, ...]:
        """The next times by the clock, in the entry's zone, as the orchestrator counts; none if paused."""
        return tuple(islice(_starts(self.cron, self.timezone, now, count), count)) if self.enabled else ()


def read_timetable(settings: Settings) -> dict[str, Entry]:
    """An entry for every known task. Raises ConfigError for a damaged file and for values that cannot be."""
    changes = _read(timetable_file(settings))
    return {task: _entry(settings, task, changes.get(task, {})) for task in settings.known_tasks()}


def entry_of(settings: Settings, task: str) -> Entry:
    """The entry of one task. Raises ConfigError as `read_timetable`, and for a task that is none."""
    _require_known(settings, task)
    return read_timetable(settings)[task]


def change(settings: Settings, task: str, *, by: str, now: datetime, **values: str | bool) -> Entry:
    """Keep new values for a task; returns its entry, unchanged where the file says so already.

    Raises ConfigError, StorageError, and keeps nothing.
    """
    _require_known(settings, task)
    with _locked(settings) as path:
        changes = _read(path)
        before = changes.get(task, {})
        if values.items() <= ({"enabled": True} | before).items():
            return _entry(settings, task, before)
        stamp = now.astimezone().isoformat(timespec="seconds")
        changes[task] = {**before, **values, "by": by, "at": stamp}
        entry = _entry(settings, task, changes[task])
        load_recipe(settings.params_file, entry.preset)
        _write(path, changes)
    return entry


def reset(settings: Settings, task: str) -> Entry:
    """Forget what was changed for a task. Raises ConfigError, StorageError."""
    _require_known(settings, task)
    with _locked(settings) as path:
        changes = _read(path)
        if changes.pop(task, None) is not None:
            _write(path, changes)
    return _entry(settings, task, {})


def timetable_file(settings: Settings) -> Path:
    """Where it is kept."""
    return settings.mlruns_dir / "schedule.json"


def require_cron(cron: str, where: str) -> None:
    """Raise ConfigError unless a cron expression can be read and comes due at all.

    where: what it was given as, such as `--cron`.
    """
    from prefect.client.schemas.schedules import CronSchedule

    expected = f"minute, hour, day, month and weekday in {where}"
    if not cron.startswith("@") and len(cron.split()) != CRON_FIELDS:
        raise ConfigError(expected, f"'{cron}'", REMEDY)
    try:
        CronSchedule(cron=cron)
    except ValueError as error:
        raise ConfigError(expected, f"'{cron}'", REMEDY) from error
    if not list(_starts(cron, "UTC", datetime.now().astimezone(), 1)):
        raise ConfigError(f"a time that comes in {where}", f"'{cron}', which never does", REMEDY)


def _starts(cron: str, timezone: str, now: datetime, count: int) -> Iterator[datetime]:
    """Times from now on; fewer than `count` where the calendar has no more, such as for a 30 February."""
    from prefect._vendor.croniter import CroniterBadDateError
    from prefect.server.schemas.schedules import CronSchedule

    zone = ZoneInfo(timezone)
    try:
        for start in CronSchedule(cron=cron, timezone=timezone)._get_dates_generator(n=count, start=now):
            yield datetime.fromtimestamp(start.timestamp(), zone)
    except CroniterBadDateError:
        return


def _entry(settings: Settings, task: str, changed: Mapping[str, Any]) -> Entry:
    """The settings' values with the changed ones in their place."""
    entry = Entry(
        task=task,
        cron=changed.get("cron", settings.schedule_cron),
        timezone=changed.get("timezone", settings.schedule_timezone),
        preset=changed.get("preset", settings.schedule_preset),
        enabled=changed.get("enabled", True),
        by=changed.get("by", "somebody") if changed else None,
        at=changed.get("at"),
    )
    require_cron(entry.cron, f"the schedule of {task}" if "cron" in changed else "CVDM_SCHEDULE_CRON")
    if entry.timezone not in available_timezones():
        raise ConfigError(
            f"an IANA time zone for the schedule of {task}",
            f"'{entry.timezone}'",
            "For example, Europe/Berlin or UTC.",
        )
    return entry


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(content, dict) or not all(isinstance(one, dict) for one in content.values()):
        raise _damaged(path, "no object for each task")
    for task, values in content.items():
        for key, value in values.items():
            if not isinstance(value, KINDS.get(key, ())):
                raise _damaged(path, f"{key}: {value!r} of {task}")
    return content


def _damaged(path: Path, what: str) -> ConfigError:
    known = ", ".join(KINDS)
    return ConfigError(
        f"a timetable with {known} by task in {path}",
        what,
        "Correct the file, or remove it: then CVDM_SCHEDULE_* hold for every task.",
    )


def _write(path: Path, changes: Mapping[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(changes, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def _locked(settings: Settings) -> Iterator[Path]:
    """The file's path, with no other writer for the block."""
    path = timetable_file(settings)
    lock = settings.mlruns_dir / "locks" / "schedule.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError as error:
        raise storage_error(error, lock) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield path


def _require_known(settings: Settings, task: str) -> None:
    known = settings.known_tasks()
    if task not in known:
        raise ConfigError(f"a known task: {', '.join(known) or 'none yet'}", f"'{task}'", "Correct the name.")
