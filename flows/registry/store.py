"""One registry: its runs and its models, behind one connection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flows.audit import AuditLog
from flows.registry.artifacts import Artifacts
from flows.registry.cleaning import Cleaning
from flows.registry.connection import connect
from flows.registry.models import Models
from flows.registry.tracking import Runs
from flows.settings import Settings


@dataclass(frozen=True)
class Registry:
    """What the platform remembers."""

    runs: Runs
    artifacts: Artifacts
    models: Models
    locks: Path
    """Folder of the locks of whoever changes what is in here on this machine."""
    audit: AuditLog
    """Every decision about who serves that was made on this machine."""
    cleaning: Cleaning
    """What housekeeping may take."""

    @classmethod
    def open(cls, settings: Settings) -> Registry:
        """Connect to the store that the settings name. Raises RegistryError."""
        connection = connect(settings)
        return cls(
            runs=Runs(connection),
            artifacts=Artifacts(connection),
            models=Models(connection),
            locks=settings.mlruns_dir / "locks",
            audit=AuditLog(settings.audit_file, settings.other_audit_logs),
            cleaning=Cleaning(connection),
        )
