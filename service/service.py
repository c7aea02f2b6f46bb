"""The BentoML service: `bentoml serve service.service:CvdmService`.

BentoML owns the process: one worker, /livez (always while the process lives), /readyz (only with a verified
model), start and stop. What the service answers is in `routes` and behind it.

Only light modules are imported here: BentoML's supervising process imports this file too and must not pay
seconds and memory for torch and MLflow; the worker imports them when it makes its instance.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bentoml
from bentoml._internal.server.http import traffic

from cvdm.errors import ConfigError
from service.doorkeeper import Doorkeeper
from service.environment import set_defaults
from service.errors import ServiceError
from service.heads import allow_connections, time_heads
from service.jobs.opening import opened
from service.logs import write_json_lines
from service.refusals import UNKNOWN
from service.routes import build_app
from service.settings import Settings

if TYPE_CHECKING:
    from service.jobs.desk import JobDesk
    from service.metrics import Metrics

log = logging.getLogger("service")
APP = build_app()
PARENT_SECONDS, MEASURE_SECONDS = 1.0, 2.0
set_defaults()  # on import, because BentoML reports its start before any hook


def _untimed(app: Any, timeout: float) -> Any:
    """In the place of BentoML's TimeoutMiddleware; our own limits are in `service.desk`.

    That of BentoML 1.4 never takes its timer back, so each request stays in memory, with everything that it
    refers to, until the timeout is over; and no service can be without one.
    """
    return app


traffic.TimeoutMiddleware = _untimed  # type: ignore[assignment,misc]
time_heads()


@bentoml.service(
    name="cvdm",
    workers=1,
    http={"host": "127.0.0.1", "port": 3000},
    # BentoML's own count by raw path: every id, and every path that a stranger tries, would stay in memory.
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},  # ours has the request's id, who asked, and no path of a client's
)
@bentoml.asgi_app(APP, path="/")
class CvdmService:
    """Restores microscopy images with the champion of a task and says where not to trust the result."""

    @bentoml.on_deployment
    @staticmethod
    def check_settings() -> None:
        """In the supervising process, before any worker: stop with a clear message on a wrong setting."""
        try:
            Settings.read()
        except ConfigError as error:
            sys.exit(f"cvdm service: {error}")

    def __init__(self) -> None:
        from service.desk import Desk
        from service.device import Device
        from service.jobs.desk import open_jobs
        from service.loading import Registry, chosen_device
        from service.metrics import Metrics
        from service.residents import Residents
        from service.shelf import Shelf

        write_json_lines()
        allow_connections()
        settings = Settings.read()
        self._device, self._metrics = Device(max_waiting=settings.max_waiting), Metrics()
        device, metrics = self._device, self._metrics
        registry = Registry(settings.tracking_uri, settings.tasks, settings.cache_dir)
        torch_device = chosen_device(settings.device)
        budget = settings.model_memory_mib * 2**20
        shelf = Shelf(registry, device, torch_device=torch_device, budget_bytes=budget)
        residents = Residents(
            registry, shelf, tasks=settings.tasks, default_task=settings.default_task, on_swap=metrics.swapped
        )
        self._poll_seconds = settings.poll_seconds
        self._desk = APP.state.desk = Desk(settings, residents, device, metrics)
        self._jobs: JobDesk | None = None
        self._keep: Callable[[], Coroutine[Any, Any, None]] | None = None
        if (folder := settings.jobs_dir) is not None:
            opening = partial(open_jobs, folder, settings, residents, device, metrics)
            self._keep = partial(self._keep_jobs, folder, opening)

    @bentoml.on_startup
    async def start_watching(self) -> None:
        """Follow the registry beside the requests, and end work at once when told to stop.

        Without the latter, uvicorn would first wait for every running reconstruction.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            then = signal.getsignal(number)

            def close_first(number: int, frame: Any, then: Any = then) -> None:
                loop.call_soon_threadsafe(self._desk.close)
                then(number, frame)

            if callable(then):
                signal.signal(number, close_first)
        watches = [self._desk.residents.watch(self._poll_seconds), self._measure(), _end_with_parent()]
        if self._keep is not None:
            watches.append(self._keep())
        self._watches = [asyncio.create_task(watch) for watch in watches]

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """End the watches and whatever the device works on."""
        for watch in self._watches:
            watch.cancel()
        self._desk.close()
        if self._jobs is not None:
            await self._jobs.close()

    async def _keep_jobs(self, folder: Path, open_jobs: Callable[[], JobDesk]) -> None:
        """Run jobs, as soon as their folder can be opened; everything else is served meanwhile."""
        self._jobs = APP.state.jobs = await opened(open_jobs, folder, partial(setattr, APP.state, "jobs"))
        self._desk.watcher = self._jobs.watcher
        await self._jobs.runner.run()

    async def _measure(self) -> None:
        """Tell Prometheus how things are, every few seconds."""
        from service.metrics import State, memory_in_use

        before = 0
        while True:
            try:
                evaluations = self._device.evaluations
                state = State(
                    evaluations=evaluations - before,
                    requests=self._device.unfinished,
                    models=self._desk.residents.loaded,
                    jobs={} if self._jobs is None else await asyncio.to_thread(self._jobs.counts),
                    memory=memory_in_use() | {"models": self._desk.residents.bytes},
                )
                self._metrics.measured(state)
                before = evaluations
            except Exception:  # any: measuring goes on after every surprise, and the log shows it
                log.exception("measuring failed")
            await asyncio.sleep(MEASURE_SECONDS)

    async def __is_ready__(self) -> bool:
        """BentoML's hook for /readyz."""
        return self._desk.residents.ready


def _turned_away(error: ServiceError, seconds: float) -> None:
    """Count what did not get past the door."""
    metrics: Metrics = APP.state.desk.metrics
    metrics.failed(type(error).__name__)
    metrics.answered(UNKNOWN, UNKNOWN, error.status, seconds)


CvdmService.add_asgi_middleware(Doorkeeper, on_refusal=_turned_away)  # type: ignore[attr-defined]  # the decorator made it a Service


async def _end_with_parent() -> None:
    """End this worker when the supervising process is gone, killed perhaps: nobody would end it otherwise."""
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(PARENT_SECONDS)
    log.error("the process that started this one is gone")
    os.kill(os.getpid(), signal.SIGTERM)
