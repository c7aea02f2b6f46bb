"""From a backup to a platform at a new place; flows/housekeeping/drill.py proves that it works."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

from cvdm.storage import storage_error
from flows.housekeeping.snapshot import (
    ARTIFACTS,
    DATABASE,
    KEYS,
    PROJECT,
    QUARANTINE,
    REMOTE,
    STATE,
    BackupError,
    Manifest,
    Progress,
    verify,
)

ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)
"""Where MLflow 3 keeps absolute addresses of artifacts."""


def restore(backup: Path, home: Path, progress: Progress) -> Manifest:
    """Write a backup to an empty or new folder, `home` of a platform. Raises BackupError, StorageError.

    Addresses in the database are changed to the new place. The project's code is git's to bring: clone first
    and restore beside it, or copy what `home` holds into the clone. What settings had put elsewhere is at its
    usual place, parameters and data where the manifest says.
    """
    if home.exists() and any(home.iterdir()):
        raise BackupError(f"an empty or new folder at {home}", "something in it", "Choose another folder.")
    manifest = verify(backup, progress)
    mlruns = home / "mlruns"
    places = {
        PROJECT: home,
        QUARANTINE: home / QUARANTINE,
        STATE: mlruns,
        ARTIFACTS: mlruns / "artifacts",
        REMOTE: home / ".data-remote",
    }
    try:
        mlruns.mkdir(parents=True, exist_ok=True)
        for name, place in places.items():
            if (backup / name).is_dir():
                shutil.copytree(backup / name, place, dirs_exist_ok=True)
        for database in (DATABASE, KEYS):
            if (backup / database).is_file():
                shutil.copy2(backup / database, mlruns / database)
    except OSError as error:
        raise storage_error(error, home) from error
    _move_addresses(mlruns / DATABASE, Path(manifest.artifact_root), mlruns / "artifacts")
    return manifest


def _move_addresses(database: Path, before: Path, after: Path) -> None:
    """Let every address in a database begin with another folder. Raises BackupError."""
    try:
        with sqlite3.connect(database) as connection:
            for table, column in ADDRESSES:
                for old, new in ((before.as_uri(), after.as_uri()), (str(before), str(after))):
                    # names of tables and columns are ours
                    change = f"update {table} set {column} = ? || substr({column}, ?)"  # noqa: S608
                    begins = f"{change} where substr({column}, 1, ?) = ?"
                    connection.execute(begins, (new, len(old) + 1, len(old), old))
        connection.close()
    except sqlite3.Error as error:
        raise BackupError(
            f"a sound database in {database}", str(error), "Restore from another backup."
        ) from error
