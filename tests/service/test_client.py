"""The client before a service that does not answer."""

from __future__ import annotations

import socket
import time

import pytest
from service_world import answering, respond

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
    with (
        answering(lambda handler: respond(handler, looks.pop(0))) as port,
        Client(f"http://127.0.0.1:{port}") as asking,
    ):
        assert _pinned(asking, "cells", "champion") == {"task": "cells", "version": 3}


def test_a_key_that_no_header_takes_is_refused():
    """Typographic quotes around a key that was pasted, for instance."""
    with pytest.raises(ServiceRefusal, match="cvdm keys create"):
        Client(key="\u201ckey\u201d")
