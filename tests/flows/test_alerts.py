"""Alerts: delivered to real receivers, off by default, and neither a failure nor a leak when they are not."""

from __future__ import annotations

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cvdm.errors import ConfigError, DatasetError
from flows.alerts import Alert, require_valid, send, telling_of_failure
from flows.retrain import retrain
from flows.settings import Settings

ALERT = Alert("rejected", "test-cells", "version 3: CRPS worse than the champion's")
SECRET = "T0pS3cret"  # noqa: S105  # planted, to be looked for in what is printed


@pytest.fixture
def receiver():
    """A web hook on this machine: (its Apprise address, what it was sent)."""
    received = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"json://127.0.0.1:{server.server_port}/hook", received
    server.shutdown()
    thread.join()
    server.server_close()


def settings(tmp_path, *addresses):
    return Settings(home=tmp_path, alerts=", ".join(addresses))


def test_each_address_gets_the_message(receiver, tmp_path):
    """A web hook with title, text and kind; a file with a line for each message."""
    address, received = receiver
    path = tmp_path / "some folder" / "alerts.jsonl"
    to = settings(tmp_path, address, f"file://{str(path).replace(' ', '%20')}")
    require_valid(to)
    assert send(to, ALERT) and send(to, Alert("promoted", "test-cells", "version 4"))
    assert [one["title"] for one in received] == ["CVDM test-cells: rejected", "CVDM test-cells: promoted"]
    assert received[0]["message"] == ALERT.text
    assert [one["type"] for one in received] == ["warning", "success"]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [one["event"] for one in lines] == ["rejected", "promoted"]
    assert (lines[0]["task"], lines[0]["text"]) == (ALERT.task, ALERT.text)


def test_nothing_is_sent_by_default(tmp_path, capfd):
    """One setting switches alerts on."""
    assert send(settings(tmp_path), ALERT)
    assert capfd.readouterr() == ("", "")


def test_an_address_that_fails_stops_neither_the_others_nor_the_caller(receiver, tmp_path, capfd):
    """It is named by its place and kind; no key of it is written anywhere."""
    address, received = receiver
    (tmp_path / "taken").write_text("")
    dead = f"json://user:{SECRET}@127.0.0.1:9/x"
    file = f"file://{tmp_path}/taken/below-a-file.jsonl"
    to = settings(tmp_path, dead, address, file)
    assert not send(to, ALERT)
    assert len(received) == 1
    err = capfd.readouterr().err
    assert "address 1 (json)" in err and "address 3 (file)" in err and SECRET not in err
    assert SECRET not in repr(to) and SECRET not in str(to.model_dump())


@pytest.mark.parametrize("wrong", [f"nonsense://{SECRET}", SECRET, f"file://{SECRET}"])
def test_what_is_no_address_is_refused_before_it_is_needed(tmp_path, wrong):
    """With its place, and without what it holds."""
    with pytest.raises(ConfigError, match="place 2") as raised:
        require_valid(settings(tmp_path, "json://127.0.0.1/x", wrong))
    assert SECRET not in str(raised.value)


def test_long_texts_are_cut_for_channels(receiver, tmp_path):
    """Some refuse more than 2000 characters."""
    address, received = receiver
    assert send(settings(tmp_path, address), Alert("failed", "test-cells", "x" * 10_000))
    assert len(received[0]["message"]) <= 2000


def test_a_failure_is_told_and_raised_and_an_interruption_is_not_told(tmp_path):
    """With the task and what went wrong."""
    path = tmp_path / "alerts.jsonl"
    to = settings(tmp_path, f"file://{path}")
    with pytest.raises(ValueError), telling_of_failure(to, "test-cells"):
        raise ValueError("disk full")
    with pytest.raises(KeyboardInterrupt), telling_of_failure(to, "test-cells"):
        raise KeyboardInterrupt
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["text"] == "ValueError: disk full" and json.loads(line)["event"] == "failed"


def test_the_flow_tells_its_verdict_and_its_failure(
    project_settings, prefect_server, cells_dataset, monkeypatch, tmp_path
):
    """One message for each retraining, none for a repetition; bad data are a failure with the reason."""
    path = tmp_path / "alerts.jsonl"
    monkeypatch.setenv("CVDM_ALERTS", f"file://{path}")
    root = project_settings.dataset_dir("test-cells")
    shutil.copytree(cells_dataset, root)
    result = retrain("test-cells", "tiny")
    assert retrain("test-cells", "tiny").repeated
    (root / "low" / "f03_c0.tif").write_bytes(b"")
    with pytest.raises(DatasetError):
        retrain("test-cells", "tiny")
    told = [json.loads(line) for line in path.read_text().splitlines()]
    verdict = {"promote": "promoted", "reject": "rejected", "undecided": "undecided"}[result.verdict]
    assert [one["event"] for one in told] == [verdict, "failed"]
    assert told[0]["text"].startswith(f"version {result.version}: ") and "f03_c0" in told[1]["text"]
