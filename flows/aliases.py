"""The aliases `champion` and `previous` of a task: who serves, and how that moves without a gap.

The registry has no transactions, so a move is four writes of which every prefix is safe: the new champion is
tagged with the `previous` it should get, becomes champion, `previous` moves, the tag is emptied. Before the
second write the old aliases stand; after it the tag says what `previous` is, until a move completes it.
One move at a time per task, by a lock file; not covered: moves from another machine on the same server.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flows.locks import taken
from flows.registry import CHAMPION, PREVIOUS, Registry
from flows.servers import waiting_line

POLL_SECONDS = 0.2
INTENT = "previous_intended"
"""Tag on a champion whose move is not complete: the version that `previous` should be, or `none`."""


@dataclass(frozen=True)
class Standing:
    """Who serves a task now, and who served before."""

    task: str
    champion: int | None
    previous: int | None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"task": self.task, "champion": self.champion, "previous": self.previous}

    def summary(self) -> str:
        """For people."""
        now, before = ("none" if n is None else f"version {n}" for n in (self.champion, self.previous))
        return f"{self.task}: {now} serves; before: {before}"


def standing(registry: Registry, task: str) -> Standing:
    """Who serves a task by its aliases, and by the intent of a move that was killed half-way. Only reads."""
    champion, previous = registry.models.champion(task), registry.models.previous(task)
    if champion is not None:
        intent = registry.models.version(task, champion).tags.get(INTENT, "")
        previous = previous if not intent else None if intent == "none" else int(intent)
    return Standing(task, champion, previous)


def move(registry: Registry, to: Standing) -> None:
    """Set both aliases so that a kill between any two writes loses neither version."""
    models, serving = registry.models, to.champion
    if serving is not None:
        intent = "none" if to.previous is None else str(to.previous)
        models.set_tags(to.task, serving, {INTENT: intent})
    models.set_alias(to.task, CHAMPION, serving)
    models.set_alias(to.task, PREVIOUS, to.previous)
    if serving is not None:
        models.set_tags(to.task, serving, {INTENT: ""})


@contextmanager
def alone(registry: Registry, task: str) -> Iterator[None]:
    """Hold the lock file of the task's aliases for the block; another move is awaited."""
    registry.locks.mkdir(parents=True, exist_ok=True)
    with (registry.locks / f"aliases-{task}.lock").open("a") as file:
        if not taken(file):
            with waiting_line(f"another move of {task}'s champion has to end first") as tick:
                while not taken(file):
                    tick()
                    time.sleep(POLL_SECONDS)
        yield
