"""From a trigger to a trained model and to the refusal of the next one, with a real Prefect server."""

from __future__ import annotations

import json
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from cvdm.dataset import load_dataset
from cvdm.errors import ConfigError
from flows import processes
from flows.device_lock import device_lock
from flows.registry import Registry
from flows.servers import Server, free_port, running, tail
from flows.settings import Settings
from flows.triggers import desk
from flows.triggers.flow import retrain_by_trigger
from flows.triggers.pending import TriggerStore
from flows.triggers.poll import Poll
from flows.triggers.rules import Cause

TASK = "test-cells"


@pytest.fixture
def settings(project_settings, cells_dataset, monkeypatch) -> Settings:
    """A task with data, retrained by a preset of four steps, without a cool-down."""
    shutil.copytree(cells_dataset, project_settings.data_dir / TASK)
    monkeypatch.setenv("CVDM_SCHEDULE_PRESET", "tiny")
    monkeypatch.setenv("CVDM_COOLDOWN_HOURS", "0")
    return Settings.read()


def remove_a_field(settings: Settings) -> None:
    """Other data than before: one training field less."""
    gone = load_dataset(settings.dataset_dir(TASK)).split("train")[0]
    gone.low.unlink()
    gone.high.unlink()


def triggers_of_runs(settings: Settings) -> list[str]:
    """The tag `trigger` of every version's run, the oldest first."""
    registry = Registry.open(settings)
    versions = registry.models.versions(TASK)
    return [registry.runs.tags(version.run_id)["trigger"] for version in reversed(versions)]


def test_new_data_lead_to_one_retraining_and_then_to_a_refusal(settings, prefect_server):
    """By the clock, refused by the clock, for new data after a wait for the device, refused again."""
    by_clock = retrain_by_trigger(TASK, return_state=True)
    assert by_clock.name == "Completed" and by_clock.result().version == 1
    refused = retrain_by_trigger(TASK, return_state=True)
    assert refused.name == "Refused" and "nothing new" in refused.message and "version 1" in refused.message

    poll, now = Poll(settings), datetime.now(UTC)
    assert [poll.look(now).starts for _ in range(3)] == [(), (), ()]
    remove_a_field(settings)
    with device_lock(settings.mlruns_dir / "locks", "cpu", "retrain another"):
        assert [poll.look(now).starts for _ in range(3)] == [(), (), ()]
        waiting = retrain_by_trigger(TASK, return_state=True)
        assert waiting.name == "Waiting" and "retrain another" in waiting.message
    (start,) = poll.look(now).starts
    assert start.kinds == "schedule+data"
    assert retrain_by_trigger(start.task, start.kinds, start.ticket).version == 2
    assert triggers_of_runs(settings) == ["schedule", "schedule+data"]

    assert [poll.look(now).starts for _ in range(3)] == [(), (), ()]
    again = desk.trigger(settings, TASK, (Cause("data", now.isoformat(), "as before"),))
    assert again.decision.action == "refuse" and "nothing new" in again.decision.words
    history = [(line["step"], line["kinds"]) for line in TriggerStore(settings).history()]
    assert history == [
        ("start", "schedule"),
        ("began", "schedule"),
        ("refuse", "schedule"),
        ("wait", "data"),
        ("start", "schedule+data"),
        ("began", "schedule+data"),
        ("refuse", "data"),
    ]


def test_who_loses_the_race_for_the_device_waits_on(settings, prefect_server):
    """Between the decision and the lock somebody was faster: nothing fails, nothing is lost."""
    outcome = desk.trigger(settings, TASK, (Cause("data", "2026-11-20T03:00:00+00:00", "new"),))
    with device_lock(settings.mlruns_dir / "locks", "cpu", "retrain another"):
        late = retrain_by_trigger(TASK, "data", outcome.ticket, return_state=True)
    assert late.name == "Waiting" and "retrain another" in late.message
    assert [start.kinds for start in Poll(settings).look(datetime.now(UTC)).starts] == ["data"]


def test_what_cannot_begin_is_told_once_and_holds_nobody_up(settings, prefect_server, monkeypatch, tmp_path):
    """A wrong setting: the alert that can be sent is, and the trigger has come to its end."""
    alerts = tmp_path / "alerts.jsonl"
    monkeypatch.setenv("CVDM_ALERTS", f"file://{alerts},nowhere")
    outcome = desk.trigger(settings, TASK, (Cause("data", "2026-11-20T03:00:00+00:00", "new"),))
    with pytest.raises(ConfigError, match="CVDM_ALERTS"):
        retrain_by_trigger(TASK, "data", outcome.ticket)
    assert [json.loads(line)["event"] for line in alerts.read_text().splitlines()] == ["failed"]
    store = TriggerStore(settings)
    assert store.pending(TASK) is None and store.starting(datetime.now(UTC)) is None
    assert [line["step"] for line in store.history()] == ["start", "failed"]


@pytest.mark.slow
def test_the_process_of_cvdm_up_retrains_on_new_data(settings, monkeypatch):
    """A server, the runner and its children: a model, other data, a second model, and then quiet.

    With an alert, whose address is a secret that children must know, too.
    """
    monkeypatch.setenv("PREFECT_HOME", str(settings.mlruns_dir / "prefect"))
    monkeypatch.setenv("CVDM_ALERTS", f"file://{settings.home}/alerts.jsonl")
    server = prefect_server_of(settings)
    url = f"{server.url}/api"
    runner = processes.schedule_runner(Settings.read(prefect_url=url))
    log = runner.log
    with running(server) as (started,):
        started.wait_until_ready()
        with running(runner):
            deployment = wait_for(lambda: deployments(url), 90, log)[0]["id"]
            httpx.post(f"{url}/deployments/{deployment}/create_flow_run", json={}, timeout=10)
            wait_for(lambda: states(url) == ["Completed"], 300, log)
            time.sleep(10)  # two looks that find what was trained on
            remove_a_field(settings)
            wait_for(lambda: states(url) == ["Completed", "Completed"], 300, log)
            time.sleep(10)
            httpx.post(f"{url}/deployments/{deployment}/create_flow_run", json={}, timeout=10)
            wait_for(lambda: states(url) == ["Completed", "Completed", "Refused"], 90, log)
    assert triggers_of_runs(settings) == ["schedule", "data"]
    assert len((settings.home / "alerts.jsonl").read_text().splitlines()) == 2


def prefect_server_of(settings: Settings) -> Server:
    return processes.prefect_server(settings, free_port("127.0.0.1"), private=False)


def deployments(url: str) -> list[dict]:
    """Those that retrain; housekeeping has one, too."""
    found = httpx.post(f"{url}/deployments/filter", json={}, timeout=10).json()
    return [one for one in found if one["parameters"].get("task") == TASK]


def states(url: str) -> list[str]:
    """How the flow runs ended that were not planned ahead, in their order."""
    found = httpx.post(f"{url}/flow_runs/filter", json={}, timeout=10).json()
    begun = [run for run in found if not run["auto_scheduled"]]
    return [run["state_name"] for run in sorted(begun, key=lambda run: run["created"])]


def wait_for(condition, seconds: float, log: Path):
    """Wait until something is found; returns it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, tail(log, 30)
        time.sleep(0.5)
    return found
