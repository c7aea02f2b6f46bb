"""How an image of a job ends, and what is told of an end that its own error does not explain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.jobs.records import Item, State


@dataclass(frozen=True)
class End:
    """A state out of `ENDED`, and of one that failed why: error, expected, actual, remedy."""

    state: State
    error: Mapping[str, Any] | None = None


def unexpected_end(item: Item) -> End:
    """What nobody foresaw; the log has it."""
    error = {
        "error": "UnexpectedError",
        "expected": "a result",
        "actual": "a failure inside the service",
        "remedy": f"Send the job's id {item.job} to whoever runs this service.",
    }
    return End("failed", error)


def interrupted_end(item: Item, times: int) -> End:
    """The process ended over it again and again."""
    error = {
        "error": "InterruptionsError",
        "expected": "a service that goes on while it restores the image",
        "actual": f"the service ended {times} times while restoring {item.name[:100]}, and came no further",
        "remedy": "Ask for less at once (fewer samples, a part of it), as it may take too much memory, "
        f"or send the job's id {item.job} to whoever runs this service.",
    }
    return End("failed", error)
