"""The layout of a backup, and the manifest that proves it whole.

    BACKUP/manifest.json     {"created", "artifact_root", "files": {PATH: {"sha256", "bytes"}}}; written last
    BACKUP/mlflow.db         runs, metrics, versions, aliases
    BACKUP/artifacts/        checkpoints, pictures, reports
    BACKUP/mlruns/           audit log, timetable, triggers, signals
    BACKUP/project/          params.yaml, DVC's records, cards and ledgers
    BACKUP/dvc-remote/       the data of every version, where the remote is a folder in the project

A folder without a manifest is what an interrupted backup left: it is no backup.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from cvdm.checkpoint import file_digest
from cvdm.errors import CvdmError
from cvdm.storage import replacing

MANIFEST, DATABASE, ARTIFACTS = "manifest.json", "mlflow.db", "artifacts"
STATE, PROJECT, REMOTE = "mlruns", "project", "dvc-remote"
SHOWN = 3
"""Problems that a message lists."""
Progress = Callable[[int, int], None]


class BackupError(CvdmError):
    """A backup is not whole, or cannot be made."""


@dataclass(frozen=True)
class FileFacts:
    """One file of a backup."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What a whole backup holds."""

    created: str
    """ISO 8601, UTC."""
    artifact_root: str
    """The folder that addresses in the database begin with."""
    files: dict[str, FileFacts]
    """By path within the backup."""

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(one.bytes for one in self.files.values())


def write_manifest(backup: Path, created: str, artifact_root: str, progress: Progress) -> Manifest:
    """Take the checksum of every file and declare the backup whole. Raises StorageError."""
    paths = sorted(_files(backup))
    files = {}
    for number, path in enumerate(paths, 1):
        name = path.relative_to(backup).as_posix()
        files[name] = FileFacts(file_digest(path), path.stat().st_size)
        progress(number, len(paths))
    manifest = Manifest(created, artifact_root, files)
    with replacing(backup / MANIFEST) as temporary:
        temporary.write_text(json.dumps(asdict(manifest), indent=1) + "\n", encoding="utf-8")
    return manifest


def read_manifest(backup: Path) -> Manifest:
    """Raises BackupError for a folder that is no whole backup."""
    try:
        content = json.loads((backup / MANIFEST).read_text(encoding="utf-8"))
        files = {name: FileFacts(**facts) for name, facts in content["files"].items()}
        return Manifest(content["created"], content["artifact_root"], files)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackupError(
            f"a backup with its {MANIFEST} at {backup}",
            "none that can be read: the backup was interrupted, or this is another folder",
            "Choose another backup; one without a manifest may be removed.",
        ) from error


def verify(backup: Path, progress: Progress) -> Manifest:
    """Read every byte and compare. Raises BackupError that names what is missing, changed or too much."""
    manifest = read_manifest(backup)
    problems = []
    for number, (name, facts) in enumerate(manifest.files.items(), 1):
        path = backup / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif path.stat().st_size != facts.bytes:
            problems.append(f"{name} has {path.stat().st_size} instead of {facts.bytes} bytes")
        elif file_digest(path) != facts.sha256:
            problems.append(f"{name} has other content")
        progress(number, len(manifest.files))
    present = {path.relative_to(backup).as_posix() for path in _files(backup)}
    problems += [f"{name} does not belong here" for name in sorted(present - set(manifest.files))]
    if problems:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise BackupError(
            f"every file of {backup.name} as its manifest has it",
            "; ".join(problems[:SHOWN]) + more,
            "Restore from another backup, and look at the disk that this one is on.",
        )
    return manifest


def _files(backup: Path) -> Iterable[Path]:
    return (path for path in backup.rglob("*") if path.is_file() and path != backup / MANIFEST)
