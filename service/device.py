"""One worker thread that owns the device: one piece of work at a time, a bounded number of requests waits.

The event loop stays free, so health and the list of models answer while an image is restored. Golden replays
go before the reconstructions that wait, so that a swap waits for what runs and for nothing else. Work is
cancelled between two evaluations of a tile: it reports progress, and a cancelled report raises.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from service.errors import BusyError, StoppingError

Result = TypeVar("Result")
Progress = Callable[[int, int], None]
Work = Callable[[Progress], Result]


class StoppedError(Exception):
    """Raised inside work that nobody waits for any more; never leaves this module's thread."""


@dataclass(frozen=True)
class Job(Generic[Result]):
    """Work that waits or runs; await `done`, or `stop()` it."""

    done: asyncio.Future[Result]
    _stop: threading.Event

    def stop(self) -> None:
        """Give up: never started if it still waits, else ended at its next report of progress."""
        self._stop.set()
        self.done.cancel()


class Device:
    """The queue in front of the one worker thread. Use it from one event loop."""

    def __init__(self, *, max_waiting: int) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._queue: queue.PriorityQueue[tuple[int, int, Callable[[], None]]] = queue.PriorityQueue()
        self._serial = itertools.count()  # first come, first served; no two entries are equal
        self._max_waiting = max_waiting
        self._places = 0
        self._unfinished: set[Future] = set()
        self._closing = threading.Event()
        self._seconds = 1.0  # of a typical piece of work, for Retry-After

    @property
    def unfinished(self) -> int:
        """Pieces of work that run or wait."""
        return len(self._unfinished)

    @contextmanager
    def place(self) -> Iterator[None]:
        """A request's place, from before its upload to its end. Raises BusyError, StoppingError."""
        self.check_open()
        # Some requests have no work yet, because they still upload; some work has no request any more.
        ahead = max(self._places, self.unfinished)
        if ahead > self._max_waiting:
            raise BusyError(ahead, max(1, math.ceil(self._seconds * ahead)))
        self._places += 1
        try:
            yield
        finally:
            self._places -= 1

    def check_open(self) -> None:
        """Raises StoppingError once the device is closed."""
        if self._closing.is_set():
            raise StoppingError

    def submit(self, work: Work[Result], *, first: bool = False) -> Job[Result]:
        """Queue work, `first` before all that is not; `place` is what bounds it. Raises StoppingError."""
        self.check_open()
        stop = threading.Event()
        future: Future[Result] = Future()
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        entry = partial(self._settle, future, work, stop)
        self._queue.put((0 if first else 1, next(self._serial), entry))
        self._thread.submit(self._take_next)  # one call per entry, whichever entry it then takes
        return Job(asyncio.wrap_future(future), stop)

    def _take_next(self) -> None:
        self._queue.get_nowait()[2]()

    def _settle(self, future: Future[Result], work: Work[Result], stop: threading.Event) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = self._run(work, stop)
        except BaseException as error:  # any: whoever awaits the job gets it, as an executor would do
            future.set_exception(error)
        else:
            future.set_result(result)

    def _run(self, work: Work[Result], stop: threading.Event) -> Result:
        def progress(_done: int, _total: int) -> None:
            if stop.is_set() or self._closing.is_set():
                raise StoppedError

        progress(0, 1)
        started = time.monotonic()
        result = work(progress)
        self._seconds += 0.3 * (time.monotonic() - started - self._seconds)
        return result

    def close(self) -> None:
        """End what runs at its next report of progress and drop what waits."""
        self._closing.set()
        self._thread.shutdown(wait=False, cancel_futures=True)
        for future in list(self._unfinished):
            future.cancel()
