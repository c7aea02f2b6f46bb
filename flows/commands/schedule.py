"""The commands `cvdm schedule list|set|pause|resume|reset`."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.console import Answer, command
from flows.settings import Settings

if TYPE_CHECKING:
    from flows.timetable import Entry

schedule = typer.Typer(help="When tasks are retrained; a running `cvdm up` follows.", no_args_is_help=True)

Task = Annotated[str, typer.Argument(help="Name of the task.")]


@command(schedule, "schedule")
def list() -> Answer:
    """List when each task is retrained, and its next three starts."""
    from flows.timetable import read_timetable

    settings, now = Settings.prepared(), datetime.now(UTC)
    entries = read_timetable(settings).values()
    lines = [line for entry in entries for line in _lines(entry, now)]
    if "schedule" not in settings.triggers:
        lines.append("CVDM_TRIGGERS names no schedule: nothing starts by the clock.")
    return Answer({"schedules": [_document(entry, now) for entry in entries]}, "\n".join(lines) or "No task.")


@command(schedule, "schedule")
def set(
    task: Task,
    cron: Annotated[
        str | None, typer.Option("--cron", help="Minute, hour, day, month, weekday: '30 2 * * 1-5'.")
    ] = None,
    timezone: Annotated[
        str | None, typer.Option("--timezone", help="IANA name such as Europe/Berlin.")
    ] = None,
    preset: Annotated[str | None, typer.Option("--preset", help="A preset of params.yaml.")] = None,
) -> Answer:
    """Change when, and by which preset, a task is retrained; what is left out stays as it is."""
    given = {"cron": cron, "timezone": timezone, "preset": preset}
    values = {name: value for name, value in given.items() if value is not None}
    if not values:
        raise typer.BadParameter("Give --cron, --timezone or --preset.")
    return _changed(task, **values)


@command(schedule, "schedule")
def pause(task: Task) -> Answer:
    """Let nothing retrain a task by itself until it is resumed; triggers wait."""
    return _changed(task, enabled=False)


@command(schedule, "schedule")
def resume(task: Task) -> Answer:
    """Let a paused task be retrained again."""
    return _changed(task, enabled=True)


@command(schedule, "schedule")
def reset(task: Task) -> Answer:
    """Go back to the settings CVDM_SCHEDULE_*."""
    from flows.timetable import reset as forget

    return _answer(forget(Settings.prepared(), task))


def _changed(task: str, **values: str | bool) -> Answer:
    settings = Settings.prepared()
    from flows.timetable import change

    return _answer(change(settings, task, by=getpass.getuser(), now=datetime.now(UTC), **values))


def _answer(entry: Entry) -> Answer:
    now = datetime.now(UTC)
    return Answer(_document(entry, now), "\n".join(_lines(entry, now)))


def _document(entry: Entry, now: datetime) -> dict[str, Any]:
    return {**asdict(entry), "next": [start.isoformat() for start in entry.next_starts(now)]}


def _lines(entry: Entry, now: datetime) -> tuple[str, ...]:
    """An entry for people."""
    state = "" if entry.enabled else "  PAUSED"
    whose = f"changed by {entry.by} {entry.at or ''}".rstrip() if entry.by else "from the settings"
    head = f"{entry.task}: {entry.cron}  {entry.timezone}, preset {entry.preset}, {whose}{state}"
    return (head, *(f"  {start:%a %Y-%m-%d %H:%M %Z (%z)}" for start in entry.next_starts(now)))
