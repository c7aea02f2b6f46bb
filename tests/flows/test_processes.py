"""Servers on a leash: real processes, which end with whoever started them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from flows.processes import (
    address_table,
    addresses,
    child_environment,
    local_servers,
    mlflow_server,
    orchestrator,
    schedule_runner,
)
from flows.registry import Registry
from flows.servers import PortError, Server, ServerError, free_port, port_is_free, running
from flows.settings import Settings

ROOT = Path(__file__).parents[2]

# A server with a helper in a session of its own, as Prefect and BentoML have them; both write their numbers.
SERVER = """
import http.server, os, pathlib, subprocess, sys
folder = pathlib.Path(sys.argv[2])
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
(folder / "pids").write_text(f"{os.getpid()} {helper.pid}")
print("listening", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
OWNER = """
import sys, time
from pathlib import Path
from flows.servers import running
sys.path.insert(0, sys.argv[3])
from test_processes import little_server
with running(little_server(Path(sys.argv[1]), int(sys.argv[2]))) as (server,):
    server.wait_until_ready()
    print("ready", flush=True)
    time.sleep(600)
"""


def little_server(folder: Path, port: int, code: str = SERVER, probe: str | None = "/") -> Server:
    command = (sys.executable, "-c", code, str(port), str(folder))
    return Server("little", command, {}, ROOT, folder / "little.log", "127.0.0.1", port, probe, "LITTLE_PORT")


def pids(folder: Path) -> list[int]:
    return [int(pid) for pid in (folder / "pids").read_text().split()]


def all_gone(numbers: list[int], seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(n) and psutil.Process(n).status() != "zombie" for n in numbers):
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def port() -> int:
    return free_port("127.0.0.1")


def test_a_server_lives_for_its_block_and_its_helpers_end_with_it(tmp_path, port):
    """Ready inside the block; outside, process and helper are gone and the port is free again."""
    with running(little_server(tmp_path, port)) as (server,):
        server.wait_until_ready()
        numbers = pids(tmp_path)
        assert all(psutil.pid_exists(number) for number in numbers)
        assert "listening" in server.server.log.read_text()
    assert all_gone(numbers, 1) and port_is_free("127.0.0.1", port)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_a_killed_owner(tmp_path, port, blow):
    """Even kill -9 of the owner leaves no server and no helper."""
    command = [sys.executable, "-c", OWNER, str(tmp_path), str(port), str(Path(__file__).parent)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == b"ready\n"
        numbers = pids(tmp_path)
        owner.send_signal(blow)
    assert all_gone(numbers)


def test_a_taken_port_is_refused_before_anything_starts(tmp_path, port):
    """The message names port and variable; the other server of the same block was not started either."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        servers = (little_server(tmp_path, free_port("127.0.0.1")), little_server(tmp_path, port))
        with pytest.raises(PortError, match=f"port {port} .* LITTLE_PORT"), running(*servers):
            pass
    assert not (tmp_path / "pids").exists()


def test_a_server_that_ends_at_once_shows_its_last_words(tmp_path, port):
    """No waiting for the time limit: the log's last lines are in the message."""
    code = "import sys; sys.exit('the database is gone')"
    with (
        pytest.raises(ServerError, match="the database is gone"),
        running(little_server(tmp_path, port, code)) as (server,),
    ):
        server.wait_until_ready()


def test_a_server_that_never_gets_ready_is_given_up(tmp_path, port):
    """After the time limit, with the address that did not answer; then it is stopped."""
    with (
        pytest.raises(ServerError, match="/not-there"),
        running(little_server(tmp_path, port)) as (server,),
    ):
        server.wait_until_ready()
        server.wait_until_ready("/not-there", seconds=0.5)
    assert all_gone(pids(tmp_path), 1)


def test_servers_elsewhere_are_used_not_started(tmp_path):
    """A tracking server or orchestrator on another machine is not started here."""
    here = Settings.read(home=tmp_path)
    assert [server.name for server in local_servers(here)] == ["prefect", "mlflow", "service"]
    away = Settings.read(
        home=tmp_path, tracking_uri="http://tracker:5000", prefect_url="http://flows.example/api"
    )
    assert [server.name for server in local_servers(away)] == ["service"]
    table = address_table(addresses(away, models=False))
    assert "http://tracker:5000" in table and "http://flows.example" in table


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_no_password_stands_in_a_table_or_a_command_line(tmp_path, scheme):
    """Whoever looks over a shoulder, or at the list of processes, learns none."""
    settings = Settings.read(
        home=tmp_path,
        tracking_uri=f"{scheme}://ada:secret@tracker:5000/db",
        artifact_root="sftp://ada:secret@files/runs",
        prefect_url="http://ada:secret@flows.example/api",
    )
    table = address_table(addresses(settings, models=False))
    assert "http://flows.example" in table and ("http://tracker:5000/db" in table) is (scheme == "http")
    assert "secret" not in table
    servers = [*local_servers(settings), schedule_runner(settings)]
    assert len(servers) == (2 if scheme == "http" else 3)
    assert not any("secret" in word for server in servers for word in server.command)


def test_the_tracking_server_shows_nobody_where_it_keeps_things(project_settings):
    """A real one: it serves database and artifacts of the settings, which no command line of its names.

    And MLflow's Assistant, which runs commands for whoever reaches the page, is off.
    """
    registry = Registry.open(project_settings)
    run = registry.runs.start("test-cells", "a run", params={}, tags={})
    registry.artifacts.log_bytes(run.run_id, b"kept", "note.txt")
    server = mlflow_server(project_settings.model_copy(update={"mlflow_port": free_port("127.0.0.1")}))
    with running(server) as (started,):
        started.wait_until_ready()
        api = f"{server.url}/api/2.0"
        found = httpx.get(f"{api}/mlflow/runs/get", params={"run_id": run.run_id}, timeout=30).json()
        assert found["run"]["info"]["run_name"] == "a run"
        place = f"test-cells/{run.run_id}/artifacts/note.txt"
        assert httpx.get(f"{api}/mlflow-artifacts/artifacts/{place}", timeout=30).content == b"kept"
        assistant = f"{server.url}/ajax-api/3.0/mlflow/assistant"
        asked = httpx.get(f"{assistant}/config", timeout=30), httpx.post(f"{assistant}/message", timeout=30)
        assert [answer.status_code for answer in asked] == [403, 403], "it would run commands"
        own = psutil.Process(started.process.pid)
        commands = [" ".join(one.cmdline()) for one in (own, *own.children(recursive=True))]
    assert any("mlflow server" in command for command in commands)
    for uri in (project_settings.tracking_uri, project_settings.artifact_root):
        assert not any(uri in command for command in commands)
    assert project_settings.tracking_uri not in server.log.read_text()


def test_children_share_the_settings_of_their_parent(tmp_path, monkeypatch):
    """Every setting is handed on by its variable and read back equal; tools are told, unless a person did."""
    monkeypatch.delenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", raising=False)
    monkeypatch.setenv("DO_NOT_TRACK", "chosen")
    changed = {
        **dict.fromkeys(("data_dir", "mlruns_dir", "params_file", "jobs_dir", "keys_file"), tmp_path / "x"),
        **{"home": tmp_path, "host": "127.0.0.2", "tasks": "a,b", "device": "cpu", "triggers": "data"},
        **{"mlflow_port": 5999, "prefect_port": 4999, "service_port": 3999},
        **{"tracking_uri": "http://ada:secret@tracker:5000", "artifact_root": "s3://bucket"},
        **{"prefect_url": "http://flows.example/api", "backup_dir": str(tmp_path / "backup")},
        **{"schedule_cron": "1 2 * * *", "schedule_timezone": "Europe/Berlin", "schedule_preset": "gpu"},
        **{"cooldown_hours": 1.5, "housekeeping_cron": "", "housekeeping_apply": True, "rehearsal": False},
        **{"deploy_window_seconds": 7, "http_timeout_seconds": 3, "http_retries": 1},
        **{"alerts": "mailto://ada:secret@example.org", "country_iso": "DEU"},
        "other_audit_logs": "abc,def",
    }
    settings = Settings.read(**changed)
    assert set(changed) == set(Settings.model_fields), "a new setting: change it here too"
    assert not {name for name, value in Settings.read() if value == getattr(settings, name)}
    handed = child_environment(settings)
    own = {
        name.removeprefix("CVDM_").lower(): value
        for name, value in handed.items()
        if name.removeprefix("CVDM_").lower() in Settings.model_fields
    }
    assert Settings.read(**own) == settings
    assert handed["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false" and "DO_NOT_TRACK" not in handed


def test_without_a_running_orchestrator_a_private_one_serves_the_block(project_settings, monkeypatch):
    """A flow runs against it and is recorded; afterwards it is gone and the environment is as before."""
    monkeypatch.setenv("PREFECT_HOME", str(project_settings.mlruns_dir / "not" / "yet" / "there"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    nowhere = Settings.read(home=project_settings.home, prefect_port=free_port("127.0.0.1"))
    with orchestrator(nowhere) as ready, ready() as url:
        import prefect

        assert prefect.flow(lambda: 41 + 1, name="sum")() == 42
        runs = httpx.post(f"{url}/flow_runs/filter", json={}, timeout=10).json()
        assert [run["state_type"] for run in runs] == ["COMPLETED"]
        there = Settings.read(home=project_settings.home, prefect_url=url)
        with orchestrator(there) as ready_at_once, ready_at_once() as same:
            assert same == url
    assert "PREFECT_API_URL" not in os.environ
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{url}/health", timeout=2)


@pytest.mark.slow
def test_up_runs_everything_and_leaves_nothing(project_settings, cells_dataset):
    """Pages answer, the first task gets a schedule when it comes, kill -9 of `cvdm up` ends all processes."""
    project_settings.data_dir.mkdir()
    ports = {name: str(free_port("127.0.0.1")) for name in ("MLFLOW", "PREFECT", "SERVICE")}
    environment = {
        **os.environ,
        "CVDM_HOME": str(project_settings.home),
        "CVDM_SCHEDULE_CRON": "30 3 * * *",
        "CVDM_SCHEDULE_TIMEZONE": "Europe/Berlin",
        "PREFECT_HOME": str(project_settings.mlruns_dir / "prefect"),
        **{f"CVDM_{name}_PORT": port for name, port in ports.items()},
    }
    up = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "up"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert up.stdout is not None
        table = [up.stdout.readline() for _ in range(4)]
        assert all(port in "".join(table) for port in ports.values())
        tree = [child.pid for child in psutil.Process(up.pid).children(recursive=True)]
        api = f"http://127.0.0.1:{ports['PREFECT']}/api"
        (project_settings.data_dir / "test-cells").symlink_to(cells_dataset)
        deadline = time.monotonic() + 60
        found: dict = {}
        while "test-cells" not in found and time.monotonic() < deadline:
            deployments = httpx.post(f"{api}/deployments/filter", json={}, timeout=10).json()
            found = {one["name"]: one for one in deployments}
            time.sleep(0.5)
        (schedule,) = found["test-cells"]["schedules"]
        assert schedule["active"] and schedule["schedule"]["timezone"] == "Europe/Berlin"
        assert httpx.get(f"http://127.0.0.1:{ports['MLFLOW']}/health", timeout=10).status_code == 200
        assert httpx.get(f"http://127.0.0.1:{ports['SERVICE']}/readyz", timeout=10).status_code == 503
    finally:
        up.kill()
        up.wait()
    assert len(tree) >= 8 and all_gone(tree, 30)
