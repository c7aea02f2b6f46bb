"""A bar with the time left, on standard error; in a log, which keeps every redraw, now and then.

`TQDM_MININTERVAL`, seconds between two redraws, chooses otherwise; tqdm's own 0.1 counts as not chosen.
"""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

TQDM_SECONDS = 0.1
"""Between two redraws where nothing was chosen."""
LOGGED_SECONDS = 30.0
"""Where nobody watches."""


def bar(description: str, unit: str) -> tqdm[Any]:
    """A bar, so far of unknown length."""
    drawn: tqdm[Any] = tqdm(desc=description, unit=unit, file=sys.stderr, dynamic_ncols=True)
    if drawn.mininterval == TQDM_SECONDS and not sys.stderr.isatty():
        drawn.mininterval = drawn.maxinterval = LOGGED_SECONDS
    return drawn


def note(text: str) -> None:
    """A line above a bar that is being drawn."""
    tqdm.write(text, file=sys.stderr)
