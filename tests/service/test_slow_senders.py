"""Senders that drip, over real connections: they are cut off, and keep nobody else from being answered."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import closing
from http.client import HTTPResponse

import httpx
import pytest
import uvicorn
from prometheus_client import CollectorRegistry
from service_world import acquired, free_port

from service import upload
from service.desk import Desk
from service.device import Device
from service.doorkeeper import CALLER, Caller
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
    server = uvicorn.Server(uvicorn.Config(_open_to_all(app), port=port, log_level="error"))
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


def test_a_body_that_drips_is_refused_and_its_place_is_free_again(url):
    """Drips take every place, and others are told to come back; soon the drips are cut off, and they can."""
    drips = [connected(url, HEAD) for _ in range(PLACES)]
    files = {"image": ("cell.tif", acquired(32))}
    deadline = time.monotonic() + 10
    while httpx.post(f"{url}/reconstruct", files=files, timeout=20).status_code != 503:
        assert time.monotonic() < deadline
    for drip in drips:
        with drip as connection:
            connection.sendall(b"x")  # a byte now and then buys no time
            reply = HTTPResponse(connection)
            reply.begin()
            assert reply.status == 408 and b"bytes per second" in reply.read()
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
    began = time.monotonic()
    for _ in range(20):
        assert httpx.get(f"{url}/openapi.json", timeout=10).status_code == 200
    assert time.monotonic() - began < 10
    for half in halves:
        half.__exit__()
