"""What is before whom: all that waits and is worked on, seen at one moment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from service.jobs.records import Waiting


class Queue:
    """Made in one pass, whatever number of jobs is asked about then."""

    def __init__(self, images: Iterable[Waiting], done: Callable[[Waiting], int]) -> None:
        """images: in the order in which they came. done: evaluations of a tile so far, to the last one."""
        self._images_ahead: dict[str, int] = {}
        self._work_left: dict[str, float] = {}
        own: defaultdict[str, float] = defaultdict(float)
        for position, image in enumerate(images):
            own[image.owner] += image.work * (1 - done(image) / image.total)
            self._images_ahead.setdefault(image.job, position)
            self._work_left[image.job] = own[image.owner]
        self._owners = len(own)

    def images_ahead(self, job: str) -> int:
        """Images, of whomever, that came before the first one of a job."""
        return self._images_ahead.get(job, 0)

    def work_left(self, job: str) -> float:
        """To a job's end: its owner's work up to there, while all owners have as much of the device."""
        return self._work_left.get(job, 0.0) * self._owners
