"""From a backup to a platform at a new place, and the drill that proves that it works."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cvdm.checkpoint import load_checkpoint, verify_golden
from cvdm.errors import CvdmError
from cvdm.storage import storage_error
from flows.housekeeping.snapshot import (
    ARTIFACTS,
    DATABASE,
    PROJECT,
    REMOTE,
    STATE,
    BackupError,
    Manifest,
    Progress,
    verify,
)
from flows.registry import Registry
from flows.settings import Settings

ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)
"""Where MLflow 3 keeps absolute addresses of artifacts."""


@dataclass(frozen=True)
class Proof:
    """One step of a drill."""

    step: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Drill:
    """Whether a backup would bring the platform back."""

    backup: str
    proofs: tuple[Proof, ...]

    @property
    def passed(self) -> bool:
        """Every step."""
        return all(proof.passed for proof in self.proofs)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"ok": self.passed, **asdict(self)}

    def summary(self) -> str:
        """The drill for people."""
        lines = [f"{'PASS' if one.passed else 'FAIL'}  {one.step}: {one.detail}" for one in self.proofs]
        end = "This backup brings the platform back." if self.passed else "This backup is of no use as it is."
        return "\n".join([*lines, end])


def restore(backup: Path, home: Path, progress: Progress) -> Manifest:
    """Write a backup to an empty or new folder, `home` of a platform. Raises BackupError, StorageError.

    Addresses in the database are changed to the new place. The project's code is git's to bring: clone first
    and restore beside it, or copy what `home` holds into the clone.
    """
    if home.exists() and any(home.iterdir()):
        raise BackupError(f"an empty or new folder at {home}", "something in it", "Choose another folder.")
    manifest = verify(backup, progress)
    mlruns = home / "mlruns"
    places = {PROJECT: home, STATE: mlruns, ARTIFACTS: mlruns / "artifacts", REMOTE: home / ".data-remote"}
    try:
        mlruns.mkdir(parents=True, exist_ok=True)
        for name, place in places.items():
            if (backup / name).is_dir():
                shutil.copytree(backup / name, place, dirs_exist_ok=True)
        shutil.copy2(backup / DATABASE, mlruns / DATABASE)
    except OSError as error:
        raise storage_error(error, home) from error
    _move_addresses(mlruns / DATABASE, Path(manifest.artifact_root), mlruns / "artifacts")
    return manifest


def drill(backup: Path, progress: Progress) -> Drill:
    """Restore into a temporary folder and use what is there as the service would."""
    proofs: list[Proof] = []
    with tempfile.TemporaryDirectory(prefix="cvdm-drill-") as scratch:
        home = Path(scratch) / "home"
        settings = Settings.read(
            home=home,
            tracking_uri=f"sqlite:///{home}/mlruns/{DATABASE}",
            artifact_root=str(home / "mlruns" / "artifacts"),
            mlruns_dir=home / "mlruns",
        )
        steps: tuple[tuple[str, Callable[[], str]], ...] = (
            ("checksums and copy", lambda: _restored(backup, home, progress)),
            ("registry", lambda: _registry(settings)),
            ("champions", lambda: _champions(settings, Path(scratch))),
            ("audit log", lambda: _audit(settings)),
        )
        for name, prove in steps:
            try:
                proofs.append(Proof(name, True, prove()))
            except CvdmError as error:
                proofs.append(Proof(name, False, str(error)))
                break
    return Drill(backup.name, tuple(proofs))


def _restored(backup: Path, home: Path, progress: Progress) -> str:
    manifest = restore(backup, home, progress)
    return f"{len(manifest.files)} files, {manifest.bytes / 1e6:.1f} MB, of {manifest.created}"


def _registry(settings: Settings) -> str:
    registry = Registry.open(settings)
    versions = [version for task in registry.models.tasks() for version in registry.models.versions(task)]
    return f"{len(registry.cleaning.runs())} runs, {len(versions)} versions"


def _champions(settings: Settings, scratch: Path) -> str:
    """Load every champion from the restored files and replay its golden pair."""
    registry, replayed = Registry.open(settings), []
    for task in registry.models.tasks():
        number = registry.models.champion(task)
        if number is None:
            continue
        directory = registry.models.download(task, number, scratch / "champions" / task)
        verify_golden(directory, load_checkpoint(directory))
        replayed.append(f"{task} version {number}")
    return f"golden pairs replayed: {', '.join(replayed) or 'no task has a champion'}"


def _audit(settings: Settings) -> str:
    from flows.promote import audit_references

    registry = Registry.open(settings)
    found = registry.audit.verify(audit_references(registry), None)
    if not found.sound:
        raise BackupError(
            "an audit log as it was written", "; ".join(found.problems[:3]), "Ask who edited it."
        )
    return f"{len(found.entries)} entries, unbroken"


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
