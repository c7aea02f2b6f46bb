"""The layout of a backup, and the manifest that proves it whole.

    BACKUP/manifest.json     {"created", "artifact_root", "files": {PATH: {"sha256", "bytes"}}, "params_file",
                              "data_dir"}; written last
    BACKUP/mlflow.db         runs, metrics, versions, aliases
    BACKUP/keys.db           the service's keys, hashed, and its log of calls; only where keys were made
    BACKUP/artifacts/        checkpoints, pictures, reports
    BACKUP/mlruns/           audit log, timetable, triggers, signals
    BACKUP/project/          params.yaml, DVC's records, cards and ledgers, as they lie in the project
    BACKUP/quarantine/       refused pairs with their reasons
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

MANIFEST, DATABASE, KEYS = "manifest.json", "mlflow.db", "keys.db"
ARTIFACTS, STATE, PROJECT, REMOTE, QUARANTINE = "artifacts", "mlruns", "project", "dvc-remote", "quarantine"
PARAMS, DATA = "params.yaml", "data"
"""Where parameters and data lie in a project, unless the settings say otherwise."""
LEFT_OUT = (
    "jobs of the service with their images and results (CVDM_JOBS_DIR): copies that go by themselves",
    "images in CVDM_DATA_DIR that no data version holds; data versions that are not in .data-remote",
    "a retraining under way, which begins anew",
    "Prefect's history, logs and caches; environment variables; code, which is git's to bring",
)
"""What no backup holds, for people."""
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
    params_file: str = PARAMS
    """Where the parameters are, from the home of what is restored."""
    data_dir: str = DATA
    """Where the cards are, likewise."""

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(one.bytes for one in self.files.values())


def facts_of_files(backup: Path, progress: Progress) -> dict[str, FileFacts]:
    """Size and checksum of every file, by its path in the backup."""
    paths = sorted(_files(backup))
    files = {}
    for number, path in enumerate(paths, 1):
        files[path.relative_to(backup).as_posix()] = facts_of(path)
        progress(number, len(paths))
    return files


def facts_of(path: Path) -> FileFacts:
    """Size and checksum of one file."""
    return FileFacts(file_digest(path), path.stat().st_size)


def write_manifest(backup: Path, manifest: Manifest) -> None:
    """Declare the backup whole. Raises StorageError."""
    with replacing(backup / MANIFEST) as temporary:
        temporary.write_text(json.dumps(asdict(manifest), indent=1) + "\n", encoding="utf-8")


def read_manifest(backup: Path) -> Manifest:
    """Raises BackupError for a folder that is no whole backup."""
    try:
        content = json.loads((backup / MANIFEST).read_text(encoding="utf-8"))
        files = {name: FileFacts(**facts) for name, facts in content["files"].items()}
        return Manifest(**{**content, "files": files})
    except (OSError, ValueError, KeyError, TypeError) as error:
        if inside := sorted(path.parent.name for path in backup.glob(f"*/{MANIFEST}")):
            raise BackupError(
                "one backup", f"{backup}, a folder of {len(inside)}", f"Name one of them: {inside[-1]}."
            ) from error
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
