"""Servers as child processes: started on a leash (flows/tether.py), waited for, and ended as a group.

A server lives no longer than the block, or the process, that started it. Its output goes to a log file, whose
last lines are part of the message when it does not come up.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from tqdm import tqdm

from cvdm.errors import CvdmError
from flows.tether import GRACE_SECONDS

READY_SECONDS = 300.0
"""A busy machine of two cores takes up to 80 s to import MLflow and migrate its database."""
POLL_SECONDS = 0.3
TAIL_LINES = 8


class ServerError(CvdmError):
    """A server cannot start, or ended by itself."""


class PortError(ServerError):
    """The port of a server is taken."""


@dataclass(frozen=True)
class Server:
    """How to run one server."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    """Added to this process's own."""
    folder: Path
    """Where it runs."""
    log: Path
    host: str = "127.0.0.1"
    port: int | None = None
    """None for a process that listens to nobody."""
    probe: str | None = None
    """Path that answers 200 once the server is ready."""
    port_setting: str = ""
    """The environment variable that moves it to another port."""

    @property
    def url(self) -> str:
        """Its address for somebody on this machine."""
        return f"http://{reachable(self.host)}:{self.port}"


@dataclass(frozen=True)
class RunningServer:
    """A server that was started."""

    server: Server
    process: subprocess.Popen[bytes]

    def check_alive(self) -> None:
        """Raise ServerError with the last lines of its log when it has ended."""
        code = self.process.poll()
        if code is not None:
            raise ServerError(
                f"{self.server.name} to keep running",
                f"it ended with code {code}; its last lines:\n{tail(self.server.log)}\n",
                f"The whole log is {self.server.log}.",
            )

    def wait_until_ready(self, path: str | None = None, seconds: float = READY_SECONDS) -> None:
        """Wait, with a line on standard error, until `path` (default: the probe) answers 200."""
        path = path or self.server.probe
        if path is None:
            return
        deadline = time.monotonic() + seconds
        with waiting_line(f"starting {self.server.name}") as tick:
            while not answers(self.server.url + path):
                self.check_alive()
                if time.monotonic() > deadline:
                    raise ServerError(
                        f"{self.server.name} to be ready within {seconds:.0f} s",
                        f"no success at {self.server.url}{path}; its last lines:\n{tail(self.server.log)}\n",
                        f"The whole log is {self.server.log}.",
                    )
                tick()
                time.sleep(POLL_SECONDS)


@contextmanager
def running(*servers: Server) -> Iterator[tuple[RunningServer, ...]]:
    """Run servers for the block. Raises PortError before any is started when a port is taken."""
    require_free_ports(servers)
    started: list[RunningServer] = []
    try:
        for server in servers:
            started.append(RunningServer(server, _tethered(server)))
        yield tuple(started)
    finally:
        _end([one.process for one in started])


def require_free_ports(servers: Iterable[Server]) -> None:
    """Raise PortError for the first whose port is taken."""
    for server in servers:
        if server.port is not None:
            require_free_port(server.host, server.port, server.name, server.port_setting)


def answers(url: str, timeout: float = 3.0) -> bool:
    """Whether a GET succeeds."""
    try:
        return httpx.get(url, timeout=timeout).is_success
    except httpx.HTTPError:
        return False


def require_free_port(host: str, port: int, name: str, setting: str) -> None:
    """Raise PortError when somebody listens there already."""
    if not port_is_free(host, port):
        remedy = f"Stop what listens there, or choose another port with {setting}."
        raise PortError(f"port {port} of {host} to be free for {name}", "it is taken", remedy)


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError:
        return False
    return True


def free_port(host: str) -> int:
    """A port that nobody listens to at the moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def reachable(host: str) -> str:
    """A host to connect to where `host` is what a server binds to."""
    return "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log file."""
    if not log.is_file():
        return "    (nothing)"
    with log.open(encoding="utf-8", errors="replace") as file:
        return "".join(f"    {line}" for line in deque(file, lines)).rstrip() or "    (nothing)"


@contextmanager
def waiting_line(label: str) -> Iterator[Callable[[], None]]:
    """A line on standard error that counts the seconds of a wait; call what is lent to redraw it."""
    with tqdm(desc=label, bar_format="{desc} [{elapsed}]", file=sys.stderr, dynamic_ncols=True) as line:
        shown = 0.0

        def redraw() -> None:
            nonlocal shown
            if time.monotonic() - shown >= 1:
                shown = time.monotonic()
                line.refresh()

        yield redraw


def _tethered(server: Server) -> subprocess.Popen[bytes]:
    server.log.parent.mkdir(parents=True, exist_ok=True)
    server.log.unlink(missing_ok=True)
    leash = [sys.executable, "-m", "flows.tether", "--owner", str(os.getpid()), "--log", str(server.log)]
    with server.log.open("ab") as log:
        return subprocess.Popen(
            [*leash, "--", *server.command],
            cwd=server.folder,
            env={**os.environ, **server.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(GRACE_SECONDS + 5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
