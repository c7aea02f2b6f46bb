"""What a training tells the tracking server arrives once, whatever happens to either of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cvdm.training import Step
from flows.easel import DrawingError, Order
from flows.outbox import Outbox
from flows.processes import mlflow_server
from flows.registry import AwayError, Registry, Run
from flows.servers import free_port, running
from flows.train import StepLog

METRIC = "loss/total"


@pytest.fixture
def registry(project_settings) -> Registry:
    return Registry.open(project_settings)


@pytest.fixture
def run(registry) -> Run:
    return registry.runs.start("test-cells", "a run", params={}, tags={})


def outbox(registry: Registry, run: Run, folder: Path) -> Outbox:
    return Outbox(folder, registry, run, progress_metric=METRIC)


def history(registry: Registry, run: Run, metric: str = METRIC) -> list[tuple[int, float]]:
    """Steps and values as they were written, duplicates included."""
    found = registry.runs._client.get_metric_history(run.run_id, metric)
    return sorted((entry.step, entry.value) for entry in found)


def test_what_waits_is_delivered_and_gone(registry, run, tmp_path):
    """Rows reach the run with every metric, files their path, and the outbox is empty."""
    box = outbox(registry, run, tmp_path / "box")
    (tmp_path / "state.pt").write_bytes(b"first")
    for step in (1, 10):
        box.add_row(step, {METRIC: 1 / step, "learning_rate": 0.1})
    box.add_file("panels/validation-1.png", b"picture")
    box.add_copy("checkpoints/state.pt", tmp_path / "state.pt")
    # its writer replaces the file; what was kept is the file as it was
    (tmp_path / "new.pt").write_bytes(b"second")
    (tmp_path / "new.pt").replace(tmp_path / "state.pt")
    assert box.offer() is None
    assert history(registry, run) == [(1, 1.0), (10, 0.1)]
    assert history(registry, run, "learning_rate") == [(1, 0.1), (10, 0.1)]
    assert registry.artifacts.holds(run.run_id, "panels/validation-1.png")
    local = registry.runs._client.download_artifacts(run.run_id, "checkpoints/state.pt", str(tmp_path))
    assert Path(local).read_bytes() == b"first"
    assert not [path for path in (tmp_path / "box").rglob("*") if path.is_file()]


def test_a_kill_after_delivery_doubles_nothing(registry, run, tmp_path):
    """Planted: the rows arrived, but their file is still there, as after a kill between the two."""
    box, folder = outbox(registry, run, tmp_path / "box"), tmp_path / "box"
    for step in (1, 2):
        box.add_row(step, {METRIC: float(step)})
    shutil.copy(folder / "rows.jsonl", tmp_path / "kept")
    box.deliver()
    shutil.copy(tmp_path / "kept", folder / "rows.jsonl")
    again = outbox(registry, run, folder)
    again.add_row(3, {METRIC: 3.0})
    again.deliver()
    assert history(registry, run) == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_a_picture_that_cannot_be_drawn_keeps_no_numbers_back(registry, run, tmp_path):
    """Planted: an order without its image, among what a training has to tell. The error is raised still."""
    log = StepLog(registry, run, tmp_path / "state.pt")
    log._easel.put(Order("b.png", "image_panel", {"title": "nothing"}))
    log.add(
        Step(1, 1, {"total": 0.5}, learning_rate=0.1, gradient_norm=1.0, seconds=0.01, pieces=1, cut=False)
    )
    with pytest.raises(DrawingError, match=r"b\.png"):
        log.deliver()
    assert history(registry, run) == [(1, 0.5)]


def test_rows_that_wait_count_as_written(registry, run, tmp_path):
    """A resumed training goes on after the last row that is on disk, not after what the server has."""
    box = outbox(registry, run, tmp_path / "box")
    box.add_row(1, {METRIC: 1.0})
    box.deliver()
    box.add_row(20, {METRIC: 0.5})
    assert outbox(registry, run, tmp_path / "box").last_step() == 20


def test_half_a_line_is_no_row(registry, run, tmp_path):
    """Planted: the process was killed while it wrote a row; that step is written again by the resumed one."""
    box = outbox(registry, run, tmp_path / "box")
    box.add_row(1, {METRIC: 1.0})
    with (tmp_path / "box" / "rows.jsonl").open("a") as file:
        file.write('{"step": 2, "at": 17')
    again = outbox(registry, run, tmp_path / "box")
    assert again.last_step() == 1
    again.add_row(2, {METRIC: 2.0})
    again.deliver()
    assert history(registry, run) == [(1, 1.0), (2, 2.0)]


def test_half_a_file_is_not_sent(registry, run, tmp_path):
    """Planted: the writer of a picture was killed; its temporary file goes nowhere."""
    (tmp_path / "box" / "files" / "panels").mkdir(parents=True)
    (tmp_path / "box" / "files" / "panels" / ".a.png.0123.tmp").write_bytes(b"half")
    outbox(registry, run, tmp_path / "box").deliver()
    assert not registry.artifacts.holds(run.run_id, "panels/.a.png.0123.tmp")
    assert not list((tmp_path / "box" / "files" / "panels").iterdir())


def test_a_server_that_is_away_for_a_while_gets_everything_once(project_settings, tmp_path, monkeypatch):
    """A real server is stopped and started again: nothing is lost or doubled, and it is said once."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    settings = project_settings.model_copy(update={"mlflow_port": free_port("127.0.0.1")})
    address = f"http://127.0.0.1:{settings.mlflow_port}"
    client = settings.model_copy(update={"tracking_uri": address})
    with running(mlflow_server(settings)) as (server,):
        server.wait_until_ready()
        registry = Registry.open(client)
        run = registry.runs.start("test-cells", "a run", params={}, tags={})
        box = outbox(registry, run, tmp_path / "box")
        box.add_row(1, {METRIC: 1.0})
        assert box.offer() is None
    box.add_row(2, {METRIC: 2.0})
    box.add_file("panels/two.png", b"two")
    assert "to answer" in box.offer()
    assert box.offer() is None, "said once, and not tried again at once"
    with pytest.raises(AwayError):
        box.deliver()
    box.add_row(3, {METRIC: 3.0})
    with running(mlflow_server(settings)) as (server,):
        server.wait_until_ready()
        box.deliver()
        assert history(registry, run) == [(1, 1.0), (2, 2.0), (3, 3.0)]
        assert registry.artifacts.holds(run.run_id, "panels/two.png")
