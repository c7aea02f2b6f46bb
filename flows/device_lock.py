"""One retraining at a time per device, and none while somebody removes or replaces what it reads: locked
files say so.

    DEVICE.lock         held by the retraining on that device
    housekeeping.lock   shared by the retrainings of all devices, or held by one housekeeping that removes, or
                        by one checkout of other data

The locks belong to the process: the operating system drops them when the process ends, however it ends, and
whatever a database believes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from cvdm.errors import CvdmError
from flows.locks import taken

HOUSEKEEPING = "housekeeping.lock"


class BusyError(CvdmError):
    """A retraining holds the device, or housekeeping or a checkout of data all of them."""


@contextmanager
def device_lock(folder: Path, device: str, purpose: str) -> Iterator[None]:
    """Hold the device's lock file in `folder` for the block.

    Raises BusyError at once when it is taken, or while housekeeping removes something.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, house = _path(folder, device), folder / HOUSEKEEPING
    with house.open("a+", encoding="utf-8") as everybody, path.open("a+", encoding="utf-8") as file:
        if not taken(everybody, shared=True):
            raise BusyError(
                "no housekeeping that removes, and no checkout of data",
                _holder(house),
                "Wait for it to end: it takes minutes.",
            )
        if not taken(file):
            raise BusyError(
                f"no other retraining on {device}", _holder(path), "Wait for it to end, or stop it."
            )
        with _named(file, purpose):
            yield


@contextmanager
def all_devices_lock(folder: Path, purpose: str) -> Iterator[None]:
    """Keep retrainings from every device for the block, and others who want that.

    Raises BusyError at once when a retraining is at work, or somebody else holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / HOUSEKEEPING).open("a+", encoding="utf-8") as everybody:
        if not taken(everybody):
            at_work = "; ".join(devices_in_use(folder)) or "one that has just begun"
            raise BusyError(
                "no retraining on any device, no housekeeping and no checkout of data",
                at_work,
                "Wait for it to end, or stop it, and run this again.",
            )
        with _named(everybody, purpose):
            yield


def holder(folder: Path, device: str) -> str | None:
    """Who keeps others from the device, in words; None where it is free.

    A lock itself is tried only where its file names somebody, so that a look never keeps a start away.
    """
    return _holder_of(_path(folder, device)) or _holder_of(folder / HOUSEKEEPING)


def devices_in_use(folder: Path) -> tuple[str, ...]:
    """What every device that is taken is taken for, in words; housekeeping that removes takes all."""
    names = ("cpu.lock", "cuda-*.lock", HOUSEKEEPING)
    found = (_holder_of(path) for name in names for path in sorted(folder.glob(name)))
    return tuple(words for words in found if words is not None)


@contextmanager
def _named(file: TextIO, purpose: str) -> Iterator[None]:
    """Write into a lock file that is held who holds it, for the block."""
    file.truncate(0)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    file.write(json.dumps({"purpose": purpose, "process": os.getpid(), "started": started}))
    file.flush()
    try:
        yield
    finally:
        file.truncate(0)


def _holder_of(path: Path) -> str | None:
    try:
        with path.open("r", encoding="utf-8") as file:
            if not file.read(1) or taken(file, shared=True):
                return None  # nobody, or a process that was killed has left its name
    except FileNotFoundError:
        return None
    return _holder(path)


def _path(folder: Path, device: str) -> Path:
    device = "cuda:0" if device == "cuda" else device  # torch's name for the first GPU
    return folder / f"{device.replace(':', '-')}.lock"


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"'{holder['purpose']}' in process {holder['process']} since {holder['started']}"
    except (ValueError, KeyError, OSError):
        return "one that has just begun"
