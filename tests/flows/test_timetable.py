"""When tasks are retrained: the file, the command, and a real Prefect server that follows them."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from cvdm.errors import ConfigError
from flows import processes
from flows.cli import app
from flows.doctor import schedule as look_at_schedule
from flows.schedule import Schedules, watch
from flows.servers import Server, free_port, running
from flows.settings import Settings
from flows.timetable import change, entry_of, read_timetable, reset, timetable_file

NOW = datetime(2026, 3, 27, 12, tzinfo=UTC)
"""Two days before the clocks of Europe are put forward."""


@pytest.fixture
def settings(project_settings) -> Settings:
    """Two tasks, of which only the cards matter here."""
    for task in ("cells", "fibres"):
        (project_settings.data_dir / task).mkdir(parents=True)
        (project_settings.data_dir / task / "card.yaml").touch()
    return Settings.read(schedule_preset="tiny")


def test_what_nobody_changed_follows_the_settings(settings):
    """Only what was set is kept; reset forgets it."""
    change(settings, "cells", by="ada", now=NOW, cron="30 3 * * 1-5", timezone="Europe/Berlin")
    change(settings, "fibres", by="ada", now=NOW, enabled=False)
    moved = Settings.read(schedule_preset="tiny", schedule_cron="0 4 * * *")
    cells, fibres = read_timetable(moved).values()
    assert (cells.cron, cells.timezone, cells.enabled) == ("30 3 * * 1-5", "Europe/Berlin", True)
    assert (cells.by, cells.at) == ("ada", "2026-03-27T12:00:00+00:00")
    assert (fibres.cron, fibres.enabled, fibres.next_starts(NOW)) == ("0 4 * * *", False, ())
    assert reset(moved, "cells").by is None
    assert entry_of(moved, "cells").cron == "0 4 * * *"


def test_what_changes_nothing_leaves_the_date_and_the_name(settings):
    """But a value that only the settings hold so far is kept, and stands when they change."""
    paused = change(settings, "cells", by="ada", now=NOW, enabled=False)
    assert change(settings, "cells", by="ben", now=NOW + timedelta(hours=1), enabled=False) == paused
    assert change(settings, "fibres", by="ben", now=NOW, enabled=True).by is None
    assert not timetable_file(settings).read_text().count("fibres")
    assert change(settings, "fibres", by="ben", now=NOW, cron="0 2 * * *").by == "ben"
    moved = Settings.read(schedule_preset="tiny", schedule_cron="0 4 * * *")
    assert entry_of(moved, "fibres").cron == "0 2 * * *"


def test_three_at_night_stays_three_at_night_when_the_clocks_change(settings):
    """Starts are told in the entry's zone: the offset changes, the hour does not."""
    entry = change(settings, "cells", by="ada", now=NOW, cron="30 3 * * *", timezone="Europe/Berlin")
    assert [start.isoformat() for start in entry.next_starts(NOW)] == [
        "2026-03-28T03:30:00+01:00",
        "2026-03-29T03:30:00+02:00",
        "2026-03-30T03:30:00+02:00",
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cron": "61 2 * * *"}, "'61 2 .*For example '30 2"),
        ({"cron": "0 2 * *"}, "minute, hour, day"),
        ({"cron": "0 0 2 * * *"}, "minute, hour, day"),
        ({"cron": "0 0 30 2 *"}, "which never does"),
        ({"timezone": "Mars/Base"}, "Europe/Berlin"),
        ({"preset": "huge"}, "presets tiny"),
    ],
)
def test_what_cannot_be_is_refused_with_an_example_and_changes_nothing(settings, values, message):
    """The file stays as it was."""
    change(settings, "cells", by="ada", now=NOW, cron="30 3 * * *")
    before = timetable_file(settings).read_bytes()
    with pytest.raises(ConfigError, match=message):
        change(settings, "cells", by="ada", now=NOW, **values)
    assert timetable_file(settings).read_bytes() == before


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"cells": 3}', '{"cells": {"cron": 3}}', '{"cells": {"crom": "0 2 * * *"}}', "\xff"],
)
def test_a_damaged_file_is_named_with_a_way_out(settings, content):
    """Also by `cvdm doctor`."""
    timetable_file(settings).write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"schedule\.json.*remove it"):
        list(look_at_schedule(settings))


def test_a_cron_of_the_settings_that_cannot_be_is_named_by_its_variable(settings):
    """Nobody looks for it in the file."""
    with pytest.raises(ConfigError, match="CVDM_SCHEDULE_CRON"):
        read_timetable(Settings.read(schedule_cron="whenever"))


def test_changes_at_once_lose_nothing(settings):
    """Writers take turns: of twenty threads that change two tasks, both tasks stay."""

    def write(task: str, minute: int) -> None:
        change(settings, task, by="ada", now=NOW, cron=f"{minute} 2 * * *")

    threads = [threading.Thread(target=write, args=(t, m)) for m in range(10) for t in ("cells", "fibres")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(json.loads(timetable_file(settings).read_text())) == {"cells", "fibres"}


def test_the_command_lists_sets_pauses_and_resets(settings, monkeypatch, capfd):
    """Each answers with the entry as it is now, and the next three starts."""
    monkeypatch.setenv("CVDM_SCHEDULE_PRESET", "tiny")

    def ask(*arguments: str, code: int = 0) -> dict:
        with pytest.raises(SystemExit) as end:
            app(["schedule", *arguments, "--json"])
        assert int(end.value.code or 0) == code
        return json.loads(capfd.readouterr().out)

    told = ask("set", "cells", "--cron", "15 5 * * 1", "--timezone", "Europe/Berlin", "--preset", "tiny")
    assert told["cron"] == "15 5 * * 1" and len(told["next"]) == 3
    assert all(start.endswith(("T05:15:00+01:00", "T05:15:00+02:00")) for start in told["next"])
    assert ask("pause", "cells")["next"] == []
    listed = {one["task"]: one for one in ask("list")["schedules"]}
    assert (listed["cells"]["enabled"], listed["fibres"]["enabled"]) == (False, True)
    assert ask("resume", "cells")["enabled"] and ask("reset", "cells")["by"] is None
    assert "30 2 * * 1-5" in ask("set", "cells", "--cron", "soon", code=1)["remedy"]


def schedule_process(settings: Settings, url: str, log: Path) -> Server:
    """The runner as `cvdm up` has it."""
    command = (sys.executable, "-m", "flows.schedule")
    return Server("schedule", command, {"PREFECT_API_URL": url}, processes.CODE, log)


def schedules(url: str) -> dict[str, tuple[str, str, bool]]:
    """What the orchestrator has: cron, zone and whether it is on, by task; each task has one schedule."""
    found = httpx.post(f"{url}/deployments/filter", json={}, timeout=10).json()
    assert all(len(one["schedules"]) == 1 for one in found)
    return {
        one["name"]: (s["schedule"]["cron"], s["schedule"]["timezone"], s["active"])
        for one in found
        for s in one["schedules"]
    }


def planned(url: str, deployment: str) -> list[datetime]:
    """Runs that the orchestrator has planned ahead for a task."""
    query = {
        "deployments": {"name": {"any_": [deployment]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    found = httpx.post(f"{url}/flow_runs/filter", json=query, timeout=10).json()
    return [datetime.fromisoformat(run["expected_start_time"]) for run in found]


def wait_for(condition, seconds: float) -> float:
    """Wait until a condition holds; returns how long that took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, "not in time"
        time.sleep(0.2)
    return time.monotonic() - begun


def test_the_orchestrator_plans_the_runs_of_a_schedule(settings, prefect_server):
    """On a real server, in the zone of the entry; it failed in silence with a newer database library."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.runner import Runner

    entry = change(settings, "cells", by="ada", now=NOW, cron="30 3 * * *", timezone="Europe/Berlin")
    deployments = Schedules(Runner(name="test", pause_on_shutdown=False), settings)

    async def planned_runs() -> list[datetime]:
        await deployments.apply()
        async with get_client() as client:
            one = await client.read_deployment_by_name("retrain/cells")
            await client.request("POST", "/deployments/{id}/schedule", path_params={"id": one.id})
            runs = await client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_ASC, limit=200)
        return [run.expected_start_time for run in runs if run.deployment_id == one.id]

    found = asyncio.run(planned_runs())
    assert tuple(found[:3]) == entry.next_starts(datetime.now(UTC))


def test_a_problem_of_the_looks_that_lasts_is_alerted_once(settings, tmp_path, monkeypatch):
    """Planted: a timetable that cannot be read. At night nobody reads the log that tells of it."""
    monkeypatch.setattr("flows.schedule.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("flows.schedule.LASTING_SECONDS", 0.2)
    alerts = tmp_path / "alerts.jsonl"
    told = settings.model_copy(update={"alerts": SecretStr(alerts.as_uri())})
    looks = []

    class Broken:
        async def apply(self) -> None:
            looks.append(time.monotonic())
            raise ConfigError("a timetable", "none", "Mend it.")

    async def look_for_a_while() -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(watch(Broken(), None, told), 1.5)

    asyncio.run(look_for_a_while())
    assert len(looks) > 20
    (alert,) = (json.loads(line) for line in alerts.read_text().splitlines())
    assert (alert["event"], alert["task"]) == ("failed", "schedule") and "a timetable" in alert["text"]


@pytest.mark.slow
def test_a_running_runner_follows_within_seconds_and_everything_survives_a_restart(settings, monkeypatch):
    """A real server: changed, paused and damaged timetables, then both processes ended and started again."""
    monkeypatch.setenv("PREFECT_HOME", str(settings.mlruns_dir / "prefect"))
    monkeypatch.setenv("CVDM_SCHEDULE_PRESET", "tiny")
    monkeypatch.setenv("PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS", "1")  # plans ahead each minute, else
    server = processes.prefect_server(settings, free_port("127.0.0.1"), private=False)
    url, log = f"{server.url}/api", settings.mlruns_dir / "runner.log"
    usual, weekly = ("0 2 * * *", "UTC", True), {"housekeeping": ("0 4 * * 0", "UTC", True)}
    with running(server) as (started,):
        started.wait_until_ready()
        with running(schedule_process(settings, url, log)):
            wait_for(lambda: schedules(url) == {"cells": usual, "fibres": usual} | weekly, 60)
            wait_for(lambda: planned(url, "cells"), 30)
            change(settings, "cells", by="ada", now=NOW, cron="30 3 * * *", timezone="Europe/Berlin")
            change(settings, "fibres", by="ada", now=NOW, enabled=False)
            after = {"cells": ("30 3 * * *", "Europe/Berlin", True), "fibres": ("0 2 * * *", "UTC", False)}
            after |= weekly
            assert wait_for(lambda: schedules(url) == after, 30) < 15
            wait_for(lambda: not planned(url, "fibres"), 10)
            timetable = timetable_file(settings).read_bytes()
            timetable_file(settings).write_text("{")
            wait_for(lambda: "remove it" in log.read_text(), 20)
            assert schedules(url) == after
            timetable_file(settings).write_bytes(timetable)
            (settings.data_dir / "nets").mkdir()
            (settings.data_dir / "nets" / "card.yaml").touch()
            after["nets"] = usual
            wait_for(lambda: schedules(url) == after, 20)
    change(settings, "cells", by="ada", now=NOW, cron="45 3 * * *")
    after["cells"] = ("45 3 * * *", "Europe/Berlin", True)
    with running(server) as (started,):
        started.wait_until_ready()
        with running(schedule_process(settings, url, log)):
            wait_for(lambda: schedules(url) == after, 60)
            wait_for(lambda: planned(url, "cells"), 60)
            berlin = {(start.minute, start.hour) for start in planned(url, "cells")}
            assert berlin <= {(45, 1), (45, 2)} and not planned(url, "fibres")
