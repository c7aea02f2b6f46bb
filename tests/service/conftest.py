"""One real BentoML process for the whole session."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from service_world import START_SECONDS, Service, Store, acquired, answers, checkpoint_dir, free_port, start


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Builds checkpoint directories, each in its own folder."""

    def build(**choices: Any) -> Path:
        return checkpoint_dir(tmp_path_factory.mktemp("checkpoints"), **choices)

    return build


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, checkpoints: Callable[..., Path]) -> Iterator[Service]:
    """A service that was started with an empty registry and serves version 1 since."""
    root = tmp_path_factory.mktemp("service")
    store = Store(root)
    port = free_port()
    running = Service(f"http://127.0.0.1:{port}", store, root / "service.log")
    process = start(root, store, port, running.log)
    try:
        running.wait_for(lambda: answers(running), START_SECONDS)
        running.wait_for(lambda: running.get("/models").json()["registry"]["reachable"])
        running.before = {path: running.get(path) for path in ("/livez", "/readyz", "/models")}
        running.before["/reconstruct"] = running.reconstruct(acquired())
        store.register(checkpoints(seed=0), champion=True)
        running.wait_for_champion(1)
        running.supervisor = process.pid
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def odd_files() -> list[Path]:
    """Files that are hard or impossible to read."""
    folder = Path(__file__).parents[1] / "data" / "odd"
    return sorted(path for path in folder.iterdir() if path.suffix != ".md")
