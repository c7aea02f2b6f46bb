"""The client before a service that does not answer."""

from __future__ import annotations

import socket
import time

import pytest

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
