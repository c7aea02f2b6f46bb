"""New data of a task, noticed by looking: a command that is killed, or a `dvc pull` by hand, calls no hook.

A look takes a few file times; the digest, which reads every byte, is taken only when these have changed and
have then kept still. What counts as new is another digest than at the last look or, at the first one, than
the newest version in the registry has; a task without a version has nothing that could be new to it.
Not covered: an image that is overwritten in place, which no command here does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cvdm.card import CARD_NAME
from cvdm.dataset import load_dataset
from cvdm.errors import DatasetError
from cvdm.ledger import LEDGER_NAME
from cvdm.storage import replacing
from flows.settings import Settings
from flows.triggers.rules import Cause
from flows.version import VersionError, one_ingest_at_a_time, record_file

SHOWN = 12
"""Digits of a digest in messages."""


@dataclass(frozen=True)
class NewData:
    """Data of a task that were not there at the last look."""

    cause: Cause
    digest: str


class DataWatch:
    """Looks at the data of all tasks; what it has seen is kept in mlruns/triggers/seen.json."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._file = settings.mlruns_dir / "triggers" / "seen.json"
        self._last: dict[str, str] = {}
        self._done: dict[str, str] = {}

    def look(self, task: str, now: datetime) -> NewData | None:
        """Other data than at the last look, if so: said again until `remember` is called.

        Raises RegistryError at the first look at a task when the registry does not answer.
        """
        times = file_times(self._settings, task)
        if times != self._last.get(task):
            self._last[task] = times  # perhaps it goes on changing
            return None
        if times == self._done.get(task) or (digest := self._digest(task)) is None:
            return None
        if file_times(self._settings, task) != times:
            return None
        before = self._seen().get(task) or self._trained_on(task) or digest
        if digest == before:
            self.remember(task, digest)
            return None
        message = f"data {digest[:SHOWN]} instead of {before[:SHOWN]}"
        return NewData(Cause("data", now.isoformat(), message), digest)

    def remember(self, task: str, digest: str) -> None:
        """These data are known from now on. Raises StorageError."""
        seen = self._seen()
        if seen.get(task) != digest:
            with replacing(self._file) as temporary:
                temporary.write_text(json.dumps({**seen, task: digest}, indent=2) + "\n", encoding="utf-8")
        self._done[task] = self._last[task]

    def _seen(self) -> dict[str, str]:
        """Digests by task; a file that cannot be read is none, and the registry is asked instead."""
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _digest(self, task: str) -> str | None:
        """Of the data as they are; None while they are being changed or are in no order."""
        try:
            with one_ingest_at_a_time(self._settings):
                pass  # nobody is in the middle of something
            return load_dataset(self._settings.dataset_dir(task)).digest
        except (VersionError, DatasetError):
            return None

    def _trained_on(self, task: str) -> str | None:
        """The digest of the newest version's data; None without a version."""
        from flows.registry import Registry

        versions = Registry.open(self._settings).models.versions(task)
        return versions[0].tags.get("dataset_digest") if versions else None


def file_times(settings: Settings, task: str) -> str:
    """When the record, card, ledger and image folders of a task were last changed, as a text to compare."""
    root = settings.dataset_dir(task)
    places = (
        record_file(settings),
        root / CARD_NAME,
        root / LEDGER_NAME,
        *(root / side for side in ("low", "high")),
    )
    return " ".join(_time(place) for place in places)


def _time(place: Path) -> str:
    try:
        found = place.stat()
    except OSError:
        return "none"
    return f"{found.st_mtime_ns}/{found.st_ino}"
