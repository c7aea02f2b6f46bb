"""May a retraining start now? A pure decision, in words.

1. Paused: nothing starts by itself; the trigger waits until somebody resumes the task.
2. No new evidence: data, parameters and code are those of a finished retraining: refused.
3. Cool-down: hours since the last retraining that started by itself; the trigger waits.
4. One retraining at a time per device; the trigger waits.

A trigger that waits is kept and tried again; further ones of the same task join it. For a person, only the
second rule holds: the flow itself says at once that the device is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

Kind = Literal["schedule", "data", "drift", "manual"]
KINDS: tuple[Kind, ...] = ("schedule", "data", "drift", "manual")
Action = Literal["start", "wait", "refuse"]
Rule = Literal["paused", "evidence", "cool-down", "device", "starting", "none"]


@dataclass(frozen=True)
class Cause:
    """One thing that asks for a retraining."""

    kind: Kind
    at: str
    """ISO 8601, when it was noticed."""
    message: str
    """For people."""


@dataclass(frozen=True)
class State:
    """What the rules look at."""

    task: str
    causes: tuple[Cause, ...]
    paused: bool
    repeats: str | None
    """The finished retraining that this one would repeat, in words; None where there is something new."""
    last_start: datetime | None
    """Of the last retraining of this task that started by itself."""
    cooldown: timedelta
    occupant: str | None
    """What holds the device, or is about to take it, in words."""


@dataclass(frozen=True)
class Decision:
    """What becomes of a trigger."""

    action: Action
    rule: Rule
    """Which rule decided."""
    words: str
    causes: tuple[Cause, ...]
    """Everything that the trigger stands for."""

    @property
    def kinds(self) -> str:
        """The kinds of its causes, each once, such as `data+drift`."""
        return kinds_of(self.causes)


def kinds_of(causes: tuple[Cause, ...]) -> str:
    """The kinds of causes in a fixed order, such as `schedule+data`."""
    present = {cause.kind for cause in causes}
    return "+".join(kind for kind in KINDS if kind in present)


def joined(earlier: tuple[Cause, ...], later: tuple[Cause, ...]) -> tuple[Cause, ...]:
    """Two triggers of a task as one; what was said before is not said again."""
    said = {(cause.kind, cause.message) for cause in earlier}
    return (*earlier, *(cause for cause in later if (cause.kind, cause.message) not in said))


def decide_trigger(state: State, now: datetime) -> Decision:
    """Start, wait or refuse, by the first rule that applies."""
    by_person = any(cause.kind == "manual" for cause in state.causes)
    action, rule, words = _ruling(state, now, by_person)
    return Decision(action, rule, words, state.causes)


def _ruling(state: State, now: datetime, by_person: bool) -> tuple[Action, Rule, str]:
    if state.paused and not by_person:
        resume = f"`cvdm schedule resume {state.task}`"
        return "wait", "paused", f"automatic retraining of {state.task} is paused; {resume} lets it go on"
    if state.repeats is not None:
        return "refuse", "evidence", f"nothing new: data, parameters and code are those of {state.repeats}"
    if by_person:
        return "start", "none", "a person asks for it"
    if state.last_start is not None and now < (end := state.last_start + state.cooldown):
        hours = f"{state.cooldown / timedelta(hours=1):g} h"
        words = f"cool-down of {hours} since the start at {_clock(state.last_start)}, until {_clock(end)}"
        return "wait", "cool-down", words
    if state.occupant is not None:
        return "wait", "device", f"the device is busy: {state.occupant}"
    return "start", "none", "something is new, the cool-down is over and the device is free"


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M %Z}"
