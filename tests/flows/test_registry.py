"""The registry, against a real SQLite store: runs, models, aliases, and what happens without a store."""

from __future__ import annotations

import http.server
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from mlflow.exceptions import RestException
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError

from cvdm.checkpoint import load_checkpoint, verify_golden
from flows.registry import CHAMPION, FAILURE, PREVIOUS, AwayError, Registry, RegistryError
from flows.registry.connection import speaking
from flows.settings import Settings

TASK = "test-cells"


@pytest.fixture
def registry(project_settings) -> Registry:
    return Registry.open(project_settings)


@pytest.fixture
def run(registry):
    return registry.runs.start(TASK, "a run", params={"steps": 4}, tags={"init": "scratch"})


def test_what_an_attempt_repeats_is_not_written_twice(registry, run):
    """Equal values are left as they are, others are written beside them."""
    registry.runs.log_changed(run, {"test/crps": 0.02, "test/psnr": 30.0})
    registry.runs.log_changed(run, {"test/crps": 0.02, "test/psnr": 31.0, "test/ssim": 0.9})
    history = registry.runs._client.get_metric_history
    written = {name: [one.value for one in history(run.run_id, f"test/{name}")] for name in ("crps", "psnr")}
    assert written == {"crps": [0.02], "psnr": [30.0, 31.0]}
    assert registry.runs.metrics(run.run_id)["test/ssim"] == 0.9


def test_metrics_show_on_the_run_and_on_its_model(registry, run):
    """Everything that is logged carries the run's and the model's id."""
    registry.runs.log_series(run, [(1, {"loss/total": 2.0}), (2, {"loss/total": 1.0})])
    assert registry.runs.metrics(run.run_id) == {"loss/total": 1.0}
    assert registry.runs.last_step(run, "loss/total") == 2
    model = registry.runs._client.get_logged_model(run.model_id)
    assert {m.key: m.value for m in model.metrics} == {"loss/total": 1.0}


def test_more_metrics_than_one_request_holds_all_arrive(registry, run):
    """A long series is cut into requests that MLflow accepts."""
    registry.runs.log_series(run, [(step, {"a": step, "b": -step}) for step in range(1, 701)])
    assert registry.runs.last_step(run, "a") == 700
    assert registry.runs.metrics(run.run_id) == {"a": 700.0, "b": -700.0}


def test_a_run_is_reopened_and_found_by_its_tags(registry, run):
    """An interrupted run goes on under its own id; only a finished one is found as done."""
    registry.runs.set_tags(run.run_id, {FAILURE: "out of disk"})
    registry.runs.finish(run.run_id, "FAILED")
    assert registry.runs.find(TASK, {"init": "scratch"}) is None
    assert registry.runs.reopen(run.run_id) == run
    assert FAILURE not in registry.runs.tags(run.run_id)  # it is overcome
    registry.runs.finish(run.run_id)
    assert registry.runs.find(TASK, {"init": "scratch"}) == run.run_id
    assert registry.runs.find(TASK, {"init": "base"}) is None
    assert registry.runs.reopen("0" * 32) is None


def test_earlier_runs_are_told_from_later_ones(registry, run):
    """By their start, whenever they ended."""
    begun = [run]
    for number in (1, 2, 3):
        time.sleep(0.002)  # MLflow keeps milliseconds
        begun.append(registry.runs.start(TASK, f"run {number}", params={}, tags={"fields": "same"}))
    for one in reversed(begun):
        registry.runs.finish(one.run_id)
    first, second, third = (one.run_id for one in begun[1:])
    assert registry.runs.finished(TASK, {"fields": "same"}) == [third, second, first]
    assert registry.runs.finished(TASK, {"fields": "same"}, before=third) == [second, first]
    assert registry.runs.finished(TASK, {}, before=run.run_id) == []


@pytest.mark.parametrize("lost", ["create_run", "log_batch", "create_logged_model", "log_outputs"])
def test_a_run_whose_opening_was_cut_short_is_completed_not_doubled(registry, monkeypatch, lost):
    """Planted: the server does what it is asked for, and its answer never comes."""
    client = registry.runs._client
    asked = getattr(client, lost)

    def silent(*arguments, **options):
        asked(*arguments, **options)
        raise AwayError("the server to answer", "nothing", "Wait.")

    def opened():
        return registry.runs.start(TASK, "x", params={"a": 1}, tags={}, attempt="0123")

    monkeypatch.setattr(client, lost, silent)
    with pytest.raises(AwayError):
        opened()
    monkeypatch.undo()
    run = opened()
    assert opened() == run == registry.runs.reopen(run.run_id)
    assert len(registry.cleaning.runs()) == 1


def test_artifacts_lie_below_the_artifact_root_wherever_the_process_runs(
    registry, run, project_settings, monkeypatch, tmp_path
):
    """Nothing lands in the current folder."""
    monkeypatch.chdir(tmp_path)
    registry.artifacts.log_json(run.run_id, {"a": 1}, "gate/decision.json")
    assert registry.artifacts.read_json(run.run_id, "gate/decision.json") == {"a": 1}
    assert list((project_settings.mlruns_dir / "artifacts").rglob("decision.json"))
    assert not (tmp_path / "mlruns").exists()


def test_stored_json_has_no_nan(registry, run):
    """A score that is not a number is stored as null, which every reader takes."""
    registry.artifacts.log_json(run.run_id, {"a": float("nan")}, "scores.json")
    assert registry.artifacts.read_json(run.run_id, "scores.json") == {"a": None}


def test_the_dataset_is_an_input_of_the_run(registry, run, tmp_path):
    """Name and digest of the data are MLflow's own dataset record."""
    registry.runs.log_dataset(
        run.run_id, name=TASK, digest="d" * 64, source={"dvc_version": "0123"}, profile={"pairs": 6}
    )
    (used,) = registry.runs._client.get_run(run.run_id).inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == (TASK, "d" * 36)
    assert json.loads(used.dataset.source) == {"dvc_version": "0123"}
    assert json.loads(used.dataset.profile) == {"pairs": 6}


def test_what_is_registered_comes_back_as_the_same_checkpoint(registry, run, tiny_checkpoint_dir, tmp_path):
    """A downloaded version is verified by its own golden pair; aliases and tags are as set."""
    number = registry.models.register(TASK, run, tiny_checkpoint_dir, {"dataset_digest": "d"})
    registry.models.set_alias(TASK, CHAMPION, number)
    directory = registry.models.download(TASK, "champion", tmp_path / "copy")
    verify_golden(directory, load_checkpoint(directory))
    (version,) = registry.models.versions(TASK)
    assert (version.number, version.run_id, version.model_id, version.aliases) == (
        1,
        run.run_id,
        run.model_id,
        ("champion",),
    )
    assert version.tags["dataset_digest"] == "d"
    assert registry.models.version_of_run(TASK, run.run_id) == version
    assert registry.models.tasks() == (TASK,)


def test_a_download_asks_the_store_of_the_settings_only(
    registry, run, tiny_checkpoint_dir, project_settings, tmp_path
):
    """In a process that never named a store to MLflow it works, and leaves no database where it ran."""
    number = registry.models.register(TASK, run, tiny_checkpoint_dir, {})
    code = f"""
from pathlib import Path
from flows.registry import Registry
from flows.settings import Settings
settings = Settings.read(home={str(project_settings.home)!r})
Registry.open(settings).models.download({TASK!r}, {number}, Path("copy"))
"""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_") or k.endswith("TELEMETRY")}
    place = tmp_path / "elsewhere"
    place.mkdir()
    environment = {**kept, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in place.iterdir()] == ["copy"]
    verify_golden(place / "copy", load_checkpoint(place / "copy"))


def test_a_registered_model_runs_where_this_project_is_not(
    registry, run, tiny_checkpoint_dir, project_settings, tmp_path
):
    """MLflow loads it with the code inside it, in another folder, and refuses integers by its signature."""
    number = registry.models.register(TASK, run, tiny_checkpoint_dir, {})
    code = f"""
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
sys.path[:] = [p for p in sys.path if not p.endswith("/main")]
import json, mlflow, numpy as np
mlflow.set_tracking_uri({project_settings.tracking_uri!r})
model = mlflow.pyfunc.load_model("models:/cvdm-{TASK}/{number}")
reply = model.predict(np.full((20, 24), 50, np.float32))
try:
    model.predict(np.zeros((20, 24), np.uint16)); refused = False
except mlflow.exceptions.MlflowException:
    refused = True
import cvdm
finite = bool(np.isfinite(reply).all())
print(json.dumps([list(reply.shape), str(reply.dtype), finite, refused, cvdm.__file__]))
"""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    shape, dtype, finite, refused, origin = json.loads(done.stdout.splitlines()[-1])
    assert (shape, dtype, finite, refused) == ([4, 20, 24], "float32", True, True)
    assert str(project_settings.mlruns_dir) in origin or "/code/" in origin


def test_aliases_move_and_go(registry, run, tiny_checkpoint_dir):
    """An alias points at one version, moves, and can be removed; without a model there are none."""
    assert registry.models.champion(TASK) is None
    assert registry.models.versions(TASK) == ()
    first = registry.models.register(TASK, run, tiny_checkpoint_dir, {})
    registry.models.set_alias(TASK, PREVIOUS, first)
    assert registry.models.previous(TASK) == first
    registry.models.set_alias(TASK, PREVIOUS, None)
    assert registry.models.previous(TASK) is None


def test_a_version_that_is_not_there_is_named(registry, tmp_path):
    """The message lists what there is and how to make one."""
    with pytest.raises(RegistryError, match="cvdm retrain --task test-cells"):
        registry.models.download(TASK, 7, tmp_path / "copy")
    assert list(tmp_path.glob("*copy*")) == []


def test_an_unreachable_server_is_reported_soon(project_settings, monkeypatch):
    """A closed port fails within seconds and says what to do."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    settings = Settings.read(home=project_settings.home, tracking_uri="http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(RegistryError, match="cvdm up"):
        Registry.open(settings)
    assert time.monotonic() - start < 20


@pytest.fixture
def _impatient() -> Iterator[None]:
    """MLflow waits 20 s for a locked SQLite database, which it says at the start of each session."""

    def shortened(_connection, _cursor, statement, parameters, _context, _many):
        return statement.replace("busy_timeout = 20000", "busy_timeout = 10"), parameters

    event.listen(Engine, "before_cursor_execute", shortened, retval=True)
    yield
    event.remove(Engine, "before_cursor_execute", shortened)


@contextmanager
def database_of(settings: Settings) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(settings.tracking_uri.removeprefix("sqlite:///"), isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


@pytest.mark.usefixtures("_impatient")
def test_a_locked_database_is_away_and_comes_back(registry, run, project_settings):
    """Another process holds it: reading and writing may succeed later, and do."""
    with database_of(project_settings) as other:
        other.execute("begin exclusive")
        with pytest.raises(AwayError, match="database is locked"):
            registry.runs.metrics(run.run_id)
        with pytest.raises(AwayError, match="database is locked"):
            registry.runs.set_tags(run.run_id, {FAILURE: "no such table"})
    registry.runs.set_tags(run.run_id, {FAILURE: "no such table"})
    assert registry.runs.metrics(run.run_id) == {}


def test_a_database_without_its_tables_is_broken_not_away(registry, run, project_settings):
    """Waiting does not bring a table back, or one of its columns, so that nothing is tried again."""
    with database_of(project_settings) as other:
        for damage, told in (
            ("alter table latest_metrics rename column step to steps", "no such column"),
            ("drop table latest_metrics", "no such table"),
        ):
            other.execute(damage)
            with pytest.raises(RegistryError, match=told) as failure:
                registry.runs.metrics(run.run_id)
            assert type(failure.value) is RegistryError


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (
            RestException({"error_code": "TEMPORARILY_UNAVAILABLE", "message": "database is locked"}),
            AwayError,
        ),
        (
            RestException({"error_code": "TEMPORARILY_UNAVAILABLE", "message": "no such table: runs"}),
            RegistryError,
        ),
        (RestException({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no run"}), RegistryError),
        (OperationalError("select 1", {}, OSError("server closed the connection")), AwayError),
        (OperationalError("select 1", {}, OSError('FATAL: database "ml" does not exist')), RegistryError),
        (
            OperationalError("select 1", {}, OSError('FATAL: password authentication failed for user "a"')),
            RegistryError,
        ),
    ],
)
def test_what_lasts_is_told_from_what_passes(error, kind):
    """A server in trouble says so in its answer, a database in its driver's words."""
    with pytest.raises(RegistryError) as failure, speaking("http://tracker:5000"):
        raise error
    assert type(failure.value) is kind


@contextmanager
def server_that_answers(status: int) -> Iterator[str]:
    """The host and port of a server that answers every request with a status, in plain text."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "kind"), [(401, RegistryError), (404, RegistryError), (502, AwayError)])
def test_a_refusal_is_no_absence(project_settings, monkeypatch, status, kind):
    """A wrong password or address stays wrong; a gateway whose server is away does not."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with server_that_answers(status) as place, pytest.raises(RegistryError) as failure:
        Registry.open(project_settings.model_copy(update={"tracking_uri": f"http://{place}"}))
    assert type(failure.value) is kind


def test_no_password_is_told_when_a_server_does_not_answer(project_settings, monkeypatch):
    """Neither by us nor in MLflow's own words, nor in the traceback that the orchestrator keeps."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = "http://ada:sec%40ret@127.0.0.1:9"
    with pytest.raises(AwayError) as failure:
        Registry.open(project_settings.model_copy(update={"tracking_uri": uri}))
    told = "".join(traceback.format_exception(failure.value))
    assert "the tracking store at http://127.0.0.1:9 to answer" in told
    assert "API request to http://127.0.0.1:9/api" in told
    assert not any(secret in told for secret in ("sec%40ret", "sec@ret", "ada"))


@pytest.mark.parametrize(
    "uri",
    [
        "nonsense://ada:secret@host/db",
        "http://ada:se/cret@host",
        "postgresql://ada:secret@host:port/db",
        "postgresql://ada:p@ss:secret@host/db",
    ],
)
def test_no_password_is_told_of_an_address_that_is_none(project_settings, monkeypatch, uri):
    """Libraries quote what they cannot read."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError) as failure:
        Registry.open(project_settings.model_copy(update={"tracking_uri": uri}))
    told = "".join(traceback.format_exception(failure.value))
    assert "cret" not in told


def test_the_package_carries_the_science_and_nothing_pickled(tiny_checkpoint_dir, tmp_path):
    """A model folder holds the checkpoint, the cvdm package and no pickle."""
    from flows.registry.models import save_package
    from flows.registry.tracking import Run

    save_package(tiny_checkpoint_dir, tmp_path / "model", Run("0" * 32, "m-0"))
    assert (tmp_path / "model" / "artifacts" / "checkpoint" / "model.json").is_file()
    assert (tmp_path / "model" / "code" / "cvdm" / "posterior.py").is_file()
    assert not list((tmp_path / "model").rglob("*.pkl"))
    assert np.all([name.is_file() for name in (tmp_path / "model").glob("MLmodel")])
