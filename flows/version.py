"""The data as DVC records them: version, record file, remote.

DVC runs as a command of this environment, not through `dvc.repo.Repo`: its Python interface beyond `dvc.api`
is not promised to stay, and its locks and loggers belong to a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from cvdm.errors import ConfigError, CvdmError
from cvdm.ledger import LEDGER_NAME
from flows.ingest_note import announced
from flows.locks import taken
from flows.settings import Settings

GLANCE_SECONDS = 0.5
"""So long may somebody hold the lock who only looks whether it is free (flows/triggers/data_watch.py)."""
LOCK_TRIES, LOCK_PAUSE_SECONDS = 20, 3.0
"""How often and after which pause a command is repeated while another DVC process holds its lock."""

IMAGE_FOLDERS, LISTED = ("low", "high"), 5
LOCKED = ("acquire lock", "is busy")
"""What DVC says then."""


class VersionError(CvdmError):
    """DVC or git refuses."""


@dataclass(frozen=True)
class Remote:
    """Where DVC shares data."""

    url: str
    folder: Path | None
    """Its folder where it travels inside this checkout, as the one of the demo data does."""


def data_version(settings: Settings) -> str | None:
    """The md5 of the data folder as data.dvc records it; None where the data are not under DVC."""
    record = _record(settings)
    return None if record is None else str(record["md5"])


def require_held(settings: Settings) -> None:
    """Raise VersionError where data of the recorded version are missing or are other ones.

    So it is before the first `dvc pull`, and after a `git pull` of somebody else's version: to record the
    folder as it is would drop what is missing from the next version. More than the record holds, and a ledger
    that was announced, are what an interrupted ingest leaves; cards are a person's to edit.
    """
    if _record(settings) is None:
        return
    changes = changed_files(settings)
    lost = list(changes["deleted"])
    changed = [name for name in changes["modified"] if _is_ours(name)]
    left = announced(ingest_note(settings), data_version(settings), settings.home, changed)
    lost += [name for name in changed if name not in left]
    if lost or not settings.data_dir.exists():
        listed = ", ".join(lost[:LISTED]) + (f" and {len(lost) - LISTED} more" if len(lost) > LISTED else "")
        raise VersionError(
            f"the data of version {data_version(settings)} in {settings.data_dir}",
            f"missing or changed: {listed}" if lost else "no such folder",
            "Run `dvc pull`, with --force if what was changed may go; to give data up for good, remove them "
            "and run `dvc add data`.",
        )


def changed_files(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Files `added`, `modified` and `deleted` since the recorded version, by their path in the project.

    Raises VersionError where neither cache nor remote knows what the version holds.
    """
    folder = settings.data_dir.relative_to(settings.home).as_posix()
    try:
        found = json.loads(run_dvc(settings, "data", "status", "--granular", "--json", folder) or "{}")
    except VersionError:  # it asks the remote, which may be away; `dvc status` does not
        if json.loads(run_dvc(settings, "status", "--json", str(record_file(settings))) or "{}"):
            raise
        found = {}
    changes = found.get("uncommitted", {})
    files = {
        kind: tuple(name for name in changes.get(kind, ()) if not name.endswith("/"))
        for kind in ("added", "modified", "deleted")
    }
    if changes and settings.data_dir.exists() and not any(files.values()):
        raise VersionError(
            f"to know what version {data_version(settings)} holds",
            "no list of its files in DVC's cache or remote",
            "Run `dvc fetch`.",
        )
    return files


def record_file(settings: Settings) -> Path:
    """The file by which git knows the data."""
    return settings.data_dir.with_name(settings.data_dir.name + ".dvc")


def pull_data(settings: Settings) -> None:
    """Restore the data folder from DVC's remote. Raises VersionError."""
    run_dvc(settings, "pull", str(record_file(settings)))


def pull_base(settings: Settings, task: str) -> None:
    """Bring the base model of a task and the manifest of what it learned from, where they are shipped.

    What is there stays as it is. Raises VersionError.
    """
    lock = settings.home / "dvc.lock"
    shipped = lock.read_text(encoding="utf-8") if lock.is_file() else ""
    for path in (f"models/{task}", f"models/{task}.manifest.json"):
        if f"path: {path}\n" in shipped and not (settings.home / path).exists():
            run_dvc(settings, "pull", path)


def push_data(settings: Settings) -> None:
    """Copy this version to DVC's remote. Raises VersionError."""
    run_dvc(settings, "push", "--quiet", str(record_file(settings)))


def find_remote(settings: Settings) -> Remote | None:
    """The default remote; None where none is set. Raises VersionError."""
    values = _dvc_config(settings)
    url = _remote_url(values)
    if url is None:
        return None
    folder = _beside_config(settings, url)
    inside = folder is not None and folder.is_relative_to(settings.home.resolve())
    return Remote(url, folder if inside else None)


def is_held(settings: Settings, versions: Collection[str]) -> dict[str, bool | None]:
    """Whether DVC has the list of files of each version on this machine: in its cache, or in a remote folder.

    None where it is not in the cache and only a remote elsewhere could tell. Raises VersionError.
    """
    values = _dvc_config(settings)
    url = _remote_url(values)
    remote = None if url is None else _beside_config(settings, url)
    cache = _beside_config(settings, values.get("cache.dir", "cache"))
    stores = [store for store in (cache, remote) if store is not None]
    otherwise = False if url is None or remote is not None else None
    return {
        version: any((store / "files" / "md5" / version[:2] / version[2:]).is_file() for store in stores)
        or otherwise
        for version in versions
    }


def add_to_dvc(settings: Settings) -> str:
    """Record the data folder as it is; returns its md5."""
    run_dvc(settings, "add", "--quiet", str(settings.data_dir))
    version = data_version(settings)
    if version is None:
        raise VersionError(f"{record_file(settings)} after dvc add", "nothing", "Run `dvc add data` by hand.")
    return version


def run_dvc(settings: Settings, *arguments: str) -> str:
    """What a DVC command prints; it is run again while another one holds its lock. Raises VersionError."""
    environment = {**settings.tool_environment(), "DVC_SITE_CACHE_DIR": str(settings.mlruns_dir / "dvc")}
    for attempt in range(LOCK_TRIES):
        done = dvc_process(arguments, settings.home, {**environment, **os.environ})
        if done.returncode == 0:
            return done.stdout
        if not any(sign in done.stderr for sign in LOCKED) or attempt == LOCK_TRIES - 1:
            break
        time.sleep(LOCK_PAUSE_SECONDS)
    reason = " ".join(done.stderr.replace("ERROR:", "").split()[:60])
    raise VersionError(
        f"`dvc {arguments[0]}` to succeed",
        reason or f"exit code {done.returncode}",
        "Mend this and run it again.",
    )


def dvc_process(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a DVC command in a folder to its end."""
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@contextmanager
def one_ingest_at_a_time(settings: Settings) -> Iterator[None]:
    """Hold the lock of the data folder. Raises VersionError when somebody else holds it, and goes on to.

    It lies with DVC's own, which git ignores: whoever shares the data folder shares the lock.
    """
    lock = _beside_dvc(settings) / "ingest.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        until = time.monotonic() + GLANCE_SECONDS
        while not taken(file):
            if time.monotonic() > until:
                raise VersionError(
                    "no other ingest or checkout", "one that is running", "Wait for it to end."
                )
            time.sleep(GLANCE_SECONDS / 10)
        yield


def ingest_note(settings: Settings) -> Path:
    """Where an ingest announces what it changes; see flows/ingest_note.py."""
    return _beside_dvc(settings) / "ingest.json"


def _beside_dvc(settings: Settings) -> Path:
    dvc = settings.home / ".dvc"
    return dvc / "tmp" if dvc.is_dir() else settings.mlruns_dir / "locks"


def _is_ours(name: str) -> bool:
    """Whether a file is an image, a part of one or a ledger: nobody edits these; cards are a person's."""
    path = PurePosixPath(name)
    return path.name == LEDGER_NAME or not set(path.parts[:-1]).isdisjoint(IMAGE_FOLDERS)


def require_in_project(settings: Settings) -> None:
    """Raise ConfigError for a data folder outside of the project, of which git can keep no record."""
    if not settings.data_dir.is_relative_to(settings.home):
        raise ConfigError(
            f"a data folder within {settings.home}, for its versions",
            f"CVDM_DATA_DIR={settings.data_dir}",
            "Move it there, or train from it without versions.",
        )


def _dvc_config(settings: Settings) -> dict[str, str]:
    lines = (line.partition("=") for line in run_dvc(settings, "config", "--list").splitlines())
    return {key: value for key, _, value in lines}


def _remote_url(values: Mapping[str, str]) -> str | None:
    return values.get(f"remote.{values.get('core.remote')}.url")


def _beside_config(settings: Settings, address: str) -> Path | None:
    """The folder of an address, which counts from DVC's configuration; None for one that is no path."""
    return None if "://" in address else (settings.home / ".dvc" / address).resolve()


def _record(settings: Settings) -> dict[str, Any] | None:
    """What data.dvc says of the data folder; None where there is no such file. Raises VersionError."""
    try:
        content = yaml.safe_load(record_file(settings).read_text(encoding="utf-8"))
        record: dict[str, Any] = {"md5": content["outs"][0]["md5"], **content["outs"][0]}
        return record
    except FileNotFoundError:
        return None
    except (OSError, yaml.YAMLError, KeyError, IndexError, TypeError) as error:
        raise VersionError(
            f"a DVC file at {record_file(settings)}", f"{type(error).__name__}", "Restore it from git."
        ) from error
