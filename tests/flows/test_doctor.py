"""The doctor: healthy where all is well, and a remedy for each thing that is not."""

from __future__ import annotations

import http.server
import json
import shutil
import socket
import threading

import pytest
from packaging.requirements import Requirement

from flows import doctor
from flows.doctor import as_document, as_table, examine, is_healthy
from flows.servers import free_port
from flows.settings import Settings


@pytest.fixture
def settings(project_settings, cells_dataset):
    """A project with data and ports of its own."""
    shutil.copytree(cells_dataset, project_settings.data_dir / "test-cells")
    ports = {name: free_port("127.0.0.1") for name in ("mlflow_port", "prefect_port", "service_port")}
    return Settings.read(home=project_settings.home, **ports)


def broken(findings):
    return {finding.name for finding in findings if finding.status == "broken"}


def test_a_complete_project_is_healthy(settings):
    """Nothing is broken, everything was looked at, and programs get the same."""
    findings = examine(settings)
    assert broken(findings) == set() and is_healthy(findings)
    names = {finding.name for finding in findings}
    assert {"python", "packages", "device", "disk", "mlruns", "git", "data", "tracking"} <= names
    assert sum(name.startswith("port") for name in names) == 3
    assert json.loads(json.dumps(as_document(findings)))["ok"] is True
    remarks = any(finding.status == "warning" for finding in findings)
    told = "Nothing is broken; the arrows say" if remarks else "All is well."
    assert told in as_table(findings)


def test_missing_data_are_broken_with_a_remedy(settings):
    """An incomplete dataset is named, and how to get it back."""
    next((settings.data_dir / "test-cells" / "high").iterdir()).unlink()
    (finding,) = (f for f in doctor.data(settings) if f.status == "broken")
    assert "test-cells" in finding.found and "dvc pull" in finding.remedy
    shutil.rmtree(settings.data_dir)
    settings.data_dir.mkdir()
    assert next(iter(doctor.data(settings))).status == "broken"


def test_a_mistake_in_any_preset_is_broken(settings):
    """Before the night in which it is used; the finding names the key."""
    text = settings.params_file.read_text()
    settings.params_file.write_text(text.replace("presets:", "presets:\n  odd: {model: {depth: 3}}"))
    (finding,) = (f for f in examine(settings) if f.name == "parameters")
    assert finding.status == "broken" and "depth" in finding.found


def test_fewer_files_than_recorded_are_noticed(settings):
    """The count in data.dvc is compared with what is there."""
    (settings.home / "data.dvc").write_text("outs:\n- {md5: abc.dir, nfiles: 99}\n")
    (version,) = (f for f in doctor.data(settings) if f.name == "data version")
    assert version.status == "warning" and "99" in version.found


def test_a_port_taken_by_a_stranger_is_broken(settings):
    """The remedy names the variable to change."""
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", settings.mlflow_port))
        stranger.listen()
        (finding,) = (f for f in doctor.ports(settings) if f.status == "broken")
    assert str(settings.mlflow_port) in finding.name and "CVDM_MLFLOW_PORT" in finding.remedy


def test_packages_that_are_missing_or_too_old_are_named():
    """By name and version."""
    assert doctor._missing(Requirement("no-such-package-anywhere")) == "no-such-package-anywhere is missing"
    assert "is not >=999" in str(doctor._missing(Requirement("numpy>=999")))
    assert doctor._missing(Requirement("numpy>=1")) is None


def test_a_gpu_that_is_asked_for_but_not_there_is_broken(settings, monkeypatch):
    """CVDM_DEVICE=cuda without one."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    (finding,) = doctor.device(Settings.read(home=settings.home, device="cuda"))
    assert finding.status == "broken" and "CVDM_DEVICE" in finding.remedy


def test_a_store_that_does_not_answer_is_broken_and_the_rest_is_still_looked_at(settings):
    """One failing look does not end the examination."""
    settings = Settings.read(home=settings.home, tracking_uri="http://127.0.0.1:9", http_retries=0)
    findings = examine(settings)
    assert "tracking" in broken(findings) and not is_healthy(findings)
    assert any(finding.name.startswith("port") for finding in findings)
    assert "-> Start it with `cvdm up`" in as_table(findings)


class EmptyStore(http.server.BaseHTTPRequestHandler):
    """A tracking server without runs and models."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = do_GET

    def log_message(self, *_arguments: object) -> None:
        pass


def test_the_password_of_a_store_is_not_shown(settings, monkeypatch):
    """Neither of one that answers nor of one that does not."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    def told(place: str) -> str:
        findings = examine(settings.model_copy(update={"tracking_uri": f"http://ada:secret@{place}"}))
        return as_table(findings) + json.dumps(as_document(findings))

    with http.server.HTTPServer(("127.0.0.1", 0), EmptyStore) as store:
        threading.Thread(target=store.serve_forever, daemon=True).start()
        place = f"127.0.0.1:{store.server_port}"
        there = told(place)
        store.shutdown()
    away = told(place)
    assert f"http://{place}: models of no task yet" in there and "API request to" in away
    assert "secret" not in there + away
