"""What the orchestrator is told, and that nobody waits for it; test_retrain.py looks at what it shows."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time

import pytest

from flows.flow_artifacts import run_page, show_links, shown_progress
from flows.progress import progress_bar, told_to
from flows.settings import Settings


def count_to(total: int) -> None:
    with progress_bar("count", "number") as progress:
        for done in range(1, total + 1):
            progress(done, total)


def test_without_a_flow_nothing_is_asked(monkeypatch, tmp_path):
    """The commands that show bars but run in no flow need no orchestrator, and wait for none."""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    began = time.monotonic()
    with told_to(shown_progress("a-task")):
        count_to(1000)
    show_links(Settings.read(home=tmp_path), "a-task", "1", "ab")
    assert time.monotonic() - began < 1


def test_bars_are_told_to_nobody_after_the_block():
    """A listener hears the bars of its block only."""
    heard = []

    def listener(description: str):
        return lambda done, total: heard.append((description, done, total))

    with told_to(listener):
        count_to(2)
    count_to(3)
    assert heard == [("count", 1, 2), ("count", 2, 2)]


def test_addresses_are_those_of_the_served_interface(tmp_path):
    """The local server of the settings, or the tracking server's own address without a password in it."""
    local = Settings.read(home=tmp_path, host="10.0.0.7", mlflow_port=5001)
    page, kind = "#/experiments/1/runs/ab", "?workflowType=machine_learning"
    assert run_page(local, "1", "ab") == f"http://10.0.0.7:5001/{page}{kind}"
    remote = Settings.read(home=tmp_path, tracking_uri="https://me:secret@mlflow.example.org/base/")
    gate = run_page(remote, "1", "ab", "gate/decision.json")
    assert gate == f"https://mlflow.example.org/base/{page}/artifacts/gate/decision.json{kind}"


def test_who_chooses_how_often_a_log_tells_is_heard():
    """TQDM_MININTERVAL, in a process whose standard error is no terminal."""
    code = "from cvdm.progress import bar; print(bar('count', 'number').mininterval)"
    for chosen, seconds in ({}, 30.0), ({"TQDM_MININTERVAL": "0.05"}, 0.05):
        environment = {**os.environ, **chosen}
        told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
        assert float(told.stdout) == seconds


@pytest.mark.parametrize(("watched", "redraws"), [(True, 20), (False, 2)])
def test_a_log_is_not_filled_with_bars(monkeypatch, watched, redraws):
    """Where nobody watches, a bar tells its begin and its end, and once in half a minute what is between."""
    told = io.StringIO()
    told.isatty = lambda: watched
    monkeypatch.setattr(sys, "stderr", told)
    with progress_bar("count", "number") as progress:
        for done in range(1, 31):
            progress(done, 30)
            time.sleep(0.11)
    found = told.getvalue().count("\r")
    assert "30/30" in told.getvalue()
    assert found >= redraws if watched else found <= redraws + 1
