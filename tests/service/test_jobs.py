"""Jobs through the web application: real table, real files, a real device; a fake registry."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from service_world import acquired, tiff_bytes
from starlette.testclient import TestClient

from service import job_routes
from service.desk import Desk
from service.device import Device
from service.doorkeeper import Caller
from service.errors import JobsError, RegistryError
from service.jobs.archive import Archive
from service.jobs.desk import open_jobs
from service.keys import Key, Quota
from service.loading import Resident, Version
from service.metrics import Metrics
from service.routes import build_app
from service.settings import Settings


def named_in_header(scope):
    """Planted: whoever one says to be."""
    name = dict(scope["headers"]).get(b"x-user", b"ann").decode()
    return Caller(Key(name, "operator" if name == "root" else "user", Quota(images=4), 0.0, None))


LONG = {"samples": "64", "steps": "200"}
"""Minutes for an image of 96 pixels."""


class FakeResidents:
    """Always answers with the same model, or fails."""

    def __init__(self, resident):
        self.resident = resident
        self.failure = None
        self.challenging = None
        self.away = None

    async def get(self, task, wanted):
        if self.failure is not None:
            raise self.failure
        if self.away is not None and wanted == self.away:
            raise RegistryError(f"version {wanted}", "no answer", "Start the registry.")
        if self.challenging is not None and wanted == self.challenging.version.number:
            return self.challenging
        return self.resident

    def challenger(self, task):
        return None if self.challenging is None else self.challenging.version

    def is_champion(self, version):
        return version.key == self.resident.version.key


@pytest.fixture
def residents(tiny_checkpoint):
    return FakeResidents(Resident(Version("test-cells", 1, "r"), tiny_checkpoint))


class Service:
    """An application with jobs in a folder; can be ended and started again."""

    def __init__(self, residents, folder, **settings):
        chosen = {"max_waiting": 3} | settings
        self.settings = Settings(tracking_uri="sqlite:////none.db", jobs_dir=folder, **chosen)
        self.residents = residents

    def __enter__(self):
        app, metrics = build_app(), Metrics(CollectorRegistry())
        device = Device(max_waiting=self.settings.max_waiting)
        app.state.desk = self.desk = Desk(self.settings, self.residents, device, metrics)
        self.client = TestClient(app).__enter__()
        app.state.jobs = self.jobs = self.client.portal.call(self._open, device, metrics)
        return self

    async def _open(self, device, metrics):
        jobs = open_jobs(self.settings.jobs_dir, self.settings, self.residents, device, metrics)
        self.desk.watcher = jobs.watcher
        self.running = asyncio.create_task(jobs.runner.run())
        return jobs

    def __exit__(self, *error):
        self.client.portal.call(self._close)
        self.client.__exit__(None, None, None)

    async def _close(self):
        self.running.cancel()
        self.desk.close()
        await self.jobs.close()

    def enter(self, *images, headers=None, **fields):
        files = [("image", (f"cell{n}.tif", image)) for n, image in enumerate(images)]
        return self.client.post("/jobs", files=files, data=fields, headers=headers or {})

    def job(self, id):
        return self.client.get(f"/jobs/{id}").json()

    def wait_for(self, id, *states, seconds=60):
        deadline = time.monotonic() + seconds
        while (job := self.job(id))["state"] not in states:
            assert time.monotonic() < deadline, job
            time.sleep(0.02)
        return job

    def begun(self, *images, **fields):
        """A job of which something is done."""
        id = self.enter(*images, **fields).json()["id"]
        while self.job(id)["percent"] == 0:
            time.sleep(0.01)
        return id


@pytest.fixture
def service(residents, tmp_path):
    with Service(residents, tmp_path / "jobs") as running:
        yield running


def test_a_job_gives_what_a_request_gives_to_the_byte(service):
    """The same image with the same choices; name, provenance and ranges as one would expect."""
    image = acquired(70)
    reply = service.enter(image, seed="5", steps="3")
    assert reply.status_code == 202, reply.text
    id = reply.json()["id"]
    assert reply.headers["location"] == f"/jobs/{id}"
    job = service.wait_for(id, "done")
    assert (job["percent"], job["seed"], job["steps"], job["version"]) == (100, 5, 3, 1)
    result = service.client.get(f"/jobs/{id}/result")
    asked = service.client.post("/reconstruct", files={"image": image}, data={"seed": "5", "steps": "3"})
    assert result.content == asked.content
    own = {name: value for name, value in result.headers.items() if name.startswith("x-cvdm-")}
    assert own == {name: value for name, value in asked.headers.items() if name.startswith("x-cvdm-")}
    assert own["x-cvdm-seed"] == "5" and own["x-cvdm-version"] == "1"
    assert "cell0.ome.tif" in result.headers["content-disposition"]
    part = service.client.get(job["images"][0]["result"], headers={"range": "bytes=4-7"})
    assert part.status_code == 206 and part.content == result.content[4:8]


def test_doubts_about_an_image_are_told_with_it(service, residents, tmp_path):
    """Image by image; where the operator says so, instead of a job."""
    odd = tiff_bytes(np.full((40, 40), 9, np.uint8), resolution=(5e4, 5e4), resolutionunit="CENTIMETER")
    job = service.enter(acquired(40), odd).json()
    assert job["images"][0]["warnings"] == []
    magnification, empty = job["images"][1]["warnings"]
    assert "cell1.tif with pixels of 0.2 µm" in magnification["actual"]
    assert empty["actual"] == "cell1.tif, 9 everywhere"
    with Service(residents, tmp_path / "strict", refuse_doubtful=True) as strict:
        reply = strict.enter(acquired(40), odd)
        assert reply.status_code == 422 and "pixels of about 0.1" in reply.json()["expected"]
        assert strict.enter(acquired(40)).status_code == 202


def test_a_batch_is_one_job(service):
    """Each image has its own state, time and result; the job has one result only where it has one image."""
    images = [acquired(40 + n, seed=n) for n in range(3)]
    id = service.enter(*images).json()["id"]
    job = service.wait_for(id, "done")
    assert [image["name"] for image in job["images"]] == ["cell0.tif", "cell1.tif", "cell2.tif"]
    for image, content in zip(job["images"], images, strict=True):
        asked = service.client.post("/reconstruct", files={"image": content})
        assert service.client.get(image["result"]).content == asked.content
    reply = service.client.get(f"/jobs/{id}/result")
    assert reply.status_code == 409 and "images/NUMBER/result" in reply.json()["remedy"]
    assert service.client.get(f"/jobs/{id}/images/3/result").status_code == 404


def test_the_same_key_is_the_same_job(service):
    """Sent again it is not done again; another image under it is refused, and the first job is as it was."""
    image, key = acquired(40), {"idempotency-key": "monday-7"}
    first, again = service.enter(image, headers=key), service.enter(image, headers=key)
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    other = service.enter(acquired(41), headers=key)
    assert other.status_code == 422 and "Idempotency-Key" in other.json()["expected"]
    assert len(service.client.get("/jobs").json()["jobs"]) == 1
    service.wait_for(first.json()["id"], "done")
    assert service.enter(image, headers=key).json()["state"] == "done"


def test_a_job_that_runs_is_cancelled_within_a_second(service, tmp_path):
    """Its files of half-done work are gone, what is restored of a batch stays, and the device is free."""
    id = service.begun(acquired(96), **LONG)
    start = time.monotonic()
    service.client.post(f"/jobs/{id}/cancel")
    job = service.wait_for(id, "cancelled")
    assert time.monotonic() - start < 1 + 1
    assert 0 < job["percent"] < 100 and job["images"][0]["result"] is None
    reply = service.client.get(f"/jobs/{id}/result")
    assert reply.status_code == 409 and "cancelled" in reply.json()["actual"]
    assert not list((tmp_path / "jobs").rglob("work"))
    service.wait_for(service.enter(acquired(32)).json()["id"], "done")


def test_a_request_does_not_wait_for_a_job(service):
    """It is answered while the job runs, which then goes on without doing anything twice."""
    id = service.begun(acquired(64), samples="16", steps="20")
    assert service.client.post("/reconstruct", files={"image": acquired(32)}).status_code == 200
    assert service.job(id)["state"] == "running"
    service.wait_for(id, "done")


def test_small_jobs_are_not_stuck_behind_a_huge_one(service, monkeypatch):
    """Neither another user's nor the same user's; planted: turns after a tenth of a second."""
    monkeypatch.setattr("service.jobs.turns.QUANTUM_SECONDS", 0.1)
    monkeypatch.setattr(job_routes, "caller_of", named_in_header)
    huge = service.begun(acquired(96), **LONG)
    for user in ("ann", "bob"):
        reply = service.enter(acquired(32), headers={"x-user": user})
        id = reply.json()["id"]
        deadline = time.monotonic() + 30
        while service.client.get(f"/jobs/{id}", headers={"x-user": user}).json()["state"] != "done":
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert service.job(huge)["state"] == "running"
    service.client.post(f"/jobs/{huge}/cancel")


def test_three_long_images_keep_nobodys_small_one_waiting(service, monkeypatch):
    """One of them ends early between two strips, and goes on later; planted: turns of a tenth of a second."""
    monkeypatch.setattr("service.jobs.turns.QUANTUM_SECONDS", 0.1)
    monkeypatch.setattr("service.device.SETTLED_SECONDS", 0.2)
    monkeypatch.setattr(job_routes, "caller_of", named_in_header)
    long, users = [], ({"x-user": "ann"}, {"x-user": "ann"}, {"x-user": "bob"})
    for user in users:
        long.append(service.enter(acquired(96), headers=user, **LONG).json()["id"])

    def percents():
        jobs = [service.client.get(f"/jobs/{id}", headers={"x-user": "root"}).json() for id in long]
        assert {job["state"] for job in jobs} <= {"queued", "running"}
        return [job["percent"] for job in jobs]

    while not all(percents()):
        time.sleep(0.01)
    cyn = {"x-user": "cyn"}
    id = service.enter(acquired(32), headers=cyn).json()["id"]
    deadline = time.monotonic() + 30
    while service.client.get(f"/jobs/{id}", headers=cyn).json()["state"] != "done":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    before = percents()
    while not all(now > then for now, then in zip(percents(), before, strict=True)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for one in long:
        service.client.post(f"/jobs/{one}/cancel", headers={"x-user": "root"})


def test_a_job_is_its_owners_alone(service, monkeypatch):
    """Others get the answer that they would get if it did not exist."""
    monkeypatch.setattr(job_routes, "caller_of", named_in_header)
    id, bob = service.enter(acquired(32)).json()["id"], {"x-user": "bob"}
    service.wait_for(id, "done")
    for method, path in (
        ("GET", ""), ("GET", "/result"), ("GET", "/events"), ("POST", "/cancel"), ("DELETE", ""),
    ):  # fmt: skip
        theirs = service.client.request(method, f"/jobs/{id}{path}", headers=bob)
        none = service.client.request(method, f"/jobs/{'x' * len(id)}{path}", headers=bob)
        assert theirs.status_code == none.status_code == 404
        assert theirs.json()["expected"] == none.json()["expected"]
    assert service.client.get("/jobs", headers=bob).json() == {"jobs": []}
    assert service.job(id)["state"] == "done"
    root = {"x-user": "root"}
    assert [job["owner"] for job in service.client.get("/jobs", headers=root).json()["jobs"]] == ["ann"]
    assert service.client.get(f"/jobs/{id}/result", headers=root).status_code == 200
    assert service.enter(*[acquired(32)] * 5).status_code == 429  # of the key, below that of the service


def test_events_tell_every_step_to_the_end(service):
    """The last one is the end; percentages never fall."""
    id = service.enter(acquired(64), samples="16", steps="20").json()["id"]
    with service.client.stream("GET", f"/jobs/{id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        told = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
    assert told[-1]["state"] == "done" and told[-1]["percent"] == 100
    percents = [one["percent"] for one in told]
    assert percents == sorted(percents)


def test_a_stream_of_events_ends_when_the_service_does(residents, tmp_path):
    """It does not keep the process from ending."""
    with Service(residents, tmp_path / "jobs") as service:
        id = service.begun(acquired(96), **LONG)
        with service.client.stream("GET", f"/jobs/{id}/events") as stream:
            lines = stream.iter_lines()
            assert next(lines) == "event: running"
            service.client.portal.call(service._close)
            start = time.monotonic()
            assert not [line for line in lines if "done" in line and line.startswith("event")]
            assert time.monotonic() - start < 5


def test_what_an_end_interrupted_goes_on_in_the_next_process(residents, tmp_path):
    """Nothing is lost, nothing is done twice, and the result is the undisturbed one's to the byte."""
    image, fields = acquired(96), {"samples": "12", "steps": "10"}
    with Service(residents, tmp_path / "jobs") as service:
        first, second = service.begun(image, **fields), service.enter(acquired(33)).json()["id"]
    before = {}
    with Service(residents, tmp_path / "jobs") as service:
        before = service.job(first)
        assert 0 < before["percent"] < 100
        jobs = [service.wait_for(id, "done") for id in (first, second)]
        assert (
            service.client.get(f"/jobs/{first}/result").content
            == service.client.post("/reconstruct", files={"image": image}, data=fields).content
        )
        assert all(job["images"][0]["seconds"] > 0 for job in jobs)
        ended = service.job(first)["ended"]
    with Service(residents, tmp_path / "jobs") as service:
        assert service.job(first)["ended"] == ended and service.job(first)["state"] == "done"


def test_a_result_that_was_there_before_it_was_entered_is_not_made_again(residents, tmp_path):
    """Planted: an end of the process between the last file and the table."""
    with Service(residents, tmp_path / "jobs") as service:
        id = service.begun(acquired(96), **LONG)
    made = acquired(32)
    (tmp_path / "jobs" / "files" / id / "0" / "result.ome.tif").write_bytes(made)
    with Service(residents, tmp_path / "jobs") as service:
        service.wait_for(id, "done", seconds=5)
        assert service.client.get(f"/jobs/{id}/result").content == made


def test_leftovers_of_an_upload_are_removed_at_the_nextstart(residents, tmp_path):
    """Of one that was never entered, and of one that was just forgotten."""
    folder = tmp_path / "jobs"
    with Service(residents, folder) as service:
        kept = service.enter(acquired(32)).json()["id"]
        service.wait_for(kept, "done")
    for name in ("incoming/half", "files/forgotten"):
        (folder / name / "0").mkdir(parents=True)
    with Service(residents, folder) as service:
        service.wait_for(service.enter(acquired(32)).json()["id"], "done")
        assert not (folder / "incoming" / "half").exists() and not (folder / "files" / "forgotten").exists()
        assert service.client.get(f"/jobs/{kept}/result").status_code == 200


def test_what_cannot_be_restored_is_refused_whole_and_by_name(service, tmp_path):
    """One bad image in a batch: nothing is entered, nothing is left."""
    bright = tiff_bytes(np.full((40, 40), 60_000, np.uint16))
    for bad, status in (
        (b"no image", 422),
        (bright, 422),
        (tiff_bytes(np.zeros((3, 40, 40), np.uint8)), 422),
    ):
        reply = service.enter(acquired(32), bad)
        assert reply.status_code == status and reply.json()["actual"].startswith("cell1.tif")
    reply = service.enter(acquired(32), steps="100000")
    assert reply.status_code == 422
    assert service.client.post("/jobs", data={"seed": "1"}, files={"other": b"x"}).status_code == 422
    assert service.client.get("/jobs").json() == {"jobs": []}
    assert not list((tmp_path / "jobs" / "incoming").iterdir())
    assert not list((tmp_path / "jobs" / "files").iterdir())


def test_a_model_that_fails_fails_the_image_with_its_reason(service, residents):
    """The job has ended; the reason is the science's own words."""
    model = residents.resident.checkpoint.model
    broken = replace(residents.resident.checkpoint, model=model)
    for parameter in broken.model.mean_network.parameters():
        parameter.fill_(float("nan"))
    job = service.wait_for(service.enter(acquired(32)).json()["id"], "failed")
    assert "infinite or undefined" in job["images"][0]["error"]["actual"]


def test_a_registry_that_is_down_only_delays_a_job(service, residents, monkeypatch):
    """Passing trouble is no failure; while it lasts, the job tells why it waits."""
    monkeypatch.setattr("service.jobs.runner.PAUSE_SECONDS", 0.1)
    hold = service.begun(acquired(96), **LONG)
    monkeypatch.setattr("service.jobs.runner.AT_DEVICE", 1)
    id = service.enter(acquired(32)).json()["id"]
    residents.failure = RegistryError("a registry", "none", "Start it.")
    service.client.post(f"/jobs/{hold}/cancel")
    deadline = time.monotonic() + 10
    while service.job(id)["waits_for"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for _ in range(20):  # while it is asked for again, too
        time.sleep(0.02)
        job = service.job(id)
        assert job["state"] == "queued" and job["waits_for"] == residents.failure.as_dict()
    residents.failure = None
    assert service.wait_for(id, "done")["waits_for"] is None


def test_images_whose_model_is_away_keep_no_others_waiting(service, residents, tiny_checkpoint, monkeypatch):
    """Planted: more of one version that cannot be had than a user has places at the device."""
    monkeypatch.setattr("service.jobs.runner.PAUSE_SECONDS", 3600)
    residents.challenging = Resident(Version("test-cells", 2, "r2"), tiny_checkpoint)
    hold = service.begun(acquired(96), acquired(97), **LONG)
    waiting = service.enter(*[acquired(32, seed=n) for n in range(5)], version="2").json()["id"]
    residents.away = 2
    service.client.post(f"/jobs/{hold}/cancel")
    id = service.enter(acquired(32)).json()["id"]
    service.wait_for(id, "done")
    assert service.job(waiting)["state"] == "queued"


def test_a_user_has_a_quota(residents, tmp_path):
    """429 with a time; what has ended does not count."""
    with Service(residents, tmp_path / "jobs", max_job_images=2) as service:
        id = service.begun(acquired(96), **LONG)
        reply = service.enter(acquired(32), acquired(33))
        assert reply.status_code == 429 and reply.headers["retry-after"]
        service.client.post(f"/jobs/{id}/cancel")
        service.wait_for(id, "cancelled")
        assert service.enter(acquired(32), acquired(33)).status_code == 202


@pytest.mark.parametrize(
    ("asked", "status"), [("bytes=0-9", 206), ("lines=1-2", 400), ("bytes=x", 400), ("bytes=99999999-", 416)]
)
def test_a_range_that_cannot_be_served_is_refused_in_the_same_words(service, asked, status):
    """As JSON, with the request's id; beyond the end with the size of the file."""
    id = service.enter(acquired(32), samples="2", steps="1").json()["id"]
    service.wait_for(id, "done")
    reply = service.client.get(f"/jobs/{id}/result", headers={"range": asked})
    assert reply.status_code == status
    if status != 206:
        assert reply.json()["request_id"] == reply.headers["x-request-id"]
        assert asked in reply.json()["actual"]
    assert reply.headers.get("content-range", "").startswith("bytes */") == (status == 416)


def test_jobs_that_are_too_old_for_the_list_are_found(service, monkeypatch):
    """Planted: two in a list; list after list has each job once, and somebody else's id tells nothing."""
    monkeypatch.setattr(job_routes, "caller_of", named_in_header)
    monkeypatch.setattr("service.jobs.telling.LISTED", 2)
    ids = [service.enter(acquired(32, seed=n), samples="2", steps="1").json()["id"] for n in range(4)]
    found, more = [], {}
    while jobs := service.client.get("/jobs", params=more).json()["jobs"]:
        assert len(jobs) == 2
        found += [job["id"] for job in jobs]
        more = {"before": found[-1]}
    assert found == ids[::-1]
    for headers, id in (({"x-user": "bob"}, ids[0]), ({}, "none")):
        assert service.client.get("/jobs", params={"before": id}, headers=headers).status_code == 404


def test_who_may_have_no_further_image_is_refused_unread(residents, tmp_path):
    """The rest of the body is never asked for; a job that is there already is told again."""
    with Service(residents, tmp_path / "jobs", max_job_images=1) as service:
        key = {"idempotency-key": "monday"}
        id = service.enter(acquired(96), headers=key, **LONG).json()["id"]
        sent = []

        async def receive():
            raise AssertionError("read")

        async def send(message):
            sent.append(message)

        head = {"type": "http", "method": "POST", "path": "/jobs", "query_string": b"", "headers": []}
        service.client.portal.call(service.client.app, head, receive, send)
        assert sent[0]["status"] == 429
        again = service.enter(acquired(96), headers=key, **LONG)
        assert (again.status_code, again.json()["id"]) == (200, id)


def test_an_upload_has_its_place_until_the_intake_is_past_it(residents, tmp_path):
    """Planted: an intake at work; with as many uploads before it as there are places, others come later."""
    with Service(residents, tmp_path / "jobs", max_waiting=1) as service, ThreadPoolExecutor(3) as clients:
        at_work = threading.Event()
        service.jobs._intake.submit(at_work.wait)
        sent = [clients.submit(service.enter, acquired(32, seed=n)) for n in range(2)]
        time.sleep(1)  # both are read, and one of them waits for the intake
        others = clients.submit(service.enter, acquired(33))
        threading.Timer(3, at_work.set).start()
        reply = others.result()
        assert reply.json()["error"] == "BusyError"
        assert [one.result().status_code for one in sent] == [202, 202]
        assert service.enter(acquired(34)).status_code == 202


def test_images_have_room_together_or_none_has(residents, tmp_path, monkeypatch):
    """Planted: a disk with room for each of four images alone; nothing of the refused job stays."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2_600_000))
    with Service(residents, tmp_path / "jobs") as service:
        images = [acquired(128, seed=n) for n in range(4)]  # 2.1 MB while it is restored, 0.3 MB after
        reply = service.enter(*images)
        assert reply.status_code == 507 and "fewer images" in reply.json()["remedy"]
        assert list((tmp_path / "jobs" / "incoming").iterdir()) == []
        assert service.enter(images[0]).status_code == 202


def test_jobs_that_come_at_once_exceed_no_quota(residents, tmp_path):
    """Planted: eight clients at a time, each with an image, where three may wait."""
    chosen = {"max_job_images": 3, "max_waiting": 8}
    with Service(residents, tmp_path / "jobs", **chosen) as service, ThreadPoolExecutor(8) as clients:
        replies = list(clients.map(lambda n: service.enter(acquired(48, seed=n), **LONG), range(8)))
        assert sorted(reply.status_code for reply in replies) == [202] * 3 + [429] * 5
        assert len(list((service.settings.jobs_dir / "files").iterdir())) == 3


def test_a_job_can_be_removed_when_it_has_ended(service, tmp_path):
    """Before that it must be cancelled; after that there is nothing of it."""
    id = service.begun(acquired(96), **LONG)
    assert service.client.delete(f"/jobs/{id}").status_code == 409
    service.client.post(f"/jobs/{id}/cancel")
    service.wait_for(id, "cancelled")
    assert service.client.delete(f"/jobs/{id}").status_code == 204
    assert service.client.get(f"/jobs/{id}").status_code == 404
    assert not (tmp_path / "jobs" / "files" / id).exists()


def test_results_are_kept_for_a_set_time(residents, tmp_path):
    """Planted: a fraction of a second; they go with the next start."""
    with Service(residents, tmp_path / "jobs", job_hours=0.01 / 3600) as service:
        id = service.enter(acquired(32)).json()["id"]
        service.wait_for(id, "done")
    time.sleep(0.05)
    with Service(residents, tmp_path / "jobs", job_hours=0.01 / 3600) as service:
        deadline = time.monotonic() + 10
        while service.client.get(f"/jobs/{id}").status_code != 404:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_two_services_never_share_a_folder(service, tmp_path):
    """The second one says so and does not start."""
    with pytest.raises(JobsError, match="another service uses"):
        Archive(tmp_path / "jobs")


def test_a_service_without_a_folder_says_so(residents):
    """And does everything else."""
    app = build_app()
    app.state.desk = Desk(
        Settings(tracking_uri="sqlite:////none.db"),
        residents,
        Device(max_waiting=3),
        Metrics(CollectorRegistry()),
    )
    with TestClient(app) as client:
        reply = client.get("/jobs")
        assert reply.status_code == 503 and "CVDM_JOBS_DIR" in reply.json()["remedy"]
        assert client.post("/reconstruct", files={"image": acquired(32)}).status_code == 200
    app.state.desk.close()
