"""One retraining at a time per device: a locked file says so, whatever a database believes.

The lock belongs to the process: the operating system drops it when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from cvdm.errors import CvdmError
from flows.locks import taken


class BusyError(CvdmError):
    """Another retraining holds the device."""


@contextmanager
def device_lock(folder: Path, device: str, purpose: str) -> Iterator[None]:
    """Hold the device's lock file in `folder` for the block. Raises BusyError at once when it is taken."""
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(folder, device)
    with path.open("a+", encoding="utf-8") as file:
        if not taken(file):
            raise BusyError(
                f"no other retraining on {device}", _holder(path), "Wait for it to end, or stop it."
            )
        file.truncate(0)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        file.write(json.dumps({"purpose": purpose, "process": os.getpid(), "started": started}))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def holder(folder: Path, device: str) -> str | None:
    """Who holds the device, in words; None where it is free.

    The lock itself is tried only where the file names somebody, so that a look never keeps a start away.
    """
    return _holder_of(_path(folder, device))


def devices_in_use(folder: Path) -> tuple[str, ...]:
    """What every device that is taken is taken for, in words."""
    found = (_holder_of(path) for name in ("cpu", "cuda-*") for path in sorted(folder.glob(f"{name}.lock")))
    return tuple(words for words in found if words is not None)


def _holder_of(path: Path) -> str | None:
    try:
        with path.open("r", encoding="utf-8") as file:
            if not file.read(1):
                return None
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return _holder(path)
    return None  # a process that was killed left its name


def _path(folder: Path, device: str) -> Path:
    device = "cuda:0" if device == "cuda" else device  # torch's name for the first GPU
    return folder / f"{device.replace(':', '-')}.lock"


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"'{holder['purpose']}' in process {holder['process']} since {holder['started']}"
    except (ValueError, KeyError, OSError):
        return "one that has just begun"
