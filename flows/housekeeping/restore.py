"""From a backup to a platform at a new place; flows/housekeeping/drill.py proves that it works."""

from __future__ import annotations

import shutil
from pathlib import Path

from cvdm.storage import storage_error
from flows.housekeeping.addresses import move_addresses
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


def restore(backup: Path, home: Path, progress: Progress) -> Manifest:
    """Write a backup to an empty or new folder, `home` of a platform. Raises BackupError, StorageError.

    Addresses in the database are changed to the new place. The project's code is git's to bring: clone it
    elsewhere, move what `home` holds into the clone, and change the addresses once more (`readdress`). What
    settings had put elsewhere is at its usual place, parameters and data where the manifest says.
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
    move_addresses(mlruns / DATABASE, Path(manifest.artifact_root), mlruns / "artifacts")
    return manifest
