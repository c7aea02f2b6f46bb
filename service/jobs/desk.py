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
from dataclasses import dataclass
from datetime import UTC, datetime
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from cvdm.checkpoint import Checkpoint
from cvdm.errors import ImageError
from cvdm.images import MAX_PIXELS, read_annotations
from cvdm.posterior import maps_of, require_familiar
from cvdm.reading import Plane, read_stack
from cvdm.restoration import disk_bytes, evaluations_of, memory_bytes, require_room
from cvdm.suitability import doubts_of_file, doubts_of_plane, gathered
from service.device import Device
from service.doorkeeper import Caller
from service.errors import ParameterError, QuotaError, UnfinishedError, UnknownJobError
from service.jobs.archive import Archive
from service.jobs.intake import inside, is_zip, unpack
from service.jobs.runner import Runner
from service.jobs.table import ENDED, Item, Job, NewItem, Request, Table
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
LISTED = 50
"""Jobs in one list."""
LISTED_IMAGES = 20
"""Images of each job in a list of jobs; the job itself tells all."""
LONGEST_KEY = 200


@dataclass(frozen=True)
class Uploaded:
    """One file of a form."""

    name: str
    content: BinaryIO


@dataclass(frozen=True)
class Placed:
    """An image on the service's machine."""

    name: str
    """Its path in the operator's folder."""


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
        self._settings, self._table, self._archive, self._residents = settings, table, archive, residents
        self._limits = Limits(settings.max_samples, settings.max_steps)
        # Of its own: a request for a small image does not wait until a large one is copied.
        self._intake = ThreadPoolExecutor(1, thread_name_prefix="job-intake")

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
        try:
            digests = [
                await loop.run_in_executor(self._intake, self._received, id, number, image)
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
                    self._intake, self._examined, id, number, image.name, digest, resident, order
                )
                for number, (image, digest) in enumerate(zip(images, digests, strict=True))
            ]
            pixels = sum(prod(item.shape) for item in items)
            await asyncio.to_thread(caller.spend, images=len(items), pixels=pixels)
            self._archive.accept(id)
            request = _request(resident, order, items)
            try:
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
        return self.describe(caller, id), True

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
        return self._described(self._job(caller, id))

    def jobs(self, caller: Caller) -> list[dict[str, Any]]:
        """What GET /jobs tells: the newest first; to an operator, those of everybody."""
        owner = None if caller.is_operator else caller.name
        return [self._described(job, LISTED_IMAGES) for job in self._table.of_owner(owner, most=LISTED)]

    def item(self, caller: Caller, id: str, number: int) -> Item:
        """One image of a job. Raises UnknownJobError."""
        job = self._job(caller, id)
        if not 0 <= number < len(job.items):
            raise UnknownJobError(
                f"an image from 0 to {len(job.items) - 1} of job {id}", str(number), "Correct the number."
            )
        return job.items[number]

    async def provenance(self, caller: Caller, id: str) -> dict[str, Any]:
        """What GET /provenance/ID tells: what made the results of a job, as they say it themselves.

        Raises UnknownJobError.
        """
        job = self._job(caller, id)

        def told() -> list[dict[str, Any]]:
            return [
                {"number": item.number, "name": item.name}
                | read_annotations(self._archive.result(id, item.number))
                for item in job.items
                if item.state == "done"
            ]

        return {"id": id, "created": _moment(job.created), "images": await asyncio.to_thread(told)}

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

    def cancel(self, caller: Caller, id: str) -> dict[str, Any]:
        """End a job; what is restored of it stays. Raises UnknownJobError."""
        self.runner.cancel(self._job(caller, id))
        return self.describe(caller, id)

    async def remove(self, caller: Caller, id: str) -> None:
        """Forget a job with everything that it has. Raises UnknownJobError, UnfinishedError."""
        job = self._job(caller, id)
        if job.state not in ENDED:
            raise UnfinishedError(
                "a job that has ended",
                f"one that is {job.state}",
                f"First POST /jobs/{id}/cancel.",
            )
        self._table.remove(id)
        await asyncio.to_thread(self._archive.drop, id)

    def _job(self, caller: Caller, id: str) -> Job:
        job = self._table.get(id)
        if job is None or not (caller.is_operator or job.owner == caller.name):
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
        return self._described(job)

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

    def _received(self, id: str, number: int, image: Uploaded | Placed) -> str:
        """Bring an image into the archive; returns its digest. Raises CvdmError."""
        if isinstance(image, Placed):
            return self._archive.link(id, number, inside(self._settings.import_dir, image.name))
        digest = self._archive.receive(id, number, image.content)
        received = self._archive.received(id, number)
        if is_zip(received):
            packed = received.rename(received.with_name("packed"))
            unpack(packed, received, self._settings.max_job_upload_bytes, image.name[:100] or "the archive")
            packed.unlink()
        return digest

    def _examined(
        self, id: str, number: int, name: str, digest: str, resident: Resident, order: Order
    ) -> NewItem:
        """Refuse at once what could not be restored later. Raises ImageError, StorageError."""
        path, checkpoint = self._archive.received(id, number), resident.checkpoint
        sampling = order.sampling(checkpoint.recipe.sampling)
        most, label = self._settings.max_job_pixels, name[:100] or "an image"
        with read_stack(path, max_pixels=most, label=label) as stack:
            doubts = doubts_of_file(checkpoint, stack, label)
            if prod(stack.shape) <= min(self._settings.max_pixels, MAX_PIXELS):
                for plane in stack.planes():
                    _require_familiar(checkpoint, plane, label)
                    doubts += doubts_of_plane(checkpoint, plane.pixels, stack.full_range, label)
            axes, shape = stack.axes, stack.shape
            total = evaluations_of(checkpoint, stack, sampling)
        require_room(path.parent, shape, order.maps)
        found = gathered(doubts)
        if found and self._settings.refuse_doubtful:
            raise found[0].as_error()
        return NewItem(name, digest, axes, shape, total, tuple(doubt.as_dict() for doubt in found))

    def _described(self, job: Job, most_images: int | None = None) -> dict[str, Any]:
        done = sum(self.runner.done(item) for item in job.items)
        total = sum(item.total for item in job.items)
        left = None if job.state in ENDED else self.runner.seconds_left(job)
        waiting = [item.job for item in self._table.unfinished()] if job.state == "queued" else []
        return {
            "id": job.id,
            "state": job.state,
            "owner": job.owner,
            "created": _moment(job.created),
            "ended": _moment(job.ended),
            **{name: value for name, value in vars(job.request).items() if name != "memory_bytes"},
            "percent": round(100 * done / total, 1),
            "images_ahead": waiting.index(job.id) if job.id in waiting else 0,
            "seconds_left": None if left is None else round(left, 1),
            "estimate": self._estimated(job),
            "image_count": len(job.items),
            "images": [self._described_item(item) for item in job.items[:most_images]],
            "links": {
                "self": f"/jobs/{job.id}",
                "events": f"/jobs/{job.id}/events",
                "cancel": f"/jobs/{job.id}/cancel",
            },
        }

    def _estimated(self, job: Job) -> dict[str, Any]:
        """What a job costs on a device of its own; seconds are None before anything was ever restored."""
        seconds, memory = self.runner.seconds(job), job.request.memory_bytes
        return {
            "seconds": None if seconds is None else round(seconds, 1),
            "disk_mib": round(sum(disk_bytes(item.shape, item.maps) for item in job.items) / 2**20, 1),
            "memory_mib": None if memory is None else round(memory / 2**20, 1),
            "evaluations": sum(item.total for item in job.items),
        }

    def _described_item(self, item: Item) -> dict[str, Any]:
        return {
            "number": item.number,
            "name": item.name,
            "axes": item.axes,
            "shape": item.shape,
            "warnings": item.warnings,
            "state": item.state,
            "percent": round(100 * self.runner.done(item) / item.total, 1),
            "seconds": round(item.seconds, 2),
            "began": _moment(item.began),
            "ended": _moment(item.ended),
            "error": item.error,
            "result": f"/jobs/{item.job}/images/{item.number}/result" if item.state == "done" else None,
        }


def open_jobs(
    folder: Path, settings: Settings, residents: Residents, device: Device, metrics: Metrics
) -> JobDesk:
    """Everything that jobs need, in a folder of their own. Raises JobsError."""
    archive = Archive(folder)
    table = Table(archive.table)
    if interrupted := table.requeue():
        log.info("%d images of jobs were interrupted and go on", interrupted)
    archive.tidy(table.ids())
    drift = DriftWatch(
        Sittings(archive.root / "watching.db"), settings.signals_dir, settings.drift_cooldown_hours * 3600
    )
    watcher = Watcher(drift, metrics)
    shadow = Shadow(settings.shadow_share, residents, device, archive.root / "shadow.jsonl", metrics.shadowed)
    runner = Runner(
        table,
        archive,
        residents,
        device,
        watcher=watcher,
        shadow=shadow,
        kept_seconds=settings.job_hours * 3600,
        on_end=lambda item, state: metrics.job_image_ended(state),
    )
    return JobDesk(settings, table, archive, runner, residents, watcher)


def _require_familiar(checkpoint: Checkpoint, plane: Plane, label: str) -> None:
    """Raise ImageError, with the plane's place, when its intensities are not the model's."""
    try:
        require_familiar(checkpoint.normalisation, plane.pixels)
    except ImageError as error:
        place = "".join(f", {axis}={at}" for axis, at in plane.index.items())
        raise ImageError(error.expected, f"{label}{place}: {error.actual}", error.remedy) from error


def _request(resident: Resident, order: Order, items: Sequence[NewItem]) -> Request:
    """What is asked for, with everything that was left open filled in."""
    sampling, version = order.sampling(resident.checkpoint.recipe.sampling), resident.version
    memory = max(memory_bytes(resident.checkpoint, item.shape, sampling) for item in items)
    return Request(
        version.task,
        version.number,
        version.run_id,
        sampling.samples,
        sampling.steps,
        sampling.seed,
        order.maps,
        memory,
    )


def _fingerprint(digests: Sequence[str], fields: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps([list(digests), sorted(fields.items())]).encode()).hexdigest()


def _result_name(item: Item) -> str:
    """The input's name for its result."""
    stem = Path(item.name).name
    for ending in (".zip", ".zarr", ".tiff", ".tif", ".mrc", ".czi", ".nd2", ".lif", ".ome"):
        stem = stem.removesuffix(ending)
    return f"{stem or 'image'}.ome.tif"


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
