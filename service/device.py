"""One worker thread that owns the device: one piece of work at a time, a bounded number waits.

The event loop stays free, so health and the list of models answer while an image is restored. Work is
cancelled between two network evaluations: it reports progress, and a cancelled report raises.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
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
        """Give up: never started if it still waits, else ended at its next network evaluation."""
        self._stop.set()
        self.done.cancel()


class Device:
    """The queue in front of the one worker thread. Use it from one event loop."""

    def __init__(self, *, max_waiting: int) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._max_waiting = max_waiting
        self._unfinished: set[Future] = set()
        self._closing = threading.Event()
        self._seconds = 1.0  # of a typical piece of work, for Retry-After

    @property
    def unfinished(self) -> int:
        """Pieces of work that run or wait."""
        return len(self._unfinished)

    def check_room(self) -> None:
        """Raises BusyError, or StoppingError, when a request that came now would have no place to wait."""
        if self._closing.is_set():
            raise StoppingError
        if self.unfinished > self._max_waiting:
            seconds = max(1, math.ceil(self._seconds * self.unfinished))
            raise BusyError(self.unfinished, seconds)

    def submit(self, work: Work[Result], *, always: bool = False) -> Job[Result]:
        """Queue work; `always` also when too much waits. Raises BusyError, StoppingError."""
        if not always or self._closing.is_set():
            self.check_room()
        stop = threading.Event()
        future = self._thread.submit(self._run, work, stop)
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return Job(asyncio.wrap_future(future), stop)

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
        """End what runs at its next network evaluation and drop what waits."""
        self._closing.set()
        self._thread.shutdown(wait=False, cancel_futures=True)
