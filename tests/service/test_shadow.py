"""A challenger in the champion's shadow: it restores what users send, and no user sees anything of it."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace

import pytest
from service_world import acquired
from specimens import make_checkpoint

from cvdm.observation import Observation
from cvdm.optics import ForwardModel
from flows.shadow import RECORD, shadow_summary
from service.loading import Resident, Version
from service.watching.shadow import Shadow, compared

from .test_jobs import LONG, Service, residents  # noqa: F401 - a fixture

CHALLENGER = Version("test-cells", 2, "r2")
OPTICS = ForwardModel(psf_sigma_px=1.5, photons=80, full_scale=200, read_noise=1.5, offset=100, seed=0)


@pytest.fixture
def challenged(residents):  # noqa: F811
    residents.challenging = Resident(CHALLENGER, make_checkpoint(seed=5))
    return residents


def recorded(folder, count, seconds=60):
    """The lines of the record, once there are so many."""
    deadline, path = time.monotonic() + seconds, folder / RECORD
    while not path.is_file() or len(path.read_text().splitlines()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_job_is_compared_and_its_result_is_the_champions(challenged, tmp_path):
    """One line, with both versions and what differs; the result is to the byte what it is without shadow."""
    image = acquired(64)
    with Service(challenged, tmp_path / "jobs", shadow_share=1.0) as service:
        id = service.enter(image).json()["id"]
        service.wait_for(id, "done")
        (line,) = recorded(tmp_path / "jobs", 1)
        result = service.client.get(f"/jobs/{id}/result")
        asked = service.client.post("/reconstruct", files={"image": image})
        assert result.content == asked.content and result.headers["x-cvdm-version"] == "1"
        assert 'cvdm_shadow_images_total{task="test-cells"} 1.0' in service.client.get("/metrics").text
    assert (line["champion"], line["challenger"]) == (1, 2)
    assert (line["champion_run"], line["challenger_run"]) == ("r", "r2")
    assert line["input_sha256"] == hashlib.sha256(image).hexdigest()
    assert line["champion_width"] > 0 and line["challenger_width"] > 0 and line["difference"] > 0
    assert line["champion_residual"] is None
    found = shadow_summary(tmp_path / "jobs", "r", "r2")
    assert (found.images, found.sittings) == (1, 1)
    assert found.width_change == pytest.approx(line["challenger_width"] / line["champion_width"] - 1)


def test_without_a_share_or_a_challenger_nothing_is_compared(challenged, residents, tmp_path):  # noqa: F811
    """By default nothing runs in the shadow; nor where nobody challenges."""
    for name, share, challenging in (("a", 0.0, challenged.challenging), ("b", 1.0, None)):
        residents.challenging = challenging
        with Service(residents, tmp_path / name, shadow_share=share) as service:
            service.wait_for(service.enter(acquired(40)).json()["id"], "done")
            time.sleep(0.3)
        assert not (tmp_path / name / RECORD).exists()


def test_the_record_does_not_grow_for_ever(challenged, tmp_path, monkeypatch):
    """Beyond its bound the older half goes, line by line."""
    monkeypatch.setattr("service.watching.shadow.MOST_BYTES", 1000)
    (tmp_path / "jobs").mkdir()
    old = [json.dumps({"at": str(number), "champion_run": "old"}) for number in range(100)]
    (tmp_path / "jobs" / RECORD).write_text("\n".join(old) + "\n")
    with Service(challenged, tmp_path / "jobs", shadow_share=1.0) as service:
        service.wait_for(service.enter(acquired(40)).json()["id"], "done")
        deadline = time.monotonic() + 30
        while (lines := (tmp_path / "jobs" / RECORD).read_text().splitlines())[-1] == old[-1]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert lines[:-1] == old[50:] and json.loads(lines[-1])["challenger"] == 2


def test_a_share_is_a_share(residents, tmp_path):  # noqa: F811
    """A third of many images, the same ones each time."""

    class Counting:
        def __init__(self):
            self.asked = 0

        def challenger(self, task):
            self.asked += 1

    counting = Counting()
    shadow = Shadow(1 / 3, counting, None, tmp_path / RECORD)
    digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(3000)]
    for digest in digests:
        shadow.consider(residents.resident, "ann", digest, None)
    assert 900 < counting.asked < 1100
    first = counting.asked
    for digest in digests:
        shadow.consider(residents.resident, "ann", digest, None)
    assert counting.asked == 2 * first


def test_the_shadow_makes_way(challenged, tmp_path, monkeypatch):
    """While a challenger is at work, a request is answered at once; then it goes on to its end."""
    steps = replace(challenged.challenging.checkpoint.recipe.sampling, samples=64, steps=60)
    recipe = replace(challenged.challenging.checkpoint.recipe, sampling=steps)
    slow = replace(challenged.challenging.checkpoint, recipe=recipe)
    challenged.challenging = Resident(CHALLENGER, slow)
    with Service(challenged, tmp_path / "jobs", shadow_share=1.0) as service:
        service.wait_for(service.enter(acquired(96)).json()["id"], "done")
        time.sleep(0.5)
        assert not (tmp_path / "jobs" / RECORD).exists(), "the shadow must be at work still"
        image = acquired(32, seed=9)
        reply = service.client.post(
            "/reconstruct", files={"image": image}, data={"samples": "2", "steps": "2"}
        )
        assert reply.is_success and not (tmp_path / "jobs" / RECORD).exists()
        recorded(tmp_path / "jobs", 1, seconds=120)


def test_the_service_ends_although_a_shadow_is_at_work(challenged, tmp_path):
    """Within seconds, and without a line about half a comparison."""
    slow = replace(challenged.challenging.checkpoint.recipe.sampling, samples=64, steps=200)
    recipe = replace(challenged.challenging.checkpoint.recipe, sampling=slow)
    checkpoint = replace(challenged.challenging.checkpoint, recipe=recipe)
    challenged.challenging = Resident(CHALLENGER, checkpoint)
    with Service(challenged, tmp_path / "jobs", shadow_share=1.0) as service:
        service.wait_for(service.enter(acquired(96)).json()["id"], "done")
        time.sleep(0.5)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert not (tmp_path / "jobs" / RECORD).exists()


def test_residuals_are_compared_where_the_optics_are_known(residents, tmp_path):  # noqa: F811
    """Of the same model twice everything is equal, and the residual is a number."""
    checkpoint = residents.resident.checkpoint
    known = replace(checkpoint, record=replace(checkpoint.record, forward_model=OPTICS))
    champion, challenger = Resident(Version("test-cells", 1, "r"), known), Resident(CHALLENGER, known)
    import io

    import numpy as np
    import tifffile

    pixels = tifffile.imread(io.BytesIO(acquired(48))).astype(np.float32)
    found = compared(champion, challenger, "ann", "0" * 64, Observation.of(pixels), lambda done, total: None)
    assert found.champion_width == found.challenger_width and found.difference == 0
    assert found.champion_residual == found.challenger_residual > 0
