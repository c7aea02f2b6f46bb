"""Housekeeping, by hand and by the clock: plain functions, and the flow that `cvdm up` runs once a week."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import prefect
from prefect.states import Completed, State

from cvdm.errors import ConfigError
from cvdm.storage import replacing
from flows.alerts import telling_of_failure
from flows.console import say
from flows.device_lock import BusyError, all_devices_lock, devices_in_use
from flows.housekeeping.backup import back_up
from flows.housekeeping.plan import Item, Plan, megabytes
from flows.housekeeping.policy import load_retention
from flows.housekeeping.reap import plan_reaping
from flows.housekeeping.retain import plan_retention
from flows.housekeeping.snapshot import LEFT_OUT
from flows.progress import progress_bar
from flows.registry import Registry
from flows.settings import Settings
from flows.timetable import require_cron

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.runner import Runner

REPORT = "housekeeping.json"
"""What the latest run by the clock found and did, in `mlruns_dir`."""


def reap(settings: Settings, *, apply: bool) -> Plan:
    """Look for what is dead and, with `apply`, close and remove it; nothing goes while one retrains."""
    return _carried_out(settings, lambda registry: plan_reaping(settings, registry), apply=apply)


def retain(settings: Settings, *, apply: bool) -> Plan:
    """Look for what policy lets go and, with `apply`, remove it; nothing goes while one retrains."""
    policy = load_retention(settings.params_file)
    return _carried_out(settings, lambda registry: plan_retention(registry, policy), apply=apply)


def _carried_out(settings: Settings, look: Callable[[Registry], Plan], *, apply: bool) -> Plan:
    folder = settings.mlruns_dir / "locks"
    if busy := devices_in_use(folder):
        return _nothing("; ".join(busy))
    try:
        # no retraining begins between the look and the removal, on whichever device
        with all_devices_lock(folder, "housekeeping") if apply else nullcontext():
            plan = look(Registry.open(settings))
            if apply:
                plan.apply()
    except BusyError as error:  # it began since the look at the locks
        return _nothing(error.actual)
    return plan


def _nothing(busy: str) -> Plan:
    why = "at work: nothing goes meanwhile; run it again when that has ended"
    return Plan((), (Item("device", busy, why),))


@prefect.flow(name="housekeeping", persist_result=False)
def housekeeping() -> State[Any]:
    """Back up, reap and retain, as the settings say; the report is kept in mlruns/housekeeping.json.

    A failure is told as those of retrainings are.
    """
    settings = Settings.read()
    with telling_of_failure(settings, "housekeeping"):
        return Completed(message="; ".join(_keep_house(settings)))


def _keep_house(settings: Settings) -> list[str]:
    """The backup first, before anything goes; returns what was done, in words."""
    told = []
    report: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="seconds")}
    if settings.backup_dir:
        with progress_bar("backup", "step") as progress:
            target, manifest = back_up(settings, Path(settings.backup_dir), progress)
        told.append(f"backup: {target.name}, {megabytes(manifest.bytes)}")
        report |= {"backup": str(target), "left_out": list(LEFT_OUT)}
    apply = settings.housekeeping_apply
    looks = {"reap": reap(settings, apply=apply), "retain": retain(settings, apply=apply)}
    done = "went" if apply else "would go"
    told += [f"{name}: {len(plan.goes)} {done}, {megabytes(plan.bytes)}" for name, plan in looks.items()]
    report |= {name: plan.as_json(applied=apply) for name, plan in looks.items()}
    with replacing(settings.mlruns_dir / REPORT) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return told


async def add_housekeeping(runner: Runner, settings: Settings) -> UUID | None:
    """Register housekeeping by the clock; None where the settings want none, or say no time."""
    if not settings.housekeeping_cron:
        return None
    try:
        require_cron(settings.housekeeping_cron, "CVDM_HOUSEKEEPING_CRON")
    except ConfigError as error:
        say(f"Nobody keeps house until this is mended. {error}")
        return None
    from prefect.deployments.runner import EntrypointType
    from prefect.schedules import Cron

    deployment = await housekeeping.ato_deployment(
        name="housekeeping",
        schedule=Cron(settings.housekeeping_cron, timezone=settings.schedule_timezone, active=True),
        paused=False,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return await runner.aadd_deployment(deployment)
