"""The client before a service that does not answer."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flows.restore import _pinned
from service import client
from service.client import Client, ServiceRefusal


def test_a_service_that_takes_the_connection_and_hangs_is_given_up(monkeypatch):
    """Planted: a listener that says nothing, and little patience; told after that, not after an hour."""
    monkeypatch.setattr(client, "LISTEN_SECONDS", 0.2)
    monkeypatch.setattr(client, "PATIENCE_SECONDS", 0.5)
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, Client(f"http://127.0.0.1:{silent.getsockname()[1]}") as asking:
        began = time.monotonic()
        for ask in (asking.job("none").describe, asking.models):
            with pytest.raises(ServiceRefusal):
                ask()
        assert time.monotonic() - began < 10


def test_a_batch_is_pinned_before_a_service_that_just_started(monkeypatch):
    """Planted: it has not looked at its registry, then it knows the champion and has not loaded it."""
    monkeypatch.setattr(client, "LOOK_SECONDS", 0.01)
    version = {"task": "cells", "version": 3, "aliases": ["champion"], "serving": False}
    looks = [
        {"registry": {"checked": None, "error": None}, "models": []},
        {"registry": {"checked": "now", "error": None}, "models": [version]},
    ]

    class Starting(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(looks.pop(0)).encode())

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Starting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with Client(f"http://127.0.0.1:{server.server_port}") as asking:
            assert _pinned(asking, "cells", "champion") == {"task": "cells", "version": 3}
    finally:
        server.shutdown()
        server.server_close()


def test_a_key_that_no_header_takes_is_refused():
    """Typographic quotes around a key that was pasted, for instance."""
    with pytest.raises(ServiceRefusal, match="cvdm keys create"):
        Client(key="\u201ckey\u201d")
