"""Do the pairs that an ingest took in show what the champion has learned from? If not, a signal asks for a
retraining (flows/triggers/signals.py). A retraining writes none: it is the answer itself.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cvdm.drift_signal import Signal, write_signal
from flows.console import say
from flows.settings import Settings
from flows.validate import drift_of
from flows.validation import ValidationReport
from flows.validation.drift import Drift


def watch_for_drift(settings: Settings, report: ValidationReport, refused: Collection[str]) -> Drift | None:
    """Compare new fields with the champion's, and leave a signal where they differ.

    refused: pairs of the report that did not come in. None where no champion's data are known, and where the
    registry does not answer, which is said and no failure: the pairs are in by now. Raises StorageError.
    """
    database = settings.tracking_uri.removeprefix("sqlite:///")
    if database != settings.tracking_uri and not Path(database).is_file():
        return None  # nothing was ever trained here
    from flows.registry import Registry, RegistryError

    taken_in = tuple(row for row in report.table if row.name not in refused)
    try:
        drift = drift_of(Registry.open(settings), replace(report, table=taken_in))
    except RegistryError as error:
        say(f"Not compared with the champion's data: {error}")
        return None
    if drift is not None and drift.shifted:
        now = datetime.now(UTC)
        signal = Signal.of(report.card.task, "validation", now, drift.shifted, drift.summary())
        write_signal(settings.signals_dir, signal)
    return drift
