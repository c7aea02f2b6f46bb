"""One request through the web application, with a real device thread and a fake registry."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import resource
import threading
import time

import pytest
from prometheus_client import CollectorRegistry
from service_world import acquired
from starlette.testclient import TestClient

from cvdm.errors import CheckpointError, StorageError
from service.desk import Desk
from service.device import Device
from service.loading import Resident, Version
from service.logs import JsonLines
from service.metrics import Metrics
from service.routes import build_app
from service.settings import Settings

SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/reconstruct",
    "headers": [(b"content-type", b"multipart/form-data; boundary=B")],
    "query_string": b"",
}


class FakeResidents:
    """Always answers with the same model, or always fails."""

    def __init__(self, resident):
        self.resident = resident
        self.failure = None
        self.hold: asyncio.Event | None = None
        self.answered = 0

    async def get(self, task, wanted):
        if self.hold is not None:
            await self.hold.wait()
        self.answered += 1
        if self.failure is not None:
            raise self.failure
        return self.resident

    def describe(self):
        return {"ready": True, "models": []}


@pytest.fixture
def residents(tiny_checkpoint):
    return FakeResidents(Resident(Version("test-cells", 1, "r"), tiny_checkpoint))


@pytest.fixture
def client(residents):
    yield from serve(residents, timeout_seconds=60)


@pytest.fixture
def impatient_client(residents):
    yield from serve(residents, timeout_seconds=1)


def serve(residents, *, timeout_seconds):
    settings = Settings(tracking_uri="sqlite:////none.db", timeout_seconds=timeout_seconds)
    app = build_app()
    app.state.device = Device(max_waiting=3)
    app.state.desk = Desk(settings, residents, app.state.device, Metrics(CollectorRegistry()))
    with TestClient(app) as http:
        yield http
    app.state.desk.close()


def ask_long(client, size=24):
    """200 steps of 64 draws; with a larger image it takes minutes."""
    return client.post(
        "/reconstruct", files={"image": acquired(size)}, data={"samples": "64", "steps": "200"}
    )


def test_a_bug_is_a_500_whose_details_stay_in_the_log(client, residents):
    """The client learns a request id; the log has the traceback under the same id."""
    residents.failure = RuntimeError("inner detail")
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonLines())
    logging.getLogger("service").addHandler(handler)
    try:
        reply = client.post("/reconstruct", files={"image": acquired(32)})
    finally:
        logging.getLogger("service").removeHandler(handler)
    assert reply.status_code == 500
    assert "inner detail" not in reply.text and "Traceback" not in reply.text
    request_id = reply.json()["request_id"]
    assert reply.headers["x-request-id"] == request_id and request_id in reply.json()["remedy"]
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    (failed,) = [line for line in lines if line.get("request_id") == request_id and line["level"] == "error"]
    assert "inner detail" in failed["traceback"]


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (CheckpointError("a sound model", "a damaged one", "Promote another."), 503),
        (StorageError("to write a file", "No space left on device", "Free some."), 507),
    ],
)
def test_errors_of_the_science_reach_the_client_unchanged(client, residents, failure, status):
    """Expected, actual and remedy are the error's own words."""
    residents.failure = failure
    reply = client.post("/reconstruct", files={"image": acquired(32)})
    assert reply.status_code == status
    assert reply.json() == failure.as_dict() | {"request_id": reply.headers["x-request-id"]}


def test_an_answer_that_takes_too_long_is_given_up(impatient_client):
    """504 after CVDM_TIMEOUT_SECONDS, and the device is free again long before the work would be done."""
    reply = ask_long(impatient_client, 96)
    assert reply.status_code == 504, reply.text
    assert reply.json()["error"] == "TimeLimitError" and "samples" in reply.json()["remedy"]
    deadline = time.monotonic() + 30
    while impatient_client.app.state.device.unfinished:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_model_that_loads_too_long_is_given_up_but_still_loaded(impatient_client, residents):
    """The time limit covers the load; the load itself goes on for those who ask later."""
    residents.hold = asyncio.Event()
    reply = impatient_client.post("/reconstruct", files={"image": acquired(32)})
    assert reply.status_code == 504 and residents.answered == 0
    impatient_client.portal.call(residents.hold.set)
    impatient_client.portal.call(asyncio.sleep, 0.05)
    assert residents.answered == 1


def test_uploads_count_before_they_end_and_may_not_last_for_ever(impatient_client):
    """With as many uploads under way as there are places the next is refused unread; a trickle gets 408."""
    replies: list[list] = [[] for _ in range(5)]

    async def uploads():
        running = [asyncio.create_task(trickle(impatient_client.app, sent)) for sent in replies]
        await asyncio.wait(running)

    impatient_client.portal.call(uploads)
    assert [sent[0]["status"] for sent in replies] == [408] * 4 + [503]
    assert b"BusyError" in replies[4][1]["body"]
    with impatient_client.app.state.device.place():
        pass  # all places are free again


async def trickle(app, sent):
    """An upload that begins and never ends."""
    messages = [{"type": "http.request", "body": b"--B\r\n", "more_body": True}]

    async def receive():
        return messages.pop(0) if messages else await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    await app(dict(SCOPE), receive, send)


def test_a_service_that_stops_ends_its_work_with_an_answer(client):
    """What runs is ended at its next sampling step with 503, and what comes later is refused with 503."""
    desk = client.app.state.desk
    closer = threading.Timer(0.5, desk.close)
    closer.start()
    for _ in range(2):
        reply = ask_long(client)
        assert (reply.status_code, reply.json()["error"]) == (503, "StoppingError")
        closer.join()


def test_a_full_disk_while_sending_is_said(client):
    """Planted: files of at most 1.5 MB, where the upload is laid down: 507 with what to do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, hard))
    try:
        reply = client.post("/reconstruct", files={"image": bytes(4_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert reply.status_code == 507 and "the upload" in reply.json()["expected"]


def test_a_hang_up_while_sending_is_no_error(client):
    """A client that goes away in the middle of its upload leaves no traceback and no 500."""
    messages = [{"type": "http.request", "body": b"--B\r\n", "more_body": True}, {"type": "http.disconnect"}]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(client.app(dict(SCOPE), receive, send))
    assert sent[0]["status"] == 499
