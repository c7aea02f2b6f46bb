"""What waits in the table comes to the device, and what happens to it there goes into the table.

Of each user a few images at a time are with the device, in the order in which they came; between users, and
between those few, the one goes first that has had least of it, in steps of `QUANTUM_SECONDS`. So a thousand
images of one user do not keep another one's waiting, nor a huge image its owner's small ones.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from cvdm.errors import CvdmError
from cvdm.posterior import Posterior
from cvdm.restoration import restore_file
from service.device import Device, Progress, StoppedError
from service.device import Job as Piece
from service.errors import ServiceError, StoppingError, UnknownVersionError
from service.inference import provenance_of
from service.jobs.archive import Archive
from service.jobs.queue import Queue
from service.jobs.records import Item, Job, State, Waiting
from service.jobs.table import Table
from service.loading import Resident
from service.residents import Residents
from service.schema import Order
from service.watching.observation import Sample, sample_of
from service.watching.shadow import Shadow
from service.watching.watcher import Watcher

log = logging.getLogger(__name__)
AT_DEVICE = 2
"""Images of one user that are with the device: a long one, and one that it makes way for."""
QUANTUM_SECONDS = 5.0
"""By how much one must have had less of the device than another to take it over."""
REMEMBERED_SECONDS = 3600.0
"""How long it counts that a user has had the device."""
WRITE_SECONDS = 1.0
"""Between two notes of an image's progress in the table."""
PAUSE_SECONDS = 10.0
"""Before a version that could not be had is asked for again; its images keep no others waiting meanwhile."""
SWEEP_SECONDS = 600.0
"""Between two looks for results that have been kept long enough."""


@dataclass
class _Running:
    owner: str
    done: int
    piece: Piece[None] | None = None
    cancelled: bool = False
    sample: Sample | None = None
    """Of what a champion restored."""


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
        on_end: Callable[[Item, State], None] = lambda item, state: None,
    ) -> None:
        self._table, self._archive, self._residents, self._device = table, archive, residents, device
        self._watcher, self._shadow = watcher, shadow
        self.kept_seconds = kept_seconds
        self._on_end = on_end
        self._running: dict[tuple[str, int], _Running] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._away: set[str] = set()
        """Runs of versions that could not be had a moment ago."""
        self._paces: dict[str, float] = {}
        """Run of a version -> seconds per work of the image that it restores now."""
        self._had: defaultdict[str, deque[tuple[float, float]]] = defaultdict(deque)
        """Owner -> when an image of theirs ended, and how long it had the device."""

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
                log.exception("feeding jobs failed")
            try:
                await asyncio.wait_for(self._wake.wait(), SWEEP_SECONDS)
            except TimeoutError:
                continue

    def look(self) -> None:
        """Something waits that did not before."""
        self._wake.set()

    def done(self, item: Item | Waiting) -> int:
        """Evaluations of a tile so far, to the last one."""
        running = self._running.get((item.job, item.number))
        return item.done if running is None else max(item.done, running.done)

    def seconds(self, job: Job) -> float | None:
        """That a job takes on a device of its own; None before anything was restored."""
        pace = self._pace(job.request.run_id)
        return None if pace is None else pace * sum(item.work for item in job.items)

    def queue(self) -> Queue:
        """What waits and is worked on now."""
        return Queue(self._table.waiting(), self.done)

    def seconds_left(self, job: Job, queue: Queue) -> float | None:
        """Until a job's end, on a device shared by as many users as now; None before there is a pace."""
        pace = self._pace(job.request.run_id)
        return None if pace is None else pace * queue.work_left(job.id)

    def _pace(self, run_id: str) -> float | None:
        return self._paces.get(run_id) or self._table.pace(run_id)

    def cancel(self, job: Job) -> None:
        """End what runs of a job after the next evaluation of a tile, and drop what waits of it."""
        for item in job.items:
            running = self._running.get((item.job, item.number))
            if running is not None:
                running.cancelled = True
            if running is not None and running.piece is not None:
                running.piece.ask_to_stop()
            else:
                self._end(item, "cancelled")

    async def drain(self) -> None:
        """After the device is closed: wait until no image's files are touched any more."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._shadow.close()

    def _feed(self) -> None:
        busy: defaultdict[str, int] = defaultdict(int)
        for running in self._running.values():
            busy[running.owner] += 1
        most = 2 * AT_DEVICE  # as many may be with the device already
        for item in self._table.next_of_owners(most, without=self._away):
            key, owner = (item.job, item.number), item.owner
            if key in self._running or busy[owner] >= AT_DEVICE:
                continue
            busy[owner] += 1
            self._running[key] = _Running(owner, item.done)
            task = asyncio.create_task(self._attend(item))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _attend(self, item: Item) -> None:
        """See one image through."""
        key = (item.job, item.number)
        running = self._running[key]
        try:
            await self._restored(item, running)
            self._end(item, "done")
        except (StoppedError, StoppingError, asyncio.CancelledError):
            if running.cancelled:  # else the service is being stopped, and its next process takes this up
                self._end(item, "cancelled")
        except CvdmError as error:
            if isinstance(error, ServiceError) and error.retry_after is not None:
                log.info("job %s waits: %s", item.job, error)
                self._away.add(item.run_id)
                asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._ask_again, item.run_id)
            else:
                log.info("job %s, image %d failed: %s", item.job, item.number, error)
                self._end(item, "failed", error.as_dict())
        except Exception:  # any: the client learns that it failed, the log has why
            log.exception("job %s, image %d failed", item.job, item.number)
            self._end(item, "failed", _unexpected(item))
        finally:
            self._remember(running)
            del self._running[key]
            self._wake.set()

    def _ask_again(self, run_id: str) -> None:
        """It may be had by now."""
        self._away.discard(run_id)
        self._wake.set()

    async def _restored(self, item: Item, running: _Running) -> None:
        job = self._table.get(item.job)
        if job is None:  # removed meanwhile
            raise StoppedError
        resident = await self._residents.get(job.request.task, job.request.version)
        if resident.version.run_id != job.request.run_id:
            raise UnknownVersionError(
                f"version {job.request.version} of {job.request.task} as it was when the job was accepted",
                "another one under its number",
                "The registry was rebuilt; send the job again.",
            )
        if running.cancelled:
            raise StoppedError
        work = partial(self._work, job, item, resident, running)
        running.piece = self._device.submit_job(work, partial(self._order, running.owner))
        await running.piece.done
        if running.sample is not None:
            self._shadow.consider(resident, item.owner, item.sha256, running.sample.observation)

    def _work(self, job: Job, item: Item, resident: Resident, running: _Running, progress: Progress) -> None:
        """In a thread of the device: restore one image, or go on with it."""
        self._table.begin(item)
        result = self._archive.result(item.job, item.number)
        if result.is_file():  # restored by a process that ended before it could say so
            return
        written = 0.0

        def report(done: int, total: int) -> None:
            nonlocal written
            running.done = done
            piece = running.piece
            if piece is not None and time.monotonic() - written > WRITE_SECONDS:
                written = time.monotonic()
                self._table.report(item, done, item.seconds + piece.seconds)
                if done > item.done:
                    share = (done - item.done) / item.total
                    self._paces[job.request.run_id] = piece.seconds / (item.work * share)
            progress(done, total)

        sampling = order_of(job).sampling(resident.checkpoint.recipe.sampling)
        restore_file(
            resident.checkpoint,
            self._archive.input(item.job, item.number),
            result,
            sampling,
            annotations=provenance_of(
                resident, sampling, item.sha256, item.maps, item.channels
            ).annotations(),
            maps=item.maps,
            channels=item.channels,
            progress=report,
            folder=self._archive.work(item.job, item.number),
            seen=partial(self._seen, resident, item, running),
        )
        if running.piece is not None and running.piece.seconds > 0 and item.done < item.total:
            share = (item.total - item.done) / item.total
            self._table.learn_pace(job.request.run_id, running.piece.seconds, item.work * share)

    def _seen(self, resident: Resident, item: Item, running: _Running, posterior: Posterior) -> None:
        if self._residents.is_champion(resident.version):
            running.sample = sample_of(posterior)
            self._watcher.look(resident.version, item.owner, running.sample)

    def _remember(self, running: _Running) -> None:
        """Keep for a while how long an image has had the device."""
        had, now = self._had[running.owner], time.monotonic()
        if running.piece is not None:
            had.append((now, running.piece.seconds))
        while had and had[0][0] < now - REMEMBERED_SECONDS:
            had.popleft()

    def _order(self, owner: str, seconds: float) -> tuple[float, float]:
        """How much an owner and one of their images had of the device, in quanta."""
        horizon = time.monotonic() - REMEMBERED_SECONDS
        had = sum(seconds for moment, seconds in tuple(self._had[owner]) if moment > horizon)
        now = sum(
            running.piece.seconds
            for running in tuple(self._running.values())
            if running.owner == owner and running.piece is not None
        )
        return ((had + now) // QUANTUM_SECONDS, seconds // QUANTUM_SECONDS)

    def _end(self, item: Item, state: State, error: dict[str, str] | None = None) -> None:
        if self._table.end(item, state, error):
            if state != "done":
                self._archive.clear_work(item.job, item.number)
            self._on_end(item, state)

    def _sweep(self) -> None:
        """Remove what has been kept long enough."""
        for job in self._table.ended_before(time.time() - self.kept_seconds):
            self._table.remove(job.id)
            self._archive.drop(job.id)


def order_of(job: Job) -> Order:
    """What was asked for, as a request would ask it."""
    request = job.request
    return Order(request.task, request.version, request.samples, request.steps, request.seed)


def _unexpected(item: Item) -> dict[str, str]:
    return {
        "error": "UnexpectedError",
        "expected": "a result",
        "actual": "a failure inside the service",
        "remedy": f"Send the job's id {item.job} to whoever runs this service.",
    }
