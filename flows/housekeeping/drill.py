"""The proof that a backup brings the platform back: it is restored for a moment and used."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cvdm.card import CARD_NAME, load_card
from cvdm.checkpoint import load_checkpoint, verify_golden
from cvdm.errors import CvdmError
from flows.housekeeping.addresses import addresses_outside
from flows.housekeeping.policy import load_retention
from flows.housekeeping.restore import restore
from flows.housekeeping.snapshot import (
    DATABASE,
    KEYS,
    QUARANTINE,
    BackupError,
    Manifest,
    Progress,
    read_manifest,
)
from flows.quarantine import REASONS
from flows.registry import Registry
from flows.settings import Settings
from flows.validation.features import SIDES
from service.keys import Keys


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


def drill(backup: Path, progress: Progress) -> Drill:
    """Restore into a temporary folder and use what is there as the service would.

    Raises BackupError for a folder that is no whole backup.
    """
    read_manifest(backup)
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
            ("registry", lambda: _registry(settings, home)),
            ("champions", lambda: _champions(settings, Path(scratch))),
            ("audit log", lambda: _audit(settings)),
            ("keys", lambda: _keys(settings.mlruns_dir / KEYS)),
            ("parameters and cards", lambda: _parameters(home, read_manifest(backup))),
            ("quarantine", lambda: _quarantine(home / QUARANTINE)),
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


def _registry(settings: Settings, home: Path) -> str:
    if outside := addresses_outside(home / "mlruns" / DATABASE, home):
        raise BackupError(
            "every file of the registry in the backup",
            f"{len(outside)} addresses elsewhere, such as {outside[0]}",
            "Back up again: `cvdm housekeeping backup` says what to do.",
        )
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


def _keys(file: Path) -> str:
    """Read the service's keys as it does; where there were none, there must be no file."""
    if not file.is_file():
        return "none in this backup"
    try:
        with closing(sqlite3.connect(file)) as connection:
            (found,) = connection.execute("pragma integrity_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        return f"{len(Keys(file).listed())} of the service"
    except sqlite3.Error as error:
        raise BackupError(
            f"the service's keys in {KEYS}", str(error), "Mend the file that was backed up, or make new keys."
        ) from error


def _parameters(home: Path, manifest: Manifest) -> str:
    load_retention(home / manifest.params_file)
    cards = sorted((home / manifest.data_dir).glob(f"*/{CARD_NAME}"))
    tasks = [load_card(card.parent).task for card in cards]
    return f"parameters, cards of {', '.join(tasks) or 'no task'}"


def _quarantine(place: Path) -> str:
    """Count refused images, and read why each was refused."""
    images = sum(path.is_file() for side in SIDES for path in place.glob(f"*/*/{side}/*"))
    notes = sorted(place.glob(f"*/*/{REASONS}"))
    for note in notes:
        try:
            json.loads(note.read_text(encoding="utf-8"))
        except ValueError as error:
            name = note.relative_to(place).as_posix()
            raise BackupError(
                f"the reasons of refused pairs in {QUARANTINE}/{name}",
                str(error),
                "Mend or remove them.",
            ) from error
    batches = f"{len(notes)} batch{'' if len(notes) == 1 else 'es'}"
    return f"{images} images in {batches}" if images or notes else "none in this backup"
