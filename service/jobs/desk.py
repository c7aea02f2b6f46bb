"""What a client may ask of jobs: enter one, look at it, have its results, cancel it, remove it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cvdm.images import read_annotations
from cvdm.posterior import maps_of
from cvdm.reading.names import image_stem
from cvdm.restoration import memory_bytes
from service.device import Device
from service.doorkeeper import Caller
from service.errors import ParameterError, QuotaError, UnfinishedError, UnknownJobError
from service.jobs.archive import Archive
from service.jobs.arrival import Arrival, Placed, Uploaded, disk_bytes_of
from service.jobs.records import ENDED, Item, Job, NewItem, Request
from service.jobs.runner import Runner
from service.jobs.table import Table
from service.jobs.telling import Telling, moment
from service.jobs.views import Views
from service.loading import Resident
from service.metrics import Metrics
from service.residents import Residents
from service.schema import Limits, Order, read_order, require_maps
from service.settings import Settings
from service.watching.drift import DriftWatch
from service.watching.shadow import Shadow
from service.watching.sittings import Sittings
from service.watching.watcher import Watcher

log = logging.getLogger(__name__)
LONGEST_KEY = 200


class JobDesk:
    """One per process that has a folder for jobs."""

    def __init__(
        self,
        settings: Settings,
        table: Table,
        archive: Archive,
        runner: Runner,
        residents: Residents,
        watcher: Watcher,
    ) -> None:
        self.runner, self.watcher = runner, watcher
        self.views = Views(archive)
        self._telling = Telling(table, runner)
        self._settings, self._table, self._archive, self._residents = settings, table, archive, residents
        self._limits = Limits(settings.max_samples, settings.max_steps)
        # Of its own: a request for a small image does not wait until a large one is copied.
        self._intake = ThreadPoolExecutor(1, thread_name_prefix="job-intake")

    def expect(self, caller: Caller, key: str | None) -> None:
        """Before an upload is read: refuse who may have no further image, but for a job that is there.

        Raises QuotaError.
        """
        if key is None or self._table.known(caller.name, key) is None:
            self._require_quota(caller, 1)

    async def enter(
        self, caller: Caller, images: Sequence[Uploaded | Placed], fields: Mapping[str, str], key: str | None
    ) -> tuple[dict[str, Any], bool]:
        """Accept a job; returns what it is, and whether it is new.

        key: chosen by the client; the same key and content again is the same job. Raises CvdmError.
        """
        owner, order = caller.name, read_order(fields, self._limits)
        if key is not None and not 0 < len(key) <= LONGEST_KEY:
            raise ParameterError(
                f"an Idempotency-Key of 1 to {LONGEST_KEY} characters",
                f"one of {len(key)}",
                "Choose another.",
            )
        id, loop = secrets.token_urlsafe(12), asyncio.get_running_loop()
        arrival = Arrival(self._settings, self._archive, id)
        try:
            digests = [
                await loop.run_in_executor(self._intake, arrival.received, number, image)
                for number, image in enumerate(images)
            ]
            fingerprint = _fingerprint(digests, fields)
            if key is not None and (known := self._known(owner, key, fingerprint)) is not None:
                return known, False
            self._require_quota(caller, len(images))
            resident = await self._residents.get(order.task, order.version)
            require_maps(order, maps_of(resident.checkpoint), resident.version.label)
            items = [
                await loop.run_in_executor(
                    self._intake, arrival.examined, number, image.name, digest, resident, order
                )
                for number, (image, digest) in enumerate(zip(images, digests, strict=True))
            ]
            pixels = sum(resident.checkpoint.sight.pixels(item.shape) for item in items)
            request = _request(resident, order, items)
            arrival.require_room(request)
            async with caller.spending(images=len(items), pixels=pixels):
                self._require_quota(caller, len(images))  # others came meanwhile; from here on none can
                self._archive.accept(id)
                self._table.add(id, owner, request, items, key=key, fingerprint=fingerprint)
        except sqlite3.IntegrityError:  # the same key came twice at the same time
            known = None if key is None else self._known(owner, key, fingerprint)
            if known is None:
                raise
            return known, False
        finally:
            if self._table.get(id) is None:
                await asyncio.to_thread(self._archive.drop, id)
        self.runner.look()
        return await asyncio.to_thread(self.describe, caller, id), True

    async def close(self) -> None:
        """After the device is closed: what is unfinished is the next process's."""
        self._intake.shutdown(wait=False, cancel_futures=True)
        self.views.close()
        await self.runner.drain()
        self.watcher.close()
        self._table.close()
        self._archive.close()

    def counts(self) -> dict[str, int]:
        """State -> how many images of jobs are in it."""
        return self._table.counts()

    def describe(self, caller: Caller, id: str) -> dict[str, Any]:
        """What GET /jobs/ID tells. Raises UnknownJobError."""
        return self._telling.job(self._job(caller, id))

    def jobs(self, caller: Caller, before: str | None = None) -> list[dict[str, Any]]:
        """What GET /jobs tells: the newest first; to an operator, those of everybody.

        before: the id of a job; those that came before it. Raises UnknownJobError.
        """
        if before is not None:
            self._job(caller, before)
        owner = None if caller.is_operator else caller.name
        return self._telling.jobs(owner, before)

    def digests(self, caller: Caller, id: str) -> list[str]:
        """SHA-256 of each image of a job as it was uploaded. Raises UnknownJobError."""
        return [item.sha256 for item in self._job(caller, id).items]

    def item(self, caller: Caller, id: str, number: int) -> Item:
        """One image of a job. Raises UnknownJobError."""
        item = self._table.item(id, number)
        if item is not None and _may_see(caller, item.owner):
            return item
        last = len(self._job(caller, id).items) - 1
        raise UnknownJobError(f"an image from 0 to {last} of job {id}", str(number), "Correct the number.")

    async def provenance(self, caller: Caller, id: str) -> dict[str, Any]:
        """What GET /provenance/ID tells: what made the results of a job, as they say it themselves.

        Raises UnknownJobError.
        """
        job = await asyncio.to_thread(self._job, caller, id)

        def told() -> list[dict[str, Any]]:
            return [
                {"number": item.number, "name": item.name}
                | read_annotations(self._archive.result(id, item.number))
                for item in job.items
                if item.state == "done"
            ]

        return {"id": id, "created": moment(job.created), "images": await asyncio.to_thread(told)}

    def result(self, caller: Caller, id: str, number: int) -> tuple[Path, str]:
        """The file of a restored image, and a name for it. Raises UnknownJobError, UnfinishedError."""
        item = self.item(caller, id, number)
        if item.state != "done":
            raise UnfinishedError(
                "a restored image",
                f"one that is {item.state}",
                f"See GET /jobs/{id} for its state.",
            )
        return self._archive.result(id, number), _result_name(item)

    async def cancel(self, caller: Caller, id: str) -> dict[str, Any]:
        """End a job; what is restored of it stays. Raises UnknownJobError."""
        await asyncio.to_thread(self._job, caller, id)
        await self.runner.cancel(id)
        return await asyncio.to_thread(self.describe, caller, id)

    async def remove(self, caller: Caller, id: str) -> None:
        """Forget a job with everything that it has. Raises UnknownJobError, UnfinishedError."""
        job = await asyncio.to_thread(self._job, caller, id)
        if job.state not in ENDED:
            raise UnfinishedError(
                "a job that has ended",
                f"one that is {job.state}",
                f"First POST /jobs/{id}/cancel.",
            )
        await asyncio.to_thread(self._table.remove, id)
        await asyncio.to_thread(self._archive.drop, id)

    def _job(self, caller: Caller, id: str) -> Job:
        job = self._table.get(id)
        if job is None or not _may_see(caller, job.owner):
            raise UnknownJobError(
                "a job of yours that is still kept", f"none of the id {id[:40]!r}", "Look at GET /jobs."
            )
        return job

    def _known(self, owner: str, key: str, fingerprint: str) -> dict[str, Any] | None:
        found = self._table.known(owner, key)
        if found is None:
            return None
        job, before = found
        if before != fingerprint:
            raise ParameterError(
                "the same images and fields as before under the same Idempotency-Key",
                f"others than those of job {job.id}",
                "Use a new key for each new job.",
            )
        return self._telling.job(job)

    def _require_quota(self, caller: Caller, more: int) -> None:
        own, most = caller.most_images, self._settings.max_job_images
        most = most if own is None else min(own, most)
        now = self._table.unfinished_of(caller.name)
        if now + more > most:
            raise QuotaError(
                f"at most {most} images of yours that wait or are worked on",
                f"{now} and {more} more",
                "Wait until some are done, or cancel some.",
            )


def _may_see(caller: Caller, owner: str) -> bool:
    return caller.is_operator or owner == caller.name


def open_jobs(
    folder: Path, settings: Settings, residents: Residents, device: Device, metrics: Metrics
) -> JobDesk:
    """Everything that jobs need, in a folder of their own.

    Raises JobsError for one that another service uses, and OSError or sqlite3.Error for one that cannot be
    used; nothing is open then.
    """
    with ExitStack() as undoing:
        archive = Archive(folder)
        undoing.callback(archive.close)
        table = Table(archive.table)
        undoing.callback(table.close)
        if interrupted := table.requeue():
            log.info("%d images of jobs were interrupted and go on", interrupted)
        archive.tidy(table.ids())
        drift = DriftWatch(
            Sittings(archive.root / "watching.db"), settings.signals_dir, settings.drift_cooldown_hours * 3600
        )
        watcher = Watcher(drift, metrics)
        shadow = Shadow(
            settings.shadow_share, residents, device, archive.root / "shadow.jsonl", metrics.shadowed
        )
        runner = Runner(
            table,
            archive,
            residents,
            device,
            watcher=watcher,
            shadow=shadow,
            kept_seconds=settings.job_hours * 3600,
            on_end=metrics.job_image_ended,
        )
        runner.give_up()
        desk = JobDesk(settings, table, archive, runner, residents, watcher)
        undoing.pop_all()
        return desk


def _request(resident: Resident, order: Order, items: Sequence[NewItem]) -> Request:
    """What is asked for, with everything that was left open filled in."""
    sampling, version = order.sampling(resident.checkpoint.recipe.sampling), resident.version
    checkpoint = resident.checkpoint
    memory = max(memory_bytes(checkpoint, item.shape, sampling) for item in items)
    return Request(
        task=version.task,
        version=version.number,
        run_id=version.run_id,
        samples=sampling.samples,
        steps=sampling.steps,
        seed=sampling.seed,
        maps=order.maps,
        channels=order.channels,
        memory_bytes=memory,
        disk_bytes=disk_bytes_of(checkpoint.sight, items, order.maps),
    )


def _fingerprint(digests: Sequence[str], fields: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps([list(digests), sorted(fields.items())]).encode()).hexdigest()


def _result_name(item: Item) -> str:
    """The input's name for its result."""
    return f"{image_stem(Path(item.name).name) or 'image'}.ome.tif"
