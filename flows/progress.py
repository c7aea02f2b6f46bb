"""A progress bar with the time left, on standard error, as the callback (done, total) that `cvdm/` takes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def progress_bar(description: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Lend a callback that draws how far a step is."""
    with tqdm(desc=f"{description:>9}", unit=unit, file=sys.stderr, dynamic_ncols=True) as bar:

        def show(done: int, total: int) -> None:
            if bar.total != total:
                bar.total = total
                bar.initial = bar.n = (
                    done - 1
                )  # what an earlier run did counts for the bar, not for its speed
            bar.update(done - bar.n)

        yield show


def progress_note(text: str) -> None:
    """A line above a bar that is being drawn."""
    tqdm.write(text, file=sys.stderr)
