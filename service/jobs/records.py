"""What is known of a job and its images, as plain values.

A job is what its owner asked for once; an item is one image of it, with a state and a progress of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Request:
    """What all images of a job have in common. The version is a number, whoever is champion later."""

    task: str
    version: int
    run_id: str
    samples: int
    steps: int
    seed: int
    maps: tuple[str, ...] = ()
    """Channels of the results beside those that all have."""
    channels: tuple[str, ...] = ()
    """Of the images, by name or number, that are restored; all where there are none."""
    memory_bytes: int | None = None
    """About how much the largest image takes; None of a job that an earlier release accepted."""
    disk_bytes: int | None = None
    """What its results take, and beside them its largest image while that is restored; None likewise."""


@dataclass(frozen=True)
class NewItem:
    """An image that was uploaded and looked at."""

    name: str
    """The client's name of the file, for people."""
    sha256: str
    axes: str
    """Letters out of "TCZYX", as of `cvdm.reading.Stack`."""
    shape: tuple[int, ...]
    total: int
    """Evaluations of a tile that it takes."""
    warnings: tuple[Mapping[str, str], ...] = ()
    """What speaks against it: expected, actual, remedy."""


@dataclass(frozen=True)
class Item:
    """One image of a job."""

    job: str
    owner: str
    number: int
    """From 0."""
    name: str
    sha256: str
    axes: str
    shape: tuple[int, ...]
    state: State
    done: int
    """Evaluations of a tile so far."""
    total: int
    warnings: tuple[Mapping[str, str], ...]
    seconds: float
    """How long it had the device, in this and earlier processes."""
    error: Mapping[str, Any] | None
    entered: float
    """When the job was; seconds since 1970, like the following."""
    began: float | None
    ended: float | None
    maps: tuple[str, ...]
    """As of its job's request, like the following."""
    channels: tuple[str, ...]
    rounds: int
    """Draws x steps."""
    run_id: str
    """Of the version that restores it."""

    @property
    def work(self) -> int:
        """Pixels x draws x steps, to which its time is about proportional."""
        return prod(self.shape) * self.rounds


@dataclass(frozen=True)
class Job:
    """Images restored alike."""

    id: str
    owner: str
    request: Request
    created: float
    """Seconds since 1970."""
    items: tuple[Item, ...]

    @property
    def state(self) -> State:
        """Of all images: running from the first one's begin to the last one's end."""
        states = {item.state for item in self.items}
        if states <= set(ENDED):
            return next(state for state in ("cancelled", "failed", "done") if state in states)
        return "queued" if states == {"queued"} else "running"

    @property
    def ended(self) -> float | None:
        """When the last image ended."""
        return max(item.ended or 0.0 for item in self.items) if self.state in ENDED else None


@dataclass(frozen=True)
class Waiting:
    """As much of an image that waits or is worked on as is needed to say what is before a job."""

    job: str
    number: int
    owner: str
    work: int
    done: int
    total: int
