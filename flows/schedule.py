"""The process that retrains by the clock and for events: `python -m flows.schedule`, started by `cvdm up`.

    Schedules   one deployment for each task, kept as the timetable says (flows/timetable.py)
    watch       looks at timetable, data and signals every few seconds, and starts what the rules allow

Prefect pauses schedules when a runner stops and may find them paused at the next start, so they are set here,
each time. Whatever goes wrong in a look is told once and looked at again; it never ends the process.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cvdm.errors import ConfigError
from flows.alerts import Alert, send
from flows.console import say
from flows.settings import Settings
from flows.timetable import Entry, read_timetable
from flows.triggers.desk import put_back
from flows.triggers.poll import Poll, Start

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.runner import Runner

LOOK_SECONDS = 3.0
"""Between two looks."""
LASTING_SECONDS = 300.0
"""After so long a problem of the looks is no restart of a server any more."""


async def serve_schedule(settings: Settings) -> None:
    """Serve timetable and triggers until the process ends."""
    from prefect.runner import Runner

    from flows.housekeeping.flow import add_housekeeping

    # One that trains and one that asks whether it may: the device's lock, not this limit, keeps them apart.
    runner = Runner(name="cvdm", pause_on_shutdown=False, limit=2)
    schedules = Schedules(runner, settings)
    await schedules.apply()
    await add_housekeeping(runner, settings)
    watching = asyncio.create_task(watch(schedules, Poll(settings), settings))
    try:
        await runner.start()
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


async def watch(schedules: Schedules, poll: Poll, settings: Settings) -> None:
    """Look, again and again. A problem is said at once, and who is alerted hears of one that lasts."""
    said, since, alerted = "", 0.0, False
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            await schedules.apply()
            found = await asyncio.to_thread(poll.look, datetime.now(UTC))
            problem = "\n".join(found.problems)
            for start in found.starts:
                await schedules.start(start)
        except Exception as error:  # any, of disk, orchestrator or store: the next look may go well
            problem = f"{type(error).__name__}: {error}"
        if problem and problem != said:
            say(problem)
        if problem and not said:
            since, alerted = time.monotonic(), False
        if problem and not alerted and time.monotonic() - since > LASTING_SECONDS:
            alerted = True
            await asyncio.to_thread(send, settings, Alert("failed", "schedule", problem))
        said = problem


class Schedules:
    """The deployments of all tasks, as the timetable wants them."""

    def __init__(self, runner: Runner, settings: Settings) -> None:
        self._runner = runner
        self._settings = settings
        self._applied: dict[str, Entry] = {}
        self._deployments: dict[str, UUID] = {}

    async def apply(self) -> None:
        """Tell the orchestrator what has changed in the timetable, and of new tasks.

        While the timetable cannot be read, nothing new is told; at the start, all schedules are off then.
        """
        from prefect.client.orchestration import get_client

        for task, entry in self._wanted().items():
            if self._applied.get(task) == entry:
                continue
            async with get_client() as client:
                if task not in self._deployments:
                    self._deployments[task] = await add_deployment(self._runner, entry)
                await set_schedule(client, self._deployments[task], entry)
            self._applied[task] = entry

    async def start(self, start: Start) -> None:
        """Make the flow run of a retraining that the rules allow; where that fails, its trigger waits on."""
        from prefect.client.orchestration import get_client

        parameters = {"task": start.task, "kinds": start.kinds, "ticket": start.ticket}
        try:
            async with get_client() as client:
                deployment = self._deployments[start.task]
                await client.create_flow_run_from_deployment(deployment, parameters=parameters)
        except Exception as error:
            put_back(
                self._settings, start.task, start.ticket, f"the orchestrator could not start it: {error}"
            )
            raise

    def _wanted(self) -> dict[str, Entry]:
        """The timetable's entries, switched off where the clock starts nothing."""
        try:
            entries = read_timetable(self._settings)
        except ConfigError as error:
            if self._applied:
                raise
            say(f"No schedule is on until this is mended. {error}")
            off = Entry("", "0 0 1 1 *", "UTC", self._settings.schedule_preset, enabled=False)
            return {task: replace(off, task=task) for task in self._settings.known_tasks()}
        if "schedule" in self._settings.triggers:
            return entries
        return {task: replace(entry, enabled=False) for task, entry in entries.items()}


async def add_deployment(runner: Runner, entry: Entry) -> UUID:
    """Register the retraining of one task, with its schedule; returns the deployment's id."""
    from prefect.deployments.runner import EntrypointType
    from prefect.schedules import Cron

    from flows.triggers.flow import retrain_by_trigger

    deployment = await retrain_by_trigger.ato_deployment(
        name=entry.task,
        schedule=Cron(entry.cron, timezone=entry.timezone, active=entry.enabled),
        parameters={"task": entry.task},
        paused=False,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return await runner.aadd_deployment(deployment)


async def set_schedule(client: PrefectClient, deployment: UUID, entry: Entry) -> None:
    """Give a deployment the one schedule of its entry; runs that it had planned ahead are planned anew."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    wanted = CronSchedule(cron=entry.cron, timezone=entry.timezone)
    present = await client.read_deployment_schedules(deployment)
    if present:
        await client.update_deployment_schedule(
            deployment, present[0].id, active=entry.enabled, schedule=wanted
        )
    else:  # somebody has removed it in Prefect's page
        made = DeploymentScheduleCreate(schedule=wanted, active=entry.enabled)
        await client.create_deployment_schedules(deployment, [made])
    for other in present[1:]:
        await client.delete_deployment_schedule(deployment, other.id)


def main() -> None:
    """Serve the schedule of this process's settings."""
    settings = Settings.read()
    settings.prepare_environment()
    asyncio.run(serve_schedule(settings))


if __name__ == "__main__":
    main()
