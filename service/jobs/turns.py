"""Whose image goes first: of the user who has had least of the device, the one that has had least."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterable

QUANTUM_SECONDS = 5.0
"""By how much one must have had less of the device than another to take it over."""
REMEMBERED_SECONDS = 3600.0
"""How long it counts that a user has had the device."""


class Turns:
    """Remembers how long each user had the device. Calls of `order` may come from any thread."""

    def __init__(self) -> None:
        self._had: defaultdict[str, deque[tuple[float, float]]] = defaultdict(deque)
        """Owner -> when an image of theirs left the device, and how long it had it."""

    def remember(self, owner: str, seconds: float) -> None:
        """An image has left the device."""
        had, now = self._had[owner], time.monotonic()
        had.append((now, seconds))
        while had and had[0][0] < now - REMEMBERED_SECONDS:
            had.popleft()

    def order(self, owner: str, running: Iterable[float], seconds: float) -> tuple[float, float]:
        """How much an owner and one of their images had of the device, in quanta.

        running: seconds of each of the owner's images that are with the device now. seconds: of the image.
        """
        horizon = time.monotonic() - REMEMBERED_SECONDS
        had = sum(seconds for moment, seconds in tuple(self._had[owner]) if moment > horizon)
        return ((had + sum(running)) // QUANTUM_SECONDS, seconds // QUANTUM_SECONDS)
