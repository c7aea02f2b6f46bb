"""What is told of a job: its state, how far it is, what it costs, and the same of its images."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from service.jobs.runner import Runner
from service.jobs.table import ENDED, Item, Job, Table


class Telling:
    """Puts together what the table and the runner know; plain values."""

    def __init__(self, table: Table, runner: Runner) -> None:
        self._table, self._runner = table, runner

    def job(self, job: Job, most_images: int | None = None) -> dict[str, Any]:
        """State, progress, choices and images; of these the first ones, or all for None."""
        done = sum(self._runner.done(item) for item in job.items)
        total = sum(item.total for item in job.items)
        left = None if job.state in ENDED else self._runner.seconds_left(job)
        waiting = [item.job for item in self._table.unfinished()] if job.state == "queued" else []
        return {
            "id": job.id,
            "state": job.state,
            "owner": job.owner,
            "created": moment(job.created),
            "ended": moment(job.ended),
            **{name: value for name, value in vars(job.request).items() if not name.endswith("_bytes")},
            "percent": round(100 * done / total, 1),
            "images_ahead": waiting.index(job.id) if job.id in waiting else 0,
            "seconds_left": None if left is None else round(left, 1),
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
