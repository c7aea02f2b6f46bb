"""The flow that the orchestrator starts, by the clock and for events: the flow `retrain` behind the rules.

A scheduled run asks first (flows/triggers/desk.py) and ends at once, with the reason as its state, where it
may not start; a run for an event was asked for before it was made, and brings its ticket.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import prefect
from prefect.states import Completed

from cvdm.errors import CvdmError
from flows.alerts import telling_of_failure
from flows.device_lock import BusyError
from flows.earlier import RetrainResult
from flows.retrain import retrain
from flows.settings import Settings
from flows.timetable import entry_of
from flows.triggers.desk import give_up, put_back, trigger
from flows.triggers.rules import Action, Cause

STATES: dict[Action, str] = {"wait": "Waiting", "refuse": "Refused"}
"""How a run ends that may not retrain; both count as completed."""


@prefect.flow(name="retrain", flow_run_name="{task} by {kinds}", persist_result=False)
def retrain_by_trigger(task: str, kinds: str = "schedule", ticket: str | None = None) -> RetrainResult | Any:
    """Retrain a task by the timetable's preset if the rules allow it; else a state that says why not.

    kinds: what it is for, such as `data+drift`; with `ticket`, that of the decision to start it.
    """
    settings = Settings.read()
    if ticket is None:
        now = datetime.now(UTC)
        with telling_of_failure(settings, task):
            outcome = trigger(settings, task, (Cause("schedule", now.isoformat(), "the clock"),), now=now)
        if outcome.ticket is None:
            decision = outcome.decision
            return Completed(name=STATES[decision.action], message=decision.words)
        kinds, ticket = outcome.decision.kinds, outcome.ticket
    try:
        with telling_of_failure(settings, task):
            preset = entry_of(settings, task).preset
        return retrain.fn(task, preset, trigger=kinds, ticket=ticket)
    except BusyError as error:  # somebody was faster
        put_back(settings, task, ticket, str(error))
        return Completed(name=STATES["wait"], message=str(error))
    except CvdmError as error:
        give_up(settings, task, ticket, str(error))
        raise
