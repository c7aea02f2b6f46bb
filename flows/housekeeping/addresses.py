"""Where a tracking database says that files are: MLflow writes absolute addresses and never changes them.

So a folder of artifacts that was moved, or a database that was copied elsewhere, needs its addresses changed;
and a backup is whole only if they all lie where it copies from.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cvdm.addresses import shown_uri
from flows.device_lock import all_devices_lock
from flows.housekeeping.snapshot import BackupError
from flows.settings import Settings

ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)
"""Where MLflow 3 keeps absolute addresses of artifacts."""
OF_FILES = ADDRESSES[1:4]
"""Those under which there are files; an experiment's only says where those of new runs will be."""
SQLITE = "sqlite:///"


def move_addresses(database: Path, before: Path, after: Path) -> int:
    """Let every address below one folder begin with another; returns how many. Raises BackupError."""
    changed = 0
    try:
        with closing(sqlite3.connect(database)) as connection, connection:
            for table, column in ADDRESSES:
                for old, new in ((before.as_uri(), after.as_uri()), (str(before), str(after))):
                    # names of tables and columns are ours
                    change = f"update {table} set {column} = ? || substr({column}, ?)"  # noqa: S608
                    begins = f"{change} where {column} = ? or substr({column}, 1, ?) = ?"
                    below = (new, len(old) + 1, old, len(old) + 1, f"{old}/")
                    changed += connection.execute(begins, below).rowcount
    except sqlite3.Error as error:
        raise BackupError(
            f"a sound database in {database}", str(error), "Restore from another backup."
        ) from error
    return changed


def addresses_outside(database: Path, folder: Path) -> tuple[str, ...]:
    """Addresses of files on this machine that are not below a folder, sorted. Raises BackupError."""
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            return tuple(sorted({one for one in _of_files(connection) if not _is_below(one, folder)}))
    except sqlite3.Error as error:
        raise BackupError(
            f"a sound database in {database}", str(error), "Restore from another backup."
        ) from error


def readdress(settings: Settings, before: Path) -> int:
    """After a move of the artifacts: let the registry look where they are now; returns how many addresses.

    before: the folder that addresses begin with. Raises BackupError, and BusyError while one retrains.
    """
    if not settings.tracking_uri.startswith(SQLITE):
        raise BackupError(
            "an SQLite database as CVDM_TRACKING_URI",
            shown_uri(settings.tracking_uri),
            "Change the addresses by the database's own means; this command's source names the columns.",
        )
    database = Path(settings.tracking_uri.removeprefix(SQLITE))
    after = Path(settings.artifact_root.removeprefix("file://"))
    with all_devices_lock(settings.mlruns_dir / "locks", "readdress"):
        changed = move_addresses(database, before, after)
    if not changed:
        known = sorted({folder_of(one) for one in addresses_outside(database, after)})
        raise BackupError(
            f"addresses that begin with {before}",
            "none",
            f"Outside of {after} there are these: {', '.join(known) or 'none'}.",
        )
    return changed


def folder_of(address: str) -> str:
    """What an address begins with: ROOT of ROOT/TASK/RUN/artifacts or ROOT/TASK/models/MODEL/artifacts."""
    path = _path(address)
    if path is None:
        return ""
    return str(path.parents[3 if path.parents[1].name == "models" else 2])


def _of_files(connection: sqlite3.Connection) -> Iterator[str]:
    for table, column in OF_FILES:
        found = connection.execute(f"select distinct {column} from {table}")  # noqa: S608  # ours
        yield from (address for (address,) in found if address and _path(address) is not None)


def _path(address: str) -> Path | None:
    """Of a file on this machine; None for an address of another kind."""
    parts = urlsplit(address)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(address) if address.startswith("/") else None


def _is_below(address: str, folder: Path) -> bool:
    path = _path(address)
    return path is not None and path.is_relative_to(folder)
