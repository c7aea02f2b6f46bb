"""Versions of the data: a batch of pairs comes in whole and valid, or not at all.

`ingest` builds the future dataset beside the present one (existing files are linked, new ones copied),
validates it, and swaps the two folders in one step; then `dvc add` records the content and git the record:
a commit of data.dvc and a tag. A rerun after an interruption completes what is missing; the same batch twice
changes nothing.

DVC runs as a command of this environment, not through `dvc.repo.Repo`: its Python interface beyond `dvc.api`
is not promised to stay, and its locks and loggers belong to a process of its own.

Not covered: quarantine of single pairs (a bad pair refuses its batch), pushing to a remote.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from cvdm.card import load_card
from cvdm.dataset import dataset_digest, load_dataset
from cvdm.errors import CvdmError, DatasetError
from flows.settings import Settings
from flows.staging import clear, staged, swap
from flows.validation import load_validation_policy, validate_dataset
from flows.version_control import commit_record, is_checkout, require_clean_index

INCOMING = ".incoming"
"""Where the future dataset is built, on the same file system as the present one."""
LOCK_TRIES, LOCK_PAUSE_SECONDS = 20, 3.0
"""How often and after which pause a command is repeated while another DVC process holds its lock."""

LOCKED = ("acquire lock", "is busy")
"""What DVC says then."""


class VersionError(CvdmError):
    """DVC or git refuses."""


@dataclass(frozen=True)
class IngestResult:
    """What an ingest came to."""

    task: str
    added: tuple[str, ...]
    """Names of the new pairs."""
    known: int
    """Pairs of the batch that were there already, byte for byte."""
    dataset_digest: str
    data_version: str
    """The md5 that data.dvc records for the whole data folder."""
    commit: str | None
    """The git commit of data.dvc; None where nothing changed or no commit was wanted."""
    tag: str | None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def ingest(source: Path, task: str, settings: Settings, *, commit: bool = True) -> IngestResult:
    """Add the pairs of a folder (low/ and high/; card.yaml for a new task) to a task and version the result.

    Raises ConfigError, DatasetError (ValidationError for bad pairs), StorageError, VersionError; data stay
    as they were.
    """
    home = settings.dataset_dir(task)
    commit = commit and is_checkout(settings.home)
    if commit:
        require_clean_index(settings.home)
    with one_at_a_time(settings.mlruns_dir / "locks" / "ingest.lock"):
        clear(settings.data_dir / INCOMING)  # `dvc add` would record it
        with staged(source, home, settings.data_dir / INCOMING / task) as batch:
            _check_task(batch.folder, task)
            policy = load_validation_policy(settings.params_file)
            validate_dataset(batch.folder, policy).raise_if_failed()
            if batch.added:
                swap(batch.folder, home)
        version = add_to_dvc(settings)
        sha, tag = (
            commit_record(settings.home, record_file(settings), task, version) if commit else (None, None)
        )
    return IngestResult(task, batch.added, batch.known, dataset_digest(load_dataset(home)), version, sha, tag)


def data_version(settings: Settings) -> str | None:
    """The md5 of the data folder as data.dvc records it; None where the data are not under DVC."""
    try:
        content = yaml.safe_load(record_file(settings).read_text(encoding="utf-8"))
        return str(content["outs"][0]["md5"])
    except FileNotFoundError:
        return None
    except (OSError, yaml.YAMLError, KeyError, IndexError, TypeError) as error:
        raise VersionError(
            f"a DVC file at {record_file(settings)}", f"{type(error).__name__}", "Restore it from git."
        ) from error


def record_file(settings: Settings) -> Path:
    """The file by which git knows the data."""
    return settings.data_dir.with_name(settings.data_dir.name + ".dvc")


def pull_data(settings: Settings) -> None:
    """Restore the data folder from DVC's remote. Raises VersionError."""
    run_dvc(settings, "pull", str(record_file(settings)))


def add_to_dvc(settings: Settings) -> str:
    """Record the data folder as it is; returns its md5."""
    run_dvc(settings, "add", "--quiet", str(settings.data_dir))
    version = data_version(settings)
    if version is None:
        raise VersionError(f"{record_file(settings)} after dvc add", "nothing", "Run `dvc add data` by hand.")
    return version


def run_dvc(settings: Settings, *arguments: str) -> None:
    """Run a DVC command, again while another one holds its lock. Raises VersionError."""
    environment = {**settings.tool_environment(), "DVC_SITE_CACHE_DIR": str(settings.mlruns_dir / "dvc")}
    for attempt in range(LOCK_TRIES):
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=settings.home,
            env={**environment, **os.environ},
            stdout=sys.stderr.fileno() if _has_descriptor() else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode == 0:
            return
        if not any(sign in done.stderr for sign in LOCKED) or attempt == LOCK_TRIES - 1:
            break
        time.sleep(LOCK_PAUSE_SECONDS)
    reason = " ".join(done.stderr.replace("ERROR:", "").split()[:60])
    raise VersionError(
        f"`dvc {arguments[0]}` to succeed",
        reason or f"exit code {done.returncode}",
        "Mend this and run it again.",
    )


@contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Hold a lock file. Raises VersionError at once when another ingest holds it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise VersionError("no other ingest", "one that is running", "Wait for it to end.") from error
        yield


def _check_task(staging: Path, task: str) -> None:
    found = load_card(staging).task
    if found != task:
        raise DatasetError(f"a card of task {task}", f"'{found}'", "Correct the card, or name that task.")


def _has_descriptor() -> bool:
    """Whether standard error is a file that a child can write to (under a test runner it may not be)."""
    try:
        sys.stderr.fileno()
    except (OSError, AttributeError):
        return False
    return True
