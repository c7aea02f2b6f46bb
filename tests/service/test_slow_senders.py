"""Senders that drip, over real connections: they are cut off, and keep nobody else from being answered."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from contextlib import ExitStack, closing
from http.client import HTTPResponse
from types import SimpleNamespace

import httpx
import pytest
import uvicorn
from prometheus_client import CollectorRegistry
from service_world import START_SECONDS, Service, Store, acquired, answers, free_port, start

from service import heads, upload
from service.desk import Desk
from service.device import Device
from service.doorkeeper import CALLER, Caller
from service.heads import TimedHeads
from service.metrics import Metrics
from service.routes import build_app
from service.settings import Settings

from .test_jobs import residents  # noqa: F401 - a fixture

PLACES = 3
HEAD = (
    "POST /reconstruct HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100000\r\n"
    "content-type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
)


@pytest.fixture
def url(residents, monkeypatch):  # noqa: F811
    """A service in a thread of this process, with few places and little patience."""
    monkeypatch.setattr(upload, "GRACE_SECONDS", 1.0)
    app, port = build_app(), free_port()
    settings = Settings(tracking_uri="sqlite:////none.db")
    device = Device(max_waiting=PLACES - 1)
    app.state.desk = Desk(settings, residents, device, Metrics(CollectorRegistry()))
    server = uvicorn.Server(uvicorn.Config(_open_to_all(app), port=port, log_level="error", http=TimedHeads))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = server.force_exit = True
    thread.join()


def _open_to_all(app):
    async def admitted(scope, receive, send):
        await app({**scope, CALLER: Caller()}, receive, send)

    return admitted


def connected(url, text):
    address = url.removeprefix("http://").split(":")
    connection = socket.create_connection((address[0], int(address[1])), timeout=20)
    connection.sendall(text.encode())
    return closing(connection)


def test_a_body_that_drips_is_refused_and_its_place_is_free_again(url, monkeypatch):
    """Drips take every place, and others are told to come back; soon the drips are cut off, and they can."""
    monkeypatch.setattr(upload, "GRACE_SECONDS", 4.0)
    files = {"image": ("cell.tif", acquired(32))}
    with httpx.Client(base_url=url, timeout=60) as client:
        client.get("/openapi.json")  # connected, before the drips' time runs
        drips = [connected(url, HEAD) for _ in range(PLACES)]
        deadline = time.monotonic() + 10
        while client.post("/reconstruct", files=files).status_code != 503:
            assert time.monotonic() < deadline
            drips.append(connected(url, HEAD))  # in the place of one that came after this request
    ends = []
    for drip in drips:
        with drip as connection:
            connection.sendall(b"x")  # a byte now and then buys no time
            reply = HTTPResponse(connection)
            reply.begin()
            ends.append((reply.status, b"bytes per second" in reply.read()))
    assert ends.count((408, True)) == PLACES and set(ends) <= {(408, True), (503, False)}
    assert httpx.post(f"{url}/reconstruct", files=files, timeout=60).status_code == 200


def test_an_upload_that_is_fast_enough_may_take_its_time(url):
    """Two seconds of steady sending, beyond the grace of one, arrive."""
    request = httpx.Request("POST", f"{url}/reconstruct", files={"image": ("cell.tif", acquired(96))})
    body = request.read()

    def steadily():
        for at in range(0, len(body), len(body) // 10):
            yield body[at : at + len(body) // 10]
            time.sleep(0.2)

    headers = {"content-type": request.headers["content-type"], "content-length": str(len(body))}
    reply = httpx.post(f"{url}/reconstruct", content=steadily(), headers=headers, timeout=60)
    assert reply.status_code == 200, reply.text


def test_half_open_requests_keep_nobody_waiting(url):
    """Hundreds of connections that never end their headers cost a socket each, and nobody's answer."""
    halves = [connected(url, HEAD[:40]) for _ in range(300)]
    with httpx.Client(base_url=url, timeout=10) as client:
        began = time.monotonic()
        for _ in range(20):
            assert client.get("/openapi.json").status_code == 200
        assert time.monotonic() - began < 10
    for half in halves:
        half.__exit__()


def closed(connection, seconds):
    """Whether the other side ends a connection within so many seconds, without a word."""
    connection.settimeout(seconds)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False


def test_half_a_head_ends_its_connection_and_a_whole_one_does_not(url, monkeypatch):
    """A byte now and then buys no time, neither at first nor after an answer; who works with it may stay."""
    monkeypatch.setattr(heads, "HEAD_SECONDS", 0.5)
    whole = "GET /openapi.json HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
    with connected(url, HEAD[:40]) as first, connected(url, whole) as second, connected(url, "") as third:
        while b"}" not in second.recv(2**16)[-3:]:
            pass
        second.sendall(HEAD[:40].encode())
        for connection in (first, second, third):
            assert closed(connection, 5)
    with connected(url, "") as used:
        for _ in range(6):
            time.sleep(0.3)
            used.sendall(whole.encode())
            reply = HTTPResponse(used)
            reply.begin()
            assert reply.status == 200 and reply.read()


def test_a_long_answer_is_no_idle_connection(url, monkeypatch):
    """Planted: a head may take a tenth of a second, and the image takes longer."""
    monkeypatch.setattr(heads, "HEAD_SECONDS", 0.1)
    files = {"image": ("cell.tif", acquired(128))}
    began = time.monotonic()
    reply = httpx.post(f"{url}/reconstruct", files=files, data={"samples": "8", "steps": "20"}, timeout=60)
    assert reply.status_code == 200 and time.monotonic() - began > 0.3


def test_a_connection_stays_for_a_whole_time_after_its_answer():
    """A look just after a long answer does not close it; the next look, without a head since, does."""
    closed, planned = [], []
    request = SimpleNamespace(response_complete=False)
    protocol = TimedHeads.__new__(TimedHeads)
    protocol.cycle, protocol.transport = request, SimpleNamespace(close=lambda: closed.append(True))
    protocol.loop = SimpleNamespace(call_later=lambda seconds, look, before: planned.append(before))
    protocol._look((None,))  # while the image is restored
    request.response_complete = True
    protocol._look(planned.pop())
    assert not closed
    protocol._look(planned.pop())
    assert closed and not planned


@pytest.mark.slow
def test_a_real_process_outlasts_slow_senders(tmp_path, checkpoints):
    """BentoML's own server: with every place dripped on and hundreds of half heads health answers at once,
    and within half a minute all of them are gone."""
    store = Store(tmp_path)
    store.register(checkpoints(seed=0), champion=True)
    service = Service(f"http://127.0.0.1:{free_port()}", store, tmp_path / "service.log")
    process = start(tmp_path, store, int(service.url.rsplit(":", 1)[1]), service.log)
    try:
        service.wait_for(lambda: answers(service), START_SECONDS)
        service.wait_for_champion(1)
        with ExitStack() as exits:
            halves = [exits.enter_context(connected(service.url, HEAD[:40])) for _ in range(300)]
            drips = [exits.enter_context(connected(service.url, HEAD)) for _ in range(9)]
            service.wait_for(lambda: service.reconstruct(acquired(32)).status_code == 503)
            assert service.get("/livez").elapsed.total_seconds() < 1
            assert all(closed(half, 40) for half in halves)
            for drip in drips:
                drip.settimeout(40)
                reply = HTTPResponse(drip)
                reply.begin()
                assert reply.status == 408
            assert service.reconstruct(acquired(32)).status_code == 200
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
