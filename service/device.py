"""The device: one piece of work at a time has it, and hands it over to what is more urgent.

The event loop stays free, so health and the list of models answer while an image is restored. Every piece of
work runs in a thread of its own and reports its progress after each evaluation of a tile; there it is ended
when nobody waits for it any more, and there it waits while a piece of a smaller `Order` has the device. So a
golden replay waits for one evaluation, a request for those before it, and a job of hours makes way for both,
and for jobs that have had less of the device, without losing anything that it has done.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Generic, TypeVar

from service.errors import BusyError, StoppingError

Result = TypeVar("Result")
Progress = Callable[[int, int], None]
Work = Callable[[Progress], Result]


class Urgency(IntEnum):
    """What goes before what."""

    REPLAY = 0
    """A golden pair: a swap waits for it."""
    REQUEST = 1
    """Somebody waits for the answer with an open connection."""
    JOB = 2
    SHADOW = 3
    """Nobody waits for it: it has the device while nothing else wants it."""


Order = tuple[float, ...]
"""An `Urgency`, and perhaps what tells work of the same urgency apart; the smaller one goes first, of equal
ones the one that came first. Work that has begun makes way for what is truly smaller."""
MOST_BEGUN_JOBS = 3
"""Jobs that have begun and are not done; each holds a strip of its image in memory, however many users there
are. So a job that is to go before all of them cannot begin beside them: its `Job.place_wanted` asks one to
end early where it loses nothing, and to come again."""
SETTLED_SECONDS = 30.0
"""For which a job has had the device before its place is wanted: to take it up again costs some of that."""


class StoppedError(Exception):
    """Raised inside work that nobody waits for any more; never leaves this module's threads."""


@dataclass(eq=False)
class _Piece:
    future: Future
    work: Work[Any]
    order: Callable[[float], Order]
    """From the seconds that it has had the device."""
    serial: int
    stopped: bool = False
    begun: bool = False
    place_wanted: bool = False
    turn: threading.Event = field(default_factory=threading.Event)
    """Set when it gets the device back, and when it is to end."""
    _before: float = 0.0
    _since: float | None = None

    @property
    def seconds(self) -> float:
        """How long it has had the device."""
        since = self._since
        return self._before + (0.0 if since is None else time.monotonic() - since)

    @property
    def rank(self) -> tuple[Order, int]:
        return self.order(self.seconds), self.serial

    def taken(self) -> None:
        """It has the device now."""
        self._since = time.monotonic()

    def given(self) -> None:
        """It has not any more."""
        self._before, self._since = self.seconds, None


@dataclass(frozen=True)
class Job(Generic[Result]):
    """Work that waits or runs; await `done`, or `stop()` it."""

    done: asyncio.Future[Result]
    _piece: _Piece

    @property
    def seconds(self) -> float:
        """How long it has had the device."""
        return self._piece.seconds

    @property
    def place_wanted(self) -> bool:
        """Whether a job that may not begin would go before all that have, of which this is one.

        As of its last report of progress; of a job that had the device for `SETTLED_SECONDS`.
        """
        return self._piece.place_wanted

    def stop(self) -> None:
        """Give up: never started if it still waits, else ended at its next report of progress.

        Nobody waits for that: `done` is cancelled at once.
        """
        self.ask_to_stop()
        self.done.cancel()

    def ask_to_stop(self) -> None:
        """As `stop`, but `done` is done when the work is: cancelled, or with a StoppedError."""
        self._piece.stopped = True
        self._piece.turn.set()
        self._piece.future.cancel()


class Device:
    """Who has the device and who waits for it. Use it from one event loop."""

    def __init__(self, *, max_waiting: int) -> None:
        # As many threads as can have begun: of replays, requests and shadows never more than one each.
        self._threads = ThreadPoolExecutor(MOST_BEGUN_JOBS + 3, thread_name_prefix="device")
        self._lock = threading.Lock()
        self._current: _Piece | None = None
        self._waiting: list[_Piece] = []
        self._serial = itertools.count()
        self._max_waiting = max_waiting
        self._places = 0
        self._unfinished: set[Future] = set()
        self._closing = False
        self.evaluations = 0
        """Of a tile by a network, so far."""
        self._seconds = 1.0  # of a typical request, for Retry-After

    @property
    def unfinished(self) -> int:
        """Pieces of work that run or wait, without jobs."""
        return len(self._unfinished)

    @property
    def closed(self) -> bool:
        """Nothing runs any more, or not for long."""
        return self._closing

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
        if self._closing:
            raise StoppingError

    def submit(self, work: Work[Result], urgency: Urgency) -> Job[Result]:
        """Queue a replay or a request; `place` is what bounds them. Raises StoppingError."""
        self.check_open()
        future: Future[Result] = Future()
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)  # before anybody else hears of its end
        return self._submit(future, work, lambda seconds: (urgency,))

    def submit_job(self, work: Work[Result], order: Callable[[float], tuple[float, ...]]) -> Job[Result]:
        """Queue a job, which may take hours.

        order: what tells it apart from other jobs, from the seconds that it has had the device. Asked for
        often and from any thread. Raises StoppingError.
        """
        return self._submit(Future(), work, lambda seconds: (Urgency.JOB, *order(seconds)))

    def submit_shadow(self, work: Work[Result]) -> Job[Result]:
        """Queue what has time; one at a time. Raises StoppingError."""
        return self._submit(Future(), work, lambda seconds: (Urgency.SHADOW,))

    def close(self) -> None:
        """End what runs at its next report of progress and drop what waits."""
        self._closing = True
        with self._lock:
            waiting = list(self._waiting)
        for piece in waiting:
            piece.future.cancel()  # which one that has begun survives
            piece.turn.set()
        self._threads.shutdown(wait=False)

    def _submit(
        self, future: Future[Result], work: Work[Result], order: Callable[[float], Order]
    ) -> Job[Result]:
        self.check_open()
        piece = _Piece(future, work, order, next(self._serial))
        with self._lock:
            self._waiting.append(piece)
            if self._current is None:
                self._hand_over()
        return Job(asyncio.wrap_future(piece.future), piece)

    def _next(self) -> _Piece | None:
        """Who gets the device next. With the lock."""
        full = len(self._begun_jobs()) >= MOST_BEGUN_JOBS
        able = [
            piece for piece in self._waiting if piece.begun or not full or piece.rank[0][0] != Urgency.JOB
        ]
        return min(able, key=lambda piece: piece.rank, default=None)

    def _begun_jobs(self) -> list[Order]:
        """The orders of jobs that have begun. With the lock."""
        begun = (piece for piece in (*self._waiting, self._current) if piece is not None and piece.begun)
        return [order for order, _ in (piece.rank for piece in begun) if order[0] == Urgency.JOB]

    def _is_place_wanted(self, piece: _Piece) -> bool:
        """With the lock."""
        begun = self._begun_jobs()
        if piece.seconds < SETTLED_SECONDS or len(begun) < MOST_BEGUN_JOBS:
            return False
        kept_out = (one.rank[0] for one in self._waiting if not one.begun)
        return any(order[0] == Urgency.JOB and order < min(begun) for order in kept_out)

    def _hand_over(self) -> None:
        """Give the device, which nobody has, to whoever is next. With the lock."""
        while (piece := self._next()) is not None:
            self._waiting.remove(piece)
            if not piece.begun and not piece.future.set_running_or_notify_cancel():
                continue
            self._current = piece
            piece.taken()
            if piece.begun:
                piece.turn.set()
            else:
                piece.begun = True
                self._threads.submit(self._settle, piece)
            return

    def _settle(self, piece: _Piece) -> None:
        """A piece's thread."""
        try:
            result = self._run(piece)
        except BaseException as error:  # any: whoever awaits the job gets it, as an executor would do
            self._give_back(piece)
            piece.future.set_exception(error)
        else:
            self._give_back(piece)
            piece.future.set_result(result)

    def _run(self, piece: _Piece) -> Any:
        def progress(_done: int, _total: int) -> None:
            self.evaluations += 1  # by whoever has the device, so by one thread at a time
            self._check_wanted(piece)
            self._make_way(piece)
            with self._lock:
                piece.place_wanted = self._is_place_wanted(piece)

        self._check_wanted(piece)
        self._make_way(piece)
        result = piece.work(progress)
        if piece.rank[0][0] == Urgency.REQUEST:
            self._seconds += 0.3 * (piece.seconds - self._seconds)
        return result

    def _check_wanted(self, piece: _Piece) -> None:
        if piece.stopped or self._closing:
            raise StoppedError

    def _make_way(self, piece: _Piece) -> None:
        """Wait while something smaller has the device."""
        with self._lock:
            rival = self._next()
            if rival is None or rival.rank[0] >= piece.rank[0]:
                return
            piece.given()
            piece.turn.clear()
            self._waiting.append(piece)
            self._current = None
            self._hand_over()
        while self._current is not piece:
            self._check_wanted(piece)  # before each wait: what was set may just have been cleared
            piece.turn.wait()
            piece.turn.clear()

    def _give_back(self, piece: _Piece) -> None:
        """At a piece's end, whether it has the device or waits for it."""
        with self._lock:
            if self._current is piece:
                piece.given()
                self._current = None
                self._hand_over()
            else:
                self._waiting.remove(piece)
