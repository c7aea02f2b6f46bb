"""A progress bar with the time left, on standard error, as the callback (done, total) that `cvdm/` takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from cvdm.progress import bar

Told = Callable[[int, int], None]
"""Called with (done, total)."""
_listener: ContextVar[Callable[[str], Told] | None] = ContextVar("listener", default=None)


@contextmanager
def told_to(listener: Callable[[str], Told]) -> Iterator[None]:
    """Within the block, each bar also tells the callback that `listener` makes for its description."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def progress_bar(description: str, unit: str) -> Iterator[Told]:
    """Lend a callback that draws how far a step is."""
    listener = _listener.get()
    tell = listener(description) if listener is not None else None
    with bar(f"{description:>9}", unit) as drawn:

        def show(done: int, total: int) -> None:
            if drawn.total != total:
                drawn.total = total
                drawn.initial = drawn.n = (
                    done - 1
                )  # what an earlier run did counts for the bar, not for its speed
            drawn.update(done - drawn.n)
            if tell is not None:
                tell(done, total)

        yield show
