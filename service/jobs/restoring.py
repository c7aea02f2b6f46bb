"""One image of a job in a thread of the device: restored, or gone on with, and noted in the table."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

from cvdm.posterior import Posterior
from cvdm.restoration import restore_file
from service.device import Job as Piece
from service.device import Progress, StoppedError
from service.inference import provenance_of
from service.jobs.archive import Archive
from service.jobs.records import Item, Request
from service.jobs.table import Table
from service.loading import Resident
from service.residents import Residents
from service.schema import Order
from service.watching.observation import Sample, sample_of
from service.watching.watcher import Watcher

WRITE_SECONDS = 1.0
"""Between two notes of an image's progress in the table."""


@dataclass
class Running:
    """An image that is with the device or on its way there."""

    owner: str
    run_id: str
    """Of the version that restores it."""
    done: int
    """Evaluations of a tile so far."""
    piece: Piece[None] | None = None
    """What the device knows of it; None on its way there."""
    cancelled: bool = False
    sample: Sample | None = None
    """Of what a champion restored."""


class Restorer:
    """One per process; restores one image at a time, in whatever threads the device has."""

    def __init__(self, table: Table, archive: Archive, residents: Residents, watcher: Watcher) -> None:
        self._table, self._archive, self._residents, self._watcher = table, archive, residents, watcher
        self._paces: dict[str, float] = {}
        """Run of a version -> seconds per work of the image that it restores now."""
        self._at_device: tuple[str, int] | None = None
        """Job and number of the image that the table says has the device."""

    def pace(self, run_id: str) -> float | None:
        """Seconds per work of a version, or of another one; None before anything was restored."""
        return self._paces.get(run_id) or self._table.pace(run_id)

    def restore(
        self, request: Request, item: Item, resident: Resident, running: Running, progress: Progress
    ) -> None:
        """Restore an image, or go on with it. Raises CvdmError, sqlite3.Error, StoppedError."""
        self._begin(item)
        result = self._archive.restored(item.job, item.number)
        if result.is_file():  # restored by a process that ended before it could say so
            return
        sampling = order_of(request).sampling(resident.checkpoint.recipe.sampling)
        made = provenance_of(resident, sampling, item.sha256, item.maps, item.channels)
        restore_file(
            resident.checkpoint,
            self._archive.input(item.job, item.number),
            result,
            sampling,
            annotations=made.annotations(),
            maps=item.maps,
            channels=item.channels,
            progress=self._reported(item, running, progress),
            folder=self._archive.work(item.job, item.number),
            seen=partial(self._seen, resident, item, running),
        )
        if running.piece is not None and running.piece.seconds > 0 and item.done < item.total:
            share = (item.total - item.done) / item.total
            self._table.learn_pace(request.run_id, running.piece.seconds, item.work * share)

    def _reported(self, item: Item, running: Running, progress: Progress) -> Progress:
        """`progress`, with the table and whoever asks told of it; ends work whose place is wanted.

        That waits until a strip is done: what is begun of one is not kept.
        """
        written, mark = 0.0, None

        def report(done: int, total: int) -> None:
            nonlocal written, mark
            running.done = done
            piece = running.piece
            if piece is not None and time.monotonic() - written > WRITE_SECONDS:
                written = time.monotonic()
                self._table.report(item, done, item.seconds + piece.seconds)
                if done > item.done:
                    share = (done - item.done) / item.total
                    self._paces[item.run_id] = piece.seconds / (item.work * share)
            progress(done, total)
            if self._at_device != (item.job, item.number):  # others had it meanwhile
                self._begin(item)
            if piece is None or not piece.place_wanted:
                mark = None
                return
            before, mark = mark, self._archive.mark(item.job, item.number)
            if before not in (None, mark):
                self._table.report(item, done, item.seconds + piece.seconds)
                raise StoppedError

        return report

    def _begin(self, item: Item) -> None:
        self._table.begin(item)
        self._at_device = item.job, item.number

    def _seen(self, resident: Resident, item: Item, running: Running, posterior: Posterior) -> None:
        if self._residents.is_champion(resident.version):
            running.sample = sample_of(posterior)
            self._watcher.look(resident.version, item.owner, running.sample)


def order_of(request: Request) -> Order:
    """What was asked for, as a request would ask it."""
    return Order(request.task, request.version, request.samples, request.steps, request.seed)
