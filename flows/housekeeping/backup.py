"""A copy of what cannot be computed again; its layout, and what is left out, are in snapshot.py beside this.

Databases are copied by SQLite's own backup, consistent while everything runs. A file whose size and time are
those of the latest backup's copy is linked to that, not copied; most artifacts never change. Those that do,
such as training states and the gate's page, get a new time and are copied anew. A copy bears the time that
its file had before it was read: one that was replaced meanwhile differs, and is copied anew the next time.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from cvdm.addresses import shown_uri
from cvdm.storage import storage_error
from flows.console import say
from flows.housekeeping.addresses import SQLITE, addresses_outside, folder_of
from flows.housekeeping.snapshot import (
    ARTIFACTS,
    DATA,
    DATABASE,
    KEYS,
    MANIFEST,
    PARAMS,
    PROJECT,
    QUARANTINE,
    REMOTE,
    STATE,
    BackupError,
    FileFacts,
    Manifest,
    Progress,
    facts_of,
    facts_of_files,
    read_manifest,
    write_manifest,
)
from flows.settings import Settings
from flows.version import record_file

PREFIX = "cvdm-"
KEPT_STATE = ("audit.jsonl", "schedule.json", "triggers/**/*", "signals/**/*")
"""What lies beside the database and is not made anew, in `mlruns_dir`."""
KEPT_PROJECT = ("*.dvc", "dvc.yaml", "dvc.lock")
KEPT_DATA = ("*/card.yaml", "*/ledger.json")
EMBEDDED = ".data-remote"
"""The remote inside the project, where it is used."""
LITTER = (".lock", ".tmp")
STAGED = ".artifact.uploading."
"""How MLflow's names of files begin that are not whole yet."""


def back_up(
    settings: Settings, destination: Path, progress: Progress, now: datetime | None = None
) -> tuple[Path, Manifest]:
    """Write a new backup into a folder of backups; returns it. Raises BackupError, StorageError.

    progress: of steps; each file is first copied, then read for its checksum.
    """
    if destination.resolve().is_relative_to(settings.home.resolve()):
        raise BackupError(
            f"a folder of backups outside of {settings.home}",
            str(destination),
            "Name one on another disk: what harms the project would harm them as well.",
        )
    created = now or datetime.now(UTC)
    database, artifacts = _local_store(settings)
    _require_below(artifacts, database)
    target = destination / f"{PREFIX}{created:%Y%m%dT%H%M%SZ}"
    before = newest(destination)
    try:
        target.mkdir(parents=True)
    except OSError as error:
        raise storage_error(error, target) from error
    try:
        _copy_database(database, target / DATABASE)
        if settings.keys_file.is_file():
            _copy_database(settings.keys_file, target / KEYS, private=True)
        sources = _sources(settings, artifacts)
        linked = {}
        for number, (name, source) in enumerate(sources.items(), 1):
            if _copy(source, target / name, None if before is None else before / name):
                linked[name] = source
            progress(number, 2 * len(sources))
        count = len(sources)
        files = facts_of_files(
            target, lambda done, total: progress(count + done * count // max(total, 1), 2 * count)
        )
        if before is not None:
            files |= _mended(target, {name: files[name] for name in linked}, linked, before)
    except BaseException as error:
        shutil.rmtree(target, ignore_errors=True)  # half a backup is none, and on a full disk in the way
        if isinstance(error, OSError):
            raise storage_error(error, target) from error
        raise
    manifest = Manifest(
        created.isoformat(timespec="seconds"),
        str(artifacts),
        files,
        params_file=_place(settings, settings.params_file, PARAMS),
        data_dir=_place(settings, settings.data_dir, DATA),
    )
    write_manifest(target, manifest)
    return target, manifest


def newest(destination: Path) -> Path | None:
    """The latest whole backup in a folder of backups."""
    found = sorted(path.parent for path in destination.glob(f"{PREFIX}*/{MANIFEST}"))
    return found[-1] if found else None


def _local_store(settings: Settings) -> tuple[Path, Path]:
    """Database and artifact folder. Raises BackupError for a store that is not on this machine."""
    if not settings.tracking_uri.startswith(SQLITE):
        raise BackupError(
            "an SQLite database as CVDM_TRACKING_URI",
            shown_uri(settings.tracking_uri),
            "Back a PostgreSQL store up with pg_dump, and a tracking server where it runs.",
        )
    if "://" in settings.artifact_root and not settings.artifact_root.startswith("file://"):
        raise BackupError(
            "a folder as CVDM_ARTIFACT_ROOT",
            shown_uri(settings.artifact_root),
            "Use the storage's own versioning or replication.",
        )
    database = Path(settings.tracking_uri.removeprefix(SQLITE))
    if not database.is_file():
        raise BackupError(f"a tracking database at {database}", "none", "Train a model first.")
    return database, Path(settings.artifact_root.removeprefix("file://"))


def _copy_database(source: Path, target: Path, *, private: bool = False) -> None:
    """private: for the owner's eyes only, from its first byte."""
    target.touch(mode=0o600 if private else 0o666)
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


def _sources(settings: Settings, artifacts: Path) -> dict[str, Path]:
    """Every file to copy, by its place in the backup."""
    data = f"{PROJECT}/{_place(settings, settings.data_dir, DATA)}"
    places = (
        (artifacts, ARTIFACTS, ("**/*",)),
        (settings.mlruns_dir, STATE, KEPT_STATE),
        (settings.home, PROJECT, KEPT_PROJECT),
        (settings.data_dir, data, KEPT_DATA),
        (settings.home / QUARANTINE, QUARANTINE, ("**/*",)),
        (settings.home / EMBEDDED, REMOTE, ("**/*",)),
    )
    found: dict[str, Path] = {}
    for root, place, patterns in places:
        paths = {path for pattern in patterns for path in root.glob(pattern)} if root.is_dir() else set()
        for path in sorted(paths):
            if path.is_file() and not _is_litter(path):
                found[f"{place}/{path.relative_to(root).as_posix()}"] = path
    found[f"{PROJECT}/{_place(settings, settings.params_file, PARAMS)}"] = settings.params_file
    if settings.data_dir.is_relative_to(settings.home):  # of data elsewhere git has no record
        found[f"{data}.dvc"] = record_file(settings)
    return {name: path for name, path in found.items() if path.is_file()}


def _place(settings: Settings, path: Path, usual: str) -> str:
    """Where something of the project is restored, from its home: where it was, or its usual place."""
    return path.relative_to(settings.home).as_posix() if path.is_relative_to(settings.home) else usual


def _is_litter(path: Path) -> bool:
    return path.suffix in LITTER or path.name in LITTER or path.name.startswith(STAGED)


def _require_below(artifacts: Path, database: Path) -> None:
    """Raise BackupError where the registry keeps files in other folders than the one that is copied."""
    if outside := addresses_outside(database, artifacts):
        raise BackupError(
            f"all files of the registry below {artifacts}",
            f"{len(outside)} addresses elsewhere, such as {outside[0]}",
            "Set CVDM_ARTIFACT_ROOT to where they are; or move them there, if they are not yet, and let the "
            f"registry know: `cvdm housekeeping readdress {folder_of(outside[0])}`.",
        )


def _copy(source: Path, target: Path, earlier: Path | None) -> bool:
    """Link to the earlier copy of an unchanged file, else copy; whether it is a link.

    What is gone since it was listed, such as a trigger that was answered, is no part of the backup.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if earlier is not None and earlier.is_file() and _alike(source, earlier):
            with suppress(OSError):  # a file system without links
                os.link(earlier, target)
                return True
        before = source.stat()
        shutil.copy2(source, target)
    except FileNotFoundError:
        target.unlink(missing_ok=True)
        return False
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    return False


def _mended(
    target: Path, linked: Mapping[str, FileFacts], sources: Mapping[str, Path], before: Path
) -> dict[str, FileFacts]:
    """Facts of links whose content is not what the earlier manifest says, after they were copied anew."""
    promised = read_manifest(before).files
    spoiled = [name for name, facts in linked.items() if promised.get(name) != facts]
    for name in spoiled:
        (target / name).unlink()
        _copy(sources[name], target / name, None)
    if spoiled:
        say(
            f"{len(spoiled)} files of {before.name} are not what they were when it was made, such as "
            f"{spoiled[0]}; they were copied anew. Look at the disk that it is on."
        )
    return {name: facts_of(target / name) for name in spoiled}


def _alike(one: Path, other: Path) -> bool:
    ours, theirs = one.stat(), other.stat()
    return (ours.st_size, ours.st_mtime_ns) == (theirs.st_size, theirs.st_mtime_ns)
