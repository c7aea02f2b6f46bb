"""What waits in the table comes to the device, and what happens to it there goes into the table.

Of each user a few images at a time are with the device, in the order in which they came; between users, and
between those few, the one goes first that has had least of it, in steps of `QUANTUM_SECONDS`. So a thousand
images of one user do not keep another one's waiting, nor a huge image its owner's small ones.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from cvdm.errors import CvdmError
from service.device import Device, StoppedError
from service.errors import ServiceError, StoppingError, UnknownVersionError
from service.jobs.archive import Archive
from service.jobs.ends import End, interrupted_end, unexpected_end
from service.jobs.queue import Queue
from service.jobs.records import ENDED, Item, Job, State, Waiting
from service.jobs.restoring import Restorer, Running
from service.jobs.table import Table
from service.jobs.turns import Turns
from service.residents import Residents
from service.watching.shadow import Shadow
from service.watching.watcher import Watcher

log = logging.getLogger(__name__)
AT_DEVICE = 2
"""Images of one user that are with the device: a long one, and one that it makes way for."""
PAUSE_SECONDS = 10.0
"""Before a version that could not be had is asked for again, its images keeping no others waiting meanwhile;
and before a table that could not be read or written is tried again."""
MOST_INTERRUPTIONS = 3
"""Ends of the process over one image, without its coming further, after which it has failed: one that takes
more memory than there is would end every process to come."""
SWEEP_SECONDS = 600.0
"""Between two looks for results that have been kept long enough."""


class Runner:
    """Runs jobs; one per process, in its event loop."""

    def __init__(
        self,
        table: Table,
        archive: Archive,
        residents: Residents,
        device: Device,
        *,
        watcher: Watcher,
        shadow: Shadow,
        kept_seconds: float,
        on_end: Callable[[State], None] = lambda state: None,
    ) -> None:
        self._table, self._archive, self._residents, self._device = table, archive, residents, device
        self._shadow, self._on_end = shadow, on_end
        self.kept_seconds = kept_seconds
        self._restorer = Restorer(table, archive, residents, watcher)
        self._turns = Turns()
        self._running: dict[tuple[str, int], Running] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake, self._stopping = asyncio.Event(), asyncio.Event()
        self._cancelling: set[str] = set()
        """Jobs of which nothing is to begin."""
        self._away: set[str] = set()
        """Runs of versions that could not be had a moment ago."""
        self._reasons: dict[str, Mapping[str, Any]] = {}
        """Run of a version -> why it could not be had, until it can be."""
        self._complained = -PAUSE_SECONDS
        """When the log was told last that jobs cannot go on."""

    def give_up(self) -> None:
        """After a start: fail what ended the process again and again. Raises sqlite3.Error."""
        for item in self._table.often_interrupted(MOST_INTERRUPTIONS):
            log.error("job %s, image %d ended the service too often", item.job, item.number)
            self._enter(item, interrupted_end(item, MOST_INTERRUPTIONS))

    async def run(self) -> None:
        """Bring to the device what waits, and what comes, until cancelled."""
        swept = 0.0
        while True:
            self._wake.clear()
            try:
                self._feed()
                if time.monotonic() - swept > SWEEP_SECONDS:
                    swept = time.monotonic()
                    await asyncio.to_thread(self._sweep)
            except Exception:  # any: the runner must outlive every surprise, and the log shows it
                self._complain()
                await self._pause()
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), SWEEP_SECONDS)

    def look(self) -> None:
        """Something waits that did not before."""
        self._wake.set()

    def done(self, item: Item | Waiting) -> int:
        """Evaluations of a tile so far, to the last one."""
        running = self._running.get((item.job, item.number))
        return item.done if running is None else max(item.done, running.done)

    def seconds(self, job: Job) -> float | None:
        """That a job takes on a device of its own; None before anything was restored."""
        pace = self._restorer.pace(job.request.run_id)
        return None if pace is None else pace * sum(item.work for item in job.items)

    def queue(self) -> Queue:
        """What waits and is worked on now."""
        return Queue(self._table.waiting(), self.done)

    def seconds_left(self, job: Job, queue: Queue) -> float | None:
        """Until a job's end, on a device shared by as many users as now; None before there is a pace."""
        pace = self._restorer.pace(job.request.run_id)
        return None if pace is None else pace * queue.work_left(job.id)

    def waits_for(self, job: Job) -> Mapping[str, Any] | None:
        """Why a job's version cannot be had: error, expected, actual, remedy; None when it can, or could."""
        return None if job.state in ENDED else self._reasons.get(job.request.run_id)

    async def cancel(self, id: str) -> None:
        """End what runs of a job after the next evaluation of a tile, and drop what waits of it.

        Raises sqlite3.Error.
        """
        at_device = set()
        self._cancelling.add(id)
        try:
            for (job, number), running in self._running.items():
                if job == id:
                    running.cancelled = True
                    if running.piece is not None:
                        running.piece.ask_to_stop()
                        at_device.add(number)
            for _ in await asyncio.to_thread(self._drop_waiting, id, at_device):
                self._on_end("cancelled")
        finally:
            self._cancelling.discard(id)

    async def drain(self) -> None:
        """After the device is closed: wait until no image's files are touched any more."""
        self._stopping.set()
        await self._rest()  # at once, because the process may be killed while it waits
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._rest()  # one that began meanwhile is not at fault either
        await self._shadow.close()

    async def _rest(self) -> None:
        try:
            await asyncio.to_thread(self._table.rest)
        except sqlite3.Error:
            self._complain()

    def _drop_waiting(self, id: str, at_device: set[int]) -> list[int]:
        dropped = self._table.cancel(id, without=at_device)
        for number in dropped:
            self._archive.clear_work(id, number)
        return dropped

    def _feed(self) -> None:
        if self._device.closed:
            return
        busy: defaultdict[str, int] = defaultdict(int)
        for running in self._running.values():
            busy[running.owner] += 1
        most = 2 * AT_DEVICE  # as many may be with the device already
        for item in self._table.next_of_owners(most, without=self._away):
            key, owner = (item.job, item.number), item.owner
            if key in self._running or busy[owner] >= AT_DEVICE or item.job in self._cancelling:
                continue
            busy[owner] += 1
            self._running[key] = Running(owner, item.run_id, item.done)
            task = asyncio.create_task(self._attend(item))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        asked = self._away | {running.run_id for running in self._running.values()}
        self._reasons = {run: reason for run, reason in self._reasons.items() if run in asked}

    async def _attend(self, item: Item) -> None:
        """See one image through. Its end is entered sooner or later; nothing is done anew meanwhile."""
        key = (item.job, item.number)
        running = self._running[key]
        try:
            end = await self._outcome(item, running)
            while end is not None and not self._stopping.is_set():
                try:
                    await asyncio.to_thread(self._enter, item, end)
                    break
                except Exception:  # any: the disk may have room again by the next attempt
                    self._complain()
                    await self._pause()
        finally:
            if running.piece is not None:
                self._turns.remember(running.owner, running.piece.seconds)
            del self._running[key]
            self._wake.set()

    async def _outcome(self, item: Item, running: Running) -> End | None:
        """How an image ends; None when it waits again."""
        try:
            await self._restored(item, running)
            return End("done")
        except (StoppedError, StoppingError, asyncio.CancelledError):
            # If not cancelled, it is taken up later: its place was wanted, or the service is being stopped.
            return End("cancelled") if running.cancelled else None
        except CvdmError as error:
            if isinstance(error, ServiceError) and error.retry_after is not None:
                log.info("job %s waits: %s", item.job, error)
                self._away.add(item.run_id)
                self._reasons[item.run_id] = error.as_dict()
                asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._ask_again, item.run_id)
                return None
            log.info("job %s, image %d failed: %s", item.job, item.number, error)
            return End("failed", error.as_dict())
        except sqlite3.Error:  # nothing that the image is at fault for
            self._complain()
            await self._pause()
            return End("cancelled") if running.cancelled else None
        except Exception:  # any: the client learns that it failed, the log has why
            log.exception("job %s, image %d failed", item.job, item.number)
            return unexpected_end(item)

    def _ask_again(self, run_id: str) -> None:
        """It may be had by now."""
        self._away.discard(run_id)
        self._wake.set()

    async def _restored(self, item: Item, running: Running) -> None:
        request = await asyncio.to_thread(self._table.request, item.job)
        if request is None:  # removed meanwhile
            raise StoppedError
        resident = await self._residents.get(request.task, request.version)
        self._reasons.pop(item.run_id, None)
        if resident.version.run_id != request.run_id:
            raise UnknownVersionError(
                f"version {request.version} of {request.task} as it was when the job was accepted",
                "another one under its number",
                "The registry was rebuilt; send the job again.",
            )
        accepted = item.job, item.number, item.sha256, item.name[:100]
        await asyncio.to_thread(self._archive.require_unchanged, *accepted)
        if running.cancelled:
            raise StoppedError
        work = partial(self._restorer.restore, request, item, resident, running)
        running.piece = self._device.submit_job(work, partial(self._order, item))
        await running.piece.done
        await asyncio.to_thread(self._archive.confirm, *accepted)  # it may have been replaced meanwhile
        if running.sample is not None:
            self._shadow.consider(resident, item.owner, item.sha256, running.sample.observation)

    def _order(self, item: Item, seconds: float) -> tuple[float, float]:
        now = (
            running.piece.seconds
            for running in tuple(self._running.values())
            if running.owner == item.owner and running.piece is not None
        )
        return self._turns.order(item.owner, now, item.seconds + seconds)

    def _enter(self, item: Item, end: End) -> None:
        """Raises sqlite3.Error."""
        if end.state != "done":
            self._archive.clear_work(item.job, item.number)
        if self._table.end(item, end.state, end.error):
            self._on_end(end.state)

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), PAUSE_SECONDS)

    def _complain(self) -> None:
        """Once a pause, however many images wait for it to be over."""
        if time.monotonic() - self._complained >= PAUSE_SECONDS:
            self._complained = time.monotonic()
            log.exception("jobs cannot go on; they are tried again every %g s", PAUSE_SECONDS)

    def _sweep(self) -> None:
        """Remove what has been kept long enough."""
        for job in self._table.ended_before(time.time() - self.kept_seconds):
            self._table.remove(job.id)
            self._archive.drop(job.id)
