"""The one way into a retraining that nobody started by hand, and the record of those that somebody did.

trigger    decide by the rules; what waits is kept, what may start gets a ticket
begin      the retraining of a ticket holds the device: its trigger has come to its end
put_back   it could not begin after all: its trigger waits again
give_up    it cannot begin until a person mends something: its trigger has come to its end
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from flows.alerts import Alert, send
from flows.device_lock import holder
from flows.settings import Settings
from flows.timetable import entry_of
from flows.triggers.pending import Happening, Pending, Step, TriggerStore
from flows.triggers.rules import Cause, Decision, State, decide_trigger, joined, kinds_of
from flows.triggers.signals import answer, read_signals


@dataclass(frozen=True)
class Outcome:
    """What became of a trigger."""

    decision: Decision
    ticket: str | None = None
    """Names the retraining that may start now."""
    preset: str = ""
    """By which it trains."""


def trigger(
    settings: Settings, task: str, causes: tuple[Cause, ...] = (), *, now: datetime | None = None
) -> Outcome:
    """Decide what becomes of causes, and of those that wait already, for one task.

    With the ticket of an outcome the caller starts the retraining. Without causes, what waits is tried again.
    Raises ConfigError, RegistryError, StorageError; the causes are kept then, and tried again.
    """
    now, store = now or datetime.now(UTC), TriggerStore(settings)
    with store.alone():
        before = store.pending(task)
        if before is not None and before.is_starting(now):
            words = f"a retraining of {task} is about to begin; it learns from the data as they are then"
            return Outcome(Decision("wait", "starting", words, joined(before.causes, causes)))
        signals = _signals(settings, task)
        pending = store.add(task, (*causes, *signals.values()))
        entry = entry_of(settings, task)
        # a look at data and registry takes seconds: what waits already is looked at again when it may start
        known = before is not None and before.told is not None and before.causes == pending.causes
        state = _state(settings, store, task, pending.causes, paused=not entry.enabled, now=now)
        decision = decide_trigger(state, now)
        if not (decision.rule == "paused" or (known and decision.action == "wait")):
            decision = decide_trigger(replace(state, repeats=_repeats(settings, task, entry.preset)), now)
        ticket = _keep(store, task, decision, pending, tuple(signals), now)
    if decision.action == "refuse" and decision.kinds == "drift":
        send(settings, Alert("drift", task, f"{decision.words}; new pairs are what would help"))
    return Outcome(decision, ticket, entry.preset)


def begin(settings: Settings, task: str, kinds: str, ticket: str | None = None) -> None:
    """Tell that a retraining holds the device, and end the trigger that it was started for, if any."""
    now, store = datetime.now(UTC), TriggerStore(settings)
    with store.alone():
        pending = store.pending(task)
        if ticket is not None and pending is not None and pending.ticket == ticket:
            answer(settings, pending.signals)
            store.put(task, None)
        store.tell(Happening(now.isoformat(), task, "began", kinds, "none", "training begins", ticket))


def refuse_by_hand(settings: Settings, task: str, repeats: str) -> Decision:
    """What a person is told, and the history keeps, whose retraining would repeat a finished one."""
    now, store = datetime.now(UTC), TriggerStore(settings)
    cause = Cause("manual", now.isoformat(), "a person")
    state = _state(settings, store, task, (cause,), paused=False, now=now)
    decision = decide_trigger(replace(state, repeats=repeats), now)
    store.tell(Happening(now.isoformat(), task, "refuse", decision.kinds, decision.rule, decision.words))
    return decision


def put_back(settings: Settings, task: str, ticket: str, reason: str) -> None:
    """Let the trigger of a ticket wait again."""
    store = TriggerStore(settings)
    with store.alone():
        pending = store.pending(task)
        if pending is None or pending.ticket != ticket:
            return
        store.put(task, replace(pending, ticket=None, started=None, told=None))
        at, kinds = datetime.now(UTC).isoformat(), kinds_of(pending.causes)
        store.tell(Happening(at, task, "put back", kinds, "device", reason, ticket))


def give_up(settings: Settings, task: str, ticket: str, reason: str) -> None:
    """End the trigger of a ticket whose retraining failed before it began, such as by a wrong setting.

    Tried again it would fail again, and hold up the other tasks each time; what is new stays new for the
    next trigger. Of a retraining that had begun nothing is left to end.
    """
    store = TriggerStore(settings)
    with store.alone():
        pending = store.pending(task)
        if pending is None or pending.ticket != ticket:
            return
        store.put(task, None)
        at, kinds = datetime.now(UTC).isoformat(), kinds_of(pending.causes)
        store.tell(Happening(at, task, "failed", kinds, "none", reason, ticket))


def _state(
    settings: Settings,
    store: TriggerStore,
    task: str,
    causes: tuple[Cause, ...],
    *,
    paused: bool,
    now: datetime,
) -> State:
    """What can be known without a look at data and registry; `repeats` is left open."""
    from flows.job import chosen_device

    occupant = holder(settings.mlruns_dir / "locks", chosen_device(settings.device))
    starting = store.starting(now)
    if occupant is None and starting is not None:
        occupant = f"'retrain {starting}' is about to begin"
    return State(
        task=task,
        causes=causes,
        paused=paused,
        repeats=None,
        last_start=store.last_start(task),
        cooldown=timedelta(hours=settings.cooldown_hours),
        occupant=occupant,
    )


def _repeats(settings: Settings, task: str, preset: str) -> str | None:
    """The finished retraining that would be repeated, in words."""
    from flows.earlier import earlier_result
    from flows.registry import Registry

    earlier = earlier_result(Registry.open(settings), task, preset, init="auto", seed=None, settings=settings)
    return None if earlier is None else earlier.described()


def _signals(settings: Settings, task: str) -> dict[str, Cause]:
    """Signals of drift for a task, by the name of their file."""
    if "drift" not in settings.triggers:
        return {}
    found = {path.name: one for path, one in read_signals(settings).items() if one.task == task}
    return {name: Cause("drift", one.at, f"{one.origin}: {one.message}") for name, one in found.items()}


def _keep(
    store: TriggerStore,
    task: str,
    decision: Decision,
    pending: Pending,
    signals: tuple[str, ...],
    now: datetime,
) -> str | None:
    """Write down what was decided; returns the ticket where a retraining may start."""
    ticket = secrets.token_hex(4) if decision.action == "start" else None
    if decision.action == "refuse":
        store.put(task, None)
    elif ticket is not None:
        started = Pending(pending.causes, ticket=ticket, started=now.isoformat(), signals=signals)
        store.put(task, started)
    elif pending.told == decision.rule:
        return None  # as before: said already
    else:
        store.put(task, replace(pending, told=decision.rule))
    step: Step = decision.action
    told = Happening(now.isoformat(), task, step, decision.kinds, decision.rule, decision.words, ticket)
    store.tell(told)
    return ticket
