"""Keeps a server on a leash: `python -m flows.tether --owner PID --log FILE -- COMMAND...`.

Runs COMMAND in a process group of its own with its output appended to FILE, and ends the whole tree when the
owner goes away, however it goes (kill -9 included), when the command ends, or on SIGTERM. Helpers that a
server starts in sessions of their own are found too: on Linux the tether adopts orphans of its tree. Should
the tether itself be killed, Linux signals the command (PR_SET_PDEATHSIG).

Imports nothing heavy and nothing of this project, because one runs beside each server.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil

POLL_SECONDS = 0.25
GRACE_SECONDS = 8.0
"""From SIGTERM to SIGKILL."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main(arguments: list[str] | None = None) -> int:
    """Run a command until it ends or its owner does; returns the command's exit code."""
    parser = argparse.ArgumentParser(description="Run a command no longer than its owner lives.")
    parser.add_argument("--owner", type=int, required=True, help="process whose end ends the command")
    parser.add_argument("--log", required=True, help="file that the command's output is appended to")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, frame: stopping.append(received))
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    owner = _process(options.owner)
    if owner is None:
        return 1
    with open(options.log, "ab", buffering=0) as log:  # noqa: PTH123 - pathlib costs start-up time here
        command = subprocess.Popen(
            options.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    while command.poll() is None and not stopping and _alive(owner):
        time.sleep(POLL_SECONDS)
    end_tree(psutil.Process(), GRACE_SECONDS)
    return command.wait()


def end_tree(root: psutil.Process, grace: float, wait: Callable[[float], None] = time.sleep) -> None:
    """End every descendant of a process: SIGTERM to all, SIGKILL to what is left after `grace` seconds."""
    deadline, told = time.monotonic() + grace, set[psutil.Process]()
    while remaining := [child for child in root.children(recursive=True) if _alive(child)]:
        late = time.monotonic() > deadline
        for child in remaining:
            if late or child not in told:
                _signal(child, signal.SIGKILL if late else signal.SIGTERM)
                told.add(child)
        wait(0.1)


def die_with_parent() -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _prctl(option: int, value: int) -> None:
    """Ask the Linux kernel; elsewhere nothing happens and polling has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _process(pid: int) -> psutil.Process | None:
    """A process that is told from a later one of the same number by its start time."""
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal(process: psutil.Process, number: int) -> None:
    try:
        os.kill(process.pid, number)
    except (ProcessLookupError, PermissionError):  # gone meanwhile, or not ours to end
        return


if __name__ == "__main__":
    sys.exit(main())
