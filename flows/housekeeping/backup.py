"""A copy of everything that cannot be computed again; the layout is in flows/housekeeping/snapshot.py.

The database is copied by SQLite's own backup, consistent while everything runs. Artifacts are written once
and never changed, so an earlier backup's copy of one is linked, not copied, where size and time agree.
Not covered: training states of retrainings under way, and orchestrator and service, which keep nothing.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cvdm.storage import storage_error
from flows.housekeeping.snapshot import (
    ARTIFACTS,
    DATABASE,
    MANIFEST,
    PROJECT,
    REMOTE,
    STATE,
    BackupError,
    Manifest,
    Progress,
    write_manifest,
)
from flows.settings import Settings

PREFIX = "cvdm-"
KEPT_STATE = ("audit.jsonl", "schedule.json", "triggers/**/*", "signals/**/*")
"""What lies beside the database and is not made anew, in `mlruns_dir`."""
KEPT_PROJECT = ("params.yaml", "*.dvc", "dvc.yaml", "dvc.lock", "data/*/card.yaml", "data/*/ledger.json")
EMBEDDED = ".data-remote"
"""The remote inside the project, where it is used."""
LITTER = (".lock", ".tmp")


def back_up(
    settings: Settings, destination: Path, progress: Progress, now: datetime | None = None
) -> tuple[Path, Manifest]:
    """Write a new backup into a folder of backups; returns it. Raises BackupError, StorageError."""
    created = now or datetime.now(UTC)
    database, artifacts = _local_store(settings)
    target = destination / f"{PREFIX}{created:%Y%m%dT%H%M%SZ}"
    before = newest(destination)
    try:
        target.mkdir(parents=True)
        _copy_database(database, target / DATABASE)
        sources = [*_sources(settings, artifacts)]
        for number, (source, name) in enumerate(sources, 1):
            _copy(source, target / name, None if before is None else before / name)
            progress(number, 2 * len(sources))
    except OSError as error:
        raise storage_error(error, target) from error
    count = len(sources)
    manifest = write_manifest(
        target,
        created.isoformat(timespec="seconds"),
        str(artifacts),
        lambda done, total: progress(count + done * count // max(total, 1), 2 * count),
    )
    return target, manifest


def newest(destination: Path) -> Path | None:
    """The latest whole backup in a folder of backups."""
    found = sorted(path.parent for path in destination.glob(f"{PREFIX}*/{MANIFEST}"))
    return found[-1] if found else None


def _local_store(settings: Settings) -> tuple[Path, Path]:
    """Database and artifact folder. Raises BackupError for a store that is not on this machine."""
    scheme = "sqlite:///"
    if not settings.tracking_uri.startswith(scheme):
        raise BackupError(
            "an SQLite database as CVDM_TRACKING_URI",
            settings.tracking_uri.split("@")[-1],
            "Back a PostgreSQL store up with pg_dump, and a tracking server where it runs.",
        )
    if "://" in settings.artifact_root and not settings.artifact_root.startswith("file://"):
        raise BackupError(
            "a folder as CVDM_ARTIFACT_ROOT",
            settings.artifact_root,
            "Use the storage's own versioning or replication.",
        )
    database = Path(settings.tracking_uri.removeprefix(scheme))
    if not database.is_file():
        raise BackupError(f"a tracking database at {database}", "none", "Train a model first.")
    return database, Path(settings.artifact_root.removeprefix("file://"))


def _copy_database(source: Path, target: Path) -> None:
    ours, theirs = sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True), sqlite3.connect(target)
    try:
        ours.backup(theirs)
    except sqlite3.Error as error:
        raise BackupError(
            f"a sound database at {source}", str(error), "Look at the disk; restore the latest backup."
        ) from error
    finally:
        ours.close()
        theirs.close()


def _sources(settings: Settings, artifacts: Path) -> Iterator[tuple[Path, str]]:
    """Every file to copy, with its place in the backup."""
    remote = settings.home / EMBEDDED
    places = (
        (artifacts, ARTIFACTS, ("**/*",)),
        (settings.mlruns_dir, STATE, KEPT_STATE),
        (settings.home, PROJECT, KEPT_PROJECT),
        (remote, REMOTE, ("**/*",)),
    )
    for root, place, patterns in places:
        paths = {path for pattern in patterns for path in root.glob(pattern)} if root.is_dir() else set()
        for path in sorted(paths):
            if path.is_file() and path.suffix not in LITTER and path.name not in LITTER:
                yield path, f"{place}/{path.relative_to(root).as_posix()}"


def _copy(source: Path, target: Path, earlier: Path | None) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if earlier is not None and earlier.is_file() and _alike(source, earlier):
        try:
            os.link(earlier, target)
            return
        except OSError:
            pass  # a file system without links
    shutil.copy2(source, target)


def _alike(one: Path, other: Path) -> bool:
    ours, theirs = one.stat(), other.stat()
    return (ours.st_size, ours.st_mtime_ns) == (theirs.st_size, theirs.st_mtime_ns)
