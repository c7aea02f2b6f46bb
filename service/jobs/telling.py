"""What is told of a job: its state, how far it is, what it costs, and the same of its images."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

from service.jobs.queue import Queue
from service.jobs.records import ENDED, Item, Job
from service.jobs.runner import Runner
from service.jobs.table import Table

LISTED = 50
"""Jobs in one list."""
LISTED_IMAGES = 20
"""Images of each job in a list of jobs; the job itself tells all."""
KEPT = 200
"""Ended jobs that are not put together anew for each list."""


class Telling:
    """Puts together what the table and the runner know; plain values. Calls may come from any thread."""

    def __init__(self, table: Table, runner: Runner) -> None:
        self._table, self._runner = table, runner
        self._lock = threading.Lock()
        self._ended: dict[str, dict[str, Any]] = {}

    def job(self, job: Job) -> dict[str, Any]:
        """State, progress, choices and all images."""
        return self._told(job, self._runner.queue(), None)

    def jobs(self, owner: str | None, before: str | None = None) -> list[dict[str, Any]]:
        """The newest jobs of an owner, or of all for None, each with its first images."""
        queue, found = self._runner.queue(), []
        for id in self._table.ids_of(owner, most=LISTED, before=before):
            if (told := self._ended.get(id)) is None:
                if (job := self._table.get(id)) is None:  # removed a moment ago
                    continue
                told = self._told(job, queue, LISTED_IMAGES)
                if job.state in ENDED:
                    self._keep(told)
            found.append(told)
        return found

    def _keep(self, told: dict[str, Any]) -> None:
        """What has ended does not change any more; a batch of a thousand images is put together once."""
        with self._lock:
            self._ended[told["id"]] = told
            while len(self._ended) > KEPT:
                del self._ended[next(iter(self._ended))]

    def _told(self, job: Job, queue: Queue, most_images: int | None) -> dict[str, Any]:
        done = sum(self._runner.done(item) for item in job.items)
        total = sum(item.total for item in job.items)
        left = None if job.state in ENDED else self._runner.seconds_left(job, queue)
        return {
            "id": job.id,
            "state": job.state,
            "owner": job.owner,
            "created": moment(job.created),
            "ended": moment(job.ended),
            "kept_until": moment(job.ended and job.ended + self._runner.kept_seconds),
            **{name: value for name, value in vars(job.request).items() if not name.endswith("_bytes")},
            "percent": round(100 * done / total, 1),
            "images_ahead": queue.images_ahead(job.id) if job.state == "queued" else 0,
            "seconds_left": None if left is None else round(left, 1),
            "waits_for": self._runner.waits_for(job),
            "estimate": self._estimated(job),
            "image_count": len(job.items),
            "images": [self._image(item) for item in job.items[:most_images]],
            "links": {
                "self": f"/jobs/{job.id}",
                "events": f"/jobs/{job.id}/events",
                "cancel": f"/jobs/{job.id}/cancel",
            },
        }

    def _estimated(self, job: Job) -> dict[str, Any]:
        """What a job costs on a device of its own; seconds are None before anything was ever restored."""
        seconds = self._runner.seconds(job)
        memory, disk = job.request.memory_bytes, job.request.disk_bytes
        return {
            "seconds": None if seconds is None else round(seconds, 1),
            "disk_mib": None if disk is None else round(disk / 2**20, 1),
            "memory_mib": None if memory is None else round(memory / 2**20, 1),
            "evaluations": sum(item.total for item in job.items),
        }

    def _image(self, item: Item) -> dict[str, Any]:
        return {
            "number": item.number,
            "name": item.name,
            "axes": item.axes,
            "shape": item.shape,
            "warnings": item.warnings,
            "state": item.state,
            "percent": round(100 * self._runner.done(item) / item.total, 1),
            "seconds": round(item.seconds, 2),
            "began": moment(item.began),
            "ended": moment(item.ended),
            "error": item.error,
            "result": f"/jobs/{item.job}/images/{item.number}/result" if item.state == "done" else None,
        }


def moment(seconds: float | None) -> str | None:
    """ISO 8601 from seconds since 1970."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
