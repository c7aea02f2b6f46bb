"""The process that retrains on schedule: `python -m flows.schedule`, started by `cvdm up`.

One deployment of the flow `retrain` for each task, one flow run at a time. Prefect pauses schedules when a
runner stops and may find them paused at the next start, so they are switched on here, each time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flows.settings import Settings

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.runner import Runner


async def serve_schedule(settings: Settings) -> None:
    """Serve the schedule until the process ends."""
    from prefect.runner import Runner

    runner = Runner(name="cvdm", pause_on_shutdown=False, limit=1)
    for deployment in [await add_deployment(runner, task, settings) for task in settings.known_tasks()]:
        await enable_schedules(deployment)
    await runner.start()


async def add_deployment(runner: Runner, task: str, settings: Settings) -> UUID:
    """Register the scheduled retraining of one task; returns the deployment's id."""
    from prefect.deployments.runner import EntrypointType
    from prefect.schedules import Cron

    from flows.retrain import retrain

    deployment = await retrain.ato_deployment(
        name=task,
        schedule=Cron(settings.schedule_cron, timezone=settings.schedule_timezone),
        parameters={"task": task, "preset": settings.schedule_preset},
        paused=False,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return await runner.aadd_deployment(deployment)


async def enable_schedules(deployment: UUID) -> None:
    """Switch every schedule of a deployment on."""
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        for schedule in await client.read_deployment_schedules(deployment):
            if not schedule.active:
                await client.update_deployment_schedule(deployment, schedule.id, active=True)


def main() -> None:
    """Serve the schedule of this process's settings."""
    settings = Settings.read()
    settings.prepare_environment()
    asyncio.run(serve_schedule(settings))


if __name__ == "__main__":
    main()
