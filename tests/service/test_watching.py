"""Drift of what users send: seen where it is planted, not where users merely send many alike."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from service_world import tiff_bytes
from specimens import cells, noisy

from cvdm.drift_signal import read_signal
from cvdm.images import write_tiff
from cvdm.posterior import posterior_of
from flows.settings import Settings as Lifecycle
from flows.triggers.signals import read_signals
from flows.validation.one_pair import measure_image
from service.watching import drift, sittings
from service.watching.drift import REFERENCE, WINDOW, DriftWatch
from service.watching.observation import SIDE, features_of, sample_of
from service.watching.sittings import LONGEST_SECONDS, PAUSE_SECONDS, Sittings

from .test_jobs import Service, residents  # noqa: F401 - a fixture

HOUR = 3600.0
ROUTINE = {
    "noise": (3.0, 0.3),
    "background": (100.0, 5.0),
    "focus_db": (4.0, 0.5),
    "interval_width": (0.1, 0.01),
}
"""Mean and spread of a facility's images from sitting to sitting."""


@pytest.fixture
def store(tmp_path):
    found = Sittings(tmp_path / "watching.db")
    yield found
    found.close()


@pytest.fixture
def watch(store, tmp_path):
    return DriftWatch(store, tmp_path / "signals", cooldown_seconds=100 * HOUR)


class Facility:
    """Sends images, a sitting each hour, and keeps what was judged."""

    def __init__(self, watch, seed=0):
        self.watch, self.rng, self.now, self.judged = watch, np.random.default_rng(seed), 1e9, []

    def sit(self, count=1, *, images=1, **shifts):
        """shifts: feature -> spreads by which it lies off."""
        for _ in range(count):
            self.now += HOUR
            for _ in range(images):
                features = {
                    name: self.rng.normal(mean + shifts.get(name, 0) * spread, spread)
                    for name, (mean, spread) in ROUTINE.items()
                }
                self.judged += self.watch.observe("cells", "r1", "ann", features, self.now)


def test_a_sitting_is_one_observation(store):
    """Many images of one user soon after each other are one row of medians; after a pause comes another."""
    for number in range(100):
        store.add("r1", "ann", {"noise": float(number)}, 1000.0 + number)
    store.add("r1", "bob", {"noise": 7.0}, 1050.0 + 100)
    assert store.of_role("r1", "waiting") == []
    store.add("r1", "ann", {"noise": 0.0}, 1099.0 + PAUSE_SECONDS)
    assert [features for _, features in store.of_role("r1", "waiting")] == [{"noise": 49.5}]
    store.add("r1", "ann", {"noise": 0.0}, 1e6)
    assert [features["noise"] for _, features in store.of_role("r1", "waiting")] == [49.5, 7.0, 0.0]


def test_a_sitting_that_never_ends_is_cut(store):
    """A machine that sends an image every minute gives an observation every few hours."""
    for minute in range(int(3 * LONGEST_SECONDS / 60)):
        store.add("r1", "robot", {"noise": 1.0}, 60.0 * minute)
    assert len(store.of_role("r1", "waiting")) == 2


def test_a_planted_shift_is_signalled_once_per_cool_down(watch, tmp_path):
    """In the first window that has it, by its name; again only after the cool-down; the reference stays."""
    facility = Facility(watch)
    facility.sit(REFERENCE + 2 * WINDOW + 1)
    assert [bool(one.shifted) for one in facility.judged] == [False, False]
    facility.sit(WINDOW, noise=4)
    (found,) = facility.judged[2:]
    assert [one.feature for one in found.shifted] == ["noise"] and found.signalled
    (path,) = (tmp_path / "signals").glob("*.json")
    signal = read_signal(path)
    assert (signal.task, signal.origin, signal.features[0].feature) == ("cells", "service", "noise")
    assert "noise higher" in signal.message and signal.features[0].effect > 0.5
    facility.sit(WINDOW, noise=4)
    assert facility.judged[3].shifted and not facility.judged[3].signalled
    assert list((tmp_path / "signals").glob("*.json")) == [path]
    facility.now += 100 * HOUR
    facility.sit(WINDOW, noise=4)
    assert facility.judged[4].signalled
    (later,) = (tmp_path / "signals").glob("*.json")
    assert later != path, "the newer signal takes the place of the older one"


def test_chance_is_not_called_drift(tmp_path):
    """Of hundreds of windows from one distribution hardly any is called shifted."""
    judged = []
    for seed in range(5):
        store = Sittings(tmp_path / f"{seed}.db")
        facility = Facility(DriftWatch(store, None, 0.0), seed)
        facility.sit(REFERENCE + 40 * WINDOW)
        judged += facility.judged
        store.close()
    assert len(judged) >= 195
    assert np.mean([bool(one.shifted) for one in judged]) <= 0.02


def test_many_images_of_one_odd_slide_are_no_drift(watch, tmp_path):
    """A hundred images of one sitting weigh as much as one: a person looked at one odd slide."""
    facility = Facility(watch)
    facility.sit(REFERENCE + WINDOW + 1)
    facility.sit(1, images=100, noise=8)
    facility.sit(WINDOW)
    assert len(facility.judged) == 2 and not any(one.shifted for one in facility.judged)
    assert not (tmp_path / "signals").exists()


def test_another_version_has_a_reference_of_its_own(watch):
    """What came to one champion says nothing about the next one's interval widths."""
    facility = Facility(watch)
    facility.sit(REFERENCE + WINDOW)
    for hour in range(REFERENCE + 1):
        assert watch.observe("cells", "r2", "ann", {"noise": 99.0}, facility.now + hour * HOUR) == []


def test_the_features_are_those_of_the_data_gate(residents, tmp_path):  # noqa: F811
    """The same numbers that validation finds in the same image, and the interval's mean width."""
    rng = np.random.default_rng(4)
    pixels = np.round(noisy(cells(rng, 128), rng)).astype(np.float32)
    checkpoint = residents.resident.checkpoint
    posterior = posterior_of(checkpoint, pixels)
    found = features_of(sample_of(posterior))
    path = tmp_path / "image.tif"
    write_tiff(path, pixels)
    gate = measure_image(path, is_target=False)
    for name in ("background", "span", "noise", "snr_db", "focus_db", "signal_share"):
        assert found[name] == pytest.approx(getattr(gate, name), rel=1e-6), name
    whole = posterior.estimate()
    scale = 2 * posterior.view.scale.half_range
    assert found["interval_width"] == pytest.approx(float(np.mean(whole.upper - whole.lower)) / scale)


def test_of_a_large_image_the_middle_is_looked_at(residents, monkeypatch):  # noqa: F811
    """A constant image says little, and harms nothing."""
    monkeypatch.setattr("service.watching.observation.SIDE", 16)
    sample = sample_of(posterior_of(residents.resident.checkpoint, np.full((40, 20), 7, np.float32)))
    assert sample.pixels.shape == (16, 16) and SIDE == 1024
    assert set(features_of(sample)) == {"interval_width", "background"}


def test_what_users_send_asks_for_a_retraining(residents, tmp_path, monkeypatch):  # noqa: F811
    """Requests and jobs alike, through the service, to a signal that the lifecycle reads; and the metrics."""
    monkeypatch.setattr(sittings, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(drift, "REFERENCE", 12)
    lifecycle = Lifecycle.read(home=tmp_path)
    rng = np.random.default_rng(8)

    def image(gain):
        return tiff_bytes(np.round(gain * noisy(cells(rng, 48), rng)).astype(np.uint8))

    with Service(residents, tmp_path / "jobs", signals_dir=lifecycle.signals_dir) as service:
        for number in range(12 + 2 * WINDOW + 1):
            sent = image(1.0 if number < 12 + WINDOW else 0.4)
            if number % 2:
                id = service.enter(sent, samples="2", steps="2").json()["id"]
                service.wait_for(id, "done")
            else:
                choices = {"samples": "2", "steps": "2"}
                assert service.client.post("/reconstruct", files={"image": sent}, data=choices).is_success
            time.sleep(0.01)
        deadline = time.monotonic() + 20
        while 'cvdm_drift_signals_total{task="test-cells"} 1.0' not in service.client.get("/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (signal,) = read_signals(lifecycle).values()
        assert signal.origin == "service" and "span" in json.dumps([one.feature for one in signal.features])
        text = service.client.get("/metrics").text
        assert 'cvdm_drift_effect{feature="span",task="test-cells"} -' in text
        assert 'cvdm_interval_width_count{task="test-cells"} ' in text
