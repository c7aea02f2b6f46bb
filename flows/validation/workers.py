"""Worker processes of a validation: deaf to Ctrl-C, which their parent handles, and gone when it goes."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@contextmanager
def worker_pool(count: int) -> Iterator[ProcessPoolExecutor]:
    """`count` processes; what they have not begun is dropped when the block ends by an exception."""
    context = multiprocessing.get_context("spawn")  # forking a process that runs threads may deadlock
    with ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def submit(
    pool: ProcessPoolExecutor,
    function: Callable[Arguments, Result],
    *arguments: Arguments.args,
    **more: Arguments.kwargs,
) -> Future[Result]:
    """Hand out a piece of work; the first one starts the workers."""
    with _interrupts_held_back():
        return pool.submit(function, *arguments, **more)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let processes that start in the block be deaf to Ctrl-C from the first; this one hears it after.

    They inherit the mask of this thread. The signal may yet reach another thread, whose handler runs in the
    main one: it is noted, and raised again at the end.
    """
    noted: list[int] = []
    in_main = threading.current_thread() is threading.main_thread()  # only that one may change handlers
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    handler = signal.signal(signal.SIGINT, lambda number, _: noted.append(number)) if in_main else None
    try:
        yield
    finally:
        if in_main:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if noted:
            signal.raise_signal(signal.SIGINT)


def _start_worker() -> None:
    """A parent that is killed takes its workers along; Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from flows.tether import die_with_parent

    die_with_parent()
