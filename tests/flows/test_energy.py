"""Energy: real measurements of a few seconds, without network, files or noise, added up over attempts."""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cvdm.errors import ConfigError
from flows.catalogue import kwh_by_promotion
from flows.energy import NOTE, Meter, log_usage, metering, require_known_country
from flows.registry import Registry, Version
from flows.settings import Settings
from flows.usage import KWH, WORLD, Usage

TASK = "test-cells"


def work(seconds: float = 0.4) -> None:
    """Keep one core busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))


def measured(folder: Path, country: str = "", earlier: Usage | None = None) -> Usage:
    meter = Meter("cpu", country, earlier or Usage(), folder / NOTE)
    meter._starting.join()  # so that all of the work is measured
    work()
    return meter.stop()


@pytest.fixture(scope="module")
def usage(tmp_path_factory) -> Usage:
    return measured(tmp_path_factory.mktemp("job"))


def test_work_costs_energy_time_and_memory(usage):
    """A plausible power for the time that it took, and more memory than an interpreter has."""
    assert usage.kwh is not None and usage.co2e_kg is not None
    watts = usage.kwh * 1000 / usage.device_hours
    assert 0.1 < watts < 200
    assert usage.device_hours > 0.4 / 3600
    assert usage.peak_rss_mib > 50
    assert usage.peak_device_mib is None and "memory/peak_device_mib" not in usage.metrics()


def test_the_numbers_say_how_they_were_estimated(usage):
    """By a counter where there is one, else by the nominal power; and whose electricity it was."""
    assert "RAPL" in usage.method or "TDP" in usage.method
    assert usage.grid == WORLD


def test_measuring_asks_nobody_and_leaves_nothing(tmp_path, monkeypatch, capfd):
    """No connection is tried, nothing is printed, and no file lies in the working folder."""
    tried = []
    others = set(threading.enumerate()) - {threading.current_thread()}  # an earlier test's may go on

    def connect(self, address):
        if threading.current_thread() in others:
            raise ConnectionRefusedError
        tried.append(address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    (tmp_path / "job").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    measured(tmp_path / "job")
    assert tried == []
    assert list((tmp_path / "here").iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_the_same_energy_weighs_more_where_coal_is_burnt(tmp_path):
    """CO2e is energy times the grid's mean: Poland's is several times Norway's, the world's in between."""
    found = {country: measured(tmp_path, country) for country in ("NOR", "", "POL")}
    per_kwh = {country: one.co2e_kg / one.kwh for country, one in found.items()}
    assert 5 * per_kwh["NOR"] < per_kwh[""] < per_kwh["POL"] < 1.5
    assert found["POL"].grid == "POL"


def test_a_gpu_that_is_not_used_does_not_count(tmp_path):
    """The machine's GPU is somebody else's while a model trains on the processor."""
    meter = Meter("cpu", "", Usage(), tmp_path / NOTE)
    meter._starting.join()
    work()
    before = meter.stop()
    total = meter._total
    meter.take(replace(total, gpu_energy=1.0, energy_consumed=total.energy_consumed + 1.0))
    assert meter.usage().kwh == before.kwh


def test_attempts_add_up_and_peaks_do_not():
    """Energy and hours of two attempts are summed, the larger peak stays, what is unknown stays unknown."""
    one = Usage(kwh=0.1, co2e_kg=0.05, device_hours=2, peak_rss_mib=900, method="a counter")
    two = Usage(kwh=0.2, co2e_kg=0.07, device_hours=1, peak_rss_mib=700, peak_device_mib=40, method="TDP")
    both = one.plus(two)
    assert both.kwh == pytest.approx(0.3) and both.co2e_kg == pytest.approx(0.12)
    assert (both.device_hours, both.peak_rss_mib, both.peak_device_mib) == (3, 900, 40)
    assert both.method == "TDP"
    assert one.plus(Usage(device_hours=1)).method == "a counter"
    assert Usage().plus(Usage()).kwh is None
    assert Usage.from_metrics(both.metrics()) == replace(both, method=Usage.method)


@pytest.fixture
def job(project_settings, tmp_path):
    folder = tmp_path / "job"
    folder.mkdir()
    return SimpleNamespace(device="cpu", folder=folder, settings=project_settings)


def test_a_resumed_retraining_pays_for_all_of_its_attempts(job, project_settings):
    """Ctrl-C, a kill that leaves only the folder, and a judgement after the folder is gone: all are kept."""
    registry = Registry.open(project_settings)
    run = registry.runs.start(TASK, "a run", params={}, tags={})

    def kwh() -> float:
        return registry.runs.metrics(run.run_id)[KWH]

    with pytest.raises(KeyboardInterrupt), metering(job, registry, run):
        work()
        raise KeyboardInterrupt
    first = kwh()
    assert first > 0
    note = job.folder / NOTE
    killed = json.loads(note.read_text()) | {"kwh": 7.0}
    note.write_text(json.dumps(killed))
    with metering(job, registry, run) as meter:
        log_usage(registry, run, meter.stop())
    assert 7.0 <= kwh() < 7.1
    note.unlink()
    with metering(job, registry, run) as meter:
        log_usage(registry, run, meter.stop())
        log_usage(registry, run, meter.stop())  # tried again, for the server went away in between
    assert kwh() >= 7.0
    assert "codecarbon" in registry.runs.tags(run.run_id)["energy_method"]
    steps = [entry.step for entry in registry.runs._client.get_metric_history(run.run_id, KWH)]
    assert sorted(steps) == [1, 2, 3], "one value for each, none twice at a step"


def test_an_unknown_country_is_refused_before_anything_runs(monkeypatch, tmp_path):
    """A code of another form by the settings, one that no country has by the meter."""
    require_known_country(Settings.read(home=tmp_path, country_iso="DEU"))
    require_known_country(Settings.read(home=tmp_path))
    with pytest.raises(ConfigError, match="CVDM_COUNTRY_ISO"):
        require_known_country(Settings.read(home=tmp_path, country_iso="XQX"))
    with pytest.raises(ConfigError, match="CVDM_COUNTRY_ISO"):
        Settings.read(home=tmp_path, country_iso="Germany")


def version(number: int, verdict: str, decided: str) -> Version:
    return Version(TASK, number, "", "", 0, (), {"verdict": verdict, "decided_at": decided})


def test_a_promoted_model_pays_for_the_rejected_ones_before_it():
    """Every run counts once, for the next promotion after its start; after the last one, for none."""
    versions = [
        version(1, "promote", "1970-01-01T00:00:10+00:00"),
        version(2, "reject", "1970-01-01T00:00:20+00:00"),
        version(3, "promote", "1970-01-01T00:00:30+00:00"),
    ]
    spent = [(5_000, 1.0), (15_000, 2.0), (17_000, 4.0), (25_000, 8.0), (35_000, 16.0)]
    assert kwh_by_promotion(versions, spent) == {1: 1.0, 3: 14.0}
    assert kwh_by_promotion(versions[1:2], spent) == {}
