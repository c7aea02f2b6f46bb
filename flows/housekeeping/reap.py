"""What killed processes left behind, and what nobody will continue.

    flow run   RUNNING or PENDING in the orchestrator, while no retraining holds a device: CRASHED
    run        RUNNING in the tracking server, without a job folder from which it could go on: KILLED
    folder     of a job whose run is finished, or copies of champions to fine-tune from, while nobody trains

A killed retraining that can go on is not dead: its run and its folder stay until the same command is run
again. Locks need no reaping: the kernel releases them with the process that held them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from cvdm.addresses import shown_uri
from flows.housekeeping.plan import Doomed, Item, Plan
from flows.registry import Registry
from flows.registry.cleaning import RunFacts
from flows.servers import answers
from flows.settings import Settings
from flows.start import is_champion_copy
from flows.train import RUN_NOTE

GRACE = timedelta(minutes=10)
"""A flow run or run that is younger may not have come to its lock or its folder yet."""

MOST_FLOW_RUNS = 200
"""That are looked at in one go; the server gives no more in one answer."""


def plan_reaping(settings: Settings, registry: Registry, now: datetime | None = None) -> Plan:
    """Look for what is dead, while no retraining is at work. Raises RegistryError."""
    now = now or datetime.now(UTC)
    found = [
        *_flow_runs(settings, now),
        *_runs(settings, registry, now),
        *_folders(settings, registry),
    ]
    goes = tuple(one for one in found if isinstance(one, Doomed))
    return Plan(goes, tuple(one for one in found if isinstance(one, Item)))


def _runs(settings: Settings, registry: Registry, now: datetime) -> Iterator[Doomed | Item]:
    continued = {run_id: folder for folder, run_id in _jobs(settings) if run_id}
    for run in registry.cleaning.runs():
        if run.status != "RUNNING":
            continue
        if run.run_id in continued:
            again = f"{continued[run.run_id].name} can go on: run the same `cvdm retrain` again"
            yield Item("run", f"{run.task} {run.run_id}", again)
        elif now - datetime.fromtimestamp(run.started / 1000, UTC) < GRACE:
            yield Item("run", f"{run.task} {run.run_id}", "it has only just begun")
        else:
            why = "no process works on it, and no folder is left from which it could go on"
            item = Item("run", f"{run.task} {run.run_id}", why)
            yield Doomed(item, partial(registry.cleaning.close, run.run_id, why))


def _folders(settings: Settings, registry: Registry) -> Iterator[Doomed | Item]:
    ended: dict[str, RunFacts] = {run.run_id: run for run in registry.cleaning.runs()}
    for folder, run_id in _jobs(settings):
        if is_champion_copy(folder.name):
            yield _removal(folder, "a copy of a champion, which is fetched again when it is needed")
        elif run_id is None:
            yield Item("folder", folder.name, "a training that has no run yet: it may go on")
        elif run_id not in ended:
            yield _removal(folder, f"its run {run_id} is not in the tracking server any more")
        elif ended[run_id].status == "FINISHED":
            yield _removal(folder, f"its run {run_id} is finished")
        else:
            yield Item("folder", folder.name, f"run {run_id} can go on from it")


def _removal(folder: Path, why: str) -> Doomed:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Doomed(Item("folder", folder.name, why, size), partial(shutil.rmtree, folder, ignore_errors=True))


def _jobs(settings: Settings) -> list[tuple[Path, str | None]]:
    """Folders of jobs, each with its run if it has one."""
    places = sorted(path for path in (settings.mlruns_dir / "training").glob("[!.]*") if path.is_dir())
    return [(folder, _run_of(folder)) for folder in places]


def _run_of(folder: Path) -> str | None:
    try:
        found = json.loads((folder / RUN_NOTE).read_text(encoding="utf-8"))["run_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(found)


def _flow_runs(settings: Settings, now: datetime) -> Iterator[Doomed | Item]:
    """Flow runs that the orchestrator takes for alive; none where it does not answer."""
    if not answers(f"{settings.prefect_url}/health"):
        yield Item(
            "orchestrator",
            shown_uri(settings.prefect_url),
            "it does not answer: its flow runs were not looked at",
        )
        return
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.settings import PREFECT_API_URL, temporary_settings

    states = {"state": {"type": {"any_": ["RUNNING", "PENDING"]}}}
    with (
        temporary_settings({PREFECT_API_URL: settings.prefect_url}),
        get_client(sync_client=True) as client,
    ):
        alive = client.read_flow_runs(
            flow_run_filter=FlowRunFilter.model_validate(states),
            sort=FlowRunSort.START_TIME_DESC,  # the server refuses the client's own defaults (Prefect 3.8)
            limit=MOST_FLOW_RUNS,
        )
    for run in alive:
        if not run.name.startswith(tuple(f"{task} " for task in settings.known_tasks())):
            continue  # not a retraining
        since = run.state.timestamp if run.state is not None else now
        if now - since < GRACE:
            yield Item("flow run", run.name, "it has only just begun")
        else:
            item = Item(
                "flow run", f"{run.name} {run.id}", "no retraining holds a device: its process is gone"
            )
            yield Doomed(item, partial(_crash, settings.prefect_url, run.id))


def _crash(url: str, run_id: Any) -> None:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Crashed

    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        client.set_flow_run_state(run_id, Crashed(message="reaped: its process is gone"), force=True)
