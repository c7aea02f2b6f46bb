"""What killed processes left behind, and what nobody will continue.

    flow run   RUNNING or PENDING in the orchestrator, while no retraining holds a device: CRASHED
    run        RUNNING in the tracking server, without a job folder from which it will go on: KILLED
    folder     of a job whose run is finished, or with which nobody has gone on for as long as training states
               are kept; copies of champions to fine-tune from, while nobody trains

A killed retraining that can go on is not dead: its run and its folder stay until the same command is run
again, or until they are old, for after new data or code no command asks for the same any more. Where several
machines share a registry or an orchestrator, each looks after its own. Locks need no reaping: the kernel
releases them with the process that held them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from cvdm.addresses import shown_uri
from flows.housekeeping.plan import Doomed, Item, Plan
from flows.housekeeping.policy import load_retention
from flows.processes import orchestrates_locally
from flows.registry import Registry
from flows.registry.cleaning import RunFacts
from flows.servers import answers
from flows.settings import Settings
from flows.start import is_champion_copy
from flows.train import noted_run

GRACE = timedelta(minutes=10)
"""A flow run or run that is younger may not have come to its lock or its folder yet."""

MOST_FLOW_RUNS = 200
"""That are looked at in one go; the server gives no more in one answer."""


def plan_reaping(settings: Settings, registry: Registry, now: datetime | None = None) -> Plan:
    """Look for what is dead, while no retraining is at work. Raises RegistryError, ConfigError."""
    now = now or datetime.now(UTC)
    days = load_retention(settings.params_file).keep_states_days
    jobs = [_job(folder, now - timedelta(days=days)) for folder in _folders(settings)]
    found = [
        *_flow_runs(settings, now),
        *_runs(settings, registry, jobs, now),
        *_leftovers(registry, jobs, days),
    ]
    goes = tuple(one for one in found if isinstance(one, Doomed))
    return Plan(goes, tuple(one for one in found if isinstance(one, Item)))


@dataclass(frozen=True)
class _Job:
    """A folder below `training`."""

    folder: Path
    run_id: str | None
    abandoned: bool
    """Whether nobody has gone on with it for as long as training states are kept."""


def _job(folder: Path, oldest: datetime) -> _Job:
    changed = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
    return _Job(folder, noted_run(folder), changed < oldest.timestamp())


def _folders(settings: Settings) -> list[Path]:
    return sorted(path for path in (settings.mlruns_dir / "training").glob("[!.]*") if path.is_dir())


def _runs(
    settings: Settings, registry: Registry, jobs: Sequence[_Job], now: datetime
) -> Iterator[Doomed | Item]:
    continued = {job.run_id: job.folder.name for job in jobs if not job.abandoned}
    left = {job.run_id for job in jobs if job.abandoned}
    for run in registry.cleaning.runs():
        name = f"{run.task} {run.run_id}"
        if run.status != "RUNNING":
            continue
        if run.run_id in continued:
            again = f"{continued[run.run_id]} can go on: run the same `cvdm retrain` again"
            yield Item("run", name, again)
        elif run.machine not in ("", settings.machine) and run.run_id not in left:
            yield Item("run", name, f"it is of {run.machine}: whether it lives is known there")
        elif now - datetime.fromtimestamp(run.started / 1000, UTC) < GRACE:
            yield Item("run", name, "it has only just begun")
        else:
            why = "no process works on it, and no folder is left from which it will go on"
            yield Doomed(Item("run", name, why), partial(registry.cleaning.close, run.run_id, why))


def _leftovers(registry: Registry, jobs: Sequence[_Job], days: int) -> Iterator[Doomed | Item]:
    ended: dict[str, RunFacts] = {run.run_id: run for run in registry.cleaning.runs()}
    for job in jobs:
        folder, run_id = job.folder, job.run_id
        if is_champion_copy(folder.name):
            yield _removal(folder, "a copy of a champion, which is fetched again when it is needed")
        elif run_id is not None and run_id not in ended:
            yield _removal(folder, f"its run {run_id} is not in the tracking server any more")
        elif run_id is not None and ended[run_id].status == "FINISHED":
            yield _removal(folder, f"its run {run_id} is finished")
        elif job.abandoned:
            yield _removal(folder, f"nobody has gone on with it for {days} days")
        elif run_id is None:
            yield Item("folder", folder.name, "a training that has no run yet: it may go on")
        else:
            yield Item("folder", folder.name, f"run {run_id} can go on from it")


def _removal(folder: Path, why: str) -> Doomed:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Doomed(Item("folder", folder.name, why, size), partial(shutil.rmtree, folder, ignore_errors=True))


def _flow_runs(settings: Settings, now: datetime) -> Iterator[Doomed | Item]:
    """Flow runs that our orchestrator takes for alive; none where it does not answer."""
    if not orchestrates_locally(settings):
        why = "other machines may share it: its flow runs were not looked at"
        yield Item("orchestrator", shown_uri(settings.prefect_url), why)
        return
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
